//! The bits of a result depend neither on the number of threads nor on the rows beside it.

use super::*;

/// A task may hold a single row: the last one, or all of a batch of one. It must not be computed in another way than a
/// row among others, or what stands beside an input would change its bits.
#[test]
fn lone_row_has_the_bits_of_a_row_among_others() {
    for (input, output) in [(64, 200), (200, 64), (400, 48), (3, 5)] {
        let (weights, bias) = ([1, 2, 3].map(|seed| constant(seed, [input, output])), constant(7, [output]));
        let (down, x) = (constant::<2>(4, [output, input]), constant::<2>(5, [300, input]));
        let forms: [(&str, &dyn Fn(Tensor<2>) -> Tensor<2>); 5] = [
            ("linear", &|x| linear(x, weights[0].clone(), None)),
            ("linear with bias", &|x| linear(x, weights[0].clone(), Some(bias.clone()))),
            ("linear3", &|x| linear3(x, weights.clone(), [(); 3].map(|()| Some(bias.clone())))),
            ("mlp", &|x| mlp(x, (weights[0].clone(), None), Activation::Gelu, (down.clone(), None))),
            ("mlp, tracked", &|x| {
                mlp(x.autodiff().require_grad(), (weights[0].clone(), None), Activation::Gelu, (down.clone(), None))
            }),
        ];
        for (name, form) in forms {
            let whole = form(x.clone());
            for (first, rows) in [(0, 1), (128, 1), (299, 1), (0, 129), (0, 257), (5, 2)] {
                let part = form(x.clone().slice(first..first + rows));
                let expected = whole.clone().slice(first..first + rows);
                assert!(values(part) == values(expected), "{name} {input}x{output}: {rows} rows from {first}");
            }
        }
    }
}

/// The bits of an output and of the gradients of all inputs.
fn bits<const D: usize>(inputs: &Inputs, output: Tensor<D>) -> Vec<Vec<u32>> {
    let weights = constant(77, output.dims());
    let mut gradients = (output.clone() * weights).sum().backward();
    let of_matrices = inputs.m.iter().map(|x| values(x.grad_remove(&mut gradients).unwrap())).collect::<Vec<_>>();
    let of_vectors = inputs.v.iter().flatten().map(|x| values(x.grad_remove(&mut gradients).unwrap()));
    let all = std::iter::once(values(output)).chain(of_matrices).chain(of_vectors);
    all.map(|values| values.into_iter().map(f32::to_bits).collect()).collect()
}

/// An operation with inputs of these shapes, as in [`compare`].
struct Operation<'a> {
    name: &'static str,
    matrices: Vec<[usize; 2]>,
    vectors: Vec<usize>,
    run: Box<dyn Fn(&Inputs) -> Tensor<2> + Sync + 'a>,
}

fn operation<'a>(
    name: &'static str,
    matrices: &[[usize; 2]],
    vectors: &[usize],
    run: impl Fn(&Inputs) -> Tensor<2> + Sync + 'a,
) -> Operation<'a> {
    Operation { name, matrices: matrices.to_vec(), vectors: vectors.to_vec(), run: Box::new(run) }
}

/// Every operation of this crate, of sizes that make several tasks.
fn operations() -> Vec<Operation<'static>> {
    use crate::contrastive::fused::pair_loss as fused_pair_loss;
    use crate::distillation::fused::distillation_loss as fused_distillation_loss;
    let mask = DropoutMask::new(3, 0.1);
    let bias = |v: &[Option<Tensor<1>>], n: usize| v.get(n).cloned().flatten();
    let mut all = vec![
        operation("linear", &[[700, 64], [64, 200]], &[200], move |Inputs { m, v }| {
            linear(m[0].clone(), m[1].clone(), bias(v, 0))
        }),
        operation("linear3", &[[700, 64], [64, 40], [64, 40], [64, 40]], &[40, 40, 40], move |Inputs { m, v }| {
            linear3(m[0].clone(), [1, 2, 3].map(|n| m[n].clone()), [0, 1, 2].map(|n| bias(v, n)))
        }),
        operation("layer_norm", &[[700, 65]], &[65, 65], move |Inputs { m, v }| {
            layer_norm(m[0].clone(), v[0].clone().unwrap(), bias(v, 1), 1e-5)
        }),
        operation("residual", &[[700, 65]; 2], &[], |Inputs { m, .. }| {
            residual(m[0].clone(), m[1].clone(), None, None)
        }),
        operation("residual with dropout and scale", &[[700, 65]; 2], &[65], move |Inputs { m, v }| {
            residual(m[0].clone(), m[1].clone(), bias(v, 0), Some(mask))
        }),
        operation("dropout", &[[700, 65]], &[], move |Inputs { m, .. }| mask.apply(m[0].clone())),
        operation("embedding", &[[300, 65]], &[], |Inputs { m, .. }| {
            embedding(m[0].clone(), (0..2000).map(|n| n * n % 300).collect())
        }),
    ];
    for activation in Activation::ALL {
        all.push(operation("activation", &[[700, 65]], &[], move |Inputs { m, .. }| activation.forward(m[0].clone())));
        all.push(operation("mlp", &[[700, 64], [64, 256], [256, 64]], &[256, 64], move |Inputs { m, v }| {
            mlp(m[0].clone(), (m[1].clone(), bias(v, 0)), activation, (m[2].clone(), bias(v, 1)))
        }));
    }
    for (causal, dropout) in [(false, None), (true, None), (false, Some(mask)), (true, Some(mask))] {
        for lengths in [vec![7; 100], vec![1, 130, 7, 529, 33]] {
            let sequences = Sequences { lengths: lengths.into(), heads: 4, causal, dropout };
            all.push(operation("attention", &[[700, 96]], &[], move |Inputs { m, .. }| {
                attention(&m[0], &sequences).unwrap()
            }));
        }
    }
    let batch = 300;
    let targets: Vec<_> = (0..batch).map(|n| (n, n, 1.0 / batch as f32)).collect();
    let others: Vec<_> = (0..batch - 3).map(|n| (n, n + 3)).collect();
    for (name, loss) in [
        ("pair_loss softmax", PairLoss::Softmax { targets: targets.into(), masked: others.clone().into() }),
        ("pair_loss sigmoid", PairLoss::Sigmoid { positives: others.into(), masked: [(2, 9), (69, 0)].into() }),
    ] {
        for tile_logits in [usize::MAX, 130 * batch, batch] {
            for fused in [true, false] {
                let loss = loss.clone();
                let biased = matches!(loss, PairLoss::Sigmoid { .. });
                let vectors = if biased { vec![1, 1] } else { vec![1] };
                all.push(operation(name, &[[batch, 48]; 2], &vectors, move |Inputs { m, v }| {
                    let logits = Logits {
                        image_embeds: &m[0],
                        text_embeds: &m[1],
                        logit_scale: v[0].as_ref().unwrap(),
                        logit_bias: v.get(1).and_then(Option::as_ref),
                    };
                    let loss = if fused {
                        fused_pair_loss(logits, &loss, None, tile_logits).unwrap()
                    } else {
                        tiled_pair_loss(logits, &loss, None, tile_logits)
                    };
                    loss.reshape([1, 1])
                }));
            }
        }
    }
    let masked: Vec<_> = (0..batch - 3).map(|n| (n, n + 3)).collect();
    for (loss, vectors) in [(TeacherLoss::Softmax, vec![1]), (TeacherLoss::Sigmoid { bias: -4.0 }, vec![1, 1])] {
        for tile in [usize::MAX, 130 * batch, batch] {
            for fused in [true, false] {
                let masked = masked.clone();
                all.push(operation("distillation_loss", &[[batch, 48]; 2], &vectors, move |Inputs { m, v }| {
                    let [image, text] = [5, 6].map(|seed| constant(seed, [batch, 20]));
                    let teacher = TeacherLogits { image: &image, text: &text, scale: 2.0, loss, column_log_sums: None };
                    let student = Logits {
                        image_embeds: &m[0],
                        text_embeds: &m[1],
                        logit_scale: v[0].as_ref().unwrap(),
                        logit_bias: v.get(1).and_then(Option::as_ref),
                    };
                    let loss = if fused {
                        fused_distillation_loss(&teacher, student, &masked, None, tile).unwrap()
                    } else {
                        tiled_distillation_loss(&teacher, student, &masked, None, tile)
                    };
                    loss.reshape([1, 1])
                }));
            }
        }
    }
    all
}

#[test]
fn bits_are_independent_of_threads() {
    let operations = operations();
    let names: Vec<_> = operations.iter().map(|operation| operation.name).collect();
    for name in
        ["linear", "linear3", "mlp", "activation", "layer_norm", "residual", "dropout", "embedding", "attention"]
    {
        assert!(names.contains(&name), "{name}");
    }
    for (number, Operation { name, matrices, vectors, run }) in operations.iter().enumerate() {
        let with = |threads: usize| {
            rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap().install(|| {
                let matrices = matrices.iter().enumerate().map(|(n, shape)| leaf(n as u64, *shape)).collect();
                let vectors = vectors.iter().enumerate().map(|(n, len)| Some(leaf(90 + n as u64, [*len]))).collect();
                let inputs = Inputs { m: matrices, v: vectors };
                bits(&inputs, run(&inputs))
            })
        };
        let one = with(1);
        assert!(one == with(2) && one == with(5), "{name} ({number})");
    }
}

#[test]
fn chains_are_independent_of_threads() {
    let run = |threads: usize| {
        rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap().install(|| {
            let (x, qkv, up, down) = (leaf(1, [700, 64]), leaf(5, [64, 192]), leaf(2, [64, 256]), leaf(3, [256, 64]));
            let weight = leaf(4, [64]);
            let mask = DropoutMask::new(3, 0.1);
            let sequences = Sequences { lengths: vec![7; 100].into(), heads: 4, causal: false, dropout: Some(mask) };
            let y = attention(&linear(x.clone(), qkv.clone(), None), &sequences).unwrap();
            let y = layer_norm(residual(x.clone(), y, None, Some(mask)), weight.clone(), None, 1e-5);
            let y = mlp(y, (up.clone(), None), Activation::Gelu, (down.clone(), None));
            let scale = constant(6, [1]);
            let targets: Vec<_> = (0..700).map(|n| (n, n, 1.0 / 700.0)).collect();
            let loss = PairLoss::Softmax { targets: targets.into(), masked: [].into() };
            let text = constant(7, [700, 64]);
            let logits = Logits { image_embeds: &y, text_embeds: &text, logit_scale: &scale, logit_bias: None };
            let loss = pair_loss(logits, &loss);
            let mut gradients = loss.clone().backward();
            let of_weight = values(weight.grad_remove(&mut gradients).unwrap());
            let gradients = [x, qkv, up, down].map(|leaf| values(leaf.grad_remove(&mut gradients).unwrap()));
            (values(loss), of_weight, gradients)
        })
    };
    assert!(run(1) == run(2) && run(2) == run(5));
}
