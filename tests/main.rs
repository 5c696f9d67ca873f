//! Integration tests, which run `dualenc` as a user would. They need no network. One needs Python with transformers and
//! is ignored: `scripts/check_parity.sh` runs it.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may panic")]

mod architecture;
mod bad_input;
mod cache;
mod cli_help;
mod evaluate;
mod exit_codes;
mod families;
mod faults;
mod guards;
mod inspect;
mod locks;
mod optimizers;
mod precision;
mod reference;
mod resume;
mod selection;
mod sessions;
mod signals;
mod support;
