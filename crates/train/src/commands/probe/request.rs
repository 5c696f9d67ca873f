//! What `dualenc probe` compares.

use std::path::Path;

use dualenc_model::Pool;

use crate::error::TrainError;

/// Towers, data, and what is taken of the towers.
#[derive(Debug, Clone)]
pub struct ProbeRequest<'a> {
    /// Image towers: directories or hub ids.
    pub image_towers: &'a [String],
    /// Text towers: directories or hub ids.
    pub text_towers: &'a [String],
    /// Images with captions, in any form of data.
    pub data: &'a Path,
    /// The folder at which relative paths of images in a table start; `None`: the folder of the table.
    pub root: Option<&'a Path>,
    /// Most images that are drawn.
    pub sample: usize,
    /// Layers to pool.
    pub layers: Layers,
    /// Poolings to try; empty: all that a tower supports.
    pub pools: &'a [Pool],
    /// Largest fraction of the images that may be unreadable, from 0 to 1.
    pub max_bad_fraction: f64,
    /// Maximum number of pixels of an image; `None`: the usual one.
    pub max_pixels: Option<u64>,
}

/// Layers of a tower.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Layers {
    /// The last one.
    Last,
    /// Every one.
    All,
    /// By number, from 1; negative ones count from the end, where -1 is the last.
    Numbers(Vec<i64>),
}

impl Layers {
    /// The numbers of the layers of a tower that has `count`, ascending. `tower`: its name, for the message.
    ///
    /// # Errors
    /// [`TrainError::Usage`] when the tower lacks one.
    pub(crate) fn of(&self, count: usize, tower: &str) -> Result<Vec<usize>, TrainError> {
        let number = |&layer: &i64| {
            let found = if layer < 0 { count as i64 + 1 + layer } else { layer };
            usize::try_from(found).ok().filter(|found| (1..=count).contains(found)).ok_or_else(|| {
                if count == 1 {
                    return TrainError::Usage(format!(
                        "`--layers {layer}`: `{tower}` has 1 layer that can be pooled; give 1, or `last`"
                    ));
                }
                TrainError::Usage(format!(
                    "`--layers {layer}`: `{tower}` has {count} layers that can be pooled; give a number from 1 to \
                     {count}, or from -{count} to -1 to count from the end"
                ))
            })
        };
        let mut numbers = match self {
            Self::Last => vec![count],
            Self::All => (1..=count).collect(),
            Self::Numbers(numbers) => numbers.iter().map(number).collect::<Result<_, _>>()?,
        };
        numbers.sort_unstable();
        numbers.dedup();
        Ok(numbers)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layers_by_number() {
        assert_eq!(Layers::Last.of(4, "t").unwrap(), [4]);
        assert_eq!(Layers::All.of(3, "t").unwrap(), [1, 2, 3]);
        assert_eq!(Layers::Numbers(vec![-1, 1, 4, -3]).of(4, "t").unwrap(), [1, 2, 4]);
        for layer in [0, 5, -5] {
            let error = Layers::Numbers(vec![layer]).of(4, "t").unwrap_err().to_string();
            assert!(error.contains(&format!("`--layers {layer}`: `t` has 4 layers")), "{error}");
        }
    }
}
