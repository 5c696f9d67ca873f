//! Dropout and the residual sum as one kernel.

use burn::tensor::Tensor;

use crate::arguments::dropout_mask::DropoutMask;
use crate::cube::extension::ops;
use crate::cube::support::{has_addresses, properties};
use crate::portable::graph::{with_gradient, with_gradients};

fn takes<const D: usize>(x: &Tensor<D>) -> bool {
    has_addresses(x.dims().iter().product()) && properties(x).is_some()
}

/// The dropout of `x`; `None` unless the kernel takes it.
pub(crate) fn dropout<const D: usize>(x: &Tensor<D>, mask: DropoutMask) -> Option<Tensor<D>> {
    let apply = move |x| ops::dropped(None, x, mask);
    takes(x).then(|| with_gradient(x.clone(), apply, apply))
}

/// `x + dropout(branch)`; `None` unless the kernel takes it.
pub(crate) fn residual(x: &Tensor<2>, branch: &Tensor<2>, mask: DropoutMask) -> Option<Tensor<2>> {
    if !takes(branch) {
        return None;
    }
    let [base, values] = [x, branch].map(|x| x.clone().without_autodiff());
    let out = ops::dropped(Some(base), values, mask);
    if !x.is_autodiff() && !branch.is_autodiff() {
        return Some(out);
    }
    with_gradients([x, branch].map(|x| x.clone().into_dispatch()), out, move |gradient: Tensor<2>, needed| {
        let of_branch = needed[1].then(|| ops::dropped(None, gradient.clone(), mask).into_dispatch());
        [needed[0].then(|| gradient.into_dispatch()), of_branch]
    })
}
