//! Disentangled attention (DeBERTa, He et al., 2021, sec. 3.1): relative positions have embeddings; content attends to
//! positions, and positions attend to content.

use burn::module::{Module, Param};
use burn::tensor::{Int, Tensor};

use crate::layers::dropout::Dropout;
use crate::layers::layer_norm::LayerNorm;
use crate::layers::linear::Linear;
use crate::params::builder::{Init, ParamBuilder};
use crate::transformer::config::{DisentangledConfig, EncoderConfig};
use crate::transformer::relations::Relations;

/// The embeddings of relative positions, shared by all blocks.
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

/// The relative position part of one block's attention.
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
        let projection = |name, used: bool| {
            (used && !config.shared_projections).then(|| Linear::new(&at.at(name), width, width, true, init_std))
        };
        Self {
            query: projection("query", config.position_to_content),
            key: projection("key", config.content_to_position),
            config: *config,
            dropout: encoder.hidden_dropout,
        }
    }

    /// From queries and keys `[batch, heads, seq, dim]` and the block's own `[query, key]` projections, returns scaled
    /// queries and the bias that positions add to the scores, `[batch, heads, seq, seq]`.
    ///
    /// Eq. 4 divides the sum of the content term and the position terms by `sqrt(terms * dim)`. The attention that
    /// follows divides the content term by `sqrt(dim)` only, so the queries are divided by `sqrt(terms)` here.
    pub fn forward(
        &self,
        query: Tensor<4>,
        key: &Tensor<4>,
        content: [&Linear; 2],
        relations: &Relations,
        dropout: &Dropout,
    ) -> (Tensor<4>, Option<Tensor<4>>) {
        let [batch, heads, seq, dim] = query.dims();
        let terms = 1 + usize::from(self.config.content_to_position) + usize::from(self.config.position_to_content);
        let scaled = query.clone() * (terms as f64).powf(-0.5);
        let (Some(embeddings), Some(table_rows)) = (&relations.embeddings, &relations.table_rows) else {
            return (scaled, None);
        };
        let embeddings = dropout.apply(embeddings.clone(), self.dropout);
        let [positions, _] = embeddings.dims();
        let rows: Tensor<4, Int> = table_rows.clone().reshape([1, 1, seq, seq]).expand([batch, heads, seq, seq]);
        // `[batch, heads, seq, seq]`: the score at `i, j` is that of token `i` with the position `rows[i, j]`.
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
        (scaled, sum.map(|sum| sum * ((terms * dim) as f64).powf(-0.5)))
    }
}
