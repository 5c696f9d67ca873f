//! Integration tests, which run `dualenc` as a user would. They need no network. One needs Python with transformers: it
//! is skipped unless `DUALENC_PYTHON` names such an interpreter.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may panic")]

mod architecture;
mod bad_input;
mod cache;
mod cli_help;
mod evaluate;
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
mod support;
