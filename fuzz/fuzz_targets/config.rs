//! A config file: valid, or problems with a message each.
#![no_main]

use dualenc_fuzz::with_file;
use dualenc_train::config::{ConfigError, RunConfig};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    with_file("lit.toml", bytes, |path| match RunConfig::load(path, &[]) {
        Ok(config) => drop(config.to_toml().expect("a loaded config can be written")),
        Err(ConfigError::Invalid { problems, .. }) => {
            assert!(!problems.is_empty() && problems.iter().all(|problem| !problem.message.is_empty()));
        }
        Err(error) => panic!("{error}"),
    });
});
