//! What a device has room for.

use std::sync::atomic::{AtomicBool, Ordering};

use burn::backend::DispatchDevice;
use burn::tensor::Tensor;
use cubecl::features::Plane;
use cubecl::ir::DeviceProperties;

use crate::portable::forms::only_plain;

/// Whether planes are taken to add up on every device.
static ASSUMES_PLANES: AtomicBool = AtomicBool::new(cfg!(test));

/// Takes planes to add up on every device from now on. For tests on software devices, which can add up planes, and of
/// which CubeCL does not report it.
pub fn assume_plane_operations() {
    ASSUMES_PLANES.store(true, Ordering::Relaxed);
}

/// The properties of the device of `x`; `None` if it has no kernels of ours, or recomputes activations.
pub fn properties<const D: usize>(x: &Tensor<D>) -> Option<DeviceProperties> {
    let device = x.device();
    let strategy = device.gradient_checkpointing_strategy();
    if only_plain() || strategy.is_some_and(|strategy| strategy != Default::default()) {
        return None;
    }
    let mut properties = match device.without_autodiff().as_dispatch() {
        DispatchDevice::Cube(device) => device.client().properties().clone(),
        _ => return None,
    };
    if ASSUMES_PLANES.load(Ordering::Relaxed) {
        properties.features.plane.insert(Plane::Ops);
    }
    Some(properties)
}

/// Whether kernels can address `count` values: CubeCL counts with 32 bits in kernels that do not ask for more, and cuts
/// longer counts off without a word.
pub fn has_addresses(count: usize) -> bool {
    count < u32::MAX as usize
}

/// Units of a plane, if planes are all alike and can add up. `None` for rows of more than `width` values a unit.
pub fn plane_size<const D: usize>(x: &Tensor<D>, width: usize) -> Option<u32> {
    plane_of(&properties(x)?, width)
}

/// [`plane_size`] on a device with these properties.
pub fn plane_of(properties: &DeviceProperties, width: usize) -> Option<u32> {
    let size = properties.hardware.plane_size_max;
    let adds_up = properties.features.plane.contains(Plane::Ops);
    let alike = adds_up && size > 1 && size == properties.hardware.plane_size_min;
    (alike && (1..=MOST_PER_UNIT * size as usize).contains(&width)).then_some(size)
}

/// Values of a row that a unit holds in registers, at most.
const MOST_PER_UNIT: usize = 64;
