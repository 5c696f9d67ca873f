//! Heads that take every token of an image: they stand between the tokens of the image tower and the head that maps
//! into the shared space.
//!
//! Their parameters are below `image_tokens.`. They have no positions: the tokens have those of the tower.
//!
//! - `form`: the kinds of token heads and their settings.
//! - `query_head`: one learned query that attends to all tokens.
//! - `token_blocks`: transformer blocks over all tokens.
//! - `token_head`: a token head of either kind.

pub(crate) mod form;
pub(crate) mod query_head;
pub(crate) mod token_blocks;
pub(crate) mod token_head;
