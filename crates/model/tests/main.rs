//! The tests of this crate that need fixtures, in one binary.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

mod composition;
mod goldens;
mod heads;
mod image_families;
mod layer_lists;
mod layers;
mod locked_layers;
mod packed;
mod support;
mod taken_layers;
mod text_decoders;
mod text_families;
mod token_heads;
mod whole;
