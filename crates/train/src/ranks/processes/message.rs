//! Short messages between processes: who a rank is, and that it is alive, warns, fails or leaves.

use std::error::Error;

use dualenc_data::Skipped;
use serde::{Deserialize, Serialize};

use crate::error::{ErrorKind, TrainError};
use crate::ranks::processes::process::Process;

/// Bytes of a text that one message holds. Longer messages would wait for the other rank before they are sent.
const MOST_TEXT: usize = 3000;

/// Images that a failure names, the newest, in some megabytes: the others are known, or one step found too many to
/// read.
const MOST_SKIPPED: usize = 10_000;

/// A message beside the rounds of an exchange.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) enum Message {
    /// The first message: the machine of the rank, and its process.
    Hello { host: String, process: Option<Process> },
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
    /// Its error, and the images that it cannot use if they are too many.
    Error { kind: ErrorKind, message: String, skipped: Vec<Skipped> },
    /// A signal stopped it.
    Stopped { signal: usize },
    /// It did not come to where the others wait.
    Late { seconds: u64 },
    /// Nothing was heard of its process.
    Silent { seconds: u64 },
    /// Its process does not run any more.
    Gone,
}

impl Cause {
    /// A bug that the communication finds.
    pub fn internal(problem: &str) -> Self {
        let message = TrainError::Internal(problem.to_owned()).to_string();
        Self::Error { kind: ErrorKind::Internal, message, skipped: Vec::new() }
    }
}

impl Failure {
    /// That `rank` ends with `error`.
    pub fn of(rank: usize, host: &str, error: &TrainError) -> Self {
        let cause = match error.of_one_rank() {
            TrainError::Stopped { signal } => Cause::Stopped { signal: *signal },
            error => {
                let found = error.bad_images();
                let skipped = found[found.len().saturating_sub(MOST_SKIPPED)..].to_vec();
                Cause::Error { kind: error.kind(), message: cut(&with_causes(error)), skipped }
            }
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
            Cause::Error { kind, message, skipped } => TrainError::OfProcess { kind, message, skipped },
            Cause::Stopped { signal } => TrainError::Stopped { signal },
            Cause::Late { seconds } => TrainError::RankIsLate { seconds },
            Cause::Silent { seconds } => TrainError::RankIsSilent { seconds },
            Cause::Gone => TrainError::RankIsGone,
        }
    }

    /// Whether the rank does not answer, so that nobody waits for it.
    pub fn is_gone(&self) -> bool {
        matches!(self.cause, Cause::Late { .. } | Cause::Silent { .. } | Cause::Gone)
    }
}

/// The message of an error with those of its causes that it does not say itself, before its advice.
pub(crate) fn with_causes(error: &(dyn Error + 'static)) -> String {
    let text = error.to_string();
    let (message, advice) = text.find("\nhelp: ").map_or((&*text, ""), |at| text.split_at(at));
    let (mut message, mut above, mut next) = (message.to_owned(), message.to_owned(), error.source());
    while let Some(error) = next {
        let cause = error.to_string();
        if !above.ends_with(&cause) {
            message += &format!(": {cause}");
        }
        (above, next) = (cause, error.source());
    }
    message + advice
}

/// The text, cut to what one message holds: the middle is left out, since it begins with what happened and ends with
/// what to do.
fn cut(text: &str) -> String {
    const MARK: &str = " ... ";
    if text.len() <= MOST_TEXT {
        return text.to_owned();
    }
    let kept = MOST_TEXT - MARK.len();
    let (start, end) = (text.floor_char_boundary(kept / 2), text.ceil_char_boundary(text.len() - kept / 2));
    [&text[..start], MARK, &text[end..]].concat()
}

#[cfg(test)]
mod tests {
    use dualenc_data::DataError;

    use super::*;

    #[test]
    fn failures_cross() {
        let errors = [
            (TrainError::Usage("no such caption".to_owned()), ErrorKind::Input, "no such caption"),
            (TrainError::Internal("x".to_owned()), ErrorKind::Internal, "internal error: x"),
            (TrainError::LostFile { path: "log".into() }, ErrorKind::Run, "`log` was deleted, moved or changed"),
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
        let text = format!("a{}; mend it", "ä".repeat(MOST_TEXT));
        let Message::Warning(found) = Message::warning(&text) else { panic!() };
        assert!(found.starts_with("aää") && found.contains("ä ... ä") && found.ends_with("ä; mend it"), "{found}");
        assert!((MOST_TEXT - 4..=MOST_TEXT).contains(&found.len()), "{}", found.len());
        assert!(Message::warning(&text).bytes().len() < 4096);
    }

    #[test]
    fn causes_cross() {
        let error = |path: &str| {
            let source = std::io::Error::other("the disk is gone");
            crate::config::ConfigError::Read { path: path.into(), source }
        };
        assert_eq!(with_causes(&error("a.toml")), "cannot read the config `a.toml`: the disk is gone");
        // One that the message ends with is not said again.
        let error = TrainError::Read { path: "a".into(), source: std::io::Error::other("the disk is gone") };
        assert_eq!(with_causes(&error), "cannot read `a`: the disk is gone");
    }

    #[test]
    fn images_that_are_too_many_cross() {
        let image = |image: usize| Skipped {
            image,
            key: format!("{image}.png"),
            cause: "damaged".to_owned(),
            reason: "no image".to_owned(),
        };
        let found: Vec<Skipped> = (0..=MOST_SKIPPED).map(image).collect();
        let error = TrainError::Data(DataError::TooManyBad {
            bad: found.len(),
            images: 1 << 20,
            is_all: false,
            max_fraction: 0.0,
            causes: String::new(),
            first: Vec::new(),
            found: found.clone(),
        });
        let message = Message::Failed(Failure::of(1, "node1", &error));
        let Ok(Message::Failed(failure)) = Message::read(message.bytes()) else { panic!("{message:?}") };
        let TrainError::OfProcess { skipped, .. } = failure.into_error() else { panic!() };
        assert!(skipped == found[1..], "the newest");
    }
}
