//! Integration tests, which run `dualenc` as a user would. They need no network. One needs Python with transformers and
//! is ignored: `scripts/check_parity.sh` runs it.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may panic")]

mod architecture;
mod bad_input;
mod cache;
mod cli_help;
mod corruption;
mod disk;
mod evaluate;
mod exit_codes;
mod families;
mod faults;
mod guards;
mod inspect;
mod kill;
mod load;
mod locks;
mod not_finite;
mod optimizers;
mod precision;
mod races;
mod reference;
mod resume;
mod resume_inputs;
mod resume_matrix;
mod selection;
mod sessions;
mod signals;
mod soak;
mod support;
mod text_lists;
