//! Inverted dropout (Srivastava et al., 2014) whose factors are a pure function of a seed and a place: nothing is stored
//! between forward and backward pass, and a step can be replayed bit for bit.

use burn::tensor::{Tensor, TensorData};
use rayon::prelude::*;

/// Values whose factors one task makes.
const BLOCK: usize = 4096;

/// Which values a layer drops in one step, and the factor of the others.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct DropoutMask {
    seed: [u32; 2],
    threshold: u32,
    keep: f32,
}

impl DropoutMask {
    /// Drops a value with `probability`, else multiplies it by `1 / (1 - probability)`.
    pub fn new(seed: u64, probability: f64) -> Self {
        Self {
            seed: [seed as u32, (seed >> 32) as u32],
            threshold: (probability * f64::from(u32::MAX)) as u32,
            keep: (1.0 / (1.0 - probability)) as f32,
        }
    }

    /// The factor of a place.
    #[inline(always)]
    pub(crate) fn factor(self, place: usize) -> f32 {
        let [low, high] = self.seed;
        let bits = mix(mix((place as u32).wrapping_add(low)) ^ high);
        if bits < self.threshold { 0.0 } else { self.keep }
    }

    /// The factors of the places below `count`.
    pub fn factors(self, count: usize) -> Vec<f32> {
        let mut factors = vec![0.0; count];
        factors.par_chunks_mut(BLOCK).enumerate().for_each(|(block, values)| {
            values.iter_mut().enumerate().for_each(|(i, value)| *value = self.factor(block * BLOCK + i));
        });
        factors
    }

    /// In Burn's own operations.
    pub(crate) fn plain<const D: usize>(self, x: Tensor<D>) -> Tensor<D> {
        let shape = x.dims();
        let factors = TensorData::new(self.factors(shape.iter().product()), shape);
        let factors = Tensor::<D>::from_data(factors, &x.device().without_autodiff()).cast(x.dtype());
        x * factors
    }

    /// `x` with values dropped, of any shape.
    pub fn apply<const D: usize>(self, x: Tensor<D>) -> Tensor<D> {
        #[cfg(feature = "flex")]
        if let Some(y) = fused::apply(self, &x) {
            return y;
        }
        self.plain(x)
    }
}

/// The finaliser of MurmurHash3 (Appleby, 2011): every bit of the input changes every bit of the output with about even
/// odds.
#[inline(always)]
fn mix(mut bits: u32) -> u32 {
    bits ^= bits >> 16;
    bits = bits.wrapping_mul(0x85eb_ca6b);
    bits ^= bits >> 13;
    bits = bits.wrapping_mul(0xc2b2_ae35);
    bits ^ (bits >> 16)
}

/// `x + scale * dropout(branch)`, all `[rows, width]`, `scale` `[width]`: the sum of a residual branch.
pub fn residual(x: Tensor<2>, branch: Tensor<2>, scale: Option<Tensor<1>>, mask: Option<DropoutMask>) -> Tensor<2> {
    #[cfg(feature = "flex")]
    if let Some(y) = fused::residual(&x, &branch, scale.as_ref(), mask) {
        return y;
    }
    let branch = match mask {
        Some(mask) => mask.plain(branch),
        None => branch,
    };
    match scale {
        Some(scale) => x + branch * scale.unsqueeze(),
        None => x + branch,
    }
}

#[cfg(feature = "flex")]
mod fused {
    use burn::backend::flex::FlexTensor;
    use burn::tensor::Tensor;
    use rayon::prelude::*;

    use super::DropoutMask;
    use crate::buffer::{Blank, CHUNK_ROWS, by_groups, by_rows, ends_of, write};
    use crate::linear::fused::{column_sums, optional};
    use crate::product::Matrix;
    use crate::record::{Input, Values, is_fused, record, tensor};
    use crate::simd::vectorised;

    /// Values that one task drops from.
    const BLOCK: usize = 1 << 14;

    pub fn apply<const D: usize>(mask: DropoutMask, x: &Tensor<D>) -> Option<Tensor<D>> {
        if !is_fused(x) {
            return None;
        }
        let shape = x.dims();
        let forward = |[x]: &[Values; 1], _| (tensor(masked(x, mask), shape), (mask, shape));
        Some(record([Input::of(x.clone())?], forward, |(mask, shape), gradient, _| {
            [Some(tensor(masked(&gradient, mask), shape))]
        }))
    }

    /// The values that the mask lets through, times its factor.
    fn masked(values: &Values, mask: DropoutMask) -> Vec<f32> {
        let [masked] = by_groups(&ends_of(values.get().len(), BLOCK), [1], |first, [out]| {
            let values = &values.get()[first..][..out.len()];
            [drop_out(out, values, mask, first)]
        });
        masked
    }

    vectorised! {
        fn drop_out(out: &'o mut Blank, x: &'a [f32], mask: DropoutMask, first: usize) -> &'o mut [f32] {
            write(out, |i| x[i] * mask.factor(first + i))
        }
    }

    /// Rows of the sum of a residual branch.
    struct Sum<'a> {
        x: &'a [f32],
        branch: &'a [f32],
        scale: Option<&'a [f32]>,
        mask: Option<DropoutMask>,
        /// The place of the first value.
        first: usize,
    }

    vectorised! {
        fn add_branch(out: &'o mut Blank, sum: Sum<'a>) -> &'o mut [f32] {
            let Sum { x, branch, scale, mask, first } = sum;
            match (mask, scale) {
                (None, None) => write(out, |i| x[i] + branch[i]),
                (Some(mask), None) => write(out, |i| branch[i].mul_add(mask.factor(first + i), x[i])),
                (mask, Some(scale)) => {
                    let out = match mask {
                        Some(mask) => write(out, |i| branch[i] * mask.factor(first + i)),
                        None => write(out, |i| branch[i]),
                    };
                    for (row, x) in out.chunks_exact_mut(scale.len()).zip(x.chunks_exact(scale.len())) {
                        let values = row.iter_mut().zip(x.iter().zip(scale));
                        values.for_each(|(value, (x, scale))| *value = value.mul_add(*scale, *x));
                    }
                    out
                }
            }
        }
    }

    vectorised! {
        fn multiply_rows(rows: &'a mut [f32], scale: &'a [f32]) {
            for row in rows.chunks_exact_mut(scale.len()) {
                row.iter_mut().zip(scale).for_each(|(value, scale)| *value *= scale);
            }
        }
    }

    #[derive(Debug, Clone)]
    struct Kept {
        /// The branch, where the scale trains.
        branch: Option<Values>,
        scale: Option<Values>,
        mask: Option<DropoutMask>,
        shape: [usize; 2],
    }

    pub fn residual(
        x: &Tensor<2>,
        branch: &Tensor<2>,
        scale: Option<&Tensor<1>>,
        mask: Option<DropoutMask>,
    ) -> Option<Tensor<2>> {
        if !is_fused(x) {
            return None;
        }
        let shape @ [rows, width] = x.dims();
        let scaled = scale.is_some();
        let inputs = [Input::of(x.clone())?, Input::of(branch.clone())?, optional(scale)?];
        let forward = move |[x, branch, scale]: &[Values; 3], _| {
            let values = by_rows(rows, width, |first, out| {
                let place = first * width..first * width + out.len();
                let scale = scaled.then(|| scale.get());
                let (x, branch) = (&x.get()[place.clone()], &branch.get()[place.clone()]);
                add_branch(out, Sum { x, branch, scale, mask, first: place.start })
            });
            let kept =
                Kept { branch: scaled.then(|| branch.clone()), scale: scaled.then(|| scale.clone()), mask, shape };
            (tensor(values, shape), kept)
        };
        Some(record(inputs, forward, backward))
    }

    fn backward(kept: Kept, gradient: Values, needed: [bool; 3]) -> [Option<FlexTensor>; 3] {
        let Kept { branch, scale, mask, shape: shape @ [rows, width] } = kept;
        let unchanged = mask.is_none() && scale.is_none();
        // What the mask lets through, before the scale.
        let dropped = match mask {
            Some(mask) => Values::from(tensor(masked(&gradient, mask), shape)),
            None => gradient.clone(),
        };
        let scale_gradient = branch.filter(|_| needed[2]).map(|branch| {
            let products = by_rows(rows, width, |first, out| {
                let place = first * width..first * width + out.len();
                let (gradient, branch) = (&dropped.get()[place.clone()], &branch.get()[place]);
                write(out, |i| gradient[i] * branch[i])
            });
            tensor(column_sums(Matrix::new(&products, width)), [width])
        });
        let branch_gradient = match scale {
            _ if !needed[1] => None,
            _ if unchanged => Some(gradient.clone().into_tensor(shape)),
            None => Some(dropped.into_tensor(shape)),
            Some(scale) => {
                let mut values = dropped.into_vec();
                values.par_chunks_mut(CHUNK_ROWS * width).for_each(|values| {
                    multiply_rows(values, scale.get());
                });
                Some(tensor(values, shape))
            }
        };
        [needed[0].then(|| gradient.into_tensor(shape)), branch_gradient, scale_gradient]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dropout_keeps_the_expected_share_and_scale() {
        let factors = DropoutMask::new(3, 0.1).factors(100_001);
        let dropped = factors.iter().filter(|&&f| f == 0.0).count() as f64 / 100_001.0;
        assert!((dropped - 0.1).abs() < 0.005, "{dropped}");
        assert!(factors.iter().all(|&f| f == 0.0 || (f - 1.0 / 0.9).abs() < 1e-6));
        assert_eq!(factors, DropoutMask::new(3, 0.1).factors(100_001));
        // Another seed, in its low or in its high half, is another mask: two of 10 % agree on about 82 % of the places.
        for seed in [4, 3 + (1 << 32)] {
            let others = DropoutMask::new(seed, 0.1).factors(100_001);
            let equal = others.iter().zip(&factors).filter(|(a, b)| a == b).count() as f64 / 100_001.0;
            assert!((equal - 0.82).abs() < 0.01, "{equal}");
        }
    }
}
