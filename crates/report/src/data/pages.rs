//! What each page is made from. Every part may be missing or empty.

use serde::{Deserialize, Serialize};

use crate::data::evaluation::{EmbeddingMap, Evaluation};
use crate::data::picture::{PairScores, Picture};
use crate::data::run::{BadSamples, BestCheckpoint, Entry, Headline, ParameterGroup, RunState, TrainStep, Warning};
use crate::histogram::Similarities;

/// The report on one run.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Report {
    /// Title of the page; the run directory if empty.
    pub title: String,
    /// Name of the run directory.
    pub run_dir: String,
    /// How far the run is.
    pub state: Option<RunState>,
    /// Figures shown large. If empty, the main metrics of each evaluation at [`Report::shown_step`].
    pub headlines: Vec<Headline>,
    /// Step of the figures to show, instead of the last step of each evaluation.
    pub shown_step: Option<u64>,
    /// The best checkpoint.
    pub best: Option<BestCheckpoint>,
    /// The training steps, by ascending step.
    pub steps: Vec<TrainStep>,
    /// The evaluations.
    pub evaluations: Vec<Evaluation>,
    /// Summary of the data.
    pub data: Vec<Entry>,
    /// Summary of the config.
    pub config: Vec<Entry>,
    /// The whole config as text.
    pub config_text: Option<String>,
    /// The parts of the model.
    pub parameters: Vec<ParameterGroup>,
    /// The worst and the best training pairs.
    pub pairs: Option<PairScores>,
    /// The embeddings in two dimensions.
    pub map: Option<EmbeddingMap>,
    /// Cosine similarities of matching and other pairs.
    pub similarities: Option<Similarities>,
    /// Distance between the mean image and the mean text embedding, as [`crate::modality_gap`] computes it.
    pub modality_gap: Option<f64>,
    /// What the run warned about.
    pub warnings: Vec<Warning>,
    /// What the run does without.
    pub bad_samples: Vec<BadSamples>,
    /// Parts that could not be made, each with the reason. The key is `embeddings`, `pairs`, `data`, `model`, or the
    /// name of an evaluation after `eval.`.
    pub absent: Vec<Entry>,
    /// What made the page, shown at its foot: a program and its version.
    pub made_by: String,
}

/// The comparison of several runs.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Comparison {
    /// Title of the page.
    pub title: String,
    /// The runs, in the order of the columns.
    pub runs: Vec<ComparedRun>,
    /// What made the page, shown at its foot.
    pub made_by: String,
}

/// One of the runs that are compared.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct ComparedRun {
    /// Name, unique among the runs.
    pub name: String,
    /// How far it is.
    pub state: Option<RunState>,
    /// Its figures. If empty, the main metrics of each evaluation at its last step.
    pub headlines: Vec<Headline>,
    /// All keys of the config; the page shows those that differ.
    pub config: Vec<Entry>,
    /// The training steps, by ascending step.
    pub steps: Vec<TrainStep>,
    /// The evaluations.
    pub evaluations: Vec<Evaluation>,
}

/// Results of a search.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct SearchResults {
    /// Title of the page.
    pub title: String,
    /// What was searched and how: the index, the model, the time.
    pub facts: Vec<Entry>,
    /// The queries with what was found.
    pub queries: Vec<SearchQuery>,
    /// What made the page, shown at its foot.
    pub made_by: String,
}

/// A query and its results.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct SearchQuery {
    /// The text that was searched for.
    pub text: Option<String>,
    /// The image that was searched for.
    pub picture: Option<Picture>,
    /// What was found, the best first.
    pub results: Vec<SearchResult>,
}

/// A search result.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct SearchResult {
    /// The image, with its path.
    pub picture: Picture,
    /// Its cosine similarity to the query.
    pub score: f64,
    /// Its caption, if known.
    pub caption: Option<String>,
}

/// How a page is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PageOptions {
    /// Bytes that all pictures of a page may take as text, 2 MiB unless set. Pictures beyond are left out and counted.
    pub picture_bytes: usize,
}

impl Default for PageOptions {
    fn default() -> Self {
        Self { picture_bytes: 2 << 20 }
    }
}
