//! The rows of some sequences through a block, on one thread.

use crate::cpu::bf16::attention::{Softmax, attend_blocks};
use crate::cpu::bf16::layer::{Layer, mlp_blocks};
use crate::cpu::bf16::product::{Columns, Rows, each_block, with_kept, with_kept_sums};
use crate::cpu::bf16::tiles::{BLOCK, Sums, TILE_DEPTH, TILE_ROWS, Tile, pair_rows, transpose_pairs};
use crate::cpu::bf16::unit::Ready;
use crate::cpu::simd::vectorised;
use crate::ops::activation::Activation;
use crate::ops::layer_norm::fused::normalise_rows;

pub(crate) struct Norm<'a> {
    pub weight: &'a [f32],
    pub bias: Option<&'a [f32]>,
    pub epsilon: f32,
}

/// What is around a residual branch.
pub(crate) struct Scaled<'a> {
    pub norm: Norm<'a>,
    /// Factor of the branch's outputs.
    pub scale: Option<&'a [f32]>,
}

/// The layers of a block.
pub(crate) struct BlockRows<'a> {
    pub attention: Scaled<'a>,
    /// Query, key and value.
    pub projections: [&'a Layer; 3],
    pub output: &'a Layer,
    pub mlp: Scaled<'a>,
    pub up: &'a Layer,
    pub activation: Activation,
    pub down: &'a Layer,
    pub heads: usize,
    pub causal: bool,
}

/// A sequence within a task.
#[derive(Clone, Copy)]
struct Place {
    /// Its first row among those of the task.
    row: usize,
    /// Its first row in tiles in which each sequence starts with a block.
    tile_row: usize,
    count: usize,
}

impl BlockRows<'_> {
    /// Whether columns of heads and of the MLP are whole tiles.
    ///
    /// # Panics
    ///
    /// If the widths do not fit each other.
    pub fn takes(&self, width: usize) -> bool {
        let inner = self.output.input;
        assert!(self.projections.iter().all(|layer| (layer.input, layer.output) == (width, inner)), "widths of heads");
        let outputs = [self.output.output, self.up.input, self.down.output];
        assert!(outputs == [width; 3] && self.up.output == self.down.input, "widths of a packed block");
        for Scaled { norm, scale } in [&self.attention, &self.mlp] {
            let lengths = [Some(norm.weight), norm.bias, *scale].map(|values| values.map_or(width, <[f32]>::len));
            assert_eq!(lengths, [width; 3], "lengths of a norm and a scale");
        }
        let dims = [inner / self.heads.max(1), width, self.up.output];
        assert!(dims[0] * self.heads == inner && inner > 0, "{} heads do not divide a width of {inner}", self.heads);
        dims.into_iter().all(|columns| columns.is_multiple_of(TILE_DEPTH))
    }

    /// Replaces the rows of sequences of these `lengths` by the block's output.
    pub fn forward(&self, x: &mut [f32], lengths: &[usize]) {
        let ready = self.output.unit.on_this_thread();
        let width = self.output.output;
        with_kept(|tiles| {
            with_kept_sums(|sums| {
                let [normed, inner, of_heads @ ..] = tiles;
                let rows = norm_rows(&ready, x, &self.attention.norm, normed);
                let attended = Rows::room(inner, rows.count, self.output.input);
                self.attend(&ready, &rows, lengths, (of_heads, &mut sums[0]), attended.tiles);
                let add = |at, sums: &mut [f32]| add_branch(x, width, at, sums, self.attention.scale);
                each_block(&ready, &attended, self.output.columns(), &self.output.bias, add);

                let rows = norm_rows(&ready, x, &self.mlp.norm, normed);
                let add = |at, sums: &mut [f32]| add_branch(x, width, at, sums, self.mlp.scale);
                let activation = |x: &mut [f32]| self.activation.replace(x);
                mlp_blocks(&ready, [self.up, self.down], activation, &rows, (inner, &mut sums[1]), add);
            });
        });
    }

    /// Packs the outputs of all heads.
    fn attend(
        &self,
        ready: &Ready,
        rows: &Rows<'_>,
        lengths: &[usize],
        (memory, scores): (&mut [Vec<Tile>; 5], &mut Vec<Sums>),
        attended: &mut [Tile],
    ) {
        let places = places(lengths);
        let all_rows = places.last().map_or(0, |place| (place.tile_row + place.count).next_multiple_of(BLOCK));
        let (dim, columns) = (self.output.input / self.heads, self.output.input / TILE_DEPTH);
        let depth = dim / TILE_DEPTH;
        let softmax = Softmax { scale: (dim as f32).sqrt().recip(), causal: self.causal };
        let [queries, keys, values, paired, exponentials] = memory;
        for head in 0..self.heads {
            let blocks = head * depth..(head + 1) * depth;
            let [queries, keys, values] =
                [(0, &mut *queries), (1, &mut *keys), (2, &mut *values)].map(|(n, memory)| {
                    let (layer, tiles) = (self.projections[n], Rows::room(memory, all_rows, dim).tiles);
                    let weight = layer.columns().of_blocks(blocks.clone());
                    each_block(ready, rows, weight, &layer.bias[blocks.clone()], |[row_block, at], sums| {
                        for (place, part) in parts(&places, row_block * BLOCK, sums) {
                            ready.round(part, place, [at, depth], tiles);
                        }
                    });
                    tiles
                });
            transpose_pairs(keys);
            for &Place { row, tile_row, count } in &places {
                let tiles = tile_row / TILE_ROWS * depth..(tile_row / TILE_ROWS + 2 * count.div_ceil(BLOCK)) * depth;
                let queries = Rows { tiles: &mut queries[tiles.clone()], count, depth };
                let keys = Columns { tiles: &keys[tiles.clone()], count, depth };
                let values = Columns::room(paired, count, dim, |paired| pair_rows(&values[tiles], count, paired));
                let factors = (&queries, keys, values);
                attend_blocks(ready, factors, softmax, (scores, exponentials), |[row_block, at], sums| {
                    ready.round(sums, row + row_block * BLOCK, [head * depth + at, columns], attended);
                });
            }
        }
    }
}

fn places(lengths: &[usize]) -> Vec<Place> {
    let next = |place: &mut Place, &count: &usize| {
        let now = Place { count, ..*place };
        *place = Place { row: now.row + count, tile_row: now.tile_row + count.next_multiple_of(BLOCK), count: 0 };
        Some(now)
    };
    lengths.iter().scan(Place { row: 0, tile_row: 0, count: 0 }, next).collect()
}

/// The sums of a block from row `first` on, cut where a sequence ends, each with its row in tiles.
fn parts<'a>(places: &'a [Place], first: usize, sums: &'a [f32]) -> impl Iterator<Item = (usize, &'a [f32])> {
    let end = first + sums.len() / BLOCK;
    let start = places.partition_point(|place| place.row + place.count <= first);
    places[start..].iter().take_while(move |place| place.row < end).map(move |place| {
        let (from, to) = (place.row.max(first), (place.row + place.count).min(end));
        (place.tile_row + from - place.row, &sums[(from - first) * BLOCK..(to - first) * BLOCK])
    })
}

/// Packs the norms of rows.
fn norm_rows<'m>(ready: &Ready, x: &[f32], norm: &Norm<'_>, memory: &'m mut Vec<Tile>) -> Rows<'m> {
    let width = norm.weight.len();
    let rows = Rows::room(memory, x.len() / width, width);
    // As many rows at a time as stay in the nearest cache.
    let mut normed = vec![0.0; TILE_ROWS * width];
    for (group, x) in x.chunks(normed.len()).enumerate() {
        let normed = &mut normed[..x.len()];
        normed.copy_from_slice(x);
        normalise_rows(&mut *normed, norm.weight, norm.bias, norm.epsilon);
        for (row, normed) in normed.chunks_exact(width).enumerate() {
            ready.round_row(normed, group * TILE_ROWS + row, rows.depth, rows.tiles);
        }
    }
    rows
}

/// Adds a block of a branch to the rows of `x`, as [`residual`](crate::residual) does.
fn add_branch(x: &mut [f32], width: usize, [row_block, block]: [usize; 2], sums: &[f32], scale: Option<&[f32]>) {
    let at = block * BLOCK;
    let scale = scale.map(|scale| &scale[at..][..BLOCK]);
    add_rows(&mut x[row_block * BLOCK * width + at..], width, sums, scale);
}

vectorised! {
    fn add_rows(x: &'a mut [f32], width: usize, sums: &'a [f32], scale: Option<&'a [f32]>) {
        for (x, sums) in x.chunks_mut(width).zip(sums.chunks_exact(BLOCK)) {
            let values = x.iter_mut().zip(sums);
            match scale {
                Some(scale) => values.zip(scale).for_each(|((x, sum), scale)| *x = sum.mul_add(*scale, *x)),
                None => values.for_each(|(x, sum)| *x += sum),
            }
        }
    }
}
