//! Linear layers with packed weights, on one thread.

use crate::cpu::bf16::product::{Columns, Rows, side_by_side, whole_blocks, with_kept};
use crate::cpu::bf16::tiles::{BLOCK, Tile, depth_tiles, pack_columns, pack_weight, width_tiles};
use crate::cpu::bf16::unit::Unit;
use crate::cpu::gemm::Matrix;
use crate::cpu::uninit::{Scratch, Uninit};

/// A linear layer with its weight in bf16.
pub(crate) struct Layer {
    unit: Unit,
    /// As [`pack_weight`] packs them.
    tiles: Vec<Tile>,
    /// For each block of columns; zeros where there is none.
    bias: Vec<[f32; BLOCK]>,
    pub input: usize,
    pub output: usize,
}

impl Layer {
    /// `weight` is `[input, output]`, row-major; neither may be 0.
    pub fn new(unit: Unit, weight: &[f32], bias: Option<&[f32]>, [input, output]: [usize; 2]) -> Self {
        assert!(input > 0 && output > 0, "a packed layer has no inputs or no outputs");
        assert_eq!(Some(weight.len()), input.checked_mul(output), "size of the weight of a packed layer");
        assert!(bias.is_none_or(|bias| bias.len() == output), "length of the bias of a packed layer");
        let mut blocks = vec![[0.0; BLOCK]; output.div_ceil(BLOCK)];
        for (block, values) in blocks.iter_mut().zip(bias.unwrap_or_default().chunks(BLOCK)) {
            block[..values.len()].copy_from_slice(values);
        }
        let mut tiles = vec![Tile::ZERO; width_tiles(output) * depth_tiles(input)];
        pack_weight(Matrix::new(weight, output), &mut tiles);
        Self { unit, tiles, bias: blocks, input, output }
    }

    fn columns(&self) -> Columns<'_> {
        Columns { tiles: &self.tiles, count: self.output, depth: depth_tiles(self.input) }
    }
}

/// `x W + b` of each of `layers`, side by side: `[rows, outputs of all]`. They have the same inputs, the columns of
/// `x`.
///
/// # Panics
///
/// If the shapes do not fit, or there is no layer.
pub(crate) fn affine<'o>(layers: &[&Layer], x: Matrix<'_>, out: &'o mut Uninit) -> &'o mut [f32] {
    assert!(layers.iter().all(|layer| layer.input == x.num_cols()), "columns of the input of linear layers");
    let ready = layers[0].unit.on_this_thread();
    with_kept(|[memory, ..]| {
        let rows = Rows::packed(memory, x);
        side_by_side(&ready, &rows, layers.iter().map(|layer| (layer.columns(), &layer.bias[..])), out)
    })
}

/// `activation(x W_up + b_up) W_down + b_down`, `[rows, outputs of down]`. `activation` writes to its first argument,
/// and takes 0 to 0.
///
/// # Panics
///
/// If the shapes do not fit.
pub(crate) fn mlp<'o>(
    up: &Layer,
    activation: impl for<'a> Fn(&'a mut Uninit, &[f32]) -> &'a mut [f32],
    down: &Layer,
    x: Matrix<'_>,
    out: &'o mut Uninit,
) -> &'o mut [f32] {
    assert_eq!(up.input, x.num_cols(), "columns of the input of an MLP");
    assert_eq!(up.output, down.input, "inner width of an MLP");
    let ready = up.unit.on_this_thread();
    with_kept(|[memory, inner_memory, ..]| {
        let rows = Rows::packed(memory, x);
        let inner = Rows::room(inner_memory, rows.count, down.input);
        let size = rows.blocks() * BLOCK * BLOCK;
        let [mut before, mut after] = [Scratch::new(size), Scratch::new(size)];
        // 32 inner values of all rows at a time: they are one tile of the next product, and stay in a core's cache.
        for (block, bias) in up.bias.iter().enumerate() {
            let columns = up.columns().of_block(block);
            let before = whole_blocks(&ready, &rows, columns, std::slice::from_ref(bias), before.uninit(size));
            pack_columns(activation(after.uninit(size), before), block, inner.depth, inner.tiles);
        }
        side_by_side(&ready, &inner, std::iter::once((down.columns(), &down.bias[..])), out)
    })
}
