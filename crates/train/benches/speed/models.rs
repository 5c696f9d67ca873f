//! The towers and the loss, with random weights of well-known sizes.

use std::error::Error;
use std::path::Path;

use burn::tensor::{Tensor, TensorData};
use dualenc_kernels::bf16_instructions;
use dualenc_model::{
    BuildOptions, Dropout, DualEncoder, HeadConfig, ImageTower, LOGIT_SCALE_INIT, Lock, TokenSequences, TowerLock,
    TowerOptions, TowerTraining, Training, build_from_towers, image_tower_from, normalize, parameters,
};
use dualenc_train::config::{Loss, Precision, TrainSection};
use dualenc_train::internals::{
    Clip, LearningRate, Optimizer, PairIds, ParamGradients, RowsRead, contrastive_loss, on_single_thread,
};
use dualenc_train::{Compute, Objective};
use serde_json::{Value, json};

use crate::Work;

/// Lengths in tokens of 64 captions of the quickstart's data, drawn by `scripts/bench_captions.py`.
const CAPTION_LENGTHS: &str = include_str!("caption_lengths.txt");

const VOCABULARY: usize = 30_522;
pub const EMBED_DIM: usize = 512;

/// The lengths of 64 real captions.
pub fn caption_lengths() -> Result<Vec<usize>, Box<dyn Error>> {
    Ok(CAPTION_LENGTHS.split_whitespace().map(str::parse).collect::<Result<_, _>>()?)
}

/// A transformer's size.
pub struct Size {
    layers: usize,
    width: usize,
    heads: usize,
    mlp: usize,
}

impl Size {
    pub const SMALL: Self = Self { layers: 12, width: 384, heads: 6, mlp: 1536 };
    pub const BASE: Self = Self { layers: 12, width: 768, heads: 12, mlp: 3072 };
    const MINI_LM: Self = Self { layers: 6, width: 384, heads: 12, mlp: 1536 };
    const NEXT_TO_NOTHING: Self = Self { layers: 1, width: 8, heads: 1, mlp: 8 };

    fn config(&self, model_type: &str, more: Value) -> Value {
        let mut config = json!({
            "model_type": model_type, "num_hidden_layers": self.layers, "hidden_size": self.width,
            "num_attention_heads": self.heads, "intermediate_size": self.mlp, "hidden_act": "gelu",
            "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0,
        });
        if let (Some(config), Value::Object(more)) = (config.as_object_mut(), more) {
            config.extend(more);
        }
        config
    }

    /// Operations of the matrix products of a forward pass over a sequence: four square linears, two of the MLP, and
    /// attention's two products.
    fn flops(&self, length: usize) -> f64 {
        let linears = 2 * length * (4 * self.width * self.width + 2 * self.width * self.mlp);
        let attention = 2 * 2 * length * length * self.width;
        (self.layers * (linears + attention)) as f64
    }
}

fn tower_dir(config: &Value) -> Result<tempfile::TempDir, Box<dyn Error>> {
    let dir = tempfile::tempdir()?;
    std::fs::write(dir.path().join("config.json"), config.to_string())?;
    Ok(dir)
}

fn vit_config(size: &Size, image_size: usize) -> Value {
    size.config("vit", json!({"image_size": image_size, "patch_size": 16, "num_channels": 3}))
}

/// Numbers between -1 and 1 that look random.
pub fn noise(count: usize) -> Vec<f32> {
    (0..count as u64).map(|index| dualenc_data::mix(1, &[index]) as f32 / u64::MAX as f32 * 2.0 - 1.0).collect()
}

/// The forward pass of a locked ViT with patches of 16 pixels on 16 images of 224 pixels as a run makes it: shared out
/// to the cores. `packed`: with factors in bf16.
pub fn vit(size: &Size, packed: bool) -> Result<Work, Box<dyn Error>> {
    const BATCH: usize = 16;
    const SIDE: usize = 224;
    let compute = Compute::select("cpu", None)?;
    if packed && bf16_instructions().is_none() {
        return Err("this processor has no instructions for products in bf16".into());
    }
    let dir = tower_dir(&vit_config(size, SIDE))?;
    let (tower, _) = image_tower_from(dir.path(), TowerLock::Scratch, TowerOptions::default(), &compute.device)?;
    let tower: ImageTower = burn::module::Module::valid(&tower);
    let tower = if packed { tower.packed() } else { tower };
    let pixels = noise(BATCH * 3 * SIDE * SIDE);
    let (patches, patch_values) = ((SIDE / 16).pow(2), 3 * 16 * 16);
    let flops = size.flops(patches + 1) + (2 * patches * patch_values * size.width) as f64;
    let round = move || {
        let share = BATCH.div_ceil(compute.threads) * 3 * SIDE * SIDE;
        std::thread::scope(|scope| {
            let forward = |pixels: &[f32]| {
                let shape = [pixels.len() / (3 * SIDE * SIDE), 3, SIDE, SIDE];
                let pixels = Tensor::<4>::from_data(TensorData::new(pixels.to_vec(), shape), &compute.device);
                let pooled = tower.forward(pixels, &Dropout::off()).pooled;
                parameters::host(pooled)
            };
            let workers = pixels.chunks(share).map(|pixels| scope.spawn(move || on_single_thread(|| forward(pixels))));
            for worker in workers.collect::<Vec<_>>() {
                std::hint::black_box(worker.join().map_err(|_| "a thread panicked")???);
            }
            Ok(())
        })
    };
    Ok(Work { flops: flops * BATCH as f64, bytes: 0.0, images: BATCH, round: Box::new(round) })
}

/// A training step of a text tower of MiniLM-L6's size on sequences of `lengths`: forward, contrastive loss against
/// fixed image features, backward, AdamW. `precision`: of products.
pub fn bert(lengths: &[usize], precision: Precision) -> Result<Work, Box<dyn Error>> {
    let compute = Compute { precision, ..Compute::select("cpu", None)? };
    if precision == Precision::Bf16 && bf16_instructions().is_none() {
        return Err("this processor has no instructions for products in bf16".into());
    }
    let mut model = text_trains().of(dual_encoder(&compute)?)?;
    let batch = lengths.len();
    let ids = |length: usize| noise(length).iter().map(|at| ((at + 1.0) / 2.0 * 30_000.0) as u32 + 100).collect();
    let ids: Vec<Vec<u32>> = lengths.iter().map(|&length| ids(length)).collect();
    let type_ids = lengths.iter().map(|&length| vec![0; length]).collect();
    let tokens = TokenSequences::new(ids, type_ids);
    let image_embeds = TensorData::new(noise(batch * EMBED_DIM), [batch, EMBED_DIM]);
    let train: TrainSection = toml::from_str("steps = 1\nbatch_size = 64\nlearning_rate = 1e-4\nclip_grad_norm = 0.0")?;
    let mut optimizer = Optimizer::new(&train, &model, compute.on_host)?;
    let pairs = distinct_pairs(batch);
    let (placeholder, mut step) = (parameters::placeholder(&model), 0);
    let (width, forward) = (Size::MINI_LM.width, lengths.iter().map(|&length| Size::MINI_LM.flops(length)));
    let heads = 2 * batch * (width * width + width * EMBED_DIM + batch * EMBED_DIM);
    // A backward pass is two products for each of the forward pass.
    let flops = 3.0 * (forward.sum::<f64>() + heads as f64);
    let round = move || {
        let image_embeds = normalize(Tensor::<2>::from_data(image_embeds.clone(), &compute.device.clone().autodiff()));
        let text_embeds = normalize(compute.training(|| model.text_features(&tokens, &Dropout::off()))?);
        let scale = model.logit_scale.val();
        let loss = contrastive_loss(Objective::default(), (image_embeds, text_embeds), scale, None, &pairs);
        let mut gradients = loss.loss.backward();
        let gradients =
            ParamGradients::take(&model, &mut gradients, Some(RowsRead::of_words(&tokens)), compute.on_host)?;
        let whole = std::mem::replace(&mut model, placeholder.clone());
        let rate = LearningRate { base: train.learning_rate, schedule: 1.0 };
        model = optimizer.step(whole, gradients, Clip::Known(1.0), rate, &|_| step)?;
        step += 1;
        Ok(())
    };
    Ok(Work { flops, bytes: 0.0, images: 0, round: Box::new(round) })
}

/// The text tower and its projection train.
fn text_trains() -> Training {
    let tower = |trains| TowerTraining { trains, last: 0, adapters: false };
    Training { image: tower(false), text: tower(true), image_projection: false, text_projection: true }
}

fn dual_encoder(compute: &Compute) -> Result<DualEncoder, Box<dyn Error>> {
    let image = tower_dir(&vit_config(&Size::NEXT_TO_NOTHING, 16))?;
    let more = json!({"vocab_size": VOCABULARY, "max_position_embeddings": 512, "type_vocab_size": 2});
    let text = tower_dir(&Size::MINI_LM.config("bert", more))?;
    let options = BuildOptions {
        lock: Lock { image: TowerLock::Scratch, text: TowerLock::Scratch },
        image: TowerOptions::default(),
        text: TowerOptions::default(),
        image_projection_locked: true,
        text_projection_locked: false,
        head: HeadConfig::linear(EMBED_DIM, LOGIT_SCALE_INIT),
        seed: 1,
    };
    let path = |dir: &tempfile::TempDir| -> Box<Path> { dir.path().into() };
    Ok(build_from_towers(&path(&image), &path(&text), &options, &compute.device)?.model)
}

fn distinct_pairs(batch: usize) -> PairIds {
    let captions: Vec<u64> = (0..batch as u64).collect();
    PairIds { known: captions.iter().map(|&caption| vec![caption]).collect(), captions }
}

/// A contrastive loss of `batch` pairs of 512 values, with the gradients of both embeddings, of `logit_scale` and, for
/// the sigmoid loss, of `logit_bias`.
pub fn contrastive(loss: Loss, batch: usize) -> Result<Work, Box<dyn Error>> {
    let compute = Compute::select("cpu", None)?;
    let device = compute.device.autodiff();
    let embeds = noise(2 * batch * EMBED_DIM);
    let (image, text) = embeds.split_at(batch * EMBED_DIM);
    let embeds = |values: &[f32]| {
        let rows = Tensor::<2>::from_data(TensorData::new(values.to_vec(), [batch, EMBED_DIM]), &device);
        normalize(rows).detach().require_grad()
    };
    let (image, text) = (embeds(image), embeds(text));
    let scalar = |value: f64| Tensor::<1>::from_data([value as f32], &device).require_grad();
    let scale = scalar(LOGIT_SCALE_INIT);
    // SigLIP's, as `train.logit_bias_init`.
    let bias = (loss == Loss::Sigmoid).then(|| scalar(-10.0));
    let objective = Objective { loss, ..Objective::default() };
    let pairs = distinct_pairs(batch);
    let round = move || {
        let embeds = (image.clone(), text.clone());
        let loss = contrastive_loss(objective, embeds, scale.clone(), bias.clone(), &pairs);
        let gradients = loss.loss.backward();
        for gradient in [image.grad(&gradients), text.grad(&gradients)] {
            std::hint::black_box(gradient.ok_or("an embedding has no gradient")?);
        }
        std::hint::black_box(scale.grad(&gradients).ok_or("the temperature has no gradient")?);
        if let Some(bias) = &bias {
            std::hint::black_box(bias.grad(&gradients).ok_or("the bias has no gradient")?);
        }
        Ok(())
    };
    // The logits, and the gradients of both embeddings.
    let flops = 3.0 * 2.0 * (batch * batch * EMBED_DIM) as f64;
    Ok(Work { flops, bytes: 0.0, images: 0, round: Box::new(round) })
}
