//! Token ids of decoders and T5, alone and behind a prompt, compared with those of transformers.

use dualenc_data::Tokenizer;
use serde_json::{Value, json};

use crate::support::golden;

const KINDS: [&str; 5] = ["qwen3", "llama3", "gemma", "mistral", "t5"];

fn expected(kind: &str) -> Value {
    serde_json::from_slice(&std::fs::read(golden("decoder_ids").join(kind).join("expected.json")).unwrap()).unwrap()
}

fn numbers(value: &Value) -> Vec<u32> {
    value.as_array().unwrap().iter().map(|value| value.as_u64().unwrap() as u32).collect()
}

#[test]
fn decoder_ids_equal_transformers() {
    for kind in KINDS {
        let expected = expected(kind);
        let limit = |key: &str| expected[key].as_u64().unwrap() as usize;
        let read = |max_tokens| Tokenizer::from_dir(golden("decoder_ids").join(kind), max_tokens).unwrap();
        let plain = read(limit("max_length"));
        let prompted = read(limit("max_length_with_prompt")).with_prompt(expected["prompt"].as_str().unwrap()).unwrap();
        for (index, caption) in expected["captions"].as_array().unwrap().iter().enumerate() {
            let caption = caption.as_str().unwrap();
            let encoded = plain.encode(caption).unwrap();
            assert_eq!(encoded.ids, numbers(&expected["input_ids"][index]), "{kind}: {caption:?}");
            let whole = expected["untruncated_lengths"][index].as_u64().unwrap() as usize;
            assert_eq!(encoded.cut, whole > plain.max_tokens(), "{kind}: {caption:?}");
            let ids = prompted.encode(caption).unwrap().ids;
            assert_eq!(ids, numbers(&expected["prompted_ids"][index]), "{kind}, with a prompt: {caption:?}");
        }
    }
}

#[test]
fn prompt_changes_fingerprint_only_if_set() {
    let read = || Tokenizer::from_dir(golden("decoder_ids/qwen3"), 30).unwrap();
    let with = |prompt: &str| read().with_prompt(prompt).unwrap();
    assert_eq!(with("").fingerprint(), read().fingerprint());
    assert_ne!(with("query: ").fingerprint(), read().fingerprint());
    assert_ne!(with("query: ").fingerprint(), with("query:").fingerprint());
    let replaced = with("passage: ").with_prompt("query: ").unwrap();
    assert_eq!((replaced.fingerprint(), replaced.prompt()), (with("query: ").fingerprint(), "query: "));
    assert_eq!(with("query: ").with_prompt("").unwrap().fingerprint(), read().fingerprint());
    assert!(with("query: ").describe().ends_with(r#"at most 30 tokens, prompt "query: ""#));
}

#[test]
fn prompt_must_leave_room() {
    let read = |max_tokens| Tokenizer::from_dir(golden("decoder_ids/qwen3"), max_tokens).unwrap();
    // Six letters and a colon at most, and the end token.
    let len = read(100).with_prompt("query:").unwrap().encode("").unwrap().ids.len();
    let message = read(len).with_prompt("query:").unwrap_err().to_string();
    assert!(message.contains("the prompt `query:` leaves no room for text within"), "{message}");
    assert!(read(len - 1).with_prompt("query:").is_err());
    assert_eq!(read(len + 1).with_prompt("query:").unwrap().encode("a").unwrap().ids.len(), len + 1);
}

#[test]
fn special_tokens_need_no_embedding() {
    let source = golden("decoder_ids/gemma");
    let file: Value = serde_json::from_slice(&std::fs::read(source.join("tokenizer.json")).unwrap()).unwrap();
    let plain = Tokenizer::from_dir(&source, 16).unwrap();
    let base = plain.text_vocab_size();
    // Its class adds `<mask>`, as `len(AutoTokenizer.from_pretrained(..))` says: 348.
    assert_eq!((base, plain.vocab_size()), (347, 348));
    let extended = |special: bool| {
        let mut file = file.clone();
        file["added_tokens"]
            .as_array_mut()
            .unwrap()
            .push(json!({"id": base, "content": "<image>", "single_word": false,
            "lstrip": false, "rstrip": false, "normalized": false, "special": special}));
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("tokenizer.json"), file.to_string()).unwrap();
        let found = Tokenizer::from_dir(dir.path(), 16).unwrap();
        (found.vocab_size(), found.text_vocab_size())
    };
    assert_eq!((extended(true), extended(false)), ((base + 1, base), (base + 1, base + 1)));
}
