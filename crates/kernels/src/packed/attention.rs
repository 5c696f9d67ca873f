//! Attention behind packed linear layers.

use burn::tensor::Tensor;

use crate::arguments::sequences::Sequences;

/// [`attention`](crate::attention) of what [`PackedLinear`](crate::PackedLinear)s computed, without gradients: scores
/// and outputs are products of factors in bf16 too, in sequences of at least 32 rows. The softmax is in `f32`.
///
/// # Panics
///
/// As [`attention`](crate::attention), and if `sequences` have dropout.
pub fn packed_attention(qkv: &Tensor<2>, sequences: &Sequences) -> Option<Tensor<2>> {
    #[cfg(feature = "flex")]
    if let Some(unit) = crate::cpu::bf16::unit::Unit::fastest() {
        return fused::attention(unit, qkv, sequences);
    }
    crate::ops::attention::attention(qkv, sequences)
}

#[cfg(feature = "flex")]
mod fused {
    use burn::backend::Flex;
    use burn::tensor::Tensor;

    use crate::arguments::sequences::Sequences;
    use crate::cpu::attention::forward;
    use crate::cpu::autograd::{Values, flex_tensor};
    use crate::cpu::bf16::attention::{FEWEST_ROWS, Softmax, attend};
    use crate::cpu::bf16::unit::Unit;
    use crate::cpu::uninit::{par_groups, write};
    use crate::ops::attention::fused::{Groups, checked_width, forward_sequence, head};

    pub fn attention(unit: Unit, qkv: &Tensor<2>, sequences: &Sequences) -> Option<Tensor<2>> {
        let width = checked_width(qkv, sequences)?;
        assert!(sequences.dropout.is_none(), "packed attention has no dropout");
        let [rows, triple] = qkv.dims();
        let qkv = Values::from(qkv.clone().without_autodiff().try_into_primitive::<Flex>().ok()?);
        let (heads, dim) = (sequences.heads, width / sequences.heads);
        let softmax = Softmax { scale: (dim as f32).sqrt().recip(), causal: sequences.causal };
        let groups = Groups::new(sequences);
        let [values] = par_groups(&groups.ends, [width], |first, [out]| {
            let out = write(out, |_| 0.0);
            let rows = out.len() / width;
            let qkv = &qkv.get()[first * triple..][..rows * triple];
            let short = groups.longest.min(FEWEST_ROWS);
            let (mut memory, mut log_sums) = (forward::memory(short, dim), vec![0.0; rows * heads]);
            let ready = unit.on_this_thread();
            for sequence in groups.starting_at(first) {
                if sequence.rows < FEWEST_ROWS {
                    forward_sequence(qkv, &sequence, sequences, width, (&mut *out, &mut log_sums), &mut memory);
                    continue;
                }
                for index in 0..heads {
                    let out = &mut out[sequence.start * width + index * dim..];
                    attend(&ready, head(qkv, &sequence, sequences, index, width).qkv, softmax, (out, width));
                }
            }
            [out]
        });
        Some(Tensor::from_primitive::<Flex>(flex_tensor(values, [rows, width])))
    }

    #[cfg(test)]
    mod tests {
        use super::*;
        use crate::tests::{constant, values};

        #[test]
        fn packed_attention_is_close_to_f32() {
            let lengths = [1, 31, 32, 33, 65, 70, 4];
            for unit in Unit::all_tested() {
                for (heads, width, causal) in [(4, 128, false), (2, 40, false), (3, 192, true), (1, 33, false)] {
                    let qkv = constant(5, [lengths.iter().sum(), 3 * width]);
                    let sequences = Sequences { lengths: lengths.into(), heads, causal, dropout: None };
                    let found = values(attention(unit, &qkv, &sequences).unwrap());
                    let expected = values(crate::attention(&qkv, &sequences).unwrap());
                    let mut row = 0;
                    for length in lengths {
                        let range = row * width..(row + length) * width;
                        let of = |all: &[f32]| all[range.clone()].to_vec();
                        let (found, expected) = (of(&found), of(&expected));
                        let difference = found.iter().zip(&expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
                        let what = format!("{}, {heads} heads of {width}, {length} rows", unit.name());
                        if length < FEWEST_ROWS {
                            assert_eq!(found, expected, "{what}");
                        } else {
                            assert!(difference > 0.0 && difference < 1e-2, "{what}: {difference}");
                        }
                        row += length;
                    }
                }
            }
        }

        /// No bit of a sequence depends on the sequences beside it or on the number of threads.
        #[test]
        fn sequences_are_independent() {
            let (width, heads) = (64, 2);
            let lengths = [40, 7, 129, 33, 50];
            let qkv = constant(5, [lengths.iter().sum(), 3 * width]);
            for unit in Unit::all_tested() {
                let run = |qkv: &Tensor<2>, lengths: &[usize]| {
                    let sequences = Sequences { lengths: lengths.into(), heads, causal: false, dropout: None };
                    values(attention(unit, qkv, &sequences).unwrap())
                };
                let whole = run(&qkv, &lengths);
                let mut row = 0;
                for length in lengths {
                    let alone = run(&qkv.clone().slice(row..row + length), &[length]);
                    assert_eq!(alone, whole[row * width..(row + length) * width], "{}, {length} rows", unit.name());
                    row += length;
                }
                for threads in [1, 2, 5] {
                    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
                    assert_eq!(pool.install(|| run(&qkv, &lengths)), whole, "{}, {threads} threads", unit.name());
                }
            }
        }
    }
}
