//! Text towers: token ids to `[batch, width]`. Captions are packed: no arithmetic is spent on padding.

use burn::module::{Module, Param};
use burn::tensor::Tensor;
use burn::tensor::activation::tanh;
use dualenc_kernels::{embedding, residual};

use crate::dual_encoder::lora::VisitLinear;
use crate::error::ModelError;
use crate::layers::linear::{Dropout, LayerNorm, Linear};
use crate::params::builder::{Init, ParamBuilder};
use crate::params::values as parameters;
use crate::pooling::{Pool, Pooling};
use crate::text::token_relations::{TokenRelations, block_relations};
use crate::transformer::encoder::{Encoder, EncoderConfig, NormOrder};
use crate::transformer::sequence_layout::SequenceLayout;
use crate::vision::image_tower::TowerOutput;

/// What a text tower is made of, whichever family it came from.
#[derive(Debug, Clone, PartialEq)]
pub struct TextTowerConfig {
    /// The blocks.
    pub encoder: EncoderConfig,
    /// Rows of the word table.
    pub vocab_size: usize,
    /// Positions the tower was made for, the rows of its position table.
    pub max_positions: usize,
    /// Whether there is such a table; towers with rotary or relative positions have none.
    pub position_table: bool,
    /// Rows of the token type table.
    pub type_vocab_size: usize,
    /// The row of the first token's position: RoBERTa starts at `padding_idx + 1`.
    pub first_position: usize,
    /// Width of the embeddings, where a projection takes them to the encoder's (ALBERT, ELECTRA).
    pub embedding_width: Option<usize>,
    /// Whether the sum of embeddings is normalised.
    pub embedding_norm: bool,
    /// What tokens know of each other's places: nothing, the same in all blocks, or one entry a block.
    pub relations: Vec<TokenRelations>,
    /// What the family's `pooler_output` is.
    pub pooler: TextPooler,
    /// The id of padding.
    pub pad_id: u32,
    /// The length that every caption is padded to because the tower attends to padding (SigLIP). It is the tokenizer's own
    /// padding that belongs there: a config's `pad_token_id` may be a default that the tokenizer does not share.
    pub pad_to: Option<usize>,
}

/// What a family calls `pooler_output`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TextPooler {
    /// Nothing: the reference's dual encoder fails there. `auto` takes this instead.
    Absent(Pooling),
    /// tanh of a linear of the first token (BERT).
    First,
    /// The token at the end of the text, as it is (CLIP).
    EndOfText(EndOfText),
    /// A linear of the last token, padding included, to a width of its own (SigLIP).
    Last {
        /// The width (`projection_size`).
        width: usize,
    },
}

/// How CLIP finds the end of a text among its ids; where there is none, the reference takes the first token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EndOfText {
    /// The first token with this id.
    Id(u32),
    /// The first token with the greatest id: configs that were written with a wrong `eos_token_id`, 2, count on it.
    GreatestId,
}

impl EndOfText {
    /// Its place among `ids`.
    fn find(self, ids: &[u32]) -> usize {
        let wanted = match self {
            Self::Id(id) => Some(id),
            Self::GreatestId => ids.iter().copied().max(),
        };
        ids.iter().position(|&id| Some(id) == wanted).unwrap_or(0)
    }
}

impl TextTowerConfig {
    /// A tower with word and position tables, their sum normalised and pooled as BERT does; families differ from it in what
    /// their configs say.
    pub fn plain(encoder: EncoderConfig, vocab_size: usize, max_positions: usize, pad_id: u32) -> Self {
        Self {
            encoder,
            vocab_size,
            max_positions,
            position_table: true,
            type_vocab_size: 0,
            first_position: 0,
            embedding_width: None,
            embedding_norm: true,
            relations: Vec::new(),
            pooler: TextPooler::First,
            pad_id,
            pad_to: None,
        }
    }

    /// The longest caption the tower has positions for, in tokens.
    pub fn max_tokens(&self) -> usize {
        self.max_positions - self.first_position
    }

    /// What the reference numbers positions by: a table that starts after the padding's row numbers tokens.
    pub fn position_count(&self) -> PositionCount {
        match self.first_position {
            0 => PositionCount::Columns,
            _ => PositionCount::Tokens,
        }
    }

    /// What `pool` comes down to, if the family's own pooler can be had (`pooler_stored`: its weights are at hand, or will
    /// be learned) and sentence-transformers pools by `sentence`. `None`: there is no pooler to take.
    pub(crate) fn resolve(&self, pool: Pool, pooler_stored: bool, sentence: Option<Pooling>) -> Option<Pooling> {
        match (pool, self.pooler) {
            (Pool::Cls, _) => Some(Pooling::Cls),
            (Pool::Mean, _) => Some(Pooling::Mean),
            (Pool::Pooler, TextPooler::Absent(_)) => None,
            (Pool::Auto, TextPooler::Absent(pooling)) => Some(sentence.unwrap_or(pooling)),
            (Pool::Auto, _) if !pooler_stored => Some(sentence.unwrap_or(Pooling::Pooler)),
            (Pool::Auto | Pool::Pooler, _) => Some(Pooling::Pooler),
        }
    }

    /// Width of the pooled output.
    pub fn pooled_width(&self, pooling: Pooling) -> usize {
        match (pooling, self.pooler) {
            (Pooling::Pooler, TextPooler::Last { width }) => width,
            _ => self.encoder.width,
        }
    }

    /// What `pooling` takes from this tower, in words.
    pub fn describe_pooling(&self, pooling: Pooling) -> &'static str {
        match (pooling, self.pooler) {
            (Pooling::Mean, _) => "the mean of all tokens",
            (Pooling::Cls, _) | (Pooling::Pooler, TextPooler::Absent(_)) => "the first token",
            (Pooling::Pooler, TextPooler::First) => "the pooler: a linear of the first token and tanh",
            (Pooling::Pooler, TextPooler::EndOfText(_)) => "the token at the end of the text",
            (Pooling::Pooler, TextPooler::Last { .. }) => "the head: a linear of the last token",
        }
    }
}

/// Token sequences without padding, as the tokenizer gives them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TokenSequences {
    /// Ids of each sequence; none is empty.
    pub ids: Vec<Vec<u32>>,
    /// Token types, as long as the ids.
    pub type_ids: Vec<Vec<u32>>,
    /// Positions counted from 0, as long as the ids.
    pub positions: Vec<Vec<u32>>,
}

impl TokenSequences {
    /// Sequences whose tokens stand at 0, 1, 2, ...
    pub fn new(ids: Vec<Vec<u32>>, type_ids: Vec<Vec<u32>>) -> Self {
        let positions = ids.iter().map(|sequence| (0..sequence.len() as u32).collect()).collect();
        Self { ids, type_ids, positions }
    }

    /// The real tokens of padded rows; `mask` is 1 at them. Padding may stand on either side.
    ///
    /// `counted` says how the reference numbers positions: RoBERTa counts the real tokens, BERT the columns.
    pub fn from_padded(ids: &[Vec<u32>], type_ids: &[Vec<u32>], mask: &[Vec<u32>], counted: PositionCount) -> Self {
        let mut sequences = Self::default();
        for ((ids, types), mask) in ids.iter().zip(type_ids).zip(mask) {
            let real: Vec<usize> = (0..ids.len()).filter(|&column| mask[column] == 1).collect();
            sequences.ids.push(real.iter().map(|&column| ids[column]).collect());
            sequences.type_ids.push(real.iter().map(|&column| types[column]).collect());
            sequences.positions.push(match counted {
                PositionCount::Columns => real.iter().map(|&column| column as u32).collect(),
                PositionCount::Tokens => (0..real.len() as u32).collect(),
            });
        }
        sequences
    }
}

impl FromIterator<(Vec<u32>, Vec<u32>)> for TokenSequences {
    /// Ids and token types of each sequence, as [`TokenSequences::new`].
    fn from_iter<I: IntoIterator<Item = (Vec<u32>, Vec<u32>)>>(sequences: I) -> Self {
        let (ids, type_ids) = sequences.into_iter().unzip();
        Self::new(ids, type_ids)
    }
}

/// What a position embedding numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PositionCount {
    /// Columns of the padded batch (BERT).
    Columns,
    /// Tokens that are not padding (RoBERTa).
    Tokens,
}

/// A text transformer.
#[derive(Module, Debug)]
pub struct TextTower {
    words: Param<Tensor<2>>,
    positions: Option<Param<Tensor<2>>>,
    token_types: Option<Param<Tensor<2>>>,
    embedding_norm: Option<LayerNorm>,
    embedding_projection: Option<Linear>,
    encoder: Encoder,
    final_norm: Option<LayerNorm>,
    pooler: Option<Linear>,
    #[module(skip)]
    config: TextTowerConfig,
    #[module(skip)]
    pooling: Pooling,
}

impl TextTower {
    pub(crate) fn new(at: &ParamBuilder<'_>, config: TextTowerConfig, pooling: Pooling) -> Self {
        let EncoderConfig { width, init_std, norm_order, norm_bias, norm_epsilon, .. } = config.encoder;
        let embedding_width = config.embedding_width.unwrap_or(width);
        let table = |name, rows| at.param(name, [rows, embedding_width], Init::Normal(init_std));
        let norm = |name, width| LayerNorm::new(&at.at(name), width, norm_bias, norm_epsilon);
        let linear = |name, input, output| Linear::new(&at.at(name), input, output, true, init_std);
        Self {
            words: table("words", config.vocab_size),
            positions: config.position_table.then(|| table("positions", config.max_positions)),
            token_types: (config.type_vocab_size > 0).then(|| table("token_types", config.type_vocab_size)),
            embedding_norm: config.embedding_norm.then(|| norm("embedding_norm", embedding_width)),
            embedding_projection: config.embedding_width.map(|input| linear("embedding_projection", input, width)),
            encoder: Encoder::new(&at.at("encoder"), &config.encoder),
            final_norm: (norm_order == NormOrder::Pre).then(|| norm("final_norm", width)),
            pooler: match (pooling, config.pooler) {
                (Pooling::Pooler, TextPooler::First) => Some(linear("pooler", width, width)),
                (Pooling::Pooler, TextPooler::Last { width: output }) => Some(linear("pooler", width, output)),
                _ => None,
            },
            config,
            pooling,
        }
    }

    /// The config the tower was built from.
    pub fn config(&self) -> &TextTowerConfig {
        &self.config
    }

    /// How the tower makes one vector of its tokens.
    pub fn pooling(&self) -> Pooling {
        self.pooling
    }

    /// Width of its pooled output.
    pub fn pooled_width(&self) -> usize {
        self.config.pooled_width(self.pooling)
    }

    /// Whether all its parameters are outside of the gradient graph.
    pub fn is_locked(&self) -> bool {
        !parameters::any_trains(self)
    }

    /// The linears of its blocks, by path.
    pub(crate) fn linears(&mut self, path: &str, visit: &mut VisitLinear<'_>) {
        self.encoder.linears(&format!("{path}.encoder"), visit);
    }

    /// Runs the tower over packed sequences.
    ///
    /// # Errors
    /// When a sequence is empty or longer than the position table, or an id has no row in its table.
    pub fn forward(&self, tokens: &TokenSequences, dropout: &Dropout) -> Result<TowerOutput, ModelError> {
        self.check(tokens)?;
        let device = self.words.val().device().without_autodiff();
        let layout = SequenceLayout::new(tokens.ids.iter().map(Vec::len).collect(), &device);
        let x = self.embed(tokens, dropout);
        let EncoderConfig { width, heads, .. } = self.config.encoder;
        let relations = block_relations(&self.config.relations, layout.longest, width / heads, &device);
        let hidden = self.encoder.forward(x, &layout, &relations, dropout);
        let hidden = match &self.final_norm {
            Some(norm) => norm.forward(hidden),
            None => hidden,
        };
        Ok(TowerOutput { pooled: self.pool(hidden.clone(), &layout, tokens), hidden })
    }

    /// `[rows, width]` of the encoder.
    fn embed(&self, tokens: &TokenSequences, dropout: &Dropout) -> Tensor<2> {
        let mut x = lookup(&self.words, &tokens.ids, 0);
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
        match &self.embedding_projection {
            Some(projection) => projection.forward(x),
            None => x,
        }
    }

    /// `[rows, width]` to `[batch, pooled width]`.
    fn pool(&self, hidden: Tensor<2>, layout: &SequenceLayout, tokens: &TokenSequences) -> Tensor<2> {
        match (self.pooling, self.config.pooler, &self.pooler) {
            (Pooling::Mean, ..) => layout.mean(hidden, 0),
            (Pooling::Pooler, TextPooler::EndOfText(end), _) => {
                layout.pick(hidden, |sequence, _| end.find(&tokens.ids[sequence]))
            }
            (Pooling::Pooler, TextPooler::Last { .. }, Some(head)) => head.forward(layout.last(hidden)),
            (Pooling::Pooler, _, Some(pooler)) => tanh(pooler.forward(layout.first(hidden))),
            (Pooling::Cls | Pooling::Pooler, ..) => layout.first(hidden),
        }
    }

    fn check(&self, tokens: &TokenSequences) -> Result<(), ModelError> {
        let beyond = |name: &str, values: &[Vec<u32>], rows: usize| match values
            .iter()
            .flatten()
            .find(|&&value| value as usize >= rows)
        {
            Some(value) => Err(ModelError::Input(format!(
                "a caption has the {name} `{value}`, but the text tower's table has {rows} rows; use the tower's own tokenizer"
            ))),
            None => Ok(()),
        };
        if tokens.ids.is_empty() || tokens.ids.iter().any(Vec::is_empty) {
            return Err(ModelError::Input("a caption has no tokens at all".to_owned()));
        }
        beyond("token id", &tokens.ids, self.config.vocab_size)?;
        beyond("position", &tokens.positions, self.config.max_tokens())?;
        match &self.token_types {
            Some(_) => beyond("token type", &tokens.type_ids, self.config.type_vocab_size),
            None => Ok(()),
        }
    }
}

/// Rows of `table` for packed indices moved by `offset`: `[rows, width]`.
fn lookup(table: &Param<Tensor<2>>, indices: &[Vec<u32>], offset: usize) -> Tensor<2> {
    embedding(table.val(), indices.iter().flatten().map(|&index| index + offset as u32).collect())
}
