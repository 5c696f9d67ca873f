//! Low-rank adapters (LoRA, Hu et al., 2022, arXiv:2106.09685): a locked matrix `W` learns a difference of low rank.
//! What a linear computes with one is in `layers.rs`; here they come to a model and go from it.

use burn::module::{Module, Param};
use burn::tensor::{Tensor, TensorData};

use crate::dual_encoder::model::DualEncoder;
use crate::error::ModelError;
use crate::layers::linear::Linear;
use crate::params::random::{named_seed, normal};

/// The linears of a block that can have adapters.
pub const ADAPTABLE: [&str; 7] = ["query", "key", "value", "output", "gate", "up", "down"];

/// Which linears of a tower get adapters, and of which form.
#[derive(Debug, Clone, PartialEq)]
pub struct AdapterConfig {
    /// Rank of the difference.
    pub rank: usize,
    /// The difference counts `alpha / rank` times (sec. 4.1).
    pub alpha: f64,
    /// Names among [`ADAPTABLE`].
    pub targets: Vec<String>,
}

/// A difference of low rank to a matrix: `scale * down up`.
#[derive(Module, Debug)]
pub struct Adapter {
    /// `[in, rank]`.
    pub down: Param<Tensor<2>>,
    /// `[rank, out]`.
    pub up: Param<Tensor<2>>,
    scale: f64,
}

impl Adapter {
    /// `[in, out]`.
    pub fn difference(&self) -> Tensor<2> {
        self.down.val().matmul(self.up.val()) * self.scale
    }
}

/// Whether the parameter at `path` is one of an adapter.
pub(crate) fn is_adapter(path: &str) -> bool {
    path.contains(".adapter.")
}

/// A walk over the linears that can have adapters, by path.
pub(crate) type VisitLinear<'a> = dyn FnMut(&str, &mut Linear) + 'a;

impl DualEncoder {
    /// The model with fresh adapters, as a function of `seed`: it computes the same, since `up` starts at 0 (sec. 4.1). They
    /// train.
    ///
    /// # Errors
    /// When the tower has no linear of a target's name.
    pub fn with_adapters(mut self, [image, text]: [Option<&AdapterConfig>; 2], seed: u64) -> Result<Self, ModelError> {
        for (tower, config) in [("image_tower", image), ("text_tower", text)] {
            let Some(config) = config else { continue };
            let mut met = vec![false; config.targets.len()];
            self.linears(&mut |path, linear| {
                let name = path.rsplit('.').next().unwrap_or_default();
                let target = config.targets.iter().position(|target| target == name);
                if let Some(target) = target.filter(|_| path.starts_with(tower)) {
                    met[target] = true;
                    linear.adapter = Some(fresh(path, linear, config, seed));
                }
            });
            let mut lacking = config.targets.iter().zip(met).filter(|(_, met)| !met).map(|(target, _)| target);
            if let Some(target) = lacking.next() {
                return Err(ModelError::Input(format!(
                    "the {} has no linear called `{target}` in its blocks, which `targets` of its adapters names",
                    tower.replace('_', " ")
                )));
            }
        }
        Ok(self)
    }

    /// The model without adapters, their differences in its matrices: it computes the same.
    #[must_use]
    pub fn with_adapters_merged(mut self) -> Self {
        self.linears(&mut |_, linear| {
            if linear.adapter.is_some() {
                let (merged, _) = linear.weights();
                linear.weight = Param::initialized(linear.weight.id, merged.without_autodiff());
                linear.adapter = None;
            }
        });
        self
    }

    fn linears(&mut self, visit: &mut VisitLinear<'_>) {
        self.image_tower.linears("image_tower", visit);
        self.text_tower.linears("text_tower", visit);
    }
}

fn fresh(path: &str, linear: &Linear, config: &AdapterConfig, seed: u64) -> Adapter {
    let weight = linear.weight.val();
    let ([input, output], device) = (weight.dims(), weight.device().without_autodiff().autodiff());
    // The spread of peft's `LoraLayer`: uniform between the roots of 1 / in, here normal.
    let std = 1.0 / (3.0 * input as f64).sqrt();
    let down = normal(named_seed(seed, &format!("{path}.adapter.down")), input * config.rank, std);
    let param = |values, shape| Param::from_tensor(Tensor::from_data(TensorData::new(values, shape), &device));
    Adapter {
        down: param(down, [input, config.rank]),
        up: param(vec![0.0; config.rank * output], [config.rank, output]),
        scale: config.alpha / config.rank as f64,
    }
}
