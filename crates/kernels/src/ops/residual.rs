//! The sum at the end of a residual branch, with the branch's scale and dropout in the same pass.

use burn::tensor::Tensor;

use crate::arguments::dropout_mask::DropoutMask;

/// `x + scale * dropout(branch)`, `[rows, width]`, of `x` and `branch` `[rows, width]` and `scale` `[width]`.
///
/// # Panics
///
/// If `branch` has another shape than `x`, or `scale` is not as long as a row.
pub fn residual(x: Tensor<2>, branch: Tensor<2>, scale: Option<Tensor<1>>, mask: Option<DropoutMask>) -> Tensor<2> {
    #[cfg(feature = "flex")]
    if let Some(y) = fused::residual(&x, &branch, scale.as_ref(), mask) {
        return y;
    }
    #[cfg(feature = "cube")]
    if let (Some(mask), None) = (mask, &scale)
        && let Some(y) = crate::cube::dropout::residual(&x, &branch, mask)
    {
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

    use crate::arguments::dropout_mask::DropoutMask;
    use crate::cpu::autograd::{Input, Values, custom_op, flex_tensor, supports_fused};
    use crate::cpu::chunks::CHUNK_ROWS;
    use crate::cpu::column_sums::column_sums;
    use crate::cpu::gemm::Matrix;
    use crate::cpu::simd::vectorised;
    use crate::cpu::uninit::{Uninit, par_rows, write};
    use crate::ops::dropout::fused::masked;

    /// Some rows of the inputs.
    struct Rows<'a> {
        x: &'a [f32],
        branch: &'a [f32],
        scale: Option<&'a [f32]>,
        mask: Option<DropoutMask>,
        /// Dropout position of the first value.
        first: usize,
    }

    vectorised! {
        fn add_branch(out: &'o mut Uninit, rows: Rows<'a>) -> &'o mut [f32] {
            let Rows { x, branch, scale, mask, first } = rows;
            match (mask, scale) {
                (None, None) => write(out, |i| x[i] + branch[i]),
                (Some(mask), None) => {
                    let mask = mask.starting_at(first as u64);
                    write(out, |i| branch[i].mul_add(mask.factor(i), x[i]))
                }
                (mask, Some(scale)) => {
                    let out = match mask {
                        Some(mask) => {
                            let mask = mask.starting_at(first as u64);
                            write(out, |i| branch[i] * mask.factor(i))
                        }
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
    struct Saved {
        /// The branch, if there is a scale.
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
        if !supports_fused(x) {
            return None;
        }
        let shape @ [rows, width] = x.dims();
        assert_eq!(branch.dims(), shape, "shape of a residual branch");
        assert!(scale.is_none_or(|scale| scale.dims() == [width]), "length of the scale of a residual branch");
        let scaled = scale.is_some();
        let inputs = [Input::new(x.clone())?, Input::new(branch.clone())?, Input::optional(scale)?];
        let forward = move |[x, branch, scale]: &[Values; 3], _| {
            let values = par_rows(rows, width, |first, out| {
                let range = first * width..first * width + out.len();
                let scale = scaled.then(|| scale.get());
                let (x, branch) = (&x.get()[range.clone()], &branch.get()[range.clone()]);
                add_branch(out, Rows { x, branch, scale, mask, first: range.start })
            });
            let saved =
                Saved { branch: scaled.then(|| branch.clone()), scale: scaled.then(|| scale.clone()), mask, shape };
            (flex_tensor(values, shape), saved)
        };
        Some(custom_op(inputs, forward, backward))
    }

    fn backward(saved: Saved, gradient: Values, needed: [bool; 3]) -> [Option<FlexTensor>; 3] {
        let Saved { branch, scale, mask, shape: shape @ [rows, width] } = saved;
        let unchanged = mask.is_none() && scale.is_none();
        // The gradient after dropout, before the scale.
        let dropped = match mask {
            Some(mask) => Values::from(flex_tensor(masked(&gradient, mask), shape)),
            None => gradient.clone(),
        };
        let scale_gradient = branch.filter(|_| needed[2]).map(|branch| {
            let products = par_rows(rows, width, |first, out| {
                let range = first * width..first * width + out.len();
                let (gradient, branch) = (&dropped.get()[range.clone()], &branch.get()[range]);
                write(out, |i| gradient[i] * branch[i])
            });
            flex_tensor(column_sums(Matrix::new(&products, width)), [width])
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
                Some(flex_tensor(values, shape))
            }
        };
        [needed[0].then(|| gradient.into_tensor(shape)), branch_gradient, scale_gradient]
    }
}
