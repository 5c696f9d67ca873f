//! A directory that `SentenceTransformer(dir)` loads, of stock modules only: a `Router` with a route for texts and one
//! for images, each a `Transformer`, a `Pooling` where transformers does not pool itself, the `Dense` layers of the
//! tower and the modules of the head (`stock_modules`); then `Normalize`. The files follow sentence-transformers 6.2.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use crate::commands::export::head_part::HeadPart;
use crate::commands::export::heads::MATRYOSHKA_DIMS;
use crate::commands::export::json_files::{read_object, write_json};
use crate::commands::export::parts::{ModelParts, Tensors, without_dtype, write_tensors};
use crate::commands::export::reference_limits::loadable_image_config;
use crate::commands::export::routes::{Pooled, Routes};
use crate::commands::export::stock_modules::{StockModule, WithoutFirst, modules_of};
use crate::commands::export::tokenizer_copy::copy_tokenizer;
use crate::error::TrainError;
use crate::events::{Event, Observer};
use crate::models::hub::model_files::SENTENCE_CONFIG;
use crate::models::load::LoadedModel;
use crate::stop_flag::StopFlag;

/// The file that makes a directory a SentenceTransformer: written and moved last.
pub(crate) const MODULES: &str = "modules.json";

/// The version of sentence-transformers that these files are for. An older one says so when it loads them.
pub(crate) const VERSION: &str = "6.2.0";

/// Families with a pooler in their model of transformers, unless `add_pooling_layer` is false.
const OPTIONAL_POOLER: [&str; 9] =
    ["vit", "deit", "beit", "bert", "roberta", "xlm-roberta", "camembert", "mpnet", "albert"];

/// A route of the router.
struct Route {
    /// `text` or `image`, as sentence-transformers calls the kind of input.
    name: &'static str,
    /// The `config.json` of the tower.
    config: Value,
    pooled: Pooled,
    /// Values of a token.
    width: usize,
    weights: Tensors,
    /// What comes after pooling.
    after: Vec<StockModule>,
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
    let mut parts = ModelParts::new(loaded)?;
    let bias = parts.logit_bias.map_or_else(String::new, |bias| format!(" and the `logit_bias` {bias:.4}"));
    let (are, them) = if bias.is_empty() { ("is", "it") } else { ("are", "them") };
    observer.on(Event::Note(format!(
        "sentence-transformers compares embeddings by their cosine: the `logit_scale` {:.4} (a factor of {:.2}){bias} \
         {are} not part of its modules; the model card names {them}",
        parts.logit_scale,
        parts.logit_scale.exp()
    )));
    let max_tokens = loaded.tokenizer.max_tokens();
    let mut text_settings = json!({"max_seq_length": max_tokens, "unpad_inputs": false});
    if let Some(len) = loaded.model.text_tower.config().pad_to {
        text_settings["processing_kwargs"] = json!({"text": {"padding": "max_length", "max_length": len}});
    }
    let dense = loaded.model.text_tower.dense_layers();
    let text_width = dense.first().map_or(parts.text_head.width, |first| first.input);
    let mut after_text = Vec::new();
    for (n, layer) in dense.iter().enumerate() {
        after_text.push(StockModule::dense(layer.activation, take_dense(&mut parts.text, n))?);
    }
    after_text.extend(modules_of(parts.text_head, None)?);
    let (image_width, without_first) = token_width(routes.image, &parts.image_head);
    let text = Route {
        name: "text",
        config: loaded.text_config.clone(),
        pooled: routes.text,
        width: text_width,
        weights: parts.text,
        after: after_text,
        settings: text_settings,
    };
    let image = Route {
        name: "image",
        config: loadable_image_config(&loaded.model.image_tower, &loaded.image_config),
        pooled: routes.image,
        width: image_width,
        weights: parts.image,
        after: modules_of(parts.image_head, without_first)?,
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
    copy_tokenizer(loaded, &text_dir)?;
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
    let mut config = json!({
        "model_type": "SentenceTransformer",
        "__version__": {"sentence_transformers": VERSION},
        "prompts": prompts,
        "default_prompt_name": default_prompt_name,
        "similarity_fn_name": "cosine",
    });
    let widths = loaded.nested_widths();
    if !widths.is_empty() {
        config[MATRYOSHKA_DIMS] = json!(widths);
    }
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
        kinds.extend(self.after.iter().map(|module| module.kind));
        kinds
    }

    fn modules(&self) -> Vec<String> {
        self.kinds().iter().enumerate().map(|(index, kind)| self.module(index, kind)).collect()
    }

    /// The class of each module.
    fn types(&self) -> Value {
        self.modules().into_iter().zip(self.kinds()).map(|(module, kind)| (module, json!(class_of(kind)))).collect()
    }

    fn write(self, dir: &Path, stop: &StopFlag) -> Result<(), TrainError> {
        let modules = self.modules();
        let first = modules.len() - self.after.len();
        for (module, name) in self.after.into_iter().zip(&modules[first..]) {
            write_module(&dir.join(name), "config.json", &module.config)?;
            write_tensors(&dir.join(name).join("model.safetensors"), module.tensors, stop)?;
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
            let pooling = json!({"embedding_dimension": self.width, "pooling_mode": modes, "include_prompt": true});
            write_module(&dir.join(&modules[1]), "config.json", &pooling)?;
        }
        Ok(())
    }
}

/// Removes the tensors of the `Dense` layer `n` from those of a tower.
fn take_dense(weights: &mut Tensors, n: usize) -> Tensors {
    let prefix = format!("dense.{n}.");
    let taken = weights.extract_if(.., |name, _| name.starts_with(&prefix));
    taken.map(|(name, tensor)| (name[prefix.len()..].to_owned(), tensor)).collect()
}

/// The width of a token of the image tower, and what the pooled output is made of, if no `Pooling` gives it.
fn token_width(pooled: Pooled, head: &HeadPart) -> (usize, Option<WithoutFirst>) {
    match pooled {
        Pooled::MeanWithoutFirst(tokens) => (head.width, Some(WithoutFirst { width: head.width, tokens })),
        Pooled::FirstAndMeanWithoutFirst(tokens) => {
            let width = head.width / 2;
            (width, Some(WithoutFirst { width, tokens }))
        }
        Pooled::Output | Pooled::OutputMap | Pooled::First | Pooled::Mean | Pooled::Last => (head.width, None),
    }
}

/// The class of a kind of module in sentence-transformers.
fn class_of(kind: &str) -> String {
    let (room, file) = match kind {
        "LayerNorm" => ("sentence_transformer", "layer_norm".to_owned()),
        "Pooling" => ("sentence_transformer", "pooling".to_owned()),
        _ => ("base", kind.to_lowercase()),
    };
    format!("sentence_transformers.{room}.modules.{file}.{kind}")
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

/// Creates the directory of a module and writes one of its files.
fn write_module(dir: &Path, name: &str, value: &Value) -> Result<(), TrainError> {
    fs::create_dir_all(dir).map_err(TrainError::write(dir))?;
    write_json(&dir.join(name), value)
}
