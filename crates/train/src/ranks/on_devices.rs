//! Runs a rank on each device of the config, each in a thread of its own, and ends all when one fails.

use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use dualenc_data::{CaughtPanic, catch_quietly};

use crate::error::TrainError;
use crate::events::{Event, Observer};
use crate::ranks::alone::Alone;
use crate::ranks::exchange::Exchange;
use crate::ranks::threads::Board;

/// How long a rank waits for the others within a step. They compute equally much, so a difference of an hour is a disk
/// or device that hangs.
const DEADLINE: Duration = Duration::from_secs(3600);

/// Opens a run with `open`, then trains it with `work`: on this thread as the first rank, and on a thread for each
/// other rank, which opens its replica with `follow`. With one device, an error of `work` is returned as it is.
///
/// # Errors
/// Those of `open`; then the first error of a rank, with its number and device, or that of the first rank if several
/// fail at once. All other ranks end too.
pub(crate) fn on_devices<R, T>(
    devices: &[String],
    observer: &mut dyn Observer,
    open: impl FnOnce(Arc<dyn Exchange>, &mut dyn Observer) -> Result<R, TrainError>,
    follow: impl Fn(Arc<dyn Exchange>, &mut dyn Observer) -> Result<R, TrainError> + Sync,
    work: impl Fn(R, &mut dyn Observer) -> Result<T, TrainError> + Sync,
) -> Result<T, TrainError> {
    if devices.len() <= 1 {
        let run = open(Arc::new(Alone), observer)?;
        return work(run, observer);
    }
    let board = Board::new(devices.to_vec(), DEADLINE);
    let run = open(board.rank(0), observer)?;
    let observer = Mutex::new(observer);
    thread::scope(|scope| {
        for (rank, device) in devices.iter().enumerate().skip(1) {
            let (board, observer, follow, work) = (&board, &observer, &follow, &work);
            scope.spawn(move || {
                let mut relay = Relay { observer, of_rank: Some((rank, device)) };
                let followed = || work(follow(board.rank(rank), &mut relay)?, &mut relay).map(drop);
                // What failed is on the board.
                let _ = ended(board, rank, device, catch_quietly(followed));
            });
        }
        let mut relay = Relay { observer: &observer, of_rank: None };
        ended(&board, 0, &devices[0], catch_quietly(|| work(run, &mut relay)))
    })
}

/// How a rank ended. If it failed by itself, all others end.
fn ended<T>(
    board: &Board,
    rank: usize,
    device: &str,
    result: Result<Result<T, TrainError>, CaughtPanic>,
) -> Result<T, TrainError> {
    let error = match result {
        Ok(Ok(done)) => return Ok(done),
        Ok(Err(error)) => error,
        Err(panic) => TrainError::Internal(panic.to_string()),
    };
    match error {
        // Another rank's. Where a signal stopped that one, nothing failed.
        TrainError::OfRank { rank, device, source } => Err(match *source {
            TrainError::Stopped { signal } => TrainError::Stopped { signal },
            _ => TrainError::OfRank { rank, device, source },
        }),
        TrainError::Stopped { signal } => {
            board.fail(rank, Arc::new(TrainError::Stopped { signal }));
            Err(TrainError::Stopped { signal })
        }
        error => {
            let source = Arc::new(error);
            board.fail(rank, Arc::clone(&source));
            Err(TrainError::OfRank { rank, device: device.to_owned(), source })
        }
    }
}

/// Forwards the events of a rank: all of the first rank, and the warnings of the others, with the rank.
struct Relay<'a, 'b> {
    observer: &'a Mutex<&'b mut dyn Observer>,
    /// Of a rank that is not the first: its number and its device.
    of_rank: Option<(usize, &'a str)>,
}

impl Observer for Relay<'_, '_> {
    fn on(&mut self, event: Event<'_>) {
        let event = match (self.of_rank, event) {
            (None, event) => event,
            (Some((rank, device)), Event::Warning(warning)) => {
                Event::Warning(format!("rank {rank} ({device}): {warning}"))
            }
            (Some(_), _) => return,
        };
        self.observer.lock().unwrap_or_else(PoisonError::into_inner).on(event);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::events::Silent;
    use crate::ranks::exchange::Patience;

    /// Ranks that exchange without end until `fails` returns an error.
    fn run(ranks: usize, fails: impl Fn(usize, usize) -> Result<(), TrainError> + Sync) -> TrainError {
        let devices: Vec<String> = (0..ranks).map(|rank| format!("device-{rank}")).collect();
        let open = |rank: Arc<dyn Exchange>, _: &mut dyn Observer| Ok(rank);
        let work = |rank: Arc<dyn Exchange>, _: &mut dyn Observer| -> Result<(), TrainError> {
            for step in 0.. {
                fails(rank.rank(), step)?;
                rank.gather_bytes(Vec::new(), Patience::AsLongAsItTakes)?;
            }
            Ok(())
        };
        on_devices(&devices, &mut Silent, open, open, work).unwrap_err()
    }

    #[test]
    fn failure_of_one_ends_all() {
        for failing in [0, 1, 2] {
            let error = run(3, |rank, step| match (rank == failing, step) {
                (true, 5) => Err(TrainError::Usage("no such caption".to_owned())),
                _ => Ok(()),
            });
            assert_eq!(error.to_string(), format!("rank {failing} (device-{failing}): no such caption"));
            assert_eq!(error.kind(), crate::error::ErrorKind::Input);
        }
    }

    #[test]
    fn panic_of_one_ends_all() {
        for failing in [0, 1] {
            let error = run(2, |rank, step| {
                assert!(rank != failing || step < 3, "a bug");
                Ok(())
            });
            let message = error.to_string();
            assert!(
                message.starts_with(&format!("rank {failing} (device-{failing}): internal error: a bug")),
                "{message}"
            );
            assert_eq!(error.kind(), crate::error::ErrorKind::Internal);
        }
    }

    #[test]
    fn signal_of_one_stops_all() {
        for stopped in [0, 1] {
            let error =
                run(2, |rank, _| if rank == stopped { Err(TrainError::Stopped { signal: 15 }) } else { Ok(()) });
            assert!(matches!(error, TrainError::Stopped { signal: 15 }), "{error}");
        }
    }

    #[test]
    fn error_before_the_start_has_no_rank() {
        let devices = ["a".to_owned(), "b".to_owned()];
        let refuse = |_: Arc<dyn Exchange>, _: &mut dyn Observer| Err::<(), _>(TrainError::Usage("no data".to_owned()));
        let work = |(), _: &mut dyn Observer| Ok(());
        let error = on_devices(&devices, &mut Silent, refuse, refuse, work).unwrap_err();
        assert_eq!(error.to_string(), "no data");
    }
}
