//! Text towers: from token ids to one vector per caption.
//!
//! It does not tokenize; that is the crate `dualenc-data`.
//!
//! - `config`: the architecture of a text tower.
//! - `dense`: the layers of sentence-transformers after the pooling.
//! - `text_tower`: the tower.
//! - `token_relations`: masks, rotary angles and relative positions of tokens.
//! - `token_sequences`: the tower's input.

pub(crate) mod config;
pub(crate) mod dense;
pub(crate) mod text_tower;
pub(crate) mod token_relations;
pub(crate) mod token_sequences;
