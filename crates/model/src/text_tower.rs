//! BERT-style text towers: token ids to `[batch, width]`. Captions are packed: no arithmetic is spent on padding.

use burn::module::{Module, Param};
use burn::tensor::activation::tanh;
use burn::tensor::{Device, Int, Tensor, TensorData, module};

use crate::ModelError;
use crate::encoder::{Encoder, EncoderConfig};
use crate::image_tower::TowerOutput;
use crate::layers::{Dropout, LayerNorm, Linear};
use crate::params::{Init, ParamBuilder};
use crate::pool::Pooling;
use crate::sequence::SequenceLayout;

/// What a text tower is made of, whichever family it came from.
#[derive(Debug, Clone, PartialEq)]
pub struct TextTowerConfig {
    /// The blocks.
    pub encoder: EncoderConfig,
    /// Rows of the word table.
    pub vocab_size: usize,
    /// Rows of the position table.
    pub max_positions: usize,
    /// Rows of the token type table.
    pub type_vocab_size: usize,
    /// The row of the first token's position: RoBERTa starts at `padding_idx + 1`.
    pub first_position: usize,
    /// The id of padding.
    pub pad_id: u32,
}

impl TextTowerConfig {
    /// The longest caption the position table has room for, in tokens.
    pub fn max_tokens(&self) -> usize {
        self.max_positions - self.first_position
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
    positions: Param<Tensor<2>>,
    token_types: Option<Param<Tensor<2>>>,
    embedding_norm: LayerNorm,
    encoder: Encoder,
    pooler: Option<Linear>,
    #[module(skip)]
    config: TextTowerConfig,
    #[module(skip)]
    pooling: Pooling,
}

impl TextTower {
    pub(crate) fn new(at: &ParamBuilder<'_>, config: TextTowerConfig, pooling: Pooling) -> Self {
        let EncoderConfig { width, init_std, norm_bias, norm_epsilon, .. } = config.encoder;
        let table = |name, rows| at.param(name, [rows, width], Init::Normal(init_std));
        Self {
            words: table("words", config.vocab_size),
            positions: table("positions", config.max_positions),
            token_types: (config.type_vocab_size > 0).then(|| table("token_types", config.type_vocab_size)),
            embedding_norm: LayerNorm::new(&at.at("embedding_norm"), width, norm_bias, norm_epsilon),
            encoder: Encoder::new(&at.at("encoder"), &config.encoder),
            pooler: (pooling == Pooling::Pooler).then(|| Linear::new(&at.at("pooler"), width, width, true, init_std)),
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

    /// Whether its parameters are outside of the gradient graph.
    pub fn is_locked(&self) -> bool {
        !self.words.val().is_autodiff()
    }

    /// Runs the tower over packed sequences.
    ///
    /// # Errors
    /// When a sequence is empty or longer than the position table, or an id has no row in its table.
    pub fn forward(&self, tokens: &TokenSequences, dropout: &Dropout) -> Result<TowerOutput, ModelError> {
        self.check(tokens)?;
        let device = self.words.val().device().without_autodiff();
        let layout = SequenceLayout::new(tokens.ids.iter().map(Vec::len).collect(), &device);
        let mut x = lookup(&self.words, &tokens.ids, 0, &device)
            + lookup(&self.positions, &tokens.positions, self.config.first_position, &device);
        if let Some(types) = &self.token_types {
            x = x + lookup(types, &tokens.type_ids, 0, &device);
        }
        let x = dropout.apply(self.embedding_norm.forward(x), self.config.encoder.hidden_dropout);
        let hidden = self.encoder.forward(x, &layout, &[], dropout);
        let pooled = match (self.pooling, &self.pooler) {
            (Pooling::Mean, _) => layout.mean(hidden.clone(), 0),
            (_, Some(pooler)) => tanh(pooler.forward(layout.first(hidden.clone()))),
            (_, None) => layout.first(hidden.clone()),
        };
        Ok(TowerOutput { hidden, pooled })
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
fn lookup(table: &Param<Tensor<2>>, indices: &[Vec<u32>], offset: usize, device: &Device) -> Tensor<2> {
    let indices: Vec<i32> = indices.iter().flatten().map(|&index| (index as usize + offset) as i32).collect();
    let rows = indices.len();
    let indices = Tensor::<2, Int>::from_data(TensorData::new(indices, [1, rows]), device);
    module::embedding(table.val(), indices).squeeze_dim(0)
}
