//! The transformer encoder that all text towers and most image towers share.
//!
//! It works on packed rows, `[rows, width]`, and knows neither pixels nor token ids: a tower embeds its input, and
//! passes the layout of the sequences and the positions of their tokens.
//!
//! - `attention`: multi-head self-attention.
//! - `attention_pool`: pooling by a learned query.
//! - `block`: one block, attention and MLP.
//! - `config`: the hyperparameters of an encoder.
//! - `deberta_attention`: DeBERTa's disentangled attention.
//! - `encoder`: the blocks in sequence.
//! - `mlp`: the MLP of a block.
//! - `relations`: token positions in attention.
//! - `relative_bias`: relative position bias.
//! - `rotary`: rotary position embeddings.
//! - `sequence_layout`: which rows belong to which sequence.
//! - `windows`: feature maps partitioned into windows (Swin).

pub(crate) mod attention;
pub(crate) mod attention_pool;
pub(crate) mod block;
pub(crate) mod config;
pub(crate) mod deberta_attention;
pub(crate) mod encoder;
pub(crate) mod mlp;
pub(crate) mod relations;
pub(crate) mod relative_bias;
pub(crate) mod rotary;
pub(crate) mod sequence_layout;
pub(crate) mod windows;
