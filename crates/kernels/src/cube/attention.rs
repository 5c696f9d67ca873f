//! Attention over packed sequences as one kernel, and one for its gradient. No scores are written to memory.

use burn::tensor::{Int, IntDType, Tensor, TensorData};

use crate::cube::attention_kernels::Form;
use crate::cube::extension::{AttentionCall, ops};
use crate::cube::support::properties;
use crate::ops::attention::Sequences;
use crate::portable::graph::with_gradients;

/// Rows of the longest sequence, at most: a unit visits them one after the other, so that products as matrices are
/// faster for longer ones.
const LONGEST: usize = 128;

/// Columns of a head, at most: a unit holds five rows of a head in registers.
const WIDEST: usize = 64;

/// Whether the kernels take sequences of these lengths, with heads of `dim` columns.
pub(crate) fn takes<const D: usize>(x: &Tensor<D>, sequences: usize, longest: usize, heads: usize, dim: usize) -> bool {
    if longest > LONGEST || dim > WIDEST {
        return false;
    }
    let Some(properties) = properties(x) else { return false };
    let bytes = 2 * form(longest, dim, false, false).capacity * (dim + 1) * size_of::<f32>();
    let positions = (sequences * heads * longest * longest) as u64;
    bytes <= properties.hardware.max_shared_memory_size
        && longest <= properties.hardware.max_cube_dim.0 as usize
        && sequences < properties.hardware.max_cube_count.0 as usize
        && positions < u64::from(u32::MAX)
}

/// Few sizes of shared memory, since each is compiled.
fn form(longest: usize, dim: usize, causal: bool, drops: bool) -> Form {
    Form { dim, capacity: longest.next_multiple_of(32), causal, drops }
}

/// [`attention`](crate::attention); `None` unless the kernels take it.
pub(crate) fn attention(qkv: &Tensor<2>, sequences: &Sequences) -> Option<Tensor<2>> {
    let Sequences { lengths, heads, causal, dropout } = sequences;
    let ([rows, triple], longest) = (qkv.dims(), lengths.iter().copied().max()?);
    let dim = triple / 3 / heads;
    if !takes(qkv, lengths.len(), longest, *heads, dim) {
        return None;
    }
    let mut starts: Vec<i32> = vec![0];
    let mut end = 0;
    for length in lengths.iter() {
        end += length;
        starts.push(end as i32);
    }
    assert!(end <= rows, "{end} rows of sequences among {rows}");
    starts.push(rows as i32);
    let starts = TensorData::new(starts, [lengths.len() + 2]);
    let starts = Tensor::<1, Int>::from_data(starts, &qkv.device().without_autodiff()).cast(IntDType::I32);
    let form = form(longest, dim, *causal, dropout.is_some());
    let call = AttentionCall { sequences: lengths.len(), heads: *heads, longest, form, dropout: *dropout };
    let values = qkv.clone().without_autodiff();
    let [out, log_sums] = ops::attention(values.clone(), starts.clone(), call.clone());
    if !qkv.is_autodiff() {
        return Some(out);
    }
    let saved = [values, out.clone(), log_sums];
    with_gradients([qkv.clone().into_dispatch()], out, move |gradient: Tensor<2>, _| {
        let of_qkv = ops::attention_backward(saved.clone(), starts.clone(), gradient, call.clone());
        [Some(of_qkv.into_dispatch())]
    })
}
