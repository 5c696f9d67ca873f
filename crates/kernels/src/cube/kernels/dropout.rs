//! Dropout, alone and at the end of a residual branch, and the hash of its mask for other kernels.

use cubecl::prelude::*;

use crate::arguments::dropout_mask::MIX;

/// A [`DropoutMask`](crate::DropoutMask) for positions below 2^32.
#[derive(CubeType, CubeLaunch)]
pub struct Mask {
    /// The halves of the seed.
    pub low: u32,
    pub high: u32,
    pub threshold: u32,
    pub keep_scale: f32,
}

/// `arguments::dropout_mask::mix`.
#[cube]
fn mix(bits: u32) -> u32 {
    let bits = bits ^ (bits >> 16u32);
    let bits = bits * comptime!(MIX[0]);
    let bits = bits ^ (bits >> 13u32);
    let bits = bits * comptime!(MIX[1]);
    bits ^ (bits >> 16u32)
}

/// The factor of the value at `position`.
#[cube]
pub fn dropout_factor(mask: &Mask, position: u32) -> f32 {
    let bits = mix(mix(position + mask.low) ^ mask.high);
    select(bits < mask.threshold, 0.0f32, mask.keep_scale)
}

/// `out` = dropout of `branch`, plus `x` if it `adds`. A unit computes one value.
#[cube(launch_unchecked)]
pub fn dropout_values<F: Float>(
    x: &Tensor<F>,
    branch: &Tensor<F>,
    out: &mut Tensor<F>,
    mask: Mask,
    #[comptime] adds: bool,
    #[define(F)] _dtype: ElemType,
) {
    let at = ABSOLUTE_POS;
    if at < out.len() {
        let mut value = f32::cast_from(branch[at]) * dropout_factor(&mask, u32::cast_from(at));
        if comptime!(adds) {
            value += f32::cast_from(x[at]);
        }
        out[at] = F::cast_from(value);
    }
}
