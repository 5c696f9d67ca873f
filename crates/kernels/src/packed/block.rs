//! A whole block of a transformer with packed linear layers.

use burn::tensor::Tensor;

use crate::arguments::sequences::Sequences;
use crate::ops::activation::Activation;
use crate::packed::layers::PackedLinear;

/// A layer norm (Ba et al., 2016, arXiv:1607.06450).
#[derive(Debug)]
pub struct PackedNorm {
    /// `[width]`.
    pub weight: Tensor<1>,
    /// `[width]`.
    pub bias: Option<Tensor<1>>,
    /// Added to the variance.
    pub epsilon: f64,
}

/// A block with norms before attention and MLP.
#[derive(Debug)]
pub struct PackedBlock<'a> {
    /// The norm of the attention's input.
    pub attention_norm: PackedNorm,
    /// Query, key and value.
    pub projections: [&'a PackedLinear; 3],
    /// The layer behind attention.
    pub output: &'a PackedLinear,
    /// Factor of the attention's outputs, `[width]`.
    pub attention_scale: Option<Tensor<1>>,
    /// The norm of the MLP's input.
    pub mlp_norm: PackedNorm,
    /// The first layer of the MLP.
    pub up: &'a PackedLinear,
    /// What is between the layers of the MLP.
    pub activation: Activation,
    /// The second layer of the MLP.
    pub down: &'a PackedLinear,
    /// Factor of the MLP's outputs, `[width]`.
    pub mlp_scale: Option<Tensor<1>>,
}

/// The output of a block for `x` `[rows, width]`, bit for bit what its operations compute one by one:
/// [`layer_norm`](crate::layer_norm), [`packed_linear`](crate::packed_linear),
/// [`packed_attention`](crate::packed_attention), [`packed_mlp`](crate::packed_mlp) and [`residual`](crate::residual).
/// Each task computes some sequences from start to end, in its core's cache.
///
/// `None` where the operations one by one are the faster form, or the only one: for fewer sequences than threads,
/// sequences of fewer than 32 rows, and widths that are not multiples of 32.
///
/// # Panics
///
/// If the shapes do not fit, a tensor is not `f32` on the CPU, or `sequences` have dropout.
pub fn packed_block(x: &Tensor<2>, block: &PackedBlock<'_>, sequences: &Sequences) -> Option<Tensor<2>> {
    #[cfg(feature = "flex")]
    return fused::block(x, block, sequences);
    #[cfg(not(feature = "flex"))]
    {
        let _ = (x, sequences);
        match block.output.layer {}
    }
}

#[cfg(feature = "flex")]
mod fused {
    use burn::backend::Flex;
    use burn::tensor::Tensor;

    use super::{PackedBlock, PackedNorm};
    use crate::arguments::sequences::Sequences;
    use crate::cpu::autograd::{Values, flex_tensor};
    use crate::cpu::bf16::attention::FEWEST_ROWS;
    use crate::cpu::uninit::{par_groups, write_copy};
    use crate::packed::block_rows::{BlockRows, Norm, Scaled};

    /// Rows of a task from which on more would not be faster: weights are read once for each task.
    const TASK_ROWS: usize = 256;

    fn values<const D: usize>(x: &Tensor<D>) -> Values {
        match Values::untracked(x) {
            Some(values) => values,
            None => panic!("a tensor of a packed block is not on the CPU"),
        }
    }

    /// The values of a norm and of the scale of its branch.
    struct Held {
        weight: Values,
        bias: Option<Values>,
        scale: Option<Values>,
    }

    impl Held {
        fn new(norm: &PackedNorm, scale: Option<&Tensor<1>>) -> Self {
            Self { weight: values(&norm.weight), bias: norm.bias.as_ref().map(values), scale: scale.map(values) }
        }

        fn scaled(&self, norm: &PackedNorm) -> Scaled<'_> {
            let Self { weight, bias, scale } = self;
            let bias = bias.as_ref().map(Values::get);
            let norm = Norm { weight: weight.get(), bias, epsilon: norm.epsilon as f32 };
            Scaled { norm, scale: scale.as_ref().map(Values::get) }
        }
    }

    pub fn block(x: &Tensor<2>, block: &PackedBlock<'_>, sequences: &Sequences) -> Option<Tensor<2>> {
        let [rows, width] = x.dims();
        let (lengths, heads) = (&sequences.lengths, sequences.heads);
        assert!(sequences.dropout.is_none(), "a packed block has no dropout");
        let threads = rayon::current_num_threads();
        if lengths.iter().sum::<usize>() != rows || lengths.len() < threads {
            return None;
        }
        let held = [
            Held::new(&block.attention_norm, block.attention_scale.as_ref()),
            Held::new(&block.mlp_norm, block.mlp_scale.as_ref()),
        ];
        let layers = BlockRows {
            attention: held[0].scaled(&block.attention_norm),
            projections: block.projections.map(|layer| &*layer.layer),
            output: &block.output.layer,
            mlp: held[1].scaled(&block.mlp_norm),
            up: &block.up.layer,
            activation: block.activation,
            down: &block.down.layer,
            heads,
            causal: sequences.causal,
        };
        if !layers.takes(width) || lengths.iter().any(|&length| length < FEWEST_ROWS) {
            return None;
        }
        let x = values(x);
        let tasks = tasks(lengths, threads);
        let ends: Vec<usize> = tasks.iter().map(|(first, lengths)| first + lengths.iter().sum::<usize>()).collect();
        let [values] = par_groups(&ends, [width], |first, [out]| {
            let Ok(task) = tasks.binary_search_by_key(&first, |(first, _)| *first) else {
                unreachable!("each task starts at the first row of one")
            };
            let out = write_copy(out, &x.get()[first * width..][..out.len()]);
            layers.forward(out, tasks[task].1);
            [out]
        });
        Some(Tensor::from_primitive::<Flex>(flex_tensor(values, [rows, width])))
    }

    /// The first row of each task, and the lengths of its sequences. No value depends on them.
    fn tasks(lengths: &[usize], threads: usize) -> Vec<(usize, &[usize])> {
        let most = lengths.len().div_ceil(threads);
        let (mut tasks, mut row, mut rest) = (Vec::new(), 0, lengths);
        while !rest.is_empty() {
            let (mut count, mut rows) = (0, 0);
            while count < rest.len().min(most) && rows < TASK_ROWS {
                rows += rest[count];
                count += 1;
            }
            let (now, later) = rest.split_at(count);
            tasks.push((row, now));
            (rest, row) = (later, row + rows);
        }
        tasks
    }
}

#[cfg(test)]
#[cfg(feature = "flex")]
mod tests {
    use super::*;
    use crate::ops::layer_norm::layer_norm;
    use crate::ops::residual::residual;
    use crate::packed::attention::packed_attention;
    use crate::packed::layers::{packed_linear, packed_mlp};
    use crate::tests::{constant as tensor, has_bf16};

    fn norm(seed: u64, width: usize, biased: bool) -> PackedNorm {
        PackedNorm { weight: tensor(seed, [width]), bias: biased.then(|| tensor(seed + 1, [width])), epsilon: 1e-5 }
    }

    fn one_by_one(x: Tensor<2>, block: &PackedBlock<'_>, sequences: &Sequences) -> Tensor<2> {
        let normed = |x, norm: &PackedNorm| layer_norm(x, norm.weight.clone(), norm.bias.clone(), norm.epsilon);
        let qkv = packed_linear(normed(x.clone(), &block.attention_norm), block.projections);
        let attended = packed_linear(packed_attention(&qkv, sequences).unwrap(), [block.output]);
        let x = residual(x, attended, block.attention_scale.clone(), None);
        let branch = packed_mlp(normed(x.clone(), &block.mlp_norm), block.up, block.activation, block.down);
        residual(x, branch, block.mlp_scale.clone(), None)
    }

    /// Threads and tasks change no bit, and neither do the sequences beside a sequence: so it is one by one.
    #[test]
    fn whole_blocks_are_their_operations_bit_for_bit() {
        if !has_bf16() {
            return;
        }
        let cases = [
            (64, 2, 96, vec![33, 40, 197, 32, 70], false, true),
            (96, 1, 800, vec![50; 9], true, true),
            (128, 4, 1600, vec![65; 12], false, false),
        ];
        for (width, heads, hidden, lengths, causal, biased) in cases {
            let layer = |seed, shape: [usize; 2]| {
                let bias = biased.then(|| tensor(seed + 50, [shape[1]]));
                PackedLinear::new(&tensor(seed, shape), bias.as_ref())
            };
            let projections = [2, 3, 4].map(|seed| layer(seed, [width, width]));
            let output = layer(5, [width, width]);
            let (up, down) = (layer(6, [width, hidden]), layer(7, [hidden, width]));
            let block = PackedBlock {
                attention_norm: norm(8, width, biased),
                projections: projections.each_ref(),
                output: &output,
                attention_scale: biased.then(|| tensor(10, [width])),
                mlp_norm: norm(11, width, true),
                up: &up,
                activation: Activation::Gelu,
                down: &down,
                mlp_scale: None,
            };
            let x = tensor(1, [lengths.iter().sum(), width]);
            let sequences = Sequences { lengths: lengths.into(), heads, causal, dropout: None };
            let expected = crate::tests::values(one_by_one(x.clone(), &block, &sequences));
            for threads in [1, 2, 4] {
                let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
                let found = pool.install(|| packed_block(&x, &block, &sequences)).unwrap();
                assert!(crate::tests::values(found) == expected, "{width}, {threads} threads");
            }
        }
    }

    #[test]
    fn other_shapes_are_left_to_the_operations() {
        if !has_bf16() {
            return;
        }
        for (width, heads, hidden, lengths) in
            [(64, 2, 96, vec![40, 31]), (64, 4, 96, vec![40, 40]), (64, 2, 90, vec![40, 40]), (64, 2, 96, vec![80])]
        {
            let layer = |input, output| PackedLinear::new(&tensor(2, [input, output]), None);
            let (square, up, down) = (layer(width, width), layer(width, hidden), layer(hidden, width));
            let block = PackedBlock {
                attention_norm: norm(8, width, true),
                projections: [&square; 3],
                output: &square,
                attention_scale: None,
                mlp_norm: norm(11, width, true),
                up: &up,
                activation: Activation::Relu,
                down: &down,
                mlp_scale: None,
            };
            let x = tensor(1, [80, width]).slice(0..lengths.iter().sum::<usize>());
            let sequences = Sequences { lengths: lengths.into(), heads, causal: false, dropout: None };
            let pool = rayon::ThreadPoolBuilder::new().num_threads(2).build().unwrap();
            assert!(pool.install(|| packed_block(&x, &block, &sequences)).is_none(), "{sequences:?}");
        }
    }
}
