//! What PyTorch computes with written heads and modules, in double precision, row by row.

use std::collections::BTreeMap;
use std::path::Path;

use dualenc_model::{HostTensor, read_safetensors};
use serde_json::Value;

use crate::commands::export::json_files::read_object;

pub(super) type Rows = Vec<Vec<f64>>;

/// The rows of `[rows, width]`.
pub(super) fn rows(values: &[f32], width: usize) -> Rows {
    values.chunks(width).map(|row| row.iter().copied().map(f64::from).collect()).collect()
}

/// Each value within 1e-5 of the largest one.
#[track_caller]
pub(super) fn assert_same(what: &str, found: &Rows, expected: &[f32]) {
    let found: Vec<f64> = found.iter().flatten().copied().collect();
    let largest = expected.iter().fold(0f32, |largest, value| largest.max(value.abs()));
    assert!(found.len() == expected.len() && largest > 1e-3, "{what}: {} values, up to {largest}", found.len());
    let worst = found.iter().zip(expected).map(|(a, b)| (a - f64::from(*b)).abs()).fold(0.0, f64::max);
    assert!(worst <= 1e-5 * f64::from(largest), "{what}: differs by {worst} of {largest}");
}

/// `torch.nn.functional.linear` with the weight `[output, input]`.
fn linear(x: &Rows, weight: &HostTensor, bias: Option<&HostTensor>) -> Rows {
    let output = |row: &Vec<f64>, at: usize| {
        let of = &weight.values[at * weight.shape[1]..][..weight.shape[1]];
        assert_eq!(row.len(), of.len());
        let dot: f64 = row.iter().zip(of).map(|(a, b)| a * f64::from(*b)).sum();
        dot + bias.map_or(0.0, |bias| f64::from(bias.values[at]))
    };
    x.iter().map(|row| (0..weight.shape[0]).map(|at| output(row, at)).collect()).collect()
}

/// `torch.nn.LayerNorm` with its default epsilon.
fn layer_norm(x: &Rows, weight: &HostTensor, bias: &HostTensor) -> Rows {
    let normed = |row: &Vec<f64>| {
        let count = row.len() as f64;
        let mean = row.iter().sum::<f64>() / count;
        let variance = row.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / count;
        let affine = weight.values.iter().zip(&bias.values);
        let scaled = row.iter().map(|value| (value - mean) / (variance + 1e-5).sqrt()).zip(affine);
        scaled.map(|(value, (weight, bias))| value * f64::from(*weight) + f64::from(*bias)).collect()
    };
    x.iter().map(normed).collect()
}

fn each(x: &Rows, of: impl Fn(f64) -> f64) -> Rows {
    x.iter().map(|row| row.iter().map(|value| of(*value)).collect()).collect()
}

fn both(x: &Rows, y: &Rows, of: impl Fn(f64, f64) -> f64) -> Rows {
    let row = |(x, y): (&Vec<f64>, &Vec<f64>)| x.iter().zip(y).map(|(x, y)| of(*x, *y)).collect();
    x.iter().zip(y).map(row).collect()
}

/// `x / 2 (1 + erf(x / sqrt(2)))`, where erf is the sum of its series, or a sign where it is 1 in double precision.
fn gelu(x: f64) -> f64 {
    let z = x / std::f64::consts::SQRT_2;
    let mut term = z;
    let mut sum = z;
    for n in 1..200 {
        term *= -z * z / f64::from(n);
        sum += term / f64::from(2 * n + 1);
    }
    let erf = if z.abs() > 5.0 { z.signum() } else { 2.0 / std::f64::consts::PI.sqrt() * sum };
    x / 2.0 * (1.0 + erf)
}

/// A head as `config.json` of `--format heads` describes it, before the embeddings are normalised.
pub(super) fn head(config: &Value, tensors: &BTreeMap<String, HostTensor>, name: &str, x: &Rows) -> Rows {
    let get = |part: &str| tensors.get(&format!("{name}{part}"));
    let has_bias = config["bias"].as_bool().unwrap();
    let affine = |x: &Rows, part: &str, is_biased: bool| {
        let bias = get(&format!("{part}.bias"));
        assert_eq!(bias.is_some(), is_biased, "{name}{part}");
        linear(x, get(&format!("{part}.weight")).unwrap(), bias)
    };
    let norm = |x: &Rows, part: &str| {
        layer_norm(x, get(&format!("{part}.weight")).unwrap(), get(&format!("{part}.bias")).unwrap())
    };
    let x = if config["norm"].as_bool().unwrap() { norm(x, ".norm") } else { x.clone() };
    match config["kind"].as_str().unwrap() {
        "linear" => affine(&x, "", has_bias),
        "glu" => {
            let (gate, up) = (affine(&x, ".gate", has_bias), affine(&x, ".up", has_bias));
            assert_eq!(config["expansion"], gate[0].len() / x[0].len());
            affine(&both(&gate, &up, |gate, up| gate.clamp(0.0, 6.0) * up), ".down", has_bias)
        }
        "residual" => {
            let hidden = each(&affine(&x, ".up", has_bias), gelu);
            both(&affine(&x, "", has_bias), &affine(&hidden, ".down", false), |a, b| a + b)
        }
        "blocks" => {
            let mut x = x;
            for n in 0..config["blocks"].as_u64().unwrap() {
                let inner = norm(&x, &format!(".blocks.{n}.norm"));
                let hidden = each(&affine(&inner, &format!(".blocks.{n}.up"), has_bias), gelu);
                x = both(&x, &affine(&hidden, &format!(".blocks.{n}.down"), has_bias), |a, b| a + b);
            }
            affine(&norm(&x, ".output_norm"), ".output", has_bias)
        }
        other => panic!("`{other}`"),
    }
}

/// What the modules of a route of a SentenceTransformer in `dir` that are no `Transformer` and no `Pooling` compute.
pub(super) fn route(dir: &Path, route: &str, x: &Rows) -> Rows {
    let router = Value::Object(read_object(&dir.join("router_config.json")).unwrap());
    let mut x = x.clone();
    for module in router["structure"][route].as_array().unwrap() {
        let name = module.as_str().unwrap();
        let class = router["types"][name].as_str().unwrap();
        if name.ends_with("_Transformer") || name.ends_with("_Pooling") {
            continue;
        }
        let tensors = read_safetensors(&dir.join(name).join("model.safetensors")).unwrap();
        let config = Value::Object(read_object(&dir.join(name).join("config.json")).unwrap());
        let get = |name: &str| tensors.get(name);
        x = match class {
            "sentence_transformers.sentence_transformer.modules.layer_norm.LayerNorm" => {
                assert_eq!(config["dimension"], x[0].len());
                layer_norm(&x, get("norm.weight").unwrap(), get("norm.bias").unwrap())
            }
            "sentence_transformers.base.modules.dense.Dense" => {
                assert_eq!(config["in_features"], x[0].len());
                assert_eq!(config["bias"], get("linear.bias").is_some());
                let y = linear(&x, get("linear.weight").unwrap(), get("linear.bias"));
                let y = match config["activation_function"].as_str().unwrap() {
                    "torch.nn.modules.linear.Identity" => y,
                    "torch.nn.modules.activation.GELU" => each(&y, gelu),
                    other => panic!("{other}"),
                };
                assert_eq!(config["out_features"], y[0].len());
                if config["use_residual"] == true {
                    assert_ne!(config["in_features"], config["out_features"], "the residual would be `x` itself");
                    both(&y, &linear(&x, get("residual.weight").unwrap(), None), |a, b| a + b)
                } else {
                    assert!(get("residual.weight").is_none());
                    y
                }
            }
            other => panic!("{other}"),
        };
    }
    x
}
