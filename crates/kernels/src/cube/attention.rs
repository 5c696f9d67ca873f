//! Attention over packed sequences as one kernel, and one for its gradient. No scores are written to memory, except for
//! long sequences of one length outside of the graph, where products as matrices are faster.

use burn::tensor::{Int, IntDType, Tensor, TensorData};

use crate::arguments::sequences::Sequences;
use crate::cube::extension::{AttentionCall, ops};
use crate::cube::kernels::attention::Form;
use crate::cube::support::{has_addresses, plane_size, properties};
use crate::portable::graph::with_gradients;
use crate::portable::products::product;
use crate::portable::transfers::upload;

/// Rows of the longest sequence that one kernel takes, at most: a unit visits them one after the other.
const LONGEST: usize = 128;

/// Columns of a head, at most: a unit holds five rows of a head in registers.
const WIDEST: usize = 64;

/// Rows of a head are padded to a multiple of this where scores are matrices, so that each of their rows begins at a
/// multiple of 16 bytes in half precision, which fast loads and stores need.
const ALIGNED_ROWS: usize = 8;

/// How attention is computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Route {
    /// One kernel for everything.
    Packed,
    /// Products of matrices, outside of the graph, and a kernel between them.
    Products,
}

/// Whether there is a route for heads of `dim` columns.
pub(crate) fn takes(x: &Tensor<2>, tracked: bool, sequences: &Sequences, dim: usize) -> bool {
    route(x, tracked, sequences, dim).is_some()
}

fn route(x: &Tensor<2>, tracked: bool, sequences: &Sequences, dim: usize) -> Option<Route> {
    let Sequences { lengths, heads, causal, dropout: _ } = sequences;
    let (properties, longest) = (properties(x)?, lengths.iter().copied().max()?);
    let bytes = 2 * capacity(longest) * (dim + 1) * size_of::<f32>();
    let padded = longest.next_multiple_of(ALIGNED_ROWS);
    let values = 3 * heads * dim * lengths.iter().sum::<usize>().max(lengths.len() * padded);
    let is_addressed = has_addresses(lengths.len() * heads * padded * padded) && has_addresses(values);
    let packed = longest <= LONGEST
        && dim <= WIDEST
        && bytes <= properties.hardware.max_shared_memory_size
        && lengths.len() < properties.hardware.max_cube_count.0 as usize;
    let products = !causal && !tracked && lengths.iter().all(|&length| length == longest);
    match packed {
        _ if !is_addressed => None,
        true => Some(Route::Packed),
        false => (products && plane_size(x, padded).is_some()).then_some(Route::Products),
    }
}

/// Rows that shared memory has room for: few sizes, since each is compiled.
fn capacity(longest: usize) -> usize {
    longest.next_multiple_of(32)
}

/// [`attention`](crate::attention); `None` unless the kernels take it.
pub(crate) fn attention(qkv: &Tensor<2>, sequences: &Sequences) -> Option<Tensor<2>> {
    let Sequences { lengths, heads, causal, dropout } = sequences;
    let ([rows, triple], longest) = (qkv.dims(), lengths.iter().copied().max()?);
    let dim = triple / 3 / heads;
    if route(qkv, qkv.is_autodiff(), sequences, dim)? == Route::Products {
        let padded = longest.next_multiple_of(ALIGNED_ROWS);
        let [query, key, value] = ops::split_heads(qkv.clone(), *heads, longest, padded);
        let scores = product(query, key, [false, true]);
        let weights = ops::softmax(scores, longest, (dim as f32).sqrt().recip());
        return Some(ops::merge_heads(product(weights, value, [false; 2]), longest));
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
    let starts = upload::<1, Int>(starts, &qkv.device().without_autodiff()).cast(IntDType::I32);
    let form = Form { dim, capacity: capacity(longest), causal: *causal, drops: dropout.is_some() };
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
