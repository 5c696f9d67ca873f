//! `dualenc classify`: labels of images by their similarity to texts, with the probabilities of the reference.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use dualenc_data::{CLASS_PLACEHOLDER, LeftOut, Skipped, read_class_names, repeated_names};
use serde::Serialize;

use crate::commands::listed_images::list_images;
use crate::commands::with_encoder::with_encoder;
use crate::device::{Compute, read_scalar};
use crate::error::TrainError;
use crate::eval::metrics::zero_shot::{classifier, prompts};
use crate::events::{Event, Observer};
use crate::features::absent::check_complete;
use crate::features::cut_texts::CutCounts;
use crate::models::load::LoadedModel;
use crate::stop_flag::StopFlag;

/// Number of images with features in memory at a time: a multiple of every usual batch size.
const WINDOW_IMAGES: usize = 4096;

/// Extensions of files of labels.
const LIST_EXTENSIONS: [&str; 3] = ["txt", "json", "csv"];

/// What to classify, and how.
#[derive(Debug, Clone)]
pub struct ClassifyRequest<'a> {
    /// Images, folders of images with their subfolders, or data as [`embed`](crate::embed) takes it.
    pub images: &'a [PathBuf],
    /// The labels, at least one, each once.
    pub labels: &'a [String],
    /// Prompt templates with `{c}` for the label; several are averaged. Without one, labels are texts as they are.
    pub templates: &'a [String],
    /// Most labels of an image.
    pub top: usize,
    /// Images or texts per forward pass.
    pub batch_size: usize,
}

/// A label of an image.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct LabelScore {
    /// The label.
    pub label: String,
    /// Cosine similarity of the image and the label's text.
    pub score: f32,
    /// Of all labels, the softmax of `exp(logit_scale) * score`: the probabilities add up to 1.
    pub softmax: f64,
    /// Of a model with a `logit_bias`, the sigmoid of `exp(logit_scale) * score + logit_bias`: each label by itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sigmoid: Option<f64>,
}

/// An image and its labels.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ClassifiedImage {
    /// The path, or `shard.tar/entry.jpg`.
    pub image: String,
    /// The most similar labels first; of equal ones, in the order of the request.
    pub labels: Vec<LabelScore>,
}

/// The labels of all images.
#[derive(Debug, Clone, PartialEq)]
pub struct Classification {
    /// The images that can be used, in order.
    pub images: Vec<ClassifiedImage>,
    /// The others.
    pub skipped: Vec<Skipped>,
    /// Files in folders that are no images.
    pub left_out: LeftOut,
}

/// The labels that `argument` gives, that of `--labels`: those in the file of this name (as `eval --classnames` reads
/// it), or else those between its commas.
///
/// # Errors
/// [`TrainError::Usage`] when there is none, one is empty, or one appears twice; [`TrainError::Data`].
pub fn parse_labels(argument: &str) -> Result<Vec<String>, TrainError> {
    parse_names(argument, "--labels", "label")
}

/// As [`parse_labels`], for the names of classes that `--classnames` gives.
///
/// # Errors
/// As for [`parse_labels`].
pub fn parse_class_names(argument: &str) -> Result<Vec<String>, TrainError> {
    parse_names(argument, "--classnames", "name")
}

/// `option`: what gives the names. `noun`: what one is called.
fn parse_names(argument: &str, option: &str, noun: &str) -> Result<Vec<String>, TrainError> {
    let path = Path::new(argument);
    let extension = path.extension().unwrap_or_default().to_string_lossy().to_lowercase();
    if path.is_dir() || (!path.exists() && looks_like_path(argument)) {
        let problem = if path.is_dir() { "is a directory" } else { "does not exist" };
        return Err(TrainError::Usage(format!(
            "`{option}` `{argument}` {problem}; give a file with one {noun} a line, or {noun}s with commas between them"
        )));
    }
    let names = if path.exists() || LIST_EXTENSIONS.contains(&extension.as_str()) {
        read_class_names(path)?
    } else {
        argument.split(',').map(|name| name.trim().to_owned()).collect()
    };
    if names.iter().any(String::is_empty) {
        return Err(TrainError::Usage(format!(
            "`{option}` `{argument}` has an empty {noun}; give {noun}s between commas, or a file with one a line"
        )));
    }
    if let Some(repeated) = repeated_names(&names).first() {
        return Err(TrainError::Usage(format!("`{option}` has `{repeated}` more than once; give each {noun} once")));
    }
    Ok(names)
}

/// Whether one label without a comma is rather the path of a file: it has an extension, or a `/` and no space.
fn looks_like_path(label: &str) -> bool {
    /// Letters of an extension, such as `labels`.
    const EXTENSION: std::ops::RangeInclusive<usize> = 2..=6;
    let extension = Path::new(label).extension().unwrap_or_default().to_string_lossy();
    let has_extension = EXTENSION.contains(&extension.len()) && extension.chars().all(|it| it.is_ascii_alphanumeric());
    !label.contains(',') && (has_extension || (label.contains('/') && !label.contains(' ')))
}

/// Finds the labels of each image.
///
/// # Errors
/// - [`TrainError::Usage`] when there is no label, or no image can be used;
/// - [`TrainError::Data`], [`TrainError::Read`] or [`TrainError::Model`] when images or labels cannot be encoded;
/// - [`TrainError::NotFiniteOutput`] when an embedding is not finite;
/// - [`TrainError::Stopped`] when `stop` is set.
pub fn classify(
    loaded: &LoadedModel,
    request: &ClassifyRequest<'_>,
    compute: &Compute,
    stop: &StopFlag,
    observer: &mut dyn Observer,
) -> Result<Classification, TrainError> {
    if request.labels.is_empty() {
        return Err(TrainError::Usage("there is no label; give `--labels`".to_owned()));
    }
    check_complete(&loaded.model, "the input")?;
    let (mut images, mut left_out) = (Vec::new(), LeftOut::default());
    for path in request.images {
        let found = list_images(path, None, observer)?;
        images.extend(found.images);
        left_out.add(found.left_out);
    }
    let dim = loaded.model.embed_dim();
    let (classes, cut) =
        class_embeddings(loaded, request.labels, request.templates, request.batch_size, compute, stop)?;
    cut.report("", prompt_noun(request.templates), loaded.tokenizer.max_tokens(), observer);
    let scorer = Scorer::of(loaded, request.labels, &classes)?;
    if request.labels.len() == 1 && scorer.bias.is_none() {
        observer.on(Event::Warning(
            "with a single label its softmax is 1, whatever the image shows; give the labels it could have instead"
                .to_owned(),
        ));
    }
    let mut done = Classification { images: Vec::new(), skipped: Vec::new(), left_out };
    let total = images.len();
    for (window, first) in images.chunks(WINDOW_IMAGES).zip((0..).step_by(WINDOW_IMAGES)) {
        let window = Arc::new(window.to_vec());
        let (usable, embeddings, bad) = with_encoder(loaded, compute, stop, request.batch_size, |encoder| {
            encoder.images(Arc::clone(&window) as _, &loaded.processor, |done| {
                observer.on(Event::Work { name: "images", done: first + done, total });
            })
        })?;
        for (image, embed) in usable.iter().zip(embeddings.into_normalized().chunks_exact(dim)) {
            let mut labels = scorer.labels(embed);
            labels.truncate(request.top);
            done.images.push(ClassifiedImage { image: window[*image].key(), labels });
        }
        for bad in bad {
            let bad = Skipped { image: first + bad.image, ..bad };
            observer.on(Event::Skipped { image: &bad, of: "classify", listed_in: None });
            done.skipped.push(bad);
        }
    }
    match done.skipped.first() {
        Some(bad) if done.images.is_empty() => Err(TrainError::Usage(format!(
            "{}: `{}`: {}",
            if total == 1 {
                "the image cannot be used".to_owned()
            } else {
                format!("none of the {total} images can be used; the first is")
            },
            bad.key,
            bad.reason
        ))),
        _ => Ok(done),
    }
}

/// What a text is that is made of a label with `templates`.
pub(crate) fn prompt_noun(templates: &[String]) -> &'static str {
    if templates.is_empty() { "label" } else { "prompt" }
}

/// The embedding of each label, the average over `templates`: shape `[labels, dim]`, flat, normalised. And how many
/// texts were cut.
///
/// # Errors
/// As for [`Encoder::texts`](crate::Encoder::texts).
pub(crate) fn class_embeddings(
    loaded: &LoadedModel,
    labels: &[String],
    templates: &[String],
    batch_size: usize,
    compute: &Compute,
    stop: &StopFlag,
) -> Result<(Vec<f32>, CutCounts), TrainError> {
    let whole = [CLASS_PLACEHOLDER.to_owned()];
    let templates = if templates.is_empty() { &whole[..] } else { templates };
    let texts = prompts(labels, templates);
    let (texts, cut) = with_encoder(loaded, compute, stop, batch_size, |encoder| {
        Ok::<_, TrainError>((encoder.texts(&texts, |_| ())?, encoder.cut.take()))
    })?;
    let classes = classifier(&texts.into_normalized(), &vec![templates.len(); labels.len()], loaded.model.embed_dim());
    Ok((classes, cut))
}

/// What turns the embedding of an image into probabilities.
pub(crate) struct Scorer<'a> {
    labels: &'a [String],
    /// `[labels, dim]`, flat, normalised.
    classes: &'a [f32],
    /// `exp(logit_scale)`.
    scale: f64,
    /// `logit_bias`.
    bias: Option<f64>,
}

impl<'a> Scorer<'a> {
    pub fn of(loaded: &LoadedModel, labels: &'a [String], classes: &'a [f32]) -> Result<Self, TrainError> {
        let model = &loaded.model;
        let scale = read_scalar(model.logit_scale.val())?.exp();
        let bias = model.logit_bias.as_ref().map(|bias| read_scalar(bias.val())).transpose()?;
        if let Some(value) = bias.into_iter().chain([scale]).find(|value| !value.is_finite()) {
            return Err(TrainError::NotFiniteOutput {
                what: "the scale or bias of the logits".to_owned(),
                value,
                advice: "the model is damaged: use an earlier checkpoint or another model".to_owned(),
            });
        }
        Ok(Self { labels, classes, scale, bias })
    }

    /// All labels of an image, by its normalised embedding.
    pub fn labels(&self, image: &[f32]) -> Vec<LabelScore> {
        let dot = |class: &[f32]| class.iter().zip(image).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>();
        let logits: Vec<f64> = self.classes.chunks_exact(image.len()).map(|class| self.scale * dot(class)).collect();
        let max = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let sum: f64 = logits.iter().map(|logit| (logit - max).exp()).sum();
        let label = |(label, logit): (&String, &f64)| LabelScore {
            label: label.clone(),
            score: (logit / self.scale) as f32,
            softmax: (logit - max).exp() / sum,
            sigmoid: self.bias.map(|bias| 1.0 / (1.0 + (-(logit + bias)).exp())),
        };
        let mut labels: Vec<LabelScore> = self.labels.iter().zip(&logits).map(label).collect();
        // Stable: equal labels stay in their order.
        labels.sort_by(|a, b| b.softmax.total_cmp(&a.softmax).then(b.score.total_cmp(&a.score)));
        labels
    }
}

#[cfg(test)]
mod tests {
    use safetensors::SafeTensors;

    use super::*;
    use crate::events::Silent;

    fn values(file: &SafeTensors<'_>, name: &str) -> Vec<f32> {
        let bytes = file.tensor(name).unwrap();
        bytes.data().as_chunks().0.iter().map(|&value| f32::from_le_bytes(value)).collect()
    }

    /// The probabilities of a label for each image, in the order of the labels.
    fn by_label(scorer: &Scorer<'_>, image: &[f32], of: fn(&LabelScore) -> f64) -> Vec<f64> {
        let found = scorer.labels(image);
        scorer.labels.iter().map(|label| of(found.iter().find(|found| found.label == *label).unwrap())).collect()
    }

    #[test]
    fn probabilities_match_reference() {
        let compute = Compute::select("cpu", None).unwrap();
        for name in ["deit_roberta", "dinov2_bert", "vit_bert", "vit_bert_v4"] {
            let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/goldens/dual").join(name);
            let bytes = std::fs::read(dir.join("expected.safetensors")).unwrap();
            let file = SafeTensors::deserialize(&bytes).unwrap();
            let loaded = LoadedModel::from_dir(&dir, &compute, &mut Silent).unwrap();
            let (images, texts) = (values(&file, "image_embeds"), values(&file, "text_embeds"));
            let labels: Vec<String> = ["a", "b", "c"].map(str::to_owned).into();
            let mut scorer = Scorer::of(&loaded, &labels, &texts).unwrap();
            let dim = texts.len() / labels.len();
            let rows = values(&file, "logits_per_image");
            assert_eq!(rows.len(), 9);
            for (image, logits) in images.chunks(dim).zip(rows.chunks(3)) {
                let sum: f64 = logits.iter().map(|&logit| f64::from(logit).exp()).sum();
                let expected: Vec<f64> = logits.iter().map(|&logit| f64::from(logit).exp() / sum).collect();
                let found = by_label(&scorer, image, |label| label.softmax);
                assert!(found.iter().zip(&expected).all(|(a, b)| (a - b).abs() < 1e-5), "{found:?}, {expected:?}");
                let sorted = scorer.labels(image);
                assert!(sorted.is_sorted_by(|a, b| a.softmax >= b.softmax && a.sigmoid.is_none()));
                // SigLIP's probabilities are those of `logits_per_image` with the bias.
                scorer.bias = Some(-0.5);
                let found = by_label(&scorer, image, |label| label.sigmoid.unwrap());
                let expected = logits.iter().map(|&logit| 1.0 / (1.0 + (0.5 - f64::from(logit)).exp()));
                assert!(found.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-5));
                scorer.bias = None;
            }
        }
    }

    #[test]
    fn labels_come_from_text_or_file() {
        assert_eq!(parse_labels(" a cat ,dog").unwrap(), ["a cat", "dog"]);
        for label in ["St. Louis", "a cat and/or a dog", "U.S.", "a cat"] {
            assert_eq!(parse_labels(label).unwrap(), [label]);
        }
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("labels.txt");
        std::fs::write(&path, "a, b\nc\n\n").unwrap();
        assert_eq!(parse_labels(path.to_str().unwrap()).unwrap(), ["a, b", "c"]);
        for (argument, expected) in [
            ("a,,b", "has an empty label"),
            ("", "has an empty label"),
            ("a,b, a", "has `a` more than once"),
            ("none.txt", "none.txt"),
            ("none.text", "`--labels` `none.text` does not exist; give a file"),
            ("lists/none", "`--labels` `lists/none` does not exist"),
            (dir.path().to_str().unwrap(), "is a directory; give a file"),
        ] {
            let error = parse_labels(argument).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
            let error = parse_class_names(argument).unwrap_err().to_string();
            assert!(!error.contains("label"), "{error}");
        }
    }
}
