//! MLPs with products in bf16.

use std::cell::RefCell;
use std::iter::once;
use std::sync::OnceLock;

use burn::backend::flex::FlexTensor;
use burn::tensor::Tensor;

use crate::arguments::mlp_shape::MlpShape;
use crate::cpu::autograd::{Input, Values, custom_op, flex_tensor};
use crate::cpu::bf16::product::{Rows, block_of_columns, side_by_side, with_kept};
use crate::cpu::bf16::row_sums::panels::{Panel, Side, panels_of_chunk, push};
use crate::cpu::bf16::row_sums::sums::{Factor, row_sums};
use crate::cpu::bf16::tile::BLOCK;
use crate::cpu::bf16::unit::{Ready, Unit};
use crate::cpu::bf16::weights::{Weight, padded_rows};
use crate::cpu::chunks::{CHUNK_ROWS, chunk_ends};
use crate::cpu::column_sums::{add_rows, column_sums};
use crate::cpu::gemm::Matrix;
use crate::cpu::uninit::{Scratch, Uninit, par_groups, write_parts};
use crate::ops::activation::Activation;

#[derive(Debug, Clone)]
struct Saved {
    unit: Unit,
    shape: MlpShape,
    x: Values,
    up: Values,
    down: Values,
    /// The input of the activation: of each chunk of rows, blocks of 32 columns, with rows and columns that fill them
    /// up.
    before: Values,
}

/// Inputs: `x`, then weight and bias of the first layer, then of the second. No size is 0.
pub(crate) fn mlp(unit: Unit, inputs: [Input; 5], shape: MlpShape) -> Tensor<2> {
    custom_op(inputs, move |values, tracked| forward(unit, shape, values, tracked), backward)
}

/// Saves nothing unless `tracked`.
fn forward(
    unit: Unit,
    shape: MlpShape,
    [x, up, up_bias, down, down_bias]: &[Values; 5],
    tracked: bool,
) -> (FlexTensor, Option<Saved>) {
    let MlpShape { rows, input, hidden, output, activation, .. } = shape;
    let layers = [
        Weight::packed(Matrix::new(up.get(), hidden), shape.up_has_bias.then(|| up_bias.get())),
        Weight::packed(Matrix::new(down.get(), output), shape.down_has_bias.then(|| down_bias.get())),
    ];
    let matrix = Matrix::new(x.get(), input);
    let (padded, width) = (rows.next_multiple_of(BLOCK), layers[0].blocks() * BLOCK);
    let cols = [output, if tracked { width } else { 0 }];
    let [mut values, before] = par_groups(&chunk_ends(padded, CHUNK_ROWS), cols, |first, [out, before]| {
        let ready = unit.on_this_thread();
        with_kept(|[memory, inner_memory, ..]| {
            let x = padded_rows(memory, matrix.rows(first, CHUNK_ROWS.min(rows - first)));
            let inner = Rows::room(inner_memory, x.count, hidden);
            let size = x.count * BLOCK;
            let after = RefCell::new((Scratch::new(BLOCK * BLOCK), inner));
            let up = Up { ready: &ready, x: &x, up: &layers[0], activation, after };
            let before = if tracked {
                write_parts(before, size, 0..layers[0].blocks(), |block, out| up.block(block, out))
            } else {
                let mut scratch = Scratch::new(size);
                for block in 0..layers[0].blocks() {
                    up.block(block, scratch.uninit(size));
                }
                &mut []
            };
            let (_, inner) = up.after.into_inner();
            [side_by_side(&ready, &inner, once((layers[1].columns(), &layers[1].bias[..])), out), before]
        })
    });
    values.truncate(rows * output);
    let saved = || {
        let before = Values::from(flex_tensor(before, [padded, width]));
        Saved { unit, shape, x: x.clone(), up: up.clone(), down: down.clone(), before }
    };
    (flex_tensor(values, [rows, output]), tracked.then(saved))
}

/// The first layer of a chunk of rows.
struct Up<'a> {
    ready: &'a Ready,
    x: &'a Rows<'a>,
    up: &'a Weight,
    activation: Activation,
    /// Memory, and the outputs of the activation, rounded.
    after: RefCell<(Scratch, Rows<'a>)>,
}

impl Up<'_> {
    /// Inputs of the activation, 32 of each row. Their activations are one tile of the next product, and are packed
    /// while they are in a core's cache.
    fn block<'o>(&self, block: usize, out: &'o mut Uninit) -> &'o mut [f32] {
        let columns = self.up.columns().of_blocks(block..block + 1);
        let (scratch, inner) = &mut *self.after.borrow_mut();
        block_of_columns(self.ready, self.x, columns, &self.up.bias[block], out, |row_block, before| {
            let after = self.activation.map(scratch.uninit(before.len()), before);
            self.ready.round(after, row_block * BLOCK, [block, inner.depth], inner.tiles);
        })
    }
}

/// What the backward pass of a chunk of rows leaves for sums over all rows.
#[derive(Default)]
struct OfChunk {
    /// Factors of the gradients of both weights: the input of a layer, and the gradient of its output.
    up: [Vec<Panel>; 2],
    down: [Vec<Panel>; 2],
    /// The sums of the gradients of hidden values.
    up_bias: Vec<f32>,
}

fn backward(saved: Option<Saved>, gradient: Values, needed: [bool; 5]) -> [Option<FlexTensor>; 5] {
    let Some(saved) = saved else {
        unreachable!("`custom_op` runs the backward function only after a tracked forward function, which saves")
    };
    let Saved { unit, shape: MlpShape { rows, input, hidden, output, .. }, .. } = saved;
    let gradient = Matrix::new(gradient.get(), output);
    let chunks: Vec<OnceLock<OfChunk>> = chunk_ends(rows, CHUNK_ROWS).iter().map(|_| OnceLock::new()).collect();
    let weight = |values: &Values, cols: usize| Weight::transposed(&[Matrix::new(values.get(), cols)]);
    let task = Backward {
        saved: &saved,
        gradient,
        needed,
        up: needed[0].then(|| weight(&saved.up, hidden)),
        down: needed[..3].contains(&true).then(|| weight(&saved.down, output)),
    };
    let ends = chunk_ends(rows.next_multiple_of(BLOCK), CHUNK_ROWS);
    let [mut of_x] = par_groups(&ends, [if needed[0] { input } else { 0 }], |first, [out]| {
        let (out, of_chunk) = task.chunk(first, out);
        let _first_time = chunks[first / CHUNK_ROWS].set(of_chunk);
        [out]
    });
    of_x.truncate(rows * input);
    let chunks: Vec<OfChunk> = chunks.into_iter().filter_map(OnceLock::into_inner).collect();
    let mut up_bias = vec![0.0; hidden];
    let (mut of_up, mut of_down) = <([Vec<Vec<Panel>>; 2], [Vec<Vec<Panel>>; 2])>::default();
    for OfChunk { up, down, up_bias: sums } in chunks {
        of_up.iter_mut().zip(up).for_each(|(all, panels)| all.push(panels));
        of_down.iter_mut().zip(down).for_each(|(all, panels)| all.push(panels));
        up_bias.iter_mut().zip(sums).for_each(|(sum, value)| *sum += value);
    }
    let of_weight = |[left, right]: &[Vec<Vec<Panel>>; 2], [input, output]: [usize; 2]| {
        flex_tensor(row_sums(unit, Factor::new(left, input, 0), Factor::new(right, output, 0)), [input, output])
    };
    [
        needed[0].then(|| flex_tensor(of_x, [rows, input])),
        needed[1].then(|| of_weight(&of_up, [input, hidden])),
        needed[2].then(|| flex_tensor(up_bias, [hidden])),
        needed[3].then(|| of_weight(&of_down, [hidden, output])),
        needed[4].then(|| flex_tensor(column_sums(gradient), [output])),
    ]
}

struct Backward<'a> {
    saved: &'a Saved,
    gradient: Matrix<'a>,
    needed: [bool; 5],
    /// The transposed weights, where they are needed.
    up: Option<Weight>,
    down: Option<Weight>,
}

impl Backward<'_> {
    /// The gradients of the rows of `x` from `first` on, written to `out` if they are needed, and factors of sums.
    fn chunk<'o>(&self, first: usize, out: &'o mut Uninit) -> (&'o mut [f32], OfChunk) {
        let Saved { unit, shape, x, before, .. } = self.saved;
        let MlpShape { rows, input, hidden, activation, .. } = *shape;
        let [_, up_needed, up_bias_needed, down_needed, _] = self.needed;
        let count = CHUNK_ROWS.min(rows - first);
        let gradient = self.gradient.rows(first, count);
        let mut of_chunk = OfChunk::default();
        if up_needed {
            of_chunk.up[0] = panels_of_chunk(Matrix::new(x.get(), input).rows(first, count), Side::Left);
        }
        if down_needed {
            of_chunk.down[1] = panels_of_chunk(gradient, Side::Right);
        }
        let (size, width) = (count.next_multiple_of(BLOCK) * BLOCK, hidden.next_multiple_of(BLOCK));
        let before = before.get()[first * width..][..size / BLOCK * width].chunks_exact(size);
        let mut scratch = Scratch::new(size);
        if down_needed {
            of_chunk.down[0].reserve_exact(width / BLOCK);
            for before in before.clone() {
                let after = activation.map(scratch.uninit(size), before);
                push(&mut of_chunk.down[0], Matrix::new(after, BLOCK).rows(0, count), Side::Left);
            }
        }
        let Some(down) = &self.down else { return (&mut [], of_chunk) };
        let ready = unit.on_this_thread();
        let out = with_kept(|[memory, inner_memory, ..]| {
            let gradient = padded_rows(memory, gradient);
            let inner = Rows::room(inner_memory, gradient.count, hidden);
            for (block, before) in before.enumerate() {
                let columns = down.columns().of_blocks(block..block + 1);
                let take = |row_block: usize, values: &mut [f32]| {
                    activation.multiply_slope(values, &before[row_block * BLOCK * BLOCK..][..BLOCK * BLOCK]);
                    if self.up.is_some() {
                        ready.round(values, row_block * BLOCK, [block, inner.depth], inner.tiles);
                    }
                };
                let of_hidden = block_of_columns(&ready, &gradient, columns, &[0.0; BLOCK], scratch.uninit(size), take);
                let values = Matrix::new(of_hidden, BLOCK).rows(0, count);
                if up_needed {
                    push(&mut of_chunk.up[1], values, Side::Right);
                }
                if up_bias_needed {
                    let mut sums = [0.0; BLOCK];
                    add_rows(&mut sums, values);
                    of_chunk.up_bias.extend_from_slice(&sums);
                }
            }
            match &self.up {
                Some(up) => side_by_side(&ready, &inner, once((up.columns(), &up.bias[..])), out),
                None => &mut [],
            }
        });
        (out, of_chunk)
    }
}
