//! Token ids of each kind of tokenizer, from each generation of files, compared with those of transformers.

use std::path::Path;

use dualenc_data::Tokenizer;
use serde_json::{Value, json};

use crate::support::golden;

const KINDS: [&str; 17] = [
    "bert",
    "bert_cased",
    "bert_files",
    "mpnet",
    "roberta",
    "roberta_files",
    "modernbert",
    "gpt2_files",
    "clip",
    "clip_files",
    "siglip",
    "siglip_plain",
    "siglip2",
    "siglip2_hub",
    "xlm_roberta",
    "albert",
    "deberta_v2",
];

fn expected(kind: &str) -> Value {
    serde_json::from_slice(&std::fs::read(golden("ids").join(kind).join("expected.json")).unwrap()).unwrap()
}

fn numbers(value: &Value) -> Vec<u32> {
    value.as_array().unwrap().iter().map(|value| value.as_u64().unwrap() as u32).collect()
}

#[test]
fn ids_equal_transformers() {
    let mut failures = Vec::new();
    for kind in KINDS {
        let expected = expected(kind);
        let max_tokens = expected["max_length"].as_u64().unwrap() as usize;
        let read = || Tokenizer::from_dir(golden("ids").join(kind), max_tokens).unwrap();
        let (tokenizer, padded) = (read(), read().with_padding_to(max_tokens).unwrap());
        assert_eq!(tokenizer.vocab_size() as u64, expected["vocab_size"].as_u64().unwrap(), "{kind}");
        assert_ne!(tokenizer.fingerprint(), padded.fingerprint());
        let pads = expected.get("pad_token_id").is_some();
        if pads {
            assert_eq!(u64::from(tokenizer.pad_id()), expected["pad_token_id"].as_u64().unwrap(), "{kind}");
        }
        let captions = expected["captions"].as_array().unwrap();
        assert!(captions.len() >= 15);
        for (index, caption) in captions.iter().enumerate() {
            let caption = caption.as_str().unwrap();
            let encoded = tokenizer.encode(caption).unwrap();
            let mut check = |what: &str, actual: &[u32], expected: &Value| {
                if actual != numbers(expected) {
                    failures.push(format!("{kind}, {what} of {caption:?}: {actual:?}, expected {expected}"));
                }
            };
            check("ids", &encoded.ids, &expected["input_ids"][index]);
            check("type ids", &encoded.type_ids, &expected["token_type_ids"][index]);
            let whole = expected["untruncated_lengths"][index].as_u64().unwrap() as usize;
            assert_eq!(encoded.cut, whole > max_tokens, "{kind}, {caption:?}: {whole} tokens");
            if pads {
                let padded = padded.encode(caption).unwrap();
                check("padded ids", &padded.ids, &expected["padded_ids"][index]);
                assert_eq!((padded.type_ids.len(), padded.cut), (max_tokens, encoded.cut));
            }
        }
    }
    assert!(failures.is_empty(), "{failures:#?}");
}

#[test]
fn pads_and_cuts_to_length() {
    let read = |max_tokens| Tokenizer::from_dir(golden("ids/siglip"), max_tokens).unwrap();
    let longer = read(6).with_padding_to(9).unwrap();
    assert_eq!(longer.max_tokens(), 6);
    let ids = longer.encode("a red circle on a blue ground").unwrap().ids;
    assert_eq!((ids.len(), &ids[5..]), (9, &[1, 1, 1, 1][..]), "5 tokens, the end, and padding like the end");
    let shorter = read(20).with_padding_to(4).unwrap();
    assert_eq!(shorter.max_tokens(), 4);
    let encoded = shorter.encode("a red circle on a blue ground").unwrap();
    assert_eq!((encoded.ids.len(), encoded.ids[3], encoded.cut), (4, 1, true));
    let message = read(20).with_padding_to(0).unwrap_err().to_string();
    assert!(message.contains("cannot cut to the 0 tokens to pad to"), "{message}");
}

#[test]
fn describes_tokenizers() {
    let describe = |kind: &str| Tokenizer::from_dir(golden("ids").join(kind), 14).unwrap().describe();
    assert_eq!(describe("bert"), "WordPiece, 159 ids, [CLS] .. [SEP], pad [PAD]=0, at most 14 tokens");
    assert_eq!(
        describe("clip_files"),
        "byte-level BPE, 532 ids, <|startoftext|> .. <|endoftext|>, pad <|endoftext|>=531, at most 14 tokens"
    );
    assert_eq!(describe("roberta"), "byte-level BPE, 340 ids, <s> .. </s>, pad <pad>=1, at most 14 tokens");
    assert!(describe("siglip2").starts_with("BPE, "), "{}", describe("siglip2"));
    let siglip = Tokenizer::from_dir(golden("ids/siglip"), 64).unwrap().with_padding_to(64).unwrap().describe();
    assert!(
        siglip.starts_with("Unigram, ") && siglip.ends_with(" ids, .. </s>, pad </s>=1, padded to 64 tokens"),
        "{siglip}"
    );
}

fn copied(kind: &str, files: &[&str]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for file in files {
        std::fs::copy(golden("ids").join(kind).join(file), dir.path().join(file)).unwrap();
    }
    dir
}

fn refusal(dir: &Path) -> String {
    Tokenizer::from_dir(dir, 14).unwrap_err().to_string()
}

#[test]
fn special_tokens_decide_class() {
    for kind in ["clip_files", "roberta_files"] {
        let dir = copied(kind, &["vocab.json", "merges.txt"]);
        let alone = Tokenizer::from_dir(dir.path(), 14).unwrap();
        let configured = Tokenizer::from_dir(golden("ids").join(kind), 14).unwrap();
        assert_eq!(alone.describe(), configured.describe());
    }
    let message = refusal(copied("gpt2_files", &["vocab.json", "merges.txt"]).path());
    assert!(message.contains("`a tokenizer of unknown class` cannot be built from `vocab.json`"), "{message}");
}

#[test]
fn rejects_unsupported_vocabularies() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("spiece.model"), "sp").unwrap();
    let message = refusal(dir.path());
    assert!(message.contains("found `spiece.model` but no `tokenizer.json`; convert it once with"), "{message}");

    let dir = copied("roberta_files", &["vocab.json", "merges.txt"]);
    std::fs::write(dir.path().join("added_tokens.json"), r#"{"<new>": 340}"#).unwrap();
    let message = refusal(dir.path());
    assert!(message.contains("`<new>` was added to its vocabulary"), "{message}");

    let dir = copied("clip_files", &["vocab.json", "merges.txt"]);
    std::fs::write(dir.path().join("tokenizer_config.json"), json!({"tokenizer_class": "BartTokenizer"}).to_string())
        .unwrap();
    assert!(refusal(dir.path()).contains("`BartTokenizer` cannot be built from `vocab.json`"));
    std::fs::write(dir.path().join("tokenizer_config.json"), json!({"tokenizer_class": "CLIPTokenizer"}).to_string())
        .unwrap();
    std::fs::write(dir.path().join("merges.txt"), "#version: 0.2\na b c\n").unwrap();
    assert!(refusal(dir.path()).contains("a line is not two tokens separated by a space"));
}
