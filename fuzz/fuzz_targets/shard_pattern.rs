//! Patterns of shards with braces and globs, in an empty directory.
#![no_main]

use dualenc_data::WebdatasetSource;
use dualenc_fuzz::in_empty_dir;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|pattern: &str| {
    // Without these the pattern stays in the directory.
    if pattern.len() > 64 || pattern.contains("..") || pattern.contains('/') {
        return;
    }
    in_empty_dir(|dir| assert!(WebdatasetSource::new(dir.join(format!("x{pattern}"))).read().is_err()));
});
