//! The heads of a dual encoder: what maps the pooled output of a tower into the shared space.
//!
//! A head is one of several kinds. Its parameters are below `image_projection.` and `text_projection.`, whatever the
//! kind. The linear part of a head, where it has one, is `weight` and `bias` for every kind.
//!
//! - `form`: the kinds of heads and their settings.
//! - `head`: a head of any kind.
//! - `linear_head`: one linear map.
//! - `residual_head`: a linear map plus a small network.
//! - `gated_head`: two linear maps, multiplied, and a third.
//! - `block_head`: residual blocks, and a linear map.
//! - `restart`: starting a head from the parameters of another.
//! - `truncated`: narrower embeddings.

pub(crate) mod block_head;
pub(crate) mod form;
pub(crate) mod gated_head;
pub(crate) mod head;
pub(crate) mod linear_head;
pub(crate) mod residual_head;
pub(crate) mod restart;
pub(crate) mod truncated;
