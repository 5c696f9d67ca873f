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
mod cut_texts;
mod data_forms;
mod decoders;
mod devices;
mod disk;
mod embed;
mod eval_of_run;
mod evaluate;
mod exit_codes;
mod export;
mod families;
mod faults;
#[cfg(feature = "mpi")]
mod faults_of_processes;
mod features;
mod fit;
mod flags;
mod guards;
mod heads;
mod init;
mod init_layouts;
mod init_mistakes;
mod inspect;
mod kept_inputs;
mod kill;
mod large_data;
mod layer_lists;
mod load;
mod locks;
mod mixes;
mod narrow;
mod not_finite;
mod optimizers;
mod pack;
mod plan;
mod pooling;
mod precision;
mod prefix;
mod probes;
#[cfg(feature = "mpi")]
mod processes;
mod races;
mod reference;
mod report;
mod resume;
mod resume_inputs;
mod resume_matrix;
mod search;
mod select;
mod selection;
#[cfg(feature = "serve")]
mod serve;
mod sessions;
mod signals;
mod slots;
mod soak;
mod support;
mod teacher;
mod text_lists;
mod token_heads;
mod trackers;
mod zero_shot_data;
