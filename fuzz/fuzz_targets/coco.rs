//! COCO captions.
#![no_main]

use dualenc_data::CocoSource;
use dualenc_fuzz::with_file;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    with_file("captions.json", bytes, |path| drop(CocoSource::new(path, None).read()));
});
