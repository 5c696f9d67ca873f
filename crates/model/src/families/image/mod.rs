//! The families of image towers, one file each: what its `config.json` means, and how its tensors are named on disk.
//!
//! - `beit`: BEiT and Data2VecVision.
//! - `clip`: the image towers of CLIP and SigLIP.
//! - `conv`: ResNet, ConvNeXt and ConvNeXt V2.
//! - `dinov2`: DINOv2, with and without registers.
//! - `dinov3`: DINOv3.
//! - `swin`: Swin.
//! - `vit`: ViT and DeiT.

use crate::families::family::Family;
use crate::vision::image_tower::ImageTowerConfig;

mod beit;
mod clip;
mod conv;
mod dinov2;
mod dinov3;
mod swin;
mod vit;

/// Every image tower.
pub(super) const IMAGE_FAMILIES: &[&Family<ImageTowerConfig>] = &[
    &vit::VIT,
    &vit::DEIT,
    &beit::BEIT,
    &clip::CLIP,
    &clip::SIGLIP,
    &dinov2::DINOV2_SWIGLU,
    &dinov2::DINOV2,
    &dinov2::REGISTERS_SWIGLU,
    &dinov2::REGISTERS,
    &dinov3::DINOV3,
    &swin::SWIN,
    &conv::RESNET,
    &conv::CONVNEXT,
    &conv::CONVNEXT_V2,
];
