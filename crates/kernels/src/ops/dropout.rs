//! Inverted dropout (Srivastava et al., 2014). The factors are a pure function of a seed and a position: nothing is
//! stored between the forward and the backward pass, and a training step can be replayed bit for bit.

use std::sync::{Mutex, PoisonError};

use burn::tensor::{DType, Device, Int, Tensor, TensorData};
use rayon::prelude::*;

use crate::cpu::chunks::CHUNK;
use crate::portable::forms::is_remote;
use crate::portable::graph::with_gradient;

/// Selects the values that a layer drops in one training step.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct DropoutMask {
    /// Low and high half of the seed.
    seed: [u32; 2],
    /// Values whose hash is below are dropped.
    threshold: u32,
    /// Factor of the other values.
    keep_scale: f32,
}

impl DropoutMask {
    /// A mask that drops a value with `probability` and multiplies the others by `1 / (1 - probability)`.
    pub fn new(seed: u64, probability: f64) -> Self {
        Self {
            seed: [seed as u32, (seed >> 32) as u32],
            threshold: (probability * f64::from(u32::MAX)) as u32,
            keep_scale: (1.0 / (1.0 - probability)) as f32,
        }
    }

    /// The halves of the seed, the threshold of the hash, and the factor of what is kept: for kernels of other devices.
    #[cfg(feature = "cube")]
    pub(crate) fn parts(self) -> ([u32; 2], u32, f32) {
        (self.seed, self.threshold, self.keep_scale)
    }

    /// The factors of the values from `position` on, an index into the flattened tensor.
    #[inline(always)]
    pub(crate) fn starting_at(self, position: u64) -> MaskSpan {
        let [low, high] = self.seed;
        // The upper half of a position selects another seed. Up to 2^32 it is 0, and the seed is the mask's own.
        let upper = (position >> 32) as u32;
        let seed = |upper: u32| high ^ upper.wrapping_mul(GOLDEN_RATIO);
        MaskSpan {
            start: position as u32,
            low,
            high: [seed(upper), seed(upper.wrapping_add(1))],
            threshold: self.threshold,
            keep_scale: self.keep_scale,
        }
    }

    /// The factors of positions `0..count`.
    pub fn factors(self, count: usize) -> Vec<f32> {
        let mut factors = vec![0.0; count];
        factors.par_chunks_mut(CHUNK).enumerate().for_each(|(chunk, values)| {
            let mask = self.starting_at(chunk as u64 * CHUNK as u64);
            values.iter_mut().enumerate().for_each(|(i, value)| *value = mask.factor(i));
        });
        factors
    }

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
            Tensor::from_data(TensorData::new(self.factors(count), shape), &device)
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

/// 2^32 divided by the golden ratio, made odd: multiples of it differ in their upper bits too.
const GOLDEN_RATIO: u32 = 0x9e37_79b9;

/// The part of a mask that starts at some position.
#[derive(Clone, Copy)]
pub(crate) struct MaskSpan {
    /// Lower half of the position.
    start: u32,
    low: u32,
    /// For positions with the upper half of the first one, and with the next.
    high: [u32; 2],
    threshold: u32,
    keep_scale: f32,
}

impl MaskSpan {
    /// The factor of the value `index` places after the start; `index` is below 2^32.
    #[inline(always)]
    pub fn factor(self, index: usize) -> f32 {
        let place = self.start.wrapping_add(index as u32);
        let high = if place < self.start { self.high[1] } else { self.high[0] };
        let bits = mix(mix(place.wrapping_add(self.low)) ^ high);
        if bits < self.threshold { 0.0 } else { self.keep_scale }
    }
}

/// The finaliser of MurmurHash3 (Appleby, 2011): flipping one bit of the input flips each bit of the output with a
/// probability of about one half.
#[inline(always)]
fn mix(mut bits: u32) -> u32 {
    bits ^= bits >> 16;
    bits = bits.wrapping_mul(MIX[0]);
    bits ^= bits >> 13;
    bits = bits.wrapping_mul(MIX[1]);
    bits ^ (bits >> 16)
}

/// The factors of [`mix`].
pub(crate) const MIX: [u32; 2] = [0x85eb_ca6b, 0xc2b2_ae35];

/// [`mix`] of 32-bit integers, which wrap as those without a sign do.
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

/// Shapes whose [`Places`] stay on the device: those of the masks of a step, forward and backward.
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
            Tensor::<D, Int>::from_data(TensorData::new(steps, dims), (device, DType::I32))
        };
        let first = Tensor::<D, Int>::from_data(TensorData::new(vec![0i32], [1; D]), (device, DType::I32));
        let column = (0..D - 1).map(along).reduce(|sum, steps| sum + steps).unwrap_or(first);
        let (rows, width) = (column.shape().num_elements(), shape[D - 1]);
        let row = along(D - 1).reshape([width]);
        Self { device: device.clone(), shape: shape.to_vec(), column: column.reshape([rows]), row }
    }
}

#[cfg(feature = "flex")]
pub(crate) mod fused {
    use burn::tensor::Tensor;

    use super::DropoutMask;
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

#[cfg(test)]
mod tests {
    use super::*;

    /// `count` factors from `position` on.
    fn factors_at(mask: DropoutMask, position: u64, count: usize) -> Vec<f32> {
        (0..count).map(|index| mask.starting_at(position).factor(index)).collect()
    }

    #[test]
    fn first_positions_keep_their_factors() {
        // The hash before positions had an upper half: runs that were started then go on with the same bits.
        let mask = DropoutMask::new(0x1234_5678_9abc_def0, 0.4);
        let [low, high] = mask.seed;
        for position in [0u64, 1, 77, 1 << 20, (1 << 32) - 9] {
            let expected: Vec<f32> = (0..9)
                .map(|index| mix(mix((position as u32 + index).wrapping_add(low)) ^ high))
                .map(|bits| if bits < mask.threshold { 0.0 } else { mask.keep_scale })
                .collect();
            assert_eq!(factors_at(mask, position, 9), expected, "{position}");
        }
        let dropped: String =
            factors_at(mask, 0, 24).into_iter().map(|factor| if factor == 0.0 { '-' } else { '+' }).collect();
        assert_eq!(dropped, "+-+--+---++-++--++-+++++");
    }

    #[test]
    fn mask_does_not_repeat_after_4_gi_positions() {
        let mask = DropoutMask::new(3, 0.1);
        let (count, period) = (100_001, 1u64 << 32);
        let first = factors_at(mask, 0, count);
        for place in [period, 2 * period, 7 * period, u64::from(u32::MAX) << 32] {
            let later = factors_at(mask, place, count);
            let equal = later.iter().zip(&first).filter(|(a, b)| a == b).count() as f64 / count as f64;
            assert!((equal - 0.82).abs() < 0.01, "{place}: {equal}");
            let dropped = later.iter().filter(|&&factor| factor == 0.0).count() as f64 / count as f64;
            assert!((dropped - 0.1).abs() < 0.005, "{place}: {dropped}");
            // A span across the boundary goes on as one that starts there.
            assert_eq!(factors_at(mask, place - 5, 30)[5..], later[..25], "{place}");
        }
    }

    #[test]
    fn drops_expected_fraction() {
        let factors = DropoutMask::new(3, 0.1).factors(100_001);
        let dropped = factors.iter().filter(|&&f| f == 0.0).count() as f64 / 100_001.0;
        assert!((dropped - 0.1).abs() < 0.005, "{dropped}");
        assert!(factors.iter().all(|&f| f == 0.0 || (f - 1.0 / 0.9).abs() < 1e-6));
        assert_eq!(factors, DropoutMask::new(3, 0.1).factors(100_001));
        // A seed that differs in either half gives another mask; two of 10 % agree on 0.9^2 + 0.1^2 = 82 % of the
        // positions.
        for seed in [4, 3 + (1 << 32)] {
            let others = DropoutMask::new(seed, 0.1).factors(100_001);
            let equal = others.iter().zip(&factors).filter(|(a, b)| a == b).count() as f64 / 100_001.0;
            assert!((equal - 0.82).abs() < 0.01, "{equal}");
        }
    }
}
