//! Token sequences, the input of a text tower.

/// Token sequences without padding, as a tokenizer returns them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TokenSequences {
    /// Token ids of each sequence, at least one each.
    pub ids: Vec<Vec<u32>>,
    /// Token types, one per id.
    pub type_ids: Vec<Vec<u32>>,
    /// Positions, one per id, from 0.
    pub positions: Vec<Vec<u32>>,
}

impl TokenSequences {
    /// Sequences with positions 0, 1, 2, ...
    pub fn new(ids: Vec<Vec<u32>>, type_ids: Vec<Vec<u32>>) -> Self {
        let positions = ids.iter().map(|sequence| (0..sequence.len() as u32).collect()).collect();
        Self { ids, type_ids, positions }
    }

    /// The real tokens of padded rows, where `mask` is 1. Padding may be on either side.
    ///
    /// `counted` says how positions are numbered: RoBERTa counts real tokens, BERT counts columns.
    ///
    /// # Panics
    /// If a row of `type_ids` or `mask` is shorter than its row of `ids`.
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
    /// From the ids and token types of each sequence, as [`TokenSequences::new`].
    fn from_iter<I: IntoIterator<Item = (Vec<u32>, Vec<u32>)>>(sequences: I) -> Self {
        let (ids, type_ids) = sequences.into_iter().unzip();
        Self::new(ids, type_ids)
    }
}

/// What positions count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PositionCount {
    /// Columns of the padded batch (BERT).
    Columns,
    /// Tokens, without padding (RoBERTa).
    Tokens,
}
