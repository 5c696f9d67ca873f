//! The rows of some sequences through a block, on one thread.

use crate::cpu::bf16::attention::{Softmax, attend_blocks};
use crate::cpu::bf16::layer::{Layer, mlp_blocks};
use crate::cpu::bf16::packing::{pair_rows, transpose_pairs};
use crate::cpu::bf16::product::{Columns, Rows, each_block, with_kept, with_kept_sums};
use crate::cpu::bf16::tile::{BLOCK, Sums, TILE_DEPTH, TILE_ROWS, Tile};
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::bf16::attention::attend;
    use crate::cpu::bf16::layer::{affine, mlp};
    use crate::cpu::bf16::unit::Unit;
    use crate::cpu::gemm::Matrix;
    use crate::cpu::uninit::par_rows;
    use crate::tests::numbers;

    fn linear(layers: &[&Layer], x: &[f32]) -> Vec<f32> {
        let cols = layers.iter().map(|layer| layer.output).sum();
        let x = Matrix::new(x, layers[0].input);
        par_rows(x.num_rows(), cols, |first, out| affine(layers, x.rows(first, out.len() / cols), out))
    }

    fn add(x: &mut [f32], branch: &[f32], scale: Option<&[f32]>) {
        for (n, (x, branch)) in x.iter_mut().zip(branch).enumerate() {
            *x = scale.map_or(*x + branch, |scale| branch.mul_add(scale[n % scale.len()], *x));
        }
    }

    fn normed(x: &[f32], norm: &Norm<'_>) -> Vec<f32> {
        let mut x = x.to_vec();
        normalise_rows(&mut x, norm.weight, norm.bias, norm.epsilon);
        x
    }

    /// The operations one by one.
    fn one_by_one(block: &BlockRows<'_>, x: &[f32], lengths: &[usize]) -> Vec<f32> {
        let (mut x, width, inner) = (x.to_vec(), block.output.output, block.output.input);
        let dim = inner / block.heads;
        let softmax = Softmax { scale: (dim as f32).sqrt().recip(), causal: block.causal };
        let qkv = linear(&block.projections, &normed(&x, &block.attention.norm));
        let (mut attended, mut first) = (vec![0.0; x.len() / width * inner], 0);
        for &count in lengths {
            let rows = Matrix::new(&qkv, 3 * inner).rows(first, count);
            for head in 0..block.heads {
                let factors = [0, 1, 2].map(|part| rows.cols(part * inner + head * dim, dim));
                let out = &mut attended[first * inner + head * dim..(first + count) * inner];
                attend(&block.output.unit.on_this_thread(), factors, softmax, (out, inner));
            }
            first += count;
        }
        add(&mut x, &linear(&[block.output], &attended), block.attention.scale);
        let normed = normed(&x, &block.mlp.norm);
        let normed = Matrix::new(&normed, width);
        let branch = par_rows(normed.num_rows(), width, |first, out| {
            let rows = normed.rows(first, out.len() / width);
            mlp(block.up, |x| block.activation.replace(x), block.down, rows, out)
        });
        add(&mut x, &branch, block.mlp.scale);
        x
    }

    fn scaled([weight, bias, scale]: &[Vec<f32>; 3]) -> Scaled<'_> {
        Scaled { norm: Norm { weight, bias: Some(bias), epsilon: 1e-5 }, scale: Some(scale) }
    }

    /// Bit for bit, also where an earlier task left numbers in memory that are not finite.
    #[test]
    fn a_block_is_its_operations_on_every_unit() {
        let (width, heads, hidden) = (64, 2, 96);
        let lengths = [33, 40, 70, 32];
        let rows = lengths.iter().sum::<usize>();
        let [attention, mlp] = [1, 2].map(|seed| [0, 1, 2].map(|n| numbers(10 * seed + n, width)));
        for unit in Unit::all_tested() {
            let layer = |seed, [input, output]: [usize; 2]| {
                let weight: Vec<f32> = numbers(seed, input * output).into_iter().map(|x| 0.2 * x).collect();
                Layer::new(unit, &weight, Some(&numbers(seed + 1, output)), [input, output])
            };
            let projections = [3, 5, 7].map(|seed| layer(seed, [width, width]));
            let output = layer(9, [width, width]);
            let (up, down) = (layer(11, [width, hidden]), layer(13, [hidden, width]));
            for (activation, causal) in [(Activation::Gelu, false), (Activation::QuickGelu, true)] {
                let block = BlockRows {
                    attention: scaled(&attention),
                    projections: projections.each_ref(),
                    output: &output,
                    mlp: scaled(&mlp),
                    up: &up,
                    activation,
                    down: &down,
                    heads,
                    causal,
                };
                assert!(block.takes(width));
                let x = numbers(20, rows * width);
                let expected = one_by_one(&block, &x, &lengths);
                let mut found = x;
                block.forward(&mut vec![f32::NAN; 2 * rows * width], &[rows, rows]);
                block.forward(&mut found, &lengths);
                assert!(found.iter().all(|value| value.is_finite()), "{unit:?}, {activation:?}");
                assert!(found == expected, "{unit:?}, {activation:?}");
            }
        }
    }
}
