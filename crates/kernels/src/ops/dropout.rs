//! Inverted dropout (Srivastava et al., 2014). The factors are a pure function of a seed and a position: nothing is
//! stored between the forward and the backward pass, and a training step can be replayed bit for bit.

use burn::tensor::{Tensor, TensorData};
use rayon::prelude::*;

use crate::cpu::chunks::CHUNK;

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

    /// The factor of the value at `position`, an index into the flattened tensor.
    #[inline(always)]
    pub(crate) fn factor(self, position: usize) -> f32 {
        let [low, high] = self.seed;
        let bits = mix(mix((position as u32).wrapping_add(low)) ^ high);
        if bits < self.threshold { 0.0 } else { self.keep_scale }
    }

    /// The factors of positions `0..count`.
    pub fn factors(self, count: usize) -> Vec<f32> {
        let mut factors = vec![0.0; count];
        factors.par_chunks_mut(CHUNK).enumerate().for_each(|(chunk, values)| {
            values.iter_mut().enumerate().for_each(|(i, value)| *value = self.factor(chunk * CHUNK + i));
        });
        factors
    }

    /// The reference form in Burn's own operations.
    pub(crate) fn plain<const D: usize>(self, x: Tensor<D>) -> Tensor<D> {
        let shape = x.dims();
        let factors = TensorData::new(self.factors(shape.iter().product()), shape);
        let factors = Tensor::<D>::from_data(factors, &x.device().without_autodiff()).cast(x.dtype());
        x * factors
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

/// The finaliser of MurmurHash3 (Appleby, 2011): flipping one bit of the input flips each bit of the output with a
/// probability of about one half.
#[inline(always)]
fn mix(mut bits: u32) -> u32 {
    bits ^= bits >> 16;
    bits = bits.wrapping_mul(0x85eb_ca6b);
    bits ^= bits >> 13;
    bits = bits.wrapping_mul(0xc2b2_ae35);
    bits ^ (bits >> 16)
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
            write(out, |i| x[i] * mask.factor(first + i))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
