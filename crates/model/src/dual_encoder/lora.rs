//! Low-rank adapters of a model (LoRA, Hu et al., 2022, arXiv:2106.09685): adding them, and merging them into the
//! weights.

use burn::module::Param;
use burn::tensor::{Tensor, TensorData};

use crate::dual_encoder::layer_depth::LayerDepths;
use crate::dual_encoder::model::DualEncoder;
use crate::error::ModelError;
use crate::layers::adapter::Adapter;
use crate::layers::linear::{Linear, LinearVisitor};
use crate::params::random::{named_seed, normal};
use crate::tower::Tower;

/// The linears of a block that can have adapters.
pub const ADAPTABLE: [&str; 7] = ["query", "key", "value", "output", "gate", "up", "down"];

/// The adapters of a tower.
#[derive(Debug, Clone, PartialEq)]
pub struct AdapterConfig {
    /// Rank of the update.
    pub rank: usize,
    /// The update is scaled by `alpha / rank` (sec. 4.1).
    pub alpha: f64,
    /// The linears that get an adapter, by names from [`ADAPTABLE`].
    pub targets: Vec<String>,
    /// Number of blocks at the end of the tower that get adapters; `None`: all.
    pub last_blocks: Option<usize>,
}

impl DualEncoder {
    /// Adds trainable adapters to the image tower and the text tower, initialised from `seed`. The model computes the
    /// same as before, because `up` is initialised to 0 (sec. 4.1).
    ///
    /// # Errors
    /// [`ModelError::Input`] if no block of a tower has a linear named by one of its targets, or a tower has fewer
    /// blocks than [`AdapterConfig::last_blocks`].
    pub fn with_adapters(mut self, [image, text]: [Option<&AdapterConfig>; 2], seed: u64) -> Result<Self, ModelError> {
        let depths = LayerDepths::of(&self);
        let towers = [(Tower::Image, image), (Tower::Text, text)];
        for ((tower, config), blocks) in towers.into_iter().zip(depths.num_blocks()) {
            let Some(config) = config else { continue };
            let last = config.last_blocks.unwrap_or(blocks);
            if last > blocks {
                return Err(ModelError::Input(format!(
                    "`model.{}_lora.last_blocks` is {last}, but the {tower} has {blocks}; choose at most {blocks}, or \
                     remove the key",
                    tower.kind()
                )));
            }
            let is_last = |path: &str| depths.layer(path).is_some_and(|layer| layer.index + last >= layer.last);
            let mut found = vec![false; config.targets.len()];
            self.visit_linears(&mut |path, linear| {
                let name = path.rsplit('.').next().unwrap_or_default();
                let target = config.targets.iter().position(|target| target == name);
                if let Some(target) = target.filter(|_| Tower::of(path) == Some(tower) && is_last(path)) {
                    found[target] = true;
                    linear.adapter = Some(new_adapter(path, linear, config, seed));
                }
            });
            let mut missing = config.targets.iter().zip(found).filter(|(_, found)| !found).map(|(target, _)| target);
            if let Some(target) = missing.next() {
                return Err(ModelError::Input(format!(
                    "the {tower} has no linear called `{target}` in its blocks, which `targets` of its adapters names"
                )));
            }
        }
        Ok(self)
    }

    /// Merges all adapters into the weights and removes them. The model computes the same as before.
    #[must_use]
    pub fn with_adapters_merged(mut self) -> Self {
        self.visit_linears(&mut |_, linear| {
            if linear.adapter.is_some() {
                let (merged, _) = linear.weights();
                linear.weight = Param::initialized(linear.weight.id, merged.without_autodiff());
                linear.adapter = None;
            }
        });
        self
    }

    fn visit_linears(&mut self, visit: &mut LinearVisitor<'_>) {
        self.image_tower.visit_linears(Tower::Image.module(), visit);
        self.text_tower.visit_linears(Tower::Text.module(), visit);
    }
}

fn new_adapter(path: &str, linear: &Linear, config: &AdapterConfig, seed: u64) -> Adapter {
    let weight = linear.weight.val();
    let ([input, output], device) = (weight.dims(), weight.device().without_autodiff().autodiff());
    // The standard deviation of peft's `LoraLayer`, which is uniform in +-sqrt(1 / in); normal here.
    let std = 1.0 / (3.0 * input as f64).sqrt();
    let down = normal(named_seed(seed, &format!("{path}.adapter.down")), input * config.rank, std);
    let param = |values, shape| Param::from_tensor(Tensor::from_data(TensorData::new(values, shape), &device));
    Adapter::new(
        param(down, [input, config.rank]),
        param(vec![0.0; config.rank * output], [config.rank, output]),
        config.alpha / config.rank as f64,
    )
}
