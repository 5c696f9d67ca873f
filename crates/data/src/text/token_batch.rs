//! The token sequences of one batch, and padding to the longest of them.

use crate::text::tokenizer::Encoded;

/// Token sequences of a batch, not padded.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TokenBatch {
    /// Token ids, one sequence per caption.
    pub ids: Vec<Vec<u32>>,
    /// Token type ids, of the same lengths.
    pub type_ids: Vec<Vec<u32>>,
}

/// Token sequences of a batch, padded to equal length.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PaddedTokens {
    /// Token ids, `[batch, seq]`, flat.
    pub ids: Vec<u32>,
    /// Token type ids, `[batch, seq]`, flat; 0 at padding.
    pub type_ids: Vec<u32>,
    /// Attention mask, `[batch, seq]`, flat; `true` at real tokens.
    pub mask: Vec<bool>,
    /// Number of sequences.
    pub batch: usize,
    /// Length of the longest sequence.
    pub seq: usize,
}

impl TokenBatch {
    /// Appends one sequence.
    pub fn push(&mut self, encoded: Encoded) {
        self.ids.push(encoded.ids);
        self.type_ids.push(encoded.type_ids);
    }

    /// Pads on the right, with `pad_id`, to the longest sequence of the batch.
    #[must_use]
    pub fn padded(&self, pad_id: u32) -> PaddedTokens {
        let batch = self.ids.len();
        let seq = self.ids.iter().map(Vec::len).max().unwrap_or(0);
        let mut padded = PaddedTokens {
            ids: vec![pad_id; batch * seq],
            type_ids: vec![0; batch * seq],
            mask: vec![false; batch * seq],
            batch,
            seq,
        };
        for (row, (ids, type_ids)) in self.ids.iter().zip(&self.type_ids).enumerate() {
            let at = row * seq..row * seq + ids.len();
            padded.ids[at.clone()].copy_from_slice(ids);
            padded.type_ids[at.clone()].copy_from_slice(type_ids);
            padded.mask[at].fill(true);
        }
        padded
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pads_to_longest() {
        let mut batch = TokenBatch::default();
        batch.push(Encoded { ids: vec![5], type_ids: vec![0], cut: false });
        batch.push(Encoded { ids: vec![6, 7, 8], type_ids: vec![0, 1, 1], cut: false });
        let padded = batch.padded(9);
        assert_eq!((padded.batch, padded.seq), (2, 3));
        assert_eq!(padded.ids, [5, 9, 9, 6, 7, 8]);
        assert_eq!(padded.type_ids, [0, 0, 0, 0, 1, 1]);
        assert_eq!(padded.mask, [true, false, false, true, true, true]);
        assert_eq!(TokenBatch::default().padded(0).seq, 0);
    }
}
