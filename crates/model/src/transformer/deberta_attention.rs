//! Disentangled attention (He et al., 2021, DeBERTa, sec. 3.1): relative positions have vectors of their own, which queries
//! and keys attend to beside the tokens.

use burn::module::{Module, Param};
use burn::tensor::{Int, Tensor};

use crate::layers::linear::{Dropout, LayerNorm, Linear};
use crate::params::builder::{Init, ParamBuilder};
use crate::transformer::attention::Relations;
use crate::transformer::encoder::EncoderConfig;

/// Which of DeBERTa's choices an encoder makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DisentangledConfig {
    /// Relative positions that have a vector, both directions together.
    pub positions: usize,
    /// Whether their vectors are normalised (`norm_rel_ebd`).
    pub normed: bool,
    /// Whether the content of a query attends to the position of a key (`c2p`).
    pub content_to_position: bool,
    /// Whether the position of a query attends to the content of a key (`p2c`).
    pub position_to_content: bool,
    /// Whether positions are projected as content is (`share_att_key`).
    pub shared_projections: bool,
}

/// The vectors of relative positions, the same for all blocks.
#[derive(Module, Debug)]
pub(crate) struct RelativeEmbeddings {
    /// `[positions, width]`.
    table: Param<Tensor<2>>,
    norm: Option<LayerNorm>,
}

impl RelativeEmbeddings {
    pub fn new(at: &ParamBuilder<'_>, config: &DisentangledConfig, encoder: &EncoderConfig) -> Self {
        let norm = || LayerNorm::new(&at.at("norm"), encoder.width, true, encoder.norm_epsilon);
        Self {
            table: at.param("table", [config.positions, encoder.width], Init::Normal(encoder.init_std)),
            norm: config.normed.then(norm),
        }
    }

    /// `[positions, width]`.
    pub fn forward(&self) -> Tensor<2> {
        match &self.norm {
            Some(norm) => norm.forward(self.table.val()),
            None => self.table.val(),
        }
    }
}

/// The part of one block's attention that knows relative positions.
#[derive(Module, Debug)]
pub(crate) struct Disentangled {
    query: Option<Linear>,
    key: Option<Linear>,
    #[module(skip)]
    config: DisentangledConfig,
    dropout: f64,
}

impl Disentangled {
    pub fn new(at: &ParamBuilder<'_>, config: &DisentangledConfig, encoder: &EncoderConfig) -> Self {
        let EncoderConfig { width, init_std, .. } = *encoder;
        let own = |name, used: bool| {
            (used && !config.shared_projections).then(|| Linear::new(&at.at(name), width, width, true, init_std))
        };
        Self {
            query: own("query", config.position_to_content),
            key: own("key", config.content_to_position),
            config: *config,
            dropout: encoder.hidden_dropout,
        }
    }

    /// Queries and keys `[batch, heads, seq, dim]`, the block's own `[query, key]` projections and its relations, to queries
    /// scaled for the sum and what positions add to the scores, `[batch, heads, seq, seq]`.
    ///
    /// Eq. 4 divides the sum of content and positions by `sqrt(kinds * dim)`; the attention that follows divides by
    /// `sqrt(dim)` what comes of the queries.
    pub fn forward(
        &self,
        query: Tensor<4>,
        key: &Tensor<4>,
        content: [&Linear; 2],
        relations: &Relations,
        dropout: &Dropout,
    ) -> (Tensor<4>, Option<Tensor<4>>) {
        let [batch, heads, seq, dim] = query.dims();
        let kinds = 1 + usize::from(self.config.content_to_position) + usize::from(self.config.position_to_content);
        let scaled = query.clone() * (kinds as f64).powf(-0.5);
        let (Some(embeddings), Some(relative)) = (&relations.embeddings, &relations.relative) else {
            return (scaled, None);
        };
        let embeddings = dropout.apply(embeddings.clone(), self.dropout);
        let [positions, _] = embeddings.dims();
        let rows: Tensor<4, Int> = relative.clone().reshape([1, 1, seq, seq]).expand([batch, heads, seq, seq]);
        // `[batch, heads, seq, seq]`: the score of token `i` with the position that `rows` has at `i, j`.
        let attend = |tokens: &Tensor<4>, projection: &Linear, rows: Tensor<4, Int>| {
            let projected = projection.forward(embeddings.clone()).reshape([1, positions, heads, dim]);
            tokens.clone().matmul(projected.permute([0, 2, 3, 1])).gather(3, rows)
        };
        let [query_projection, key_projection] = content;
        let to_position = self.config.content_to_position.then(|| {
            let projection = self.key.as_ref().unwrap_or(key_projection);
            attend(&query, projection, rows.clone())
        });
        let to_content = self.config.position_to_content.then(|| {
            let projection = self.query.as_ref().unwrap_or(query_projection);
            attend(key, projection, rows.swap_dims(2, 3)).swap_dims(2, 3)
        });
        let sum = match (to_position, to_content) {
            (Some(to_position), Some(to_content)) => Some(to_position + to_content),
            (to_position, to_content) => to_position.or(to_content),
        };
        (scaled, sum.map(|sum| sum * ((kinds * dim) as f64).powf(-0.5)))
    }
}
