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

    /// How long the fit took, in words.
    pub(crate) fn duration(&self) -> String {
        let seconds: f64 = self.seconds.iter().map(|(_, seconds)| seconds).sum();
        if seconds < 9.95 { format!("{:.1} s", seconds.max(0.1)) } else { format!("{seconds:.0} s") }
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
    /// What to try where the choice is the largest or smallest of the values that were tried, and better than all
    /// others.
    pub(crate) fn edge_hint(&self) -> Option<String> {
        let best = self.best();
        // The best of each other value.
        let edge = |value: fn(&Candidate) -> f64| {
            let (mut beyond, mut others) = ([false; 2], Vec::new());
            for other in self.candidates.iter().filter(|other| value(other) != value(&best)) {
                beyond[usize::from(value(other) > value(&best))] = true;
                others.push(other.mean_recall());
            }
            let is_better = others.iter().all(|&recall| recall < best.mean_recall());
            match beyond {
                [true, false] if is_better => Some("largest"),
                [false, true] if is_better => Some("smallest"),
                _ => None,
            }
        };
        let hint = |key: &str, value: f64, edge: &str, next: f64| {
            format!(
                "`fit.{key}` = {value} is the {edge} that was tried; a value beyond it may be better, such as {next}"
            )
        };
        let ridge = edge(|candidate| candidate.ridge).map(|edge| {
            let next = if edge == "largest" { best.ridge * 10.0 } else { best.ridge / 10.0 };
            // Without the error of the product, such as in 0.7000000000000001.
            hint("ridge", best.ridge, edge, (next * 1e12).round() / 1e12)
        });
        // No power is below 0.
        let power = edge(|candidate| candidate.power).filter(|_| best.power > 0.0);
        let power = power.map(|edge| hint("power", best.power, edge, best.power + 1.0));
        let hints: Vec<String> = ridge.into_iter().chain(power).collect();
        let set = if hints.len() == 1 { "set it" } else { "set them" };
        (!hints.is_empty()).then(|| format!("{}; {set} and compare the recall", hints.join("; ")))
    }

    /// The candidate that was chosen.
    #[must_use]
    pub fn best(&self) -> Candidate {
        self.candidates[self.chosen]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `recalls`: of each ridge with each power.
    fn report(ridges: &[f64], powers: &[f64], recalls: &[f64]) -> HeldOutReport {
        let pairs = ridges.iter().flat_map(|&ridge| powers.iter().map(move |&power| (ridge, power)));
        let candidates: Vec<Candidate> = pairs
            .zip(recalls)
            .map(|((ridge, power), &recall)| Candidate {
                ridge,
                power,
                image_retrieval_recall: [recall; 3],
                text_retrieval_recall: [recall; 3],
            })
            .collect();
        let best = (0..recalls.len()).rev().max_by(|&a, &b| recalls[a].total_cmp(&recalls[b])).unwrap();
        HeldOutReport { images: 9, texts: 9, captions_apart: true, candidates, chosen: best }
    }

    #[test]
    fn values_at_the_edge_are_named() {
        let hint = |ridges: &[f64], powers: &[f64], recalls: &[f64]| report(ridges, powers, recalls).edge_hint();
        let found = hint(&[0.1, 0.01, 0.001], &[1.0], &[0.1, 0.2, 0.3]).unwrap();
        assert!(found.contains("`fit.ridge` = 0.001 is the smallest") && found.contains("such as 0.0001"), "{found}");
        let found = hint(&[0.1, 0.01], &[1.0, 2.0], &[0.1, 0.4, 0.2, 0.3]).unwrap();
        assert!(found.contains("`fit.ridge` = 0.1 is the largest") && found.contains("such as 1"), "{found}");
        assert!(found.contains("`fit.power` = 2 is the largest") && found.contains("such as 3"), "{found}");
        let found = hint(&[0.07, 0.01], &[1.0], &[0.3, 0.2]).unwrap();
        assert!(found.contains("such as 0.7;"), "{found}");
        // In the middle, as good as another value, without a choice, and where there is nothing beyond.
        assert_eq!(hint(&[0.1, 0.01, 0.001], &[1.0], &[0.1, 0.3, 0.2]), None);
        assert_eq!(hint(&[0.1, 0.01], &[1.0], &[0.3, 0.3]), None);
        assert_eq!(hint(&[0.1], &[1.0], &[0.3]), None);
        assert_eq!(hint(&[0.1], &[0.0, 1.0], &[0.3, 0.2]), None);
    }
}
