//! What ranks give each other in one round of an exchange.

use std::ops::Range;
use std::sync::Arc;
use std::sync::mpsc::Sender;

use crate::ranks::exchange::Patience;
use crate::ranks::processes::message::Failure;

/// Bytes that travel with the head of a message. MPI sends a short message at once, without asking the receiver.
const INLINE: usize = 2048;

/// What a rank gives to each of the others.
pub(super) struct Round {
    pub given: Given,
    /// The bytes for each rank.
    pub parts: Vec<Range<usize>>,
    /// What all ranks must do alike: a number of the call, and of what it must agree on.
    pub call: u64,
    pub patience: Patience,
    pub answer: Sender<Result<Vec<Taken>, Failure>>,
}

/// Bytes or numbers, as they lie in memory.
pub(super) enum Given {
    Bytes(Arc<Vec<u8>>),
    Values(Arc<Vec<f32>>),
}

impl Given {
    pub fn bytes(&self) -> &[u8] {
        match self {
            Self::Bytes(bytes) => bytes,
            Self::Values(values) => bytemuck::cast_slice(values),
        }
    }
}

/// What a rank was given by another.
#[derive(Debug)]
pub(super) enum Taken {
    Bytes(Vec<u8>),
    Values(Vec<f32>),
}

impl Taken {
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        match self {
            Self::Bytes(bytes) => bytes,
            Self::Values(values) => bytemuck::cast_slice_mut(values),
        }
    }
}

impl Round {
    /// Room for `bytes` bytes, of the kind that this rank gives; `None`: they are no whole number of values.
    pub fn room(&self, bytes: usize) -> Option<Taken> {
        match self.given {
            Given::Bytes(_) => Some(Taken::Bytes(vec![0; bytes])),
            Given::Values(_) if bytes.is_multiple_of(size_of::<f32>()) => {
                Some(Taken::Values(vec![0.0; bytes / size_of::<f32>()]))
            }
            Given::Values(_) => None,
        }
    }

    /// The bytes for `rank`.
    pub fn part(&self, rank: usize) -> &[u8] {
        &self.given.bytes()[self.parts[rank].clone()]
    }
}

/// What comes before the bytes of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Head {
    /// Rounds before this one.
    pub round: u64,
    /// [`Round::call`].
    pub call: u64,
    /// Bytes of the message.
    pub length: u64,
}

impl Head {
    const SIZE: usize = 24;

    /// The head with the bytes that travel with it: all or none.
    pub fn with(self, bytes: &[u8]) -> Vec<u8> {
        let numbers = [self.round, self.call, self.length];
        let mut written: Vec<u8> = numbers.into_iter().flat_map(u64::to_le_bytes).collect();
        if self.is_inline() {
            written.extend_from_slice(bytes);
        }
        written
    }

    /// A head and the bytes that travel with it; `None`: it is damaged.
    pub fn read(bytes: &[u8]) -> Option<(Self, &[u8])> {
        let (numbers, rest) = bytes.split_at_checked(Self::SIZE)?;
        let mut numbers = numbers.as_chunks::<8>().0.iter().map(|number| u64::from_le_bytes(*number));
        let head = Self { round: numbers.next()?, call: numbers.next()?, length: numbers.next()? };
        let expected = if head.is_inline() { usize::try_from(head.length).ok()? } else { 0 };
        (rest.len() == expected).then_some((head, rest))
    }

    /// Whether all bytes travel with the head.
    pub fn is_inline(self) -> bool {
        self.length <= INLINE as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_messages_travel_with_their_head() {
        for length in [0, 1, INLINE, INLINE + 1] {
            let bytes = vec![7; length];
            let head = Head { round: 1 << 40, call: 2, length: length as u64 };
            let written = head.with(&bytes);
            let (found, rest) = Head::read(&written).unwrap();
            assert_eq!(found, head);
            assert_eq!(rest.len(), if length <= INLINE { length } else { 0 });
            assert_eq!(Head::read(&written[..written.len() - 1]), None);
            assert_eq!(Head::read(&[&written[..], &[0]].concat()), None);
        }
    }
}
