//! The index of a tar shard, and the image of each entry that it finds.
#![no_main]

use dualenc_data::WebdatasetSource;
use dualenc_fuzz::with_file;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    with_file("shard.tar", bytes, |path| {
        for strict in [true, false] {
            let source = WebdatasetSource { strict, ..WebdatasetSource::new(path) };
            let Ok(dataset) = source.read() else { continue };
            // Nothing that the index names lies outside the shard.
            for image in &dataset.images {
                assert!(image.read().is_ok(), "{}", image.key());
            }
        }
    });
});
