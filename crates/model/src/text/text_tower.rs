//! A text tower: token sequences to one vector each. Sequences are packed, so no arithmetic is spent on padding.

use burn::module::{Module, Param};
use burn::tensor::Tensor;
use burn::tensor::activation::tanh;
use dualenc_kernels::{embedding, residual};

use crate::error::ModelError;
use crate::form::list;
use crate::layers::dropout::Dropout;
use crate::layers::linear::{Linear, LinearVisitor};
use crate::layers::norm::Norm;
use crate::params::builder::{Init, ParamBuilder};
use crate::params::inventory::any_trains;
use crate::pooled_layers::LayerTaps;
use crate::pooling::Pooling;
use crate::text::config::{TextPooler, TextTowerConfig};
use crate::text::dense::{Dense, DenseConfig};
use crate::text::token_relations::block_relations;
use crate::text::token_sequences::TokenSequences;
use crate::tower::TowerOutput;
use crate::transformer::config::{EncoderConfig, NormOrder};
use crate::transformer::encoder::Encoder;
use crate::transformer::relations::Relations;
use crate::transformer::sequence_layout::SequenceLayout;

/// A text transformer.
#[derive(Module, Debug)]
pub struct TextTower {
    /// `None`: the tower is absent.
    words: Option<Param<Tensor<2>>>,
    positions: Option<Param<Tensor<2>>>,
    token_types: Option<Param<Tensor<2>>>,
    embedding_norm: Option<Norm>,
    embedding_projection: Option<Linear>,
    encoder: Encoder,
    final_norm: Option<Norm>,
    pooler: Option<Linear>,
    dense: Vec<Dense>,
    #[module(skip)]
    config: TextTowerConfig,
    #[module(skip)]
    pooling: Pooling,
}

impl TextTower {
    /// `dense`: layers that follow the pooling.
    pub(crate) fn new(at: &ParamBuilder<'_>, config: TextTowerConfig, pooling: Pooling, dense: &[DenseConfig]) -> Self {
        let EncoderConfig { width, init_std, norm_order, norm_kind, norm_bias, norm_epsilon, .. } = config.encoder;
        let embedding_width = config.embedding_width.unwrap_or(width);
        let table = |name, rows| at.param(name, [rows, embedding_width], Init::Normal(init_std));
        let norm = |name, width| Norm::new(&at.at(name), width, norm_kind, norm_bias, norm_epsilon);
        let linear = |name, input, output| Linear::new(&at.at(name), input, output, true, init_std);
        Self {
            words: (!config.is_absent()).then(|| table("words", config.vocab_size)),
            positions: config.position_table.then(|| table("positions", config.max_positions)),
            token_types: (config.type_vocab_size > 0).then(|| table("token_types", config.type_vocab_size)),
            embedding_norm: config.embedding_norm.then(|| norm("embedding_norm", embedding_width)),
            embedding_projection: config.embedding_width.map(|input| linear("embedding_projection", input, width)),
            encoder: Encoder::new(&at.at("encoder"), &config.encoder),
            final_norm: (norm_order == NormOrder::Pre && !config.skip_final_norm).then(|| norm("final_norm", width)),
            pooler: match (pooling, config.pooler) {
                (Pooling::Pooler, TextPooler::First) => Some(linear("pooler", width, width)),
                (Pooling::Pooler, TextPooler::Last { width: output }) => Some(linear("pooler", width, output)),
                _ => None,
            },
            dense: dense
                .iter()
                .enumerate()
                .map(|(n, &dense)| Dense::new(&at.at("dense").at(n), dense, init_std))
                .collect(),
            config,
            pooling,
        }
    }

    /// The architecture that the tower was built from.
    pub fn config(&self) -> &TextTowerConfig {
        &self.config
    }

    /// How the tower pools.
    pub fn pooling(&self) -> Pooling {
        self.pooling
    }

    /// The architecture and the pooling in a written, versioned form that is stable across releases, for cache keys.
    /// Together with the values of the parameters, it determines the output for a caption.
    pub fn form(&self) -> String {
        let dense = match self.dense_layers() {
            layers if layers.is_empty() => String::new(),
            layers => format!(" dense={}", list(layers.iter().map(DenseConfig::form))),
        };
        format!("text-tower 1 {} pooling={}{dense}", self.config.form(), self.pooling.form())
    }

    /// Width of the pooled output.
    pub fn pooled_width(&self) -> usize {
        self.dense.last().map_or_else(|| self.config.pooled_width(self.pooling), |dense| dense.config().output)
    }

    /// The `Dense` layers of sentence-transformers that follow the pooling.
    pub fn dense_layers(&self) -> Vec<DenseConfig> {
        self.dense.iter().map(Dense::config).collect()
    }

    /// Whether the tower is not there: its outputs come from files, and it cannot run.
    pub fn is_absent(&self) -> bool {
        self.words.is_none()
    }

    /// Whether all its parameters are frozen.
    pub fn is_locked(&self) -> bool {
        !any_trains(self)
    }

    /// Calls `visit` for each linear of the blocks; `path` is the tower's own.
    pub(crate) fn visit_linears(&mut self, path: &str, visit: &mut LinearVisitor<'_>) {
        self.encoder.visit_linears(&format!("{path}.encoder"), visit);
    }

    /// The tower for inference on the CPU, as [`ImageTower::packed`](crate::ImageTower::packed). Poolers and `Dense`
    /// layers, which see one row for each text, stay as they are.
    ///
    /// # Panics
    /// As [`ImageTower::packed`](crate::ImageTower::packed).
    #[must_use]
    pub fn packed(mut self) -> Self {
        if !self.is_absent() {
            self.embedding_projection.iter_mut().for_each(Linear::pack);
            self.visit_linears("", &mut |_, linear| linear.pack());
        }
        self
    }

    /// Runs the tower: `hidden` of the output is `[tokens, width]` over all sequences, `pooled` is
    /// `[sequences, pooled width]`.
    ///
    /// # Errors
    /// [`ModelError::Input`] if there is no sequence, one is empty or longer than [`TextTowerConfig::max_tokens`], or
    /// an id is beyond its embedding; [`ModelError::Internal`] if the tower is absent.
    pub fn forward(&self, tokens: &TokenSequences, dropout: &Dropout) -> Result<TowerOutput, ModelError> {
        self.check(tokens)?;
        self.forward_after(0, self.embed(tokens, dropout)?, tokens, dropout)
    }

    /// Runs the rest of the tower after its first `layers` layers, up to [`TextTower::locked_layers`]: `hidden` is
    /// [`TowerOutput::hidden`] of [`TextTower::ending_after`] them, and with it the output is that of
    /// [`TextTower::forward`] for the same `tokens`, in the same order.
    ///
    /// # Errors
    /// As [`TextTower::forward`].
    pub fn forward_after(
        &self,
        layers: usize,
        hidden: Tensor<2>,
        tokens: &TokenSequences,
        dropout: &Dropout,
    ) -> Result<TowerOutput, ModelError> {
        let (layout, relations) = self.layout(tokens)?;
        let hidden = layout.fill_up(hidden);
        let pool = |hidden| self.pool(hidden, &layout, tokens, self.pooling);
        let mut taps = LayerTaps::new(&self.config.pooled_layers);
        taps.after_blocks(layers, || pool(self.finish(hidden.clone())));
        let hidden = self.encoder.forward_each(layers, hidden, &layout, &relations, dropout, |hidden| {
            taps.after_block(|| pool(self.finish(hidden.clone())));
        });
        let hidden = self.finish(hidden);
        let pooled = taps.join(pool(hidden.clone()));
        let pooled = self.dense.iter().fold(pooled, |x, dense| dense.forward(x));
        Ok(TowerOutput { pooled, hidden: layout.tokens(hidden) })
    }

    /// How many layers, from the first, compute what is a function of the caption alone while the rest of the tower
    /// trains: they are locked, with the embeddings before them. At most the lowest layer that is pooled, since norm
    /// and pooler, which may train, see its output.
    pub fn locked_layers(&self) -> usize {
        let Self { words, positions, token_types, embedding_norm, embedding_projection, encoder, config, .. } = self;
        if any_trains(words)
            || any_trains(positions)
            || any_trains(token_types)
            || any_trains(embedding_norm)
            || any_trains(embedding_projection)
        {
            return 0;
        }
        let lowest = config.pooled_layers.iter().copied().min();
        encoder.num_locked_layers().min(lowest.unwrap_or(usize::MAX))
    }

    /// The tower that ends after the first `layers` layers: its hidden states are what their last block computes.
    #[must_use]
    pub fn ending_after(&self, layers: usize) -> Self {
        let config = TextTowerConfig {
            encoder: self.config.encoder.clone().ending_after(layers),
            skip_final_norm: true,
            pooled_layers: Vec::new(),
            ..self.config.clone()
        };
        let encoder = self.encoder.ending_after(layers);
        // No pooled output is read; the pooling is part of the form.
        let pooling = Pooling::Mean;
        Self { encoder, config, pooling, final_norm: None, pooler: None, dense: Vec::new(), ..self.clone() }
    }

    /// The poolings of [`TextTower::forward_layers`]: that of the tower, and those that need no weights of their own.
    /// The first token of a decoder sees no other, so its last one takes that place.
    pub fn poolings(&self) -> Vec<Pooling> {
        let decodes = self.config.pooler == TextPooler::Absent(Pooling::Last);
        let end = if decodes { Pooling::Last } else { Pooling::Cls };
        let others = [end, Pooling::Mean].into_iter().filter(|&it| it != self.pooling);
        std::iter::once(self.pooling).chain(others).collect()
    }

    /// Number of blocks with an output that [`TextTower::forward_layers`] pools.
    pub fn num_layers(&self) -> usize {
        self.encoder.num_layers()
    }

    /// Runs the tower, and pools the output of each block in each of `poolings`, which are among
    /// [`TextTower::poolings`]: `[sequences, pooled width]`. A layer is what the tower returns with only the blocks up
    /// to there (`num_hidden_layers` in its `config.json`), without `Dense` layers. Layers that `wanted` refuses,
    /// numbered from 1, are empty.
    ///
    /// # Errors
    /// As [`TextTower::forward`].
    pub fn forward_layers(
        &self,
        tokens: &TokenSequences,
        poolings: &[Pooling],
        wanted: impl Fn(usize) -> bool,
    ) -> Result<Vec<Vec<Tensor<2>>>, ModelError> {
        self.check(tokens)?;
        let (layout, relations) = self.layout(tokens)?;
        let x = layout.fill_up(self.embed(tokens, &Dropout::off())?);
        let mut layers = Vec::new();
        self.encoder.forward_each(0, x, &layout, &relations, &Dropout::off(), |hidden| {
            let pool = |hidden: Tensor<2>| {
                poolings.iter().map(|&pooling| self.pool(hidden.clone(), &layout, tokens, pooling)).collect()
            };
            let is_wanted = wanted(layers.len() + 1);
            layers.push(if is_wanted { pool(self.finish(hidden.clone())) } else { Vec::new() });
        });
        Ok(layers)
    }

    fn words(&self) -> Result<&Param<Tensor<2>>, ModelError> {
        let absent = || ModelError::Internal("an absent text tower was asked to run".to_owned());
        self.words.as_ref().ok_or_else(absent)
    }

    /// The rows of the tokens, and what attention needs.
    fn layout(&self, tokens: &TokenSequences) -> Result<(SequenceLayout, Vec<Relations>), ModelError> {
        let device = self.words()?.val().device().without_autodiff();
        let layout = SequenceLayout::new(tokens.ids.iter().map(Vec::len).collect(), &device);
        let head_width = self.config.encoder.head_width();
        let relations = block_relations(&self.config.relations, layout.longest, head_width, &device);
        Ok((layout, relations))
    }

    /// The hidden state of the tower, from the output of a block.
    fn finish(&self, hidden: Tensor<2>) -> Tensor<2> {
        match &self.final_norm {
            Some(norm) => norm.forward(hidden),
            None => hidden,
        }
    }

    /// The input of the encoder, `[rows, width]`.
    fn embed(&self, tokens: &TokenSequences, dropout: &Dropout) -> Result<Tensor<2>, ModelError> {
        let mut x = lookup(self.words()?, &tokens.ids, 0);
        if let Some(scale) = self.config.embedding_scale {
            x = x * scale;
        }
        if let Some(positions) = &self.positions {
            x = residual(x, lookup(positions, &tokens.positions, self.config.first_position), None, None);
        }
        if let Some(types) = &self.token_types {
            x = residual(x, lookup(types, &tokens.type_ids, 0), None, None);
        }
        if let Some(norm) = &self.embedding_norm {
            x = norm.forward(x);
        }
        let x = dropout.apply(x, self.config.encoder.hidden_dropout);
        Ok(match &self.embedding_projection {
            Some(projection) => projection.forward(x),
            None => x,
        })
    }

    /// Pools `[rows, width]` to `[batch, pooled width]`.
    fn pool(&self, hidden: Tensor<2>, layout: &SequenceLayout, tokens: &TokenSequences, pooling: Pooling) -> Tensor<2> {
        match (pooling, self.config.pooler, &self.pooler) {
            (Pooling::Mean, ..) => layout.mean(hidden, 0),
            (Pooling::Last, ..) => layout.last(hidden),
            (Pooling::Pooler, TextPooler::EndOfText(end), _) => {
                layout.pick(hidden, |sequence, _| end.find(&tokens.ids[sequence]))
            }
            (Pooling::Pooler, TextPooler::Last { .. }, Some(head)) => head.forward(layout.last(hidden)),
            (Pooling::Pooler, _, Some(pooler)) => tanh(pooler.forward(layout.first(hidden))),
            (Pooling::Cls | Pooling::ClsMean | Pooling::Pooler | Pooling::Tokens, ..) => layout.first(hidden),
        }
    }

    fn check(&self, tokens: &TokenSequences) -> Result<(), ModelError> {
        let check_range = |name: &str, values: &[Vec<u32>], rows: usize| match values
            .iter()
            .flatten()
            .find(|&&value| value as usize >= rows)
        {
            Some(value) => Err(ModelError::Input(format!(
                "a caption has the {name} `{value}`, but the text tower has only {rows} of them; use the tower's own \
                     tokenizer"
            ))),
            None => Ok(()),
        };
        if tokens.ids.is_empty() || tokens.ids.iter().any(Vec::is_empty) {
            return Err(ModelError::Input("a caption has no tokens".to_owned()));
        }
        check_range("token id", &tokens.ids, self.config.vocab_size)?;
        check_range("position", &tokens.positions, self.config.max_tokens())?;
        match &self.token_types {
            Some(_) => check_range("token type", &tokens.type_ids, self.config.type_vocab_size),
            None => Ok(()),
        }
    }
}

/// Looks up packed `indices`, each increased by `offset`, in `table`: `[rows, width]`.
fn lookup(table: &Param<Tensor<2>>, indices: &[Vec<u32>], offset: usize) -> Tensor<2> {
    embedding(table.val(), indices.iter().flatten().map(|&index| index + offset as u32).collect())
}
