//! Tests of the public interface: goldens from Pillow and transformers, hostile input, and the loader.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]

mod child;
mod columns;
mod decoder_tokens;
mod faults;
mod features;
mod formats;
mod fuzz;
mod goldens;
mod hostile_tar;
mod ids;
mod images;
mod json;
mod limits;
mod loader;
#[cfg(feature = "parquet")]
mod parquet;
mod pixels;
mod recognition;
mod rows;
mod slots;
mod splits;
mod support;
mod tables;
mod tokenizer;
