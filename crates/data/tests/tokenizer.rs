//! Token ids equal to those of transformers, and unusable tokenizer files.

use std::path::Path;

use dualenc_data::{TokenTable, Tokenizer};
use serde_json::{Value, json};

use crate::support::{golden, write_vocabulary};

#[test]
fn tokens_equal_transformers() {
    for kind in ["bert", "roberta"] {
        let dir = golden("tokens").join(kind);
        let expected: Value = serde_json::from_slice(&std::fs::read(dir.join("expected.json")).unwrap()).unwrap();
        let max_tokens = expected["max_length"].as_u64().unwrap() as usize;
        let tokenizer = Tokenizer::from_dir(&dir, max_tokens).unwrap();
        assert_eq!(u64::from(tokenizer.pad_id()), expected["pad_token_id"].as_u64().unwrap());
        let captions: Vec<&str> =
            expected["captions"].as_array().unwrap().iter().map(|text| text.as_str().unwrap()).collect();
        let table = TokenTable::build(&tokenizer, &captions, 2).unwrap();
        let mut cut = 0;
        for (index, caption) in captions.iter().enumerate() {
            let row = |key: &str| -> Vec<u64> {
                expected[key][index].as_array().unwrap().iter().map(|value| value.as_u64().unwrap()).collect()
            };
            let len = row("attention_mask").iter().filter(|&&value| value == 1).count();
            let ids: Vec<u64> = table.get(index).0.iter().map(|&id| u64::from(id)).collect();
            assert_eq!(ids, row("input_ids")[..len], "{kind}: {caption:?}");
            let encoded = tokenizer.encode(caption).unwrap();
            assert_eq!(encoded.ids, table.get(index).0);
            assert_eq!(encoded.type_ids.len(), encoded.ids.len());
            let whole = expected["untruncated_lengths"][index].as_u64().map(|len| len as usize > max_tokens);
            if let Some(whole) = whole {
                assert_eq!(encoded.cut, whole, "{kind}: {caption:?}");
            }
            cut += usize::from(encoded.cut);
        }
        assert!(cut > 0 && cut < captions.len(), "{cut} of {} captions cut", captions.len());
        assert_eq!((table.num_cut(), table.max_len()), (cut, max_tokens));
    }
}

#[test]
fn overrides_padding_and_truncation() {
    let source = golden("tokens/bert");
    let mut file: Value = serde_json::from_slice(&std::fs::read(source.join("tokenizer.json")).unwrap()).unwrap();
    file["padding"] = json!({"strategy": {"Fixed": 128}, "direction": "Right", "pad_to_multiple_of": null,
        "pad_id": 0, "pad_type_id": 0, "pad_token": "[PAD]"});
    file["truncation"] = json!({"direction": "Right", "max_length": 4, "strategy": "LongestFirst", "stride": 0});
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("tokenizer.json"), file.to_string()).unwrap();
    let text = "a red circle on a blue ground";
    let plain = Tokenizer::from_dir(&source, 128).unwrap();
    let overridden = Tokenizer::from_dir(dir.path(), 128).unwrap();
    assert!(plain.encode(text).unwrap().ids.len() > 4);
    assert_eq!(overridden.encode(text).unwrap(), plain.encode(text).unwrap());
    assert_ne!(overridden.fingerprint(), plain.fingerprint(), "the files differ");
    assert_eq!(overridden.fingerprint(), Tokenizer::from_dir(dir.path(), 128).unwrap().fingerprint());
}

#[test]
fn reads_lone_bert_vocabulary() {
    let dir = tempfile::tempdir().unwrap();
    write_vocabulary(dir.path());
    let tokenizer = Tokenizer::from_dir(dir.path(), 6).unwrap();
    assert_eq!((tokenizer.pad_id(), tokenizer.vocab_size(), tokenizer.max_tokens()), (0, 15, 6));
    let encoded = tokenizer.encode("Pictures of a DOG").unwrap();
    assert_eq!((encoded.ids.as_slice(), encoded.cut), (&[2, 5, 10, 6, 7, 3][..], true));
    assert_eq!(tokenizer.encode("zebra").unwrap().ids, [2, 1, 3]);
    assert!(!tokenizer.encode("").unwrap().cut);
}

#[test]
fn vocab_size_counts_added_tokens() {
    let mut file: Value =
        serde_json::from_slice(&std::fs::read(golden("tokens/bert/tokenizer.json")).unwrap()).unwrap();
    let base = file["model"]["vocab"].as_object().unwrap().len();
    file["added_tokens"].as_array_mut().unwrap().push(json!({"id": base, "content": "<extra>", "single_word": false,
        "lstrip": false, "rstrip": false, "normalized": false, "special": true}));
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("tokenizer.json"), file.to_string()).unwrap();
    assert_eq!(Tokenizer::from_dir(dir.path(), 16).unwrap().vocab_size(), base + 1);
}

fn refusal(dir: &Path, max_tokens: usize) -> String {
    Tokenizer::from_dir(dir, max_tokens).unwrap_err().to_string()
}

#[test]
fn rejects_unusable_tokenizers() {
    let dir = tempfile::tempdir().unwrap();
    let message = refusal(dir.path(), 8);
    assert!(
        message.contains(
            "nor a BERT `vocab.txt`, nor `vocab.json` with `merges.txt`; convert it once with `AutoTokenizer"
        ),
        "{message}"
    );
    write_vocabulary(dir.path());
    let message = refusal(dir.path(), 2);
    assert!(
        message.contains("`max_tokens` = 2 leaves no room for text beside its 2 special tokens; expected at least 3"),
        "{message}"
    );
    std::fs::write(dir.path().join("tokenizer_config.json"), r#"{"tokenizer_class": "T5Tokenizer"}"#).unwrap();
    assert!(refusal(dir.path(), 8).contains("`T5Tokenizer` cannot be built from `vocab.txt`"));
    std::fs::write(dir.path().join("tokenizer.json"), "{\"version\": \"1.0\"}").unwrap();
    let message = refusal(dir.path(), 8);
    assert!(message.contains("tokenizer.json`: not usable: "), "{message}");
    std::fs::write(dir.path().join("tokenizer_config.json"), "[").unwrap();
    assert!(refusal(dir.path(), 8).contains("tokenizer_config.json` is malformed: not JSON"));
    std::fs::write(dir.path().join("tokenizer_config.json"), "[1]").unwrap();
    assert!(
        refusal(dir.path(), 8).contains("tokenizer_config.json` is malformed: expected a JSON object, found `[1]`")
    );
}

#[cfg(unix)]
#[test]
fn unreadable_file_is_not_absent() {
    // A link to itself stands for a `tokenizer.json` that the disk cannot read. The older `vocab.txt` beside it may
    // give other ids, so it is no replacement.
    let dir = tempfile::tempdir().unwrap();
    write_vocabulary(dir.path());
    assert!(Tokenizer::from_dir(dir.path(), 8).is_ok());
    std::os::unix::fs::symlink("tokenizer.json", dir.path().join("tokenizer.json")).unwrap();
    let message = Tokenizer::from_dir(dir.path(), 8).unwrap_err().to_string();
    assert!(message.starts_with("cannot read") && message.contains("tokenizer.json"), "{message}");
}
