//! The result of `dualenc probe`.

use serde::Serialize;

/// Combinations of towers, the best first.
#[derive(Debug, Clone, Serialize)]
pub struct ProbeReport {
    /// Number of pairs.
    pub pairs: usize,
    /// Those that the alignments are fitted to.
    pub fitted: usize,
    /// Those that recall is measured on.
    pub tested: usize,
    /// Neighbours of `mutual_knn`.
    pub neighbors: usize,
    /// Images that cannot be used.
    pub unreadable: usize,
    /// Images left out since another has the same bytes.
    pub copies: usize,
    /// Rows of the data without an image or a caption.
    pub skipped_rows: usize,
    /// What features without any relation have.
    pub chance: Chance,
    /// Every combination, by the mean of both `recall@1`, then by `mutual_knn`; those without a figure come last.
    pub combinations: Vec<Combination>,
}

/// Figures of unrelated features, on average.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Chance {
    /// Of the neighbours.
    pub mutual_knn: f64,
    /// Of recall at 1 of images for captions.
    #[serde(rename = "image_retrieval_recall@1")]
    pub image_recall_1: f64,
    /// As the former, at 5.
    #[serde(rename = "image_retrieval_recall@5")]
    pub image_recall_5: f64,
    /// As the former, of captions for images, at 1.
    #[serde(rename = "text_retrieval_recall@1")]
    pub text_recall_1: f64,
    /// As the former, at 5.
    #[serde(rename = "text_retrieval_recall@5")]
    pub text_recall_5: f64,
}

impl Chance {
    /// The mean of `recall@1` and of `recall@5` over both directions.
    pub fn recall(&self) -> [f64; 2] {
        [(self.image_recall_1 + self.text_recall_1) / 2.0, (self.image_recall_5 + self.text_recall_5) / 2.0]
    }
}

/// An image and a text tower, and how well they agree.
#[derive(Debug, Clone, Serialize)]
pub struct Combination {
    /// The image side.
    pub image: ProbedTower,
    /// The text side.
    pub text: ProbedTower,
    /// Mean share of the nearest neighbours that both sides agree on, from 0 to 1. NaN as for `cka`.
    pub mutual_knn: f64,
    /// Linear centred kernel alignment, unbiased: at most 1, about 0 for unrelated features. NaN for features that do
    /// not vary.
    pub cka: f64,
    /// Recall at 1 of images for captions, by a closed-form alignment, on pairs that it is not fitted to. NaN as for
    /// `cka`.
    #[serde(rename = "image_retrieval_recall@1")]
    pub image_recall_1: f64,
    /// As the former, at 5.
    #[serde(rename = "image_retrieval_recall@5")]
    pub image_recall_5: f64,
    /// As the former, of captions for images, at 1.
    #[serde(rename = "text_retrieval_recall@1")]
    pub text_recall_1: f64,
    /// As the former, at 5.
    #[serde(rename = "text_retrieval_recall@5")]
    pub text_recall_5: f64,
}

/// A tower, a layer and a pooling.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ProbedTower {
    /// The tower as it was named.
    pub tower: String,
    /// The layer whose output is pooled, from 1.
    pub layer: usize,
    /// Number of layers of the tower.
    pub num_layers: usize,
    /// The value of `model.image_pool` or `model.text_pool`.
    pub pool: &'static str,
    /// Values per feature.
    pub width: usize,
}

impl ProbedTower {
    /// Whether this is the last layer.
    pub fn is_last(&self) -> bool {
        self.layer == self.num_layers
    }
}

impl Combination {
    /// The mean of `recall@1` and of `recall@5` over both directions.
    pub fn recall(&self) -> [f64; 2] {
        [(self.image_recall_1 + self.text_recall_1) / 2.0, (self.image_recall_5 + self.text_recall_5) / 2.0]
    }
}

/// Sorts combinations: the best first, those without a figure last.
pub(super) fn sort(combinations: &mut [Combination]) {
    let key = |it: &Combination| [it.recall()[0], it.mutual_knn].map(|value| if value.is_nan() { -1.0 } else { value });
    combinations.sort_by(|one, other| {
        let (one, other) = (key(one), key(other));
        other[0].total_cmp(&one[0]).then(other[1].total_cmp(&one[1]))
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_figure_ranks_last() {
        let side = |layer| ProbedTower { tower: "t".to_owned(), layer, num_layers: 9, pool: "cls", width: 4 };
        let combination = |layer, recall, mutual_knn| Combination {
            image: side(layer),
            text: side(1),
            mutual_knn,
            cka: 0.5,
            image_recall_1: recall,
            image_recall_5: recall,
            text_recall_1: recall,
            text_recall_5: recall,
        };
        let mut all = vec![
            combination(1, f64::NAN, 0.9),
            combination(2, 0.0, 0.1),
            combination(3, 0.5, 0.1),
            combination(4, 0.5, 0.2),
            combination(5, -f64::NAN, 0.3),
        ];
        sort(&mut all);
        assert_eq!(all.iter().map(|it| it.image.layer).collect::<Vec<_>>(), [4, 3, 2, 1, 5]);
    }
}
