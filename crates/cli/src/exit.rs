//! How a command ends, and the exit code of the program.

use dualenc_train::config::ConfigError;
use dualenc_train::{ErrorKind, TrainError};

/// How a command ends if it does not fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// It did what it was asked to.
    Done,
    /// It did what it was asked to, and found problems.
    Problems,
    /// A signal stopped it, by its number.
    Stopped(usize),
}

const SUCCESS: u8 = 0;
/// The run failed.
const FAILED: u8 = 1;
/// Bad usage, config or data. clap exits with the same code.
pub const BAD_INPUT: u8 = 2;
/// Loss or gradient not finite.
const NOT_FINITE: u8 = 3;
/// Added to the number of a signal, as shells do.
const SIGNAL_BASE: u8 = 128;

/// The exit code for the result of a command.
pub fn code(result: &anyhow::Result<Ending>) -> u8 {
    match result {
        Ok(Ending::Done) => SUCCESS,
        Ok(Ending::Problems) => BAD_INPUT,
        Ok(Ending::Stopped(signal)) => SIGNAL_BASE.saturating_add(u8::try_from(*signal).unwrap_or(u8::MAX)),
        Err(error) if is_closed_pipe(error) => SUCCESS,
        Err(error) => match error.downcast_ref::<TrainError>().map(TrainError::kind) {
            Some(ErrorKind::NotFinite) => NOT_FINITE,
            Some(ErrorKind::Run | ErrorKind::Internal) => FAILED,
            Some(ErrorKind::Input) => BAD_INPUT,
            None if error.is::<ConfigError>() => BAD_INPUT,
            _ => FAILED,
        },
    }
}

/// Whether the reader of stdout has exited, as in `dualenc check ... | head`; that is no failure.
pub fn is_closed_pipe(error: &anyhow::Error) -> bool {
    error.downcast_ref::<std::io::Error>().is_some_and(|error| error.kind() == std::io::ErrorKind::BrokenPipe)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exit_codes() {
        let io = |kind: std::io::ErrorKind| Err(anyhow::Error::from(std::io::Error::from(kind)));
        assert_eq!(code(&Ok(Ending::Done)), 0);
        assert_eq!(code(&Ok(Ending::Problems)), 2);
        assert_eq!(code(&Ok(Ending::Stopped(15))), 143);
        assert_eq!(code(&io(std::io::ErrorKind::BrokenPipe)), 0);
        assert_eq!(code(&io(std::io::ErrorKind::Other)), 1);
        assert_eq!(code(&Err(TrainError::Usage("no".to_owned()).into())), 2);
    }
}
