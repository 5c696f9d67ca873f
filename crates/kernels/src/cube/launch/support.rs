//! What launches have in common.

use burn::tensor::{DType, Shape};
use burn_cubecl::CubeBackend;
use burn_cubecl::kernel::into_contiguous;
use burn_cubecl::ops::numeric::empty_device_contiguous_dtype;
use burn_cubecl::tensor::CubeTensor;
use cubecl::ir::{ElemType, FloatKind};
use cubecl::prelude::{CubeCount, CubeDim, OwnedTensor, SequenceArg};

use crate::arguments::dropout_mask::DropoutMask;
use crate::cube::bundle::Bundle;
use crate::cube::kernels::dropout::MaskLaunch;

/// Units of a cube in which each plane computes a row.
pub const ROW_UNITS: u32 = 256;

/// Units of a cube in which each unit computes a value.
pub const VALUE_UNITS: u32 = 256;

/// Cubes along one side of a grid, at most, on every device.
pub const GRID_SIDE: usize = 65_535;

pub fn elem(tensor: &CubeTensor) -> ElemType {
    ElemType::Float(match tensor.dtype {
        DType::F16 => FloatKind::F16,
        DType::BF16 => FloatKind::BF16,
        DType::F64 => FloatKind::F64,
        _ => FloatKind::F32,
    })
}

pub fn empty_like(tensor: &CubeTensor, shape: &[usize], dtype: DType) -> CubeTensor {
    let shape = Shape::from(shape.to_vec());
    empty_device_contiguous_dtype(tensor.client.clone(), tensor.device.clone(), shape, dtype)
}

/// A grid of at least `cubes` cubes.
pub fn grid(cubes: usize) -> CubeCount {
    let height = cubes.div_ceil(GRID_SIDE).max(1);
    CubeCount::Static(cubes.div_ceil(height) as u32, height as u32, 1)
}

/// The first `count` tensors of a bundle.
pub fn contiguous(bundle: Bundle<CubeBackend>, count: usize) -> Vec<CubeTensor> {
    bundle.into_first(count).into_iter().map(into_contiguous).collect()
}

pub fn arguments(tensors: Vec<CubeTensor>) -> SequenceArg<OwnedTensor<f32>> {
    tensors.into_iter().map(CubeTensor::into_tensor_arg).collect()
}

pub fn mask_launch(mask: Option<DropoutMask>) -> MaskLaunch {
    match mask {
        Some(DropoutMask { seed: [low, high], threshold, keep_scale }) => {
            MaskLaunch::new(low, high, threshold, keep_scale)
        }
        None => MaskLaunch::new(0, 0, 0, 1.0),
    }
}

/// The grid of rows of `width` values with a plane each, the cube, and the values of a unit.
pub fn row_launch(x: &CubeTensor, rows: usize, width: usize) -> (CubeCount, CubeDim, usize) {
    let plane = x.client.properties().hardware.plane_size_max;
    let planes = (ROW_UNITS / plane).max(1);
    (grid(rows.div_ceil(planes as usize)), CubeDim::new_2d(plane, planes), width.div_ceil(plane as usize))
}
