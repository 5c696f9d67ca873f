//! JSON lines of images and captions.
#![no_main]

use dualenc_data::Source;
use dualenc_fuzz::with_file;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    with_file("data.jsonl", bytes, |path| drop(Source::from_path(path).expect("a known extension").read()));
});
