//! A table of images and captions.
#![no_main]

use dualenc_data::Source;
use dualenc_fuzz::with_file;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    for name in ["data.csv", "data.tsv"] {
        with_file(name, bytes, |path| drop(Source::from_path(path).expect("a known extension").read()));
    }
});
