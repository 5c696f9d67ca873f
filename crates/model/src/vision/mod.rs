//! Image towers: from normalised pixels to one vector per image.
//!
//! It does not decode or resize images; that is the crate `dualenc-data`. Which family has which architecture is in
//! `families/image`.
//!
//! - `absent_tower`: a tower that is not there.
//! - `conv_layers`: convolutions and batch norm.
//! - `conv_net`: ResNet and ConvNeXt.
//! - `image_tower`: the tower, of any kind.
//! - `patches`: images cut into patches.
//! - `position_interpolation`: learned positions at another image size.
//! - `relative_offsets`: relative positions of tokens in a grid (BEiT, Swin).
//! - `swin_transformer`: Swin.
//! - `token_grid`: fewer patch tokens.
//! - `token_layout`: where the tokens of an image are in a row of all of them.
//! - `vision_transformer`: ViT and its relatives.
//! - `vit_config`: the architecture of a vision transformer.

pub(crate) mod absent_tower;
mod conv_layers;
pub(crate) mod conv_net;
pub(crate) mod image_tower;
mod patches;
pub(crate) mod position_interpolation;
pub(crate) mod relative_offsets;
pub(crate) mod swin_transformer;
mod token_grid;
pub(crate) mod token_layout;
pub(crate) mod vision_transformer;
pub(crate) mod vit_config;
