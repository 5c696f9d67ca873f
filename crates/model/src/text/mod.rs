//! Text towers.
//!
//! - `text_tower`: the tower, from token ids to one vector per caption.
//! - `token_relations`: causal and local attention, rotary angles and relative positions of tokens.

pub(crate) mod text_tower;
pub(crate) mod token_relations;
