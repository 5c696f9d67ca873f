//! The architecture of a text tower.

use crate::form::{list, option};
use crate::pooling::{Pool, Pooling};
use crate::text::token_relations::TokenRelations;
use crate::text::token_sequences::PositionCount;
use crate::transformer::config::EncoderConfig;

/// The architecture of a text tower, whichever family it came from.
#[derive(Debug, Clone, PartialEq)]
pub struct TextTowerConfig {
    /// The encoder.
    pub encoder: EncoderConfig,
    /// Number of rows of the token embedding.
    pub vocab_size: usize,
    /// Number of positions the tower was trained for, and of rows of its position embedding.
    pub max_positions: usize,
    /// Whether there is a position embedding. Towers with rotary or relative positions have none.
    pub position_table: bool,
    /// Number of rows of the token type embedding; 0 for none.
    pub type_vocab_size: usize,
    /// Position of the first token. RoBERTa starts at `padding_idx + 1`.
    pub first_position: usize,
    /// Width of the embeddings, if a projection maps them to the width of the encoder (ALBERT, ELECTRA).
    pub embedding_width: Option<usize>,
    /// Whether the sum of the embeddings is normalised.
    pub embedding_norm: bool,
    /// Factor of the token embeddings, if any (Gemma: the square root of the width).
    pub embedding_scale: Option<f64>,
    /// Masks and positions of tokens in attention: none if empty, otherwise one entry for all blocks or one per block.
    pub relations: Vec<TokenRelations>,
    /// Whether the final norm of a pre-norm encoder is left out: an earlier layer is pooled as it is.
    pub skip_final_norm: bool,
    /// Layers to pool and concatenate, from 1, in this order; empty if only the last is pooled. The tower
    /// ends with the highest.
    pub pooled_layers: Vec<usize>,
    /// What the family calls `pooler_output`.
    pub pooler: TextPooler,
    /// Token id of padding.
    pub pad_id: u32,
    /// The length in tokens that every caption must be padded to, because the tower attends to padding (SigLIP). Pad
    /// with the tokenizer's own padding token: `pad_token_id` of a config may be a default that differs from it.
    pub pad_to: Option<usize>,
}

/// The `pooler_output` of a family.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TextPooler {
    /// None, and the reference's dual encoder fails. [`Pool::Auto`] takes this pooling instead.
    Absent(Pooling),
    /// A linear of the first token, then tanh (BERT).
    First,
    /// The token at the end of the text (CLIP).
    EndOfText(EndOfText),
    /// A linear of the last token, padding included (SigLIP).
    Last {
        /// Output width (`projection_size`).
        width: usize,
    },
}

/// How CLIP finds the end of a text among its token ids. If there is none, the reference takes the first token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EndOfText {
    /// The first token with this id.
    Id(u32),
    /// The first token with the greatest id, for configs with the wrong `eos_token_id` of 2.
    GreatestId,
}

impl EndOfText {
    /// The position of the end of the text among `ids`.
    pub(crate) fn find(self, ids: &[u32]) -> usize {
        let wanted = match self {
            Self::Id(id) => Some(id),
            Self::GreatestId => ids.iter().copied().max(),
        };
        ids.iter().position(|&id| Some(id) == wanted).unwrap_or(0)
    }
}

impl TextTowerConfig {
    /// The base that families override: token and position embeddings, their sum normalised, and pooling as in BERT.
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
            embedding_scale: None,
            relations: Vec::new(),
            skip_final_norm: false,
            pooled_layers: Vec::new(),
            pooler: TextPooler::First,
            pad_id,
            pad_to: None,
        }
    }

    /// A tower that is not there: its outputs come from files, and have `width` values.
    pub(crate) fn absent(width: usize) -> Self {
        Self {
            position_table: false,
            embedding_norm: false,
            pooler: TextPooler::Absent(Pooling::Cls),
            ..Self::plain(EncoderConfig::plain(width, 0, 1, 1), 0, 0, 0)
        }
    }

    /// Whether the tower is not there: no tower is without words.
    pub fn is_absent(&self) -> bool {
        self.vocab_size == 0
    }

    /// The written form, for cache keys (see `form`).
    pub(crate) fn form(&self) -> String {
        let Self {
            encoder,
            vocab_size,
            max_positions,
            position_table,
            type_vocab_size,
            first_position,
            embedding_width,
            embedding_norm,
            embedding_scale,
            relations,
            skip_final_norm,
            pooled_layers,
            pooler,
            pad_id,
            pad_to,
        } = self;
        let encoder = encoder.form();
        let relations = list(relations.iter().map(|relations| relations.form()));
        let pooler = match pooler {
            TextPooler::Absent(pooling) => format!("absent {}", pooling.form()),
            TextPooler::First => "first".to_owned(),
            TextPooler::EndOfText(EndOfText::Id(id)) => format!("end-of-text {id}"),
            TextPooler::EndOfText(EndOfText::GreatestId) => "end-of-text greatest".to_owned(),
            TextPooler::Last { width } => format!("last {width}"),
        };
        let (embedding_width, pad_to) = (option(*embedding_width), option(*pad_to));
        let scale = embedding_scale.map_or_else(String::new, |scale| format!(" embedding-scale={scale}"));
        let skipped = if *skip_final_norm { " skip-final-norm" } else { "" };
        let layers = match pooled_layers.as_slice() {
            [] => String::new(),
            layers => format!(" pooled-layers={}", list(layers)),
        };
        format!(
            "text({encoder} words={vocab_size} positions={max_positions},{position_table},{first_position} \
             types={type_vocab_size} embedding={embedding_width},{embedding_norm} relations={relations} \
             pooler={pooler} pad={pad_id},{pad_to}{scale}{skipped}{layers})"
        )
    }

    /// The longest caption that the tower has positions for, in tokens.
    pub fn max_tokens(&self) -> usize {
        self.max_positions - self.first_position
    }

    /// What the reference counts to number positions: tokens, if positions start after the one of padding.
    pub fn position_count(&self) -> PositionCount {
        if self.first_position == 0 { PositionCount::Columns } else { PositionCount::Tokens }
    }

    /// Resolves `pool`. `pooler_stored` says whether weights of a pooler are present or will be learned, and `sentence`
    /// is the pooling of sentence-transformers, if any. `None` if the tower cannot pool this way: the family has no
    /// pooler, there is no sentence-transformers, or the pooling is one of images.
    pub(crate) fn resolve(&self, pool: Pool, pooler_stored: bool, sentence: Option<Pooling>) -> Option<Pooling> {
        match (pool, self.pooler) {
            (Pool::Cls, _) => Some(Pooling::Cls),
            (Pool::Mean, _) => Some(Pooling::Mean),
            (Pool::ClsMean | Pool::PatchMean | Pool::Tokens, _) | (Pool::Pooler, TextPooler::Absent(_)) => None,
            (Pool::Sentence, _) => sentence,
            (Pool::Last, _) => Some(Pooling::Last),
            (Pool::Auto, TextPooler::Absent(pooling)) => Some(sentence.unwrap_or(pooling)),
            (Pool::Auto, _) if !pooler_stored => Some(sentence.unwrap_or(Pooling::Pooler)),
            (Pool::Auto | Pool::Pooler, _) => Some(Pooling::Pooler),
        }
    }

    /// Width of the output of `pooling`, over all pooled layers.
    pub fn pooled_width(&self, pooling: Pooling) -> usize {
        let of_layer = match (pooling, self.pooler) {
            (Pooling::Pooler, TextPooler::Last { width }) => width,
            _ => self.encoder.width,
        };
        of_layer * self.pooled_layers.len().max(1)
    }

    /// Whether `pooling` has weights of its own, which were trained for the last layer.
    pub fn pools_by_last_layer(&self, pooling: Pooling) -> bool {
        pooling == Pooling::Pooler && matches!(self.pooler, TextPooler::First | TextPooler::Last { .. })
    }

    /// Describes in words what `pooling` takes from this tower.
    pub fn describe_pooling(&self, pooling: Pooling) -> &'static str {
        match (pooling, self.pooler) {
            (Pooling::Mean, _) => "the mean of all tokens",
            (Pooling::Cls | Pooling::ClsMean | Pooling::Tokens, _) | (Pooling::Pooler, TextPooler::Absent(_)) => {
                "the first token"
            }
            (Pooling::Last, _) => "the last token",
            (Pooling::Pooler, TextPooler::First) => "the pooler: a linear of the first token and tanh",
            (Pooling::Pooler, TextPooler::EndOfText(_)) => "the token at the end of the text",
            (Pooling::Pooler, TextPooler::Last { .. }) => "the head: a linear of the last token",
        }
    }
}
