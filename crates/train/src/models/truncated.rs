//! A loaded model with narrower embeddings: `--dim`.

use crate::config::HeadInit;
use crate::error::TrainError;
use crate::events::{Event, Observer};
use crate::models::load::LoadedModel;

impl LoadedModel {
    /// The model with the first `dim` values of its embeddings, which are normalised again. `observer` is notified if
    /// it was not trained with this width.
    ///
    /// # Errors
    /// [`TrainError::Usage`] when its embeddings have fewer values, or `dim` is 0.
    pub fn truncated(self, dim: usize, observer: &mut dyn Observer) -> Result<Self, TrainError> {
        let whole = self.model.embed_dim();
        if dim == 0 || dim > whole {
            return Err(TrainError::Usage(format!(
                "`--dim` is {dim}, but the embeddings of this model have {whole} values; give 1 to {whole}"
            )));
        }
        if dim == whole {
            return Ok(self);
        }
        if let Some(trained) = self.other_widths(dim) {
            observer.on(Event::Note(format!(
                "`--dim {dim}`: {trained}; figures of narrower embeddings may be much worse than those of whole ones, \
                 measure them with `dualenc eval --dim {dim}`"
            )));
        }
        Ok(Self { model: self.model.truncated(dim)?, truncated_from: Some(whole), ..self })
    }

    /// The width of its embeddings and the narrower ones that it was trained with, in descending order
    /// (`train.matryoshka`). Empty if there are none.
    pub(crate) fn nested_widths(&self) -> Vec<usize> {
        let (dim, config) = (self.model.embed_dim(), self.config.as_ref());
        let widths = config.into_iter().flat_map(|config| &config.train.matryoshka);
        let narrower: Vec<usize> = widths.copied().filter(|&width| width < dim).collect();
        if narrower.is_empty() { narrower } else { [vec![dim], narrower].concat() }
    }

    /// What the model was trained with instead of `dim`; `None` if its run trained this width, too.
    fn other_widths(&self, dim: usize) -> Option<String> {
        let Some(config) = &self.config else {
            return Some("it is not recorded which widths the model was trained with".to_owned());
        };
        // Fitted heads have their directions in order: a narrower fit has the first of them.
        if self.step == Some(0) && config.model.head_init != HeadInit::Random {
            return None;
        }
        let (widths, whole) = (&config.train.matryoshka, self.model.embed_dim());
        if widths.is_empty() {
            return Some(format!(
                "the model was trained with whole embeddings of {whole} values only (`train.matryoshka` was not set)"
            ));
        }
        (!widths.contains(&dim))
            .then(|| format!("the model was trained with other widths (`train.matryoshka` was {widths:?})"))
    }
}
