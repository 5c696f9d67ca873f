//! Where the weights of a new run come from.

use crate::config::schema::RunConfig;
use crate::config::schema::loss::{LogitBiasInit, Loss};

/// The source of a new run's weights. Each string is an absolute path or a hub id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InitialWeights<'a> {
    /// Two separate towers, with new projections.
    Pair {
        /// The image tower; `None`: the data have features of images.
        image: Option<&'a str>,
        /// The text tower; `None`: the data have features of texts.
        text: Option<&'a str>,
    },
    /// A trained dual encoder.
    Init(&'a str),
}

impl RunConfig {
    /// The source of a new run's weights.
    pub fn initial_weights(&self) -> InitialWeights<'_> {
        let model = &self.model;
        match &model.init {
            Some(init) => InitialWeights::Init(init),
            None => InitialWeights::Pair {
                // Validation requires the towers for which the data have no features.
                image: model.image_tower.as_deref(),
                text: model.text_tower.as_deref(),
            },
        }
    }

    /// The first value of `logit_bias`; `None`: the loss has none.
    pub(crate) fn initial_logit_bias(&self) -> Option<f64> {
        let init = self.train.logit_bias_init.unwrap_or(LogitBiasInit::Auto);
        (self.train.loss == Loss::Sigmoid).then(|| init.number(self.train.batch_size))
    }
}
