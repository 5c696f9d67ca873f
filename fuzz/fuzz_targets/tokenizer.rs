//! `tokenizer.json`, and a text encoded with what could be read.
#![no_main]

use dualenc_data::Tokenizer;
use dualenc_fuzz::with_file;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    with_file("tokenizer.json", bytes, |path| {
        let dir = path.parent().expect("a file in a directory");
        let Ok(tokenizer) = Tokenizer::from_dir(dir, 16) else { return };
        if let Ok(encoded) = tokenizer.encode("A red circle, 2 é \u{1f600}") {
            drop(encoded);
        }
    });
});
