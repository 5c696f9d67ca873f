//! Dropout by a [`DropoutMask`].

use std::sync::{Mutex, PoisonError};

use burn::tensor::{DType, Device, Int, Tensor, TensorData};

use crate::arguments::dropout_mask::{DropoutMask, MIX};
use crate::portable::forms::is_remote;
use crate::portable::graph::with_gradient;
use crate::portable::transfers::upload;

impl DropoutMask {
    /// The form in Burn's own operations. The factors are computed again in the backward pass.
    pub(crate) fn plain<const D: usize>(self, x: Tensor<D>) -> Tensor<D> {
        #[cfg(feature = "cube")]
        if let Some(y) = crate::cube::dropout::dropout(&x, self) {
            return y;
        }
        with_gradient(x, move |x| self.multiply(x), move |gradient| self.multiply(gradient))
    }

    fn multiply<const D: usize>(self, x: Tensor<D>) -> Tensor<D> {
        let (shape, device) = (x.dims(), x.device());
        let count = shape.iter().product();
        let factors = if is_remote(&device) && u32::try_from(count).is_ok() {
            self.factors_on_device(shape, &device)
        } else {
            upload(TensorData::new(self.factors(count), shape), &device)
        };
        let factors = factors.cast(x.dtype());
        x * factors
    }

    /// The factors of positions `0..count` for a tensor of this shape, by the same hash in tensor operations: they are
    /// equal to [`DropoutMask::factors`], and nothing of their size is copied to the device. `device` is without
    /// autodiff.
    pub(crate) fn factors_on_device<const D: usize>(self, shape: [usize; D], device: &Device) -> Tensor<D> {
        let [low, high] = self.seed.map(u32::cast_signed);
        let bits = mix_on_device(mix_on_device(positions(shape, device) + low).bitwise_xor_scalar(high));
        // Without a sign, the order of integers is that of the same bits with a sign if the upper bit is flipped.
        let dropped = bits.bitwise_xor_scalar(i32::MIN).lower_elem(self.threshold.cast_signed() ^ i32::MIN);
        Tensor::full(shape, self.keep_scale, device).mask_fill(dropped, 0.0)
    }

    /// Multiplies each value of `x`, of any shape, by its factor.
    pub fn apply<const D: usize>(self, x: Tensor<D>) -> Tensor<D> {
        #[cfg(feature = "flex")]
        if let Some(y) = fused::apply(self, &x) {
            return y;
        }
        self.plain(x)
    }
}

/// The mask's `mix` of 32-bit integers, which wrap as those without a sign do.
fn mix_on_device<const D: usize>(bits: Tensor<D, Int>) -> Tensor<D, Int> {
    // The shift of an integer with a sign fills up with the sign, which the mask clears.
    let shifted = |bits: &Tensor<D, Int>, by: u32| {
        bits.clone().bitwise_right_shift_scalar(by).bitwise_and_scalar((u32::MAX >> by).cast_signed())
    };
    let bits = bits.clone().bitwise_xor(shifted(&bits, 16)).mul_scalar(MIX[0].cast_signed());
    let bits = bits.clone().bitwise_xor(shifted(&bits, 13)).mul_scalar(MIX[1].cast_signed());
    bits.clone().bitwise_xor(shifted(&bits, 16))
}

/// The index of each value in the flattened tensor, as 32 bits: the sum of a column and a row.
fn positions<const D: usize>(shape: [usize; D], device: &Device) -> Tensor<D, Int> {
    let (mut of_column, mut of_row) = (shape, [1; D]);
    (of_column[D - 1], of_row[D - 1]) = (1, shape[D - 1]);
    let mut known = PLACES.lock().unwrap_or_else(PoisonError::into_inner);
    let found = known.iter().find(|places| places.shape == shape && places.device == *device);
    let (column, row) = match found {
        Some(places) => (places.column.clone(), places.row.clone()),
        None => {
            let places = Places::new(shape, device);
            let parts = (places.column.clone(), places.row.clone());
            if known.len() == KNOWN_PLACES {
                known.remove(0);
            }
            known.push(places);
            parts
        }
    };
    column.reshape(of_column) + row.reshape(of_row)
}

/// The parts of [`positions`] of a shape on a device.
struct Places {
    device: Device,
    shape: Vec<usize>,
    /// The index of the first value of each row.
    column: Tensor<1, Int>,
    /// The index of each value within a row.
    row: Tensor<1, Int>,
}

/// Number of shapes with [`Places`] that stay on the device: those of the masks of a step, forward and backward.
const KNOWN_PLACES: usize = 4;

static PLACES: Mutex<Vec<Places>> = Mutex::new(Vec::new());

impl Places {
    /// Copies only as many numbers to the device as the sizes of the dimensions add up to.
    fn new<const D: usize>(shape: [usize; D], device: &Device) -> Self {
        let along = |axis: usize| {
            let stride: usize = shape[axis + 1..].iter().product();
            let steps: Vec<i32> = (0..shape[axis]).map(|n| (n * stride) as i32).collect();
            let mut dims = [1; D];
            dims[axis] = shape[axis];
            upload::<D, Int>(TensorData::new(steps, dims), (device, DType::I32))
        };
        let first = upload::<D, Int>(TensorData::new(vec![0i32], [1; D]), (device, DType::I32));
        let column = (0..D - 1).map(along).reduce(|sum, steps| sum + steps).unwrap_or(first);
        let (rows, width) = (column.shape().num_elements(), shape[D - 1]);
        let row = along(D - 1).reshape([width]);
        Self { device: device.clone(), shape: shape.to_vec(), column: column.reshape([rows]), row }
    }
}

#[cfg(feature = "flex")]
pub(crate) mod fused {
    use burn::tensor::Tensor;

    use crate::arguments::dropout_mask::DropoutMask;
    use crate::cpu::autograd::{Input, Values, custom_op, flex_tensor, supports_fused};
    use crate::cpu::chunks::{CHUNK, chunk_ends};
    use crate::cpu::simd::vectorised;
    use crate::cpu::uninit::{Uninit, par_groups, write};

    pub fn apply<const D: usize>(mask: DropoutMask, x: &Tensor<D>) -> Option<Tensor<D>> {
        if !supports_fused(x) {
            return None;
        }
        let shape = x.dims();
        let forward = |[x]: &[Values; 1], _| (flex_tensor(masked(x, mask), shape), (mask, shape));
        Some(custom_op([Input::new(x.clone())?], forward, |(mask, shape), gradient, _| {
            [Some(flex_tensor(masked(&gradient, mask), shape))]
        }))
    }

    /// The values, each multiplied by its factor.
    pub fn masked(values: &Values, mask: DropoutMask) -> Vec<f32> {
        let [masked] = par_groups(&chunk_ends(values.get().len(), CHUNK), [1], |first, [out]| {
            let values = &values.get()[first..][..out.len()];
            [multiply_factors(out, values, mask, first)]
        });
        masked
    }

    vectorised! {
        fn multiply_factors(out: &'o mut Uninit, x: &'a [f32], mask: DropoutMask, first: usize) -> &'o mut [f32] {
            let mask = mask.starting_at(first as u64);
            write(out, |i| x[i] * mask.factor(i))
        }
    }
}
