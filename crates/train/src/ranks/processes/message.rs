//! Short messages between processes: that a rank is alive, warns, fails or leaves.

use serde::{Deserialize, Serialize};

use crate::error::{ErrorKind, TrainError};

/// Bytes of a text that one message holds. Longer messages would wait for the other rank before they are sent.
const MOST_TEXT: usize = 3000;

/// A message beside the rounds of an exchange.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) enum Message {
    /// The rank is alive.
    Beat,
    /// A warning for the observer of the first rank.
    Warning(String),
    /// A rank has failed.
    Failed(Failure),
    /// The rank sends nothing more.
    Goodbye,
}

impl Message {
    /// Its bytes, which live as long as the process: nobody knows when MPI has sent them to a rank that hangs. All but
    /// [`Message::Beat`] are rare.
    pub fn bytes(&self) -> &'static [u8] {
        const BEAT: &[u8] = br#""Beat""#;
        match self {
            Self::Beat => BEAT,
            // Strings and numbers can always be written.
            message => serde_json::to_vec(message).unwrap_or_else(|_| BEAT.to_vec()).leak(),
        }
    }

    pub fn read(bytes: &[u8]) -> Result<Self, serde_json::Error> {
        serde_json::from_slice(bytes)
    }

    pub fn warning(text: &str) -> Self {
        Self::Warning(cut(text))
    }
}

/// That a rank has failed, and all others end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Failure {
    pub rank: usize,
    /// The name of its machine, if it says so itself.
    pub host: Option<String>,
    pub cause: Cause,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Cause {
    /// Its error.
    Error { kind: ErrorKind, message: String },
    /// A signal stopped it.
    Stopped { signal: usize },
    /// It did not come to where the others wait.
    Late { seconds: u64 },
    /// Nothing was heard of its process.
    Silent { seconds: u64 },
}

impl Failure {
    /// That `rank` ends with `error`.
    pub fn of(rank: usize, host: &str, error: &TrainError) -> Self {
        let cause = match error.of_one_rank() {
            TrainError::Stopped { signal } => Cause::Stopped { signal: *signal },
            error => Cause::Error { kind: error.kind(), message: cut(&error.to_string()) },
        };
        Self { rank, host: Some(host.to_owned()), cause }
    }

    /// A failure that another rank, or its communication, finds out.
    pub fn found(rank: usize, cause: Cause) -> Self {
        Self { rank, host: None, cause }
    }

    /// The error with which the other ranks end.
    pub fn into_error(self) -> TrainError {
        match self.cause {
            Cause::Error { kind, message } => TrainError::OfProcess { kind, message },
            Cause::Stopped { signal } => TrainError::Stopped { signal },
            Cause::Late { seconds } => TrainError::RankIsLate { seconds },
            Cause::Silent { seconds } => TrainError::RankIsSilent { seconds },
        }
    }

    /// Whether the rank does not answer, so that nobody waits for it.
    pub fn is_gone(&self) -> bool {
        matches!(self.cause, Cause::Late { .. } | Cause::Silent { .. })
    }
}

/// The text, cut to what one message holds.
fn cut(text: &str) -> String {
    if text.len() <= MOST_TEXT {
        return text.to_owned();
    }
    let end = (0..=MOST_TEXT).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
    format!("{} ...", &text[..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_cross() {
        let errors = [
            (TrainError::Usage("no such caption".to_owned()), ErrorKind::Input, "no such caption"),
            (TrainError::Internal("x".to_owned()), ErrorKind::Internal, "internal error: x"),
        ];
        for (error, kind, start) in errors {
            let message = Message::Failed(Failure::of(3, "node1", &error));
            let Ok(Message::Failed(found)) = Message::read(message.bytes()) else { panic!("{message:?}") };
            assert_eq!((found.rank, found.host.as_deref()), (3, Some("node1")));
            let error = found.into_error();
            assert_eq!(error.kind(), kind);
            assert!(error.to_string().starts_with(start), "{error}");
        }
        let stopped = Failure::of(1, "node1", &TrainError::Stopped { signal: 15 });
        assert!(matches!(stopped.into_error(), TrainError::Stopped { signal: 15 }));
    }

    #[test]
    fn long_texts_are_cut_between_letters() {
        let text = format!("a{}", "ä".repeat(MOST_TEXT));
        let Message::Warning(found) = Message::warning(&text) else { panic!() };
        assert_eq!(found, format!("a{} ...", "ä".repeat((MOST_TEXT - 1) / 2)));
        assert!(Message::warning(&text).bytes().len() < 4096);
    }
}
