//! The parts of the pages.

pub(crate) mod classification;
pub(crate) mod embeddings;
pub(crate) mod evaluation;
pub(crate) mod headline;
pub(crate) mod pairs;
pub(crate) mod problems;
pub(crate) mod retrieval;
pub(crate) mod state;
pub(crate) mod training;
