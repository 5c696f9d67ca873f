//! A head as stock modules of sentence-transformers: a `LayerNorm` for its norm, and `Dense` for its linear maps. Which
//! heads have such a form is said in `head_limits`.

use dualenc_model::{Activation, DenseActivation, HeadKind, HostTensor};
use serde_json::{Value, json};

use crate::commands::export::head_part::HeadPart;
use crate::commands::export::parts::Tensors;
use crate::error::TrainError;

/// A module that maps one vector to another.
pub(crate) struct StockModule {
    /// The name of its class.
    pub kind: &'static str,
    /// Its `config.json`.
    pub config: Value,
    /// Its `model.safetensors`.
    pub tensors: Tensors,
}

/// How a vector of the pooled output follows from what a `Pooling` by `cls` and `mean` gives: the first token, and the
/// mean of all `tokens`, each of `width` values.
#[derive(Debug, Clone, Copy)]
pub(crate) struct WithoutFirst {
    pub width: usize,
    pub tokens: usize,
}

impl StockModule {
    /// `activation(linear(x))`, plus `residual(x)` if there is a `residual.weight`.
    ///
    /// # Errors
    /// [`TrainError::Internal`] when PyTorch has no such activation, or `linear.weight` is missing.
    pub fn dense(activation: DenseActivation, tensors: Tensors) -> Result<Self, TrainError> {
        let internal = |what: &str| TrainError::Internal(format!("a `Dense` module to export has no {what}"));
        let class = activation.class().ok_or_else(|| internal("activation that PyTorch knows"))?;
        let Some([output, input]) = tensors.get("linear.weight").map(|weight| &weight.shape[..]) else {
            return Err(internal("`linear.weight` of two dimensions"));
        };
        let mut config = json!({
            "in_features": input,
            "out_features": output,
            "bias": tensors.contains_key("linear.bias"),
            "activation_function": class,
            "module_input_name": "sentence_embedding",
            "module_output_name": "sentence_embedding",
        });
        if tensors.contains_key("residual.weight") {
            config["use_residual"] = json!(true);
        }
        Ok(Self { kind: "Dense", config, tensors })
    }

    /// `weight x + bias`.
    fn linear(weight: HostTensor, bias: Option<HostTensor>) -> Result<Self, TrainError> {
        let bias = bias.map(|bias| ("linear.bias".to_owned(), bias));
        let tensors = [("linear.weight".to_owned(), weight)].into_iter().chain(bias).collect();
        Self::dense(DenseActivation::Identity, tensors)
    }

    /// A layer norm with the epsilon of PyTorch, which is that of heads.
    fn norm(weight: HostTensor, bias: HostTensor) -> Self {
        let config = json!({"dimension": weight.values.len()});
        let tensors = [("norm.weight".to_owned(), weight), ("norm.bias".to_owned(), bias)].into();
        Self { kind: "LayerNorm", config, tensors }
    }
}

/// The modules of a head with a linear map. `pooled`: what its input is made of, if no `Pooling` gives it.
///
/// # Errors
/// [`TrainError::Internal`] when the head is of another kind, or incomplete.
pub(crate) fn modules_of(mut head: HeadPart, pooled: Option<WithoutFirst>) -> Result<Vec<StockModule>, TrainError> {
    let mut modules = Vec::new();
    let is_matrix = head.form.kind == HeadKind::Linear && !head.form.norm;
    if let Some(pooled) = pooled.filter(|_| !is_matrix) {
        modules.push(StockModule::linear(pooled.folded(&HostTensor::identity(head.width)), None)?);
    }
    if head.form.norm {
        modules.push(StockModule::norm(head.take("norm.weight")?, head.take("norm.bias")?));
    }
    match head.form.kind {
        HeadKind::Linear => {
            let weight = head.take("weight")?;
            let weight = match pooled {
                Some(pooled) if is_matrix => pooled.folded(&weight),
                _ => weight,
            };
            modules.push(StockModule::linear(weight, head.tensors.remove("bias"))?);
        }
        HeadKind::Residual => modules.extend(residual(&mut head)?),
        HeadKind::Identity | HeadKind::Gated { .. } | HeadKind::Blocks { .. } => {
            return Err(TrainError::Internal(format!("a `{}` head has no stock modules", head.form)));
        }
    }
    match head.tensors.keys().next() {
        Some(name) => Err(TrainError::Internal(format!("the modules of a `{}` head lack `{name}`", head.form))),
        None => Ok(modules),
    }
}

/// `A x + C gelu(B x)` in two modules: the first keeps `x` beside the hidden values, the second maps both. Each module
/// has one input, and gelu(0) is 0:
///
/// ```text
/// [x; h] = gelu([0; B] x + [0; b]) + [I; 0] x,    y = [A, C] [x; h] + a
/// ```
fn residual(head: &mut HeadPart) -> Result<[StockModule; 2], TrainError> {
    let (width, up, down) = (head.width, head.take("up.weight")?, head.take("down.weight")?);
    let hidden = up.shape[0];
    let both = width + hidden;
    let below =
        |first: Vec<f32>, second: Vec<f32>| HostTensor { shape: vec![both, width], values: [first, second].concat() };
    let mut first = Tensors::from([
        ("linear.weight".to_owned(), below(vec![0.0; width * width], up.values)),
        ("residual.weight".to_owned(), below(HostTensor::identity(width).values, vec![0.0; hidden * width])),
    ]);
    if let Some(bias) = head.tensors.remove("up.bias") {
        let values = [vec![0.0; width], bias.values].concat();
        first.insert("linear.bias".to_owned(), HostTensor { shape: vec![both], values });
    }
    let straight = head.take("weight")?;
    let rows = straight.values.chunks(width).zip(down.values.chunks(hidden));
    let values = rows.flat_map(|(straight, down)| [straight, down].concat()).collect();
    let beside = HostTensor { shape: vec![head.dim, both], values };
    let gelu = DenseActivation::Block(Activation::Gelu);
    Ok([StockModule::dense(gelu, first)?, StockModule::linear(beside, head.tensors.remove("bias"))?])
}

impl WithoutFirst {
    /// A map of the mean of all tokens but the first, `[dim, width]`, or of the first token and that mean,
    /// `[dim, 2 * width]`, as one of the first token and the mean of all tokens, `[dim, 2 * width]`: with T tokens, the
    /// mean of all but the first is `(T * mean - first) / (T - 1)`.
    fn folded(self, map: &HostTensor) -> HostTensor {
        let (dim, columns) = (map.shape[0], map.shape[1]);
        let (tokens, others) = (self.tokens as f64, self.tokens as f64 - 1.0);
        let rows = map.values.chunks(columns);
        let values = rows.flat_map(|row| {
            let (of_first, of_mean) = row.split_at(columns - self.width);
            let first = (0..self.width).map(|at| {
                let own = of_first.get(at).copied().map_or(0.0, f64::from);
                (own + f64::from(of_mean[at]) * (-1.0 / others)) as f32
            });
            let mean = of_mean.iter().map(|&value| (f64::from(value) * (tokens / others)) as f32);
            first.chain(mean).collect::<Vec<_>>()
        });
        HostTensor { shape: vec![dim, 2 * self.width], values: values.collect() }
    }
}
