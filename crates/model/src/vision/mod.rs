//! Image towers.
//!
//! - `conv_layers`: convolution and batch norm.
//! - `conv_net`: ResNet and ConvNeXt.
//! - `image_tower`: the tower, of whichever kind.
//! - `position_interpolation`: resizing learned positions to another image size.
//! - `swin_transformer`: Swin.
//! - `vision_transformer`: ViT and its kin.

mod conv_layers;
pub(crate) mod conv_net;
pub(crate) mod image_tower;
pub(crate) mod position_interpolation;
pub(crate) mod swin_transformer;
pub(crate) mod vision_transformer;
