//! What `dualenc select` is asked for, and what it finds.

use std::path::{Path, PathBuf};

use serde::Serialize;

/// Which images to take. Stages that are not asked for leave nothing out.
#[derive(Debug, Clone, Default)]
pub struct SelectRequest<'a> {
    /// The list to write; it must not exist. With several sources, each has a list of its own: `rows.txt` becomes
    /// `rows-1.txt`, `rows-2.txt` and so on.
    pub out: PathBuf,
    /// Keeps images that an evaluation has, too.
    pub keep_overlap: bool,
    /// Leaves out an image if its features have at least this cosine with those of an image that is taken, or of an
    /// image of an evaluation.
    pub near: Option<f64>,
    /// An aligned model, which scores images by the cosine with their captions.
    pub model: Option<&'a Path>,
    /// Least score of an image.
    pub min_score: Option<f64>,
    /// Fraction of the images to take, by their scores: above 0 and at most 1.
    pub keep: Option<f64>,
    /// The same number of images for each class.
    pub classes: Option<ClassQuota>,
    /// The same limit for each cluster of images.
    pub clusters: Option<ClusterCap>,
    /// A list of an earlier selection. Its images are taken, too.
    pub union: Option<&'a Path>,
    /// Images or texts per forward pass.
    pub batch_size: usize,
}

/// Images for each of some classes.
#[derive(Debug, Clone)]
pub struct ClassQuota {
    /// Names of the classes.
    pub names: Vec<String>,
    /// Prompt templates with `{c}` for the name; several are averaged. Without one, names are texts as they are.
    pub templates: Vec<String>,
    /// Most images of a class.
    pub per_class: usize,
}

/// A limit to the images of a cluster.
#[derive(Debug, Clone, Copy)]
pub struct ClusterCap {
    /// Number of clusters.
    pub clusters: usize,
    /// Most images of a cluster.
    pub cap: usize,
}

/// What was selected.
#[derive(Debug, Clone, Serialize)]
pub struct Selected {
    /// Training images, without those that `data.validation_fraction` holds out.
    pub images: usize,
    /// Images in the lists, without those held out.
    pub selected: usize,
    /// Images that are held out as validation data. They are in the lists, so that they stay held out.
    pub held_out: usize,
    /// Images that cannot be used.
    pub unreadable: usize,
    /// What each stage left out, in order.
    pub left_out: Vec<LeftOutBy>,
    /// Images that only the list of an earlier selection added.
    pub added: usize,
    /// Scores of the images that had one; `None` without a model.
    pub scores: Option<ScoreSummary>,
    /// Images of each class that were taken, in the order of the names.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub classes: Vec<ClassCount>,
    /// Images of each cluster before the limit, most first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub cluster_sizes: Vec<usize>,
    /// The lists that were written.
    pub lists: Vec<WrittenList>,
}

/// What a stage left out.
#[derive(Debug, Clone, Serialize)]
pub struct LeftOutBy {
    /// The stage: `overlap`, `near_evaluation`, `near`, `score`, `classes` or `clusters`.
    pub stage: &'static str,
    /// Number of images.
    pub images: usize,
    /// The first of them, for people to look at.
    pub such_as: Vec<String>,
}

impl LeftOutBy {
    /// Why the stage leaves images out, in words.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self.stage {
            "overlap" => "an evaluation has the same file",
            "near_evaluation" => "they look like an image of an evaluation",
            "near" => "they look like another training image",
            "score" => "their scores are too low for `--keep` or `--min-score`",
            "classes" => "no class takes them",
            _ => "their clusters are full",
        }
    }
}

/// Cosines of images with their captions.
#[derive(Debug, Clone, Serialize)]
pub struct ScoreSummary {
    /// The mean.
    pub mean: f64,
    /// The 5th, 25th, 50th, 75th and 95th percentile.
    pub percentiles: [f32; 5],
    /// The lowest score that was taken.
    pub threshold: Option<f32>,
}

/// Images of a class.
#[derive(Debug, Clone, Serialize)]
pub struct ClassCount {
    /// The name of the class.
    pub name: String,
    /// Images that were taken for it.
    pub images: usize,
    /// Images that resemble this class more than any other one.
    pub supply: usize,
}

/// A list that was written.
#[derive(Debug, Clone, Serialize)]
pub struct WrittenList {
    /// The source, as a key of the config: `data.train`, or `data.train[0]`.
    pub source: String,
    /// The file; `None` for a source without a selected image.
    pub path: Option<PathBuf>,
    /// Images in it.
    pub images: usize,
}
