//! `dualenc` driven as a user would, in one binary. No test needs Python or the network; where `DUALENC_PYTHON` names a
//! Python interpreter, one more runs.
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
