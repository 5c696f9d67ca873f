//! Integration tests, which run `dualenc` as a user would. They need no network. One needs Python with transformers and
//! is ignored: `scripts/check_parity.sh` runs it.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may panic")]

mod architecture;
mod bad_input;
mod bad_samples;
mod cache;
mod check;
mod cli_help;
mod copies;
mod corruption;
mod data_forms;
mod disk;
mod embed;
mod evaluate;
mod exit_codes;
mod export;
mod families;
mod faults;
mod features;
mod flags;
mod guards;
mod init;
mod init_layouts;
mod inspect;
mod kill;
mod load;
mod locks;
mod mixes;
mod not_finite;
mod optimizers;
mod pack;
mod plan;
mod precision;
mod probes;
mod races;
mod reference;
mod report;
mod resume;
mod resume_inputs;
mod resume_matrix;
mod search;
mod selection;
#[cfg(feature = "serve")]
mod serve;
mod sessions;
mod signals;
mod soak;
mod support;
mod text_lists;
mod trackers;
mod zero_shot_data;
