//! What a fit chose, and the figures behind it.

use serde::Serialize;

use crate::run_dir::metrics_log::FitRecord;

/// Heads that were fitted in closed form.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct FitReport {
    /// `cca` or `ridge`.
    pub method: &'static str,
    /// Images that were used.
    pub images: usize,
    /// Pairs that the maps are fitted to in the end, those that were held out included.
    pub pairs: usize,
    /// Distinct images and distinct texts among them.
    pub distinct: [usize; 2],
    /// Widths of the image and text features.
    pub widths: [usize; 2],
    /// Width of the shared space.
    pub embed_dim: usize,
    /// Directions of the shared space that a correlation belongs to; the others are filled.
    pub directions: usize,
    /// The ridge, as a fraction of the mean variance.
    pub ridge: f64,
    /// The exponent of the correlations.
    pub power: f64,
    /// `logit_scale`, the natural logarithm of the factor on cosines.
    pub logit_scale: f64,
    /// `logit_bias`, for the sigmoid loss.
    pub logit_bias: Option<f64>,
    /// Held-out images that `logit_scale` and `logit_bias` have the lowest loss on; 0: they are those of an untrained
    /// model.
    pub scale_images: usize,
    /// What ridge and power were chosen by; `None`: there were too few images, and the usual ones are taken.
    pub held_out: Option<HeldOutReport>,
    /// The canonical correlations, in descending order; empty with `ridge`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub correlations: Vec<f64>,
    /// With `ridge`, the covariances of the directions, in descending order; empty with `cca`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub covariances: Vec<f64>,
    /// Seconds of each part, in order. Not reproducible.
    pub seconds: Vec<(&'static str, f64)>,
}

impl FitReport {
    /// The strengths of the directions, in descending order, and what they are: `correlation` or `covariance`.
    #[must_use]
    pub fn strengths(&self) -> (&'static str, &[f64]) {
        match self.covariances.is_empty() {
            true => ("correlation", &self.correlations),
            false => ("covariance", &self.covariances),
        }
    }

    /// The line of the log.
    pub(crate) fn record(&self) -> FitRecord {
        FitRecord {
            step: 0,
            method: self.method,
            images: self.images,
            pairs: self.pairs,
            directions: self.directions,
            ridge: self.ridge,
            power: self.power,
            logit_scale: self.logit_scale.exp(),
            logit_bias: self.logit_bias,
            held_out_images: self.held_out.as_ref().map_or(0, |held_out| held_out.images),
            mean_recall: self.held_out.as_ref().map(|held_out| held_out.best().mean_recall()),
            seconds: self.seconds.iter().map(|(_, seconds)| seconds).sum(),
        }
    }
}

/// The choice of ridge and power on pairs that were held out.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct HeldOutReport {
    /// Images that were held out.
    pub images: usize,
    /// Their captions.
    pub texts: usize,
    /// Whether no caption of a held-out image is a caption of another image.
    pub captions_apart: bool,
    /// Recall of maps that were fitted to the others, for every ridge and power that were tried.
    pub candidates: Vec<Candidate>,
    /// The one that was chosen, as an index of `candidates`.
    pub chosen: usize,
}

/// A ridge and a power with their recall on the pairs that were held out.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Candidate {
    /// The ridge.
    pub ridge: f64,
    /// The power.
    pub power: f64,
    /// Recall of images by texts at 1, 5 and 10.
    pub image_retrieval_recall: [f64; 3],
    /// Recall of texts by images at 1, 5 and 10.
    pub text_retrieval_recall: [f64; 3],
}

impl Candidate {
    /// The mean of the six recalls, by which candidates are compared.
    #[must_use]
    pub fn mean_recall(&self) -> f64 {
        self.image_retrieval_recall.iter().chain(&self.text_retrieval_recall).sum::<f64>() / 6.0
    }
}

impl HeldOutReport {
    /// The candidate that was chosen.
    #[must_use]
    pub fn best(&self) -> Candidate {
        self.candidates[self.chosen]
    }
}
