//! A directory that `SentenceTransformer(dir)` loads, of stock modules only: a `Router` with a route for texts and one
//! for images, each a `Transformer`, a `Pooling` where transformers does not pool itself, and a `Dense` for the
//! projection; then `Normalize`. The files follow sentence-transformers 6.2.

use std::fs;
use std::path::Path;

use dualenc_model::{DenseActivation, DenseConfig, HostTensor};
use serde_json::{Value, json};

use crate::commands::export::json_files::{read_object, write_json};
use crate::commands::export::parts::{ModelParts, Projection, Tensors, without_dtype, write_tensors};
use crate::commands::export::reference_limits::loadable_image_config;
use crate::commands::export::routes::{Pooled, Routes};
use crate::commands::export::tokenizer_copy::copy_tokenizer;
use crate::error::TrainError;
use crate::events::{Event, Observer};
use crate::models::hub::model_files::SENTENCE_CONFIG;
use crate::models::load::LoadedModel;
use crate::stop_flag::StopFlag;

/// The file that makes a directory a SentenceTransformer: written and moved last.
pub(crate) const MODULES: &str = "modules.json";

/// The version whose files these are. An older one says so when it loads them.
pub(crate) const VERSION: &str = "6.2.0";

/// Families whose model in transformers has a pooler, unless `add_pooling_layer` is false.
const OPTIONAL_POOLER: [&str; 9] =
    ["vit", "deit", "beit", "bert", "roberta", "xlm-roberta", "camembert", "mpnet", "albert"];

/// A route of the router.
struct Route {
    /// `text` or `image`, as sentence-transformers calls the kind of input.
    name: &'static str,
    /// The `config.json` of the tower.
    config: Value,
    pooled: Pooled,
    weights: Tensors,
    /// Layers between pooling and projection. Their tensors are in `weights`, as `dense.0.linear.weight` and so on.
    dense: Vec<DenseConfig>,
    projection: Projection,
    /// Keys of `sentence_bert_config.json` beside those of all routes.
    settings: Value,
}

/// Fills `dir`.
///
/// # Errors
/// [`TrainError::Write`] or [`TrainError::Read`]; [`TrainError::Stopped`] when `stop` is set.
pub(crate) fn write(
    loaded: &LoadedModel,
    routes: &Routes,
    dir: &Path,
    stop: &StopFlag,
    observer: &mut dyn Observer,
) -> Result<(), TrainError> {
    let parts = ModelParts::new(loaded)?;
    let bias = parts.logit_bias.map_or_else(String::new, |bias| format!(" and the `logit_bias` {bias}"));
    let (are, them) = if bias.is_empty() { ("is", "it") } else { ("are", "them") };
    observer.on(Event::Note(format!(
        "sentence-transformers compares embeddings by their cosine: the `logit_scale` {}{bias} {are} not part of its \
         modules; the model card names {them}",
        parts.logit_scale
    )));
    let max_tokens = loaded.tokenizer.max_tokens();
    let mut text_settings = json!({"max_seq_length": max_tokens, "unpad_inputs": false});
    if let Some(len) = loaded.model.text_tower.config().pad_to {
        text_settings["processing_kwargs"] = json!({"text": {"padding": "max_length", "max_length": len}});
    }
    let text = Route {
        name: "text",
        config: loaded.text_config.clone(),
        pooled: routes.text,
        weights: parts.text,
        dense: loaded.model.text_tower.dense_layers(),
        projection: parts.text_projection,
        settings: text_settings,
    };
    let image = Route {
        name: "image",
        config: loadable_image_config(&loaded.model.image_tower, &loaded.image_config),
        pooled: routes.image,
        weights: parts.image,
        dense: Vec::new(),
        projection: parts.image_projection,
        // The processing based on torchvision rounds differently when it resizes.
        settings: json!({"processor_kwargs": {"backend": "pil"}}),
    };
    let text_dir = dir.join(text.module(0, "Transformer"));
    let image_dir = dir.join(image.module(0, "Transformer"));
    let router = json!({
        "types": merged([text.types(), image.types()]),
        "structure": {text.name: text.modules(), image.name: image.modules()},
        "parameters": {"default_route": text.name, "allow_empty_key": true, "route_mappings": {}},
    });
    text.write(dir, stop)?;
    image.write(dir, stop)?;
    copy_tokenizer(&loaded.text_dir, &loaded.text_config, &text_dir)?;
    forget_processor(&text_dir.join("tokenizer_config.json"))?;
    write_json(&image_dir.join("preprocessor_config.json"), &loaded.processor.to_preprocessor_json())?;
    write_json(&dir.join("router_config.json"), &router)?;
    let normalize = json!({"module_input_name": "sentence_embedding", "module_output_name": "sentence_embedding"});
    write_module(&dir.join("1_Normalize"), "config.json", &normalize)?;
    // `encode_query` and `encode_document` look for prompts of these names, and take none where they are missing.
    let (prompts, default_prompt_name) = match loaded.tokenizer.prompt() {
        "" => (json!({}), Value::Null),
        prompt => (json!({"query": prompt, "document": prompt}), json!("query")),
    };
    let config = json!({
        "model_type": "SentenceTransformer",
        "__version__": {"sentence_transformers": VERSION},
        "prompts": prompts,
        "default_prompt_name": default_prompt_name,
        "similarity_fn_name": "cosine",
    });
    write_json(&dir.join(SENTENCE_CONFIG), &config)?;
    let modules = json!([
        {"idx": 0, "name": "0", "path": "", "type": class_of("Router")},
        {"idx": 1, "name": "1", "path": "1_Normalize", "type": class_of("Normalize")},
    ]);
    write_json(&dir.join(MODULES), &modules)
}

impl Route {
    /// The directory of the module at `index`, such as `text_0_Transformer`.
    fn module(&self, index: usize, kind: &str) -> String {
        format!("{}_{index}_{kind}", self.name)
    }

    /// The kinds of its modules, in order.
    fn kinds(&self) -> Vec<&'static str> {
        let mut kinds = match self.pooled {
            Pooled::Output => vec!["Transformer"],
            _ => vec!["Transformer", "Pooling"],
        };
        kinds.extend(self.dense.iter().map(|_| "Dense"));
        kinds.push("Dense");
        kinds
    }

    fn modules(&self) -> Vec<String> {
        self.kinds().iter().enumerate().map(|(index, kind)| self.module(index, kind)).collect()
    }

    /// The class of each module.
    fn types(&self) -> Value {
        self.modules().into_iter().zip(self.kinds()).map(|(module, kind)| (module, json!(class_of(kind)))).collect()
    }

    fn write(mut self, dir: &Path, stop: &StopFlag) -> Result<(), TrainError> {
        let modules = self.modules();
        let Projection { weight, bias } = self.projection;
        let projected = weight.shape[1];
        // Of a token.
        let width = match (self.pooled, self.dense.first()) {
            (_, Some(dense)) => dense.input,
            (Pooled::FirstAndMeanWithoutFirst(_), None) => projected / 2,
            (_, None) => projected,
        };
        let first_dense = modules.len() - 1 - self.dense.len();
        for (n, (dense, module)) in self.dense.iter().zip(&modules[first_dense..]).enumerate() {
            write_dense(&dir.join(module), *dense, take_dense(&mut self.weights, n), stop)?;
        }
        let (output, name) = match self.pooled {
            Pooled::Output => ("pooler_output", "sentence_embedding"),
            Pooled::OutputMap => ("pooler_output", "token_embeddings"),
            Pooled::First
            | Pooled::Last
            | Pooled::Mean
            | Pooled::MeanWithoutFirst(_)
            | Pooled::FirstAndMeanWithoutFirst(_) => ("last_hidden_state", "token_embeddings"),
        };
        let mut settings = json!({
            "transformer_task": "feature-extraction",
            "modality_config": {self.name: {"method": "forward", "method_output_name": output}},
            "module_output_name": name,
        });
        let family = self.config["model_type"].as_str().unwrap_or_default();
        if self.pooled != Pooled::Output && OPTIONAL_POOLER.contains(&family) {
            settings["model_kwargs"] = json!({"add_pooling_layer": false});
        }
        let mut config = without_dtype(self.config);
        config["dtype"] = json!("float32");
        let tower_dir = dir.join(&modules[0]);
        write_module(&tower_dir, "config.json", &config)?;
        write_json(&tower_dir.join("sentence_bert_config.json"), &merged([settings, self.settings]))?;
        write_tensors(&tower_dir.join("model.safetensors"), self.weights, stop)?;
        let modes = match self.pooled {
            Pooled::Output => None,
            Pooled::First => Some(json!("cls")),
            Pooled::Last => Some(json!("lasttoken")),
            Pooled::OutputMap | Pooled::Mean => Some(json!("mean")),
            Pooled::MeanWithoutFirst(_) | Pooled::FirstAndMeanWithoutFirst(_) => Some(json!(["cls", "mean"])),
        };
        if let Some(modes) = modes {
            let pooling = json!({"embedding_dimension": width, "pooling_mode": modes, "include_prompt": true});
            write_module(&dir.join(&modules[1]), "config.json", &pooling)?;
        }
        let weight = match self.pooled {
            Pooled::MeanWithoutFirst(tokens) | Pooled::FirstAndMeanWithoutFirst(tokens) => {
                of_first_and_mean(&weight, width, tokens)
            }
            _ => weight,
        };
        let dense = DenseConfig {
            input: weight.shape[1],
            output: weight.shape[0],
            bias: bias.is_some(),
            activation: DenseActivation::Identity,
        };
        let bias = bias.map(|bias| ("linear.bias".to_owned(), bias));
        let tensors = [("linear.weight".to_owned(), weight)].into_iter().chain(bias).collect();
        write_dense(&dir.join(&modules[modules.len() - 1]), dense, tensors, stop)
    }
}

/// Removes the tensors of the `Dense` layer `n` from those of a tower.
fn take_dense(weights: &mut Tensors, n: usize) -> Tensors {
    let prefix = format!("dense.{n}.");
    let taken = weights.extract_if(.., |name, _| name.starts_with(&prefix));
    taken.map(|(name, tensor)| (name[prefix.len()..].to_owned(), tensor)).collect()
}

/// Writes a `Dense` layer to the directory of its module.
fn write_dense(dir: &Path, config: DenseConfig, weights: Tensors, stop: &StopFlag) -> Result<(), TrainError> {
    let class = config.activation.class();
    let class =
        class.ok_or_else(|| TrainError::Internal("a `Dense` layer has an activation without class".to_owned()))?;
    let json = json!({
        "in_features": config.input,
        "out_features": config.output,
        "bias": config.bias,
        "activation_function": class,
        "module_input_name": "sentence_embedding",
        "module_output_name": "sentence_embedding",
    });
    write_module(dir, "config.json", &json)?;
    write_tensors(&dir.join("model.safetensors"), weights, stop)
}

/// The projection of the mean of all tokens but the first, `[dim, width]`, or of the first token and that mean,
/// `[dim, 2 * width]`, as one of the first token and the mean of all `tokens`, `[dim, 2 * width]`: with T tokens, the
/// mean of all but the first is `(T * mean - first) / (T - 1)`.
fn of_first_and_mean(projection: &HostTensor, width: usize, tokens: usize) -> HostTensor {
    let (dim, columns) = (projection.shape[0], projection.shape[1]);
    let others = tokens as f64 - 1.0;
    let rows = projection.values.chunks(columns);
    let values = rows.flat_map(|row| {
        let (of_first, of_mean) = row.split_at(columns - width);
        let first = (0..width).map(|at| {
            let own = of_first.get(at).copied().map_or(0.0, f64::from);
            (own + f64::from(of_mean[at]) * (-1.0 / others)) as f32
        });
        let mean = of_mean.iter().map(|&value| (f64::from(value) * (tokens as f64 / others)) as f32);
        first.chain(mean).collect::<Vec<_>>()
    });
    HostTensor { shape: vec![dim, 2 * width], values: values.collect() }
}

/// The class of a kind of module in sentence-transformers.
fn class_of(kind: &str) -> String {
    let room = if kind == "Pooling" { "sentence_transformer" } else { "base" };
    format!("sentence_transformers.{room}.modules.{}.{kind}", kind.to_lowercase())
}

/// One object with the keys of both.
fn merged(objects: [Value; 2]) -> Value {
    objects
        .into_iter()
        .filter_map(|object| match object {
            Value::Object(keys) => Some(keys),
            _ => None,
        })
        .flatten()
        .collect()
}

/// Removes the processor that a tokenizer was a part of: transformers would look for its image processor beside it.
fn forget_processor(path: &Path) -> Result<(), TrainError> {
    let mut config = read_object(path)?;
    if config.remove("processor_class").is_some() {
        write_json(path, &Value::Object(config))?;
    }
    Ok(())
}

/// Creates the directory of a module and writes a file of it.
fn write_module(dir: &Path, name: &str, value: &Value) -> Result<(), TrainError> {
    fs::create_dir_all(dir).map_err(TrainError::write(dir))?;
    write_json(&dir.join(name), value)
}
