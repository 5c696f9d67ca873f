//! The transformer encoder that text towers and most image towers share.
//!
//! - `attention`: multi-head self-attention.
//! - `deberta_attention`: DeBERTa's disentangled attention.
//! - `encoder`: blocks in sequence.
//! - `rotary`: rotary position embeddings.
//! - `sequence_layout`: which rows of a packed tensor form which sequence.
//! - `windows`: attention within windows of a feature map (Swin).

pub(crate) mod attention;
pub(crate) mod deberta_attention;
pub(crate) mod encoder;
pub(crate) mod rotary;
pub(crate) mod sequence_layout;
pub(crate) mod windows;
