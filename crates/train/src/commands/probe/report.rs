//! The result of `dualenc probe`.

use serde::{Serialize, Serializer};

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

/// Recall at 1 and 5 in both directions. NaN as for [`Combination::cka`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Recall {
    /// Of images for captions, at 1 and at 5: `image_retrieval_recall@1` and `@5`.
    pub image: [f64; 2],
    /// Of captions for images: `text_retrieval_recall@1` and `@5`.
    pub text: [f64; 2],
}

impl Recall {
    /// The mean of `recall@1` and of `recall@5` over both directions.
    pub fn mean(&self) -> [f64; 2] {
        std::array::from_fn(|place| (self.image[place] + self.text[place]) / 2.0)
    }
}

impl Serialize for Recall {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let [[image_1, image_5], [text_1, text_5]] = [self.image, self.text];
        serializer.collect_map([
            ("image_retrieval_recall@1", image_1),
            ("image_retrieval_recall@5", image_5),
            ("text_retrieval_recall@1", text_1),
            ("text_retrieval_recall@5", text_5),
        ])
    }
}

/// Figures of unrelated features, on average.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Chance {
    /// Of the neighbours.
    pub mutual_knn: f64,
    /// Of the alignment.
    #[serde(flatten)]
    pub recall: Recall,
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
    /// Of a closed-form alignment, on pairs that it is not fitted to.
    #[serde(flatten)]
    pub recall: Recall,
}

/// A tower, a layer and a pooling.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ProbedTower {
    /// The tower as it was named.
    pub tower: String,
    /// Number of the layer that is pooled, from 1.
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

/// Sorts combinations: the best first, those without a figure last.
pub(super) fn sort(combinations: &mut [Combination]) {
    let key =
        |it: &Combination| [it.recall.mean()[0], it.mutual_knn].map(|value| if value.is_nan() { -1.0 } else { value });
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
            recall: Recall { image: [recall; 2], text: [recall; 2] },
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
