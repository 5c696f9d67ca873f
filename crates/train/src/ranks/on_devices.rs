//! Runs a rank on each device of the config, each in a thread of its own, and ends all when one fails.

use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use dualenc_data::catch_quietly;

use crate::error::TrainError;
use crate::events::{Event, Observer};
use crate::ranks::alone::Alone;
use crate::ranks::caught::caught;
use crate::ranks::exchange::Exchange;
use crate::ranks::observers::{Shared, forward};
use crate::ranks::threads::Board;

/// How long ranks wait.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// For each other within a step.
    deadline: Duration,
    /// When the first one has ended, for the others to end.
    patience: Duration,
}

/// Ranks compute equally much in a step, so a difference of an hour is a disk or device that hangs. A rank ends 10
/// seconds after the others if its loader waits for a disk; one that takes longer cannot be ended, and is left behind.
pub(crate) const LIMITS: Limits = Limits { deadline: Duration::from_secs(3600), patience: Duration::from_secs(20) };

/// Opens a run with `open`, then trains it with `work`: on this thread as the first rank, and on a thread for each
/// other rank, which opens its replica with `follow`. With one device, an error of `work` is returned as it is.
///
/// # Errors
/// Those of `open`; then the first error of a rank, with its number and device, or that of the first rank if several
/// fail at once. All other ranks end too.
pub(crate) fn on_devices<R, T>(
    limits: Limits,
    devices: &[String],
    observer: &mut dyn Observer,
    open: impl FnOnce(Arc<dyn Exchange>, &mut dyn Observer) -> Result<R, TrainError>,
    follow: impl Fn(Arc<dyn Exchange>, &str) -> Result<R, TrainError> + Send + Sync + 'static,
    work: impl Fn(R, &mut dyn Observer) -> Result<T, TrainError> + Send + Sync + 'static,
) -> Result<T, TrainError> {
    if devices.len() <= 1 {
        let run = open(Arc::new(Alone), observer)?;
        return work(run, observer);
    }
    let board = Board::new(devices.to_vec(), limits.deadline);
    let run = open(board.rank(0), observer)?;
    let others = Arc::new((follow, work));
    let ((warnings, received), (ending, ended_all)) = (channel(), channel::<()>());
    for (rank, device) in devices.iter().cloned().enumerate().skip(1) {
        let (board, others, ending) = (Arc::clone(&board), Arc::clone(&others), ending.clone());
        let mut relay = Relay { warnings: warnings.clone(), rank, device: device.clone() };
        thread::spawn(move || {
            let _ending = ending;
            let (follow, work) = &*others;
            let followed = || work(follow(board.rank(rank), &device)?, &mut relay).map(drop);
            // What failed is on the board.
            let _ = ended(&board, rank, &device, caught(catch_quietly(followed)));
        });
    }
    drop((warnings, ending));
    let observer = &Mutex::new(observer);
    thread::scope(|scope| {
        let (is_done, done) = channel::<()>();
        scope.spawn(move || forward(&received, &done, observer));
        let result = catch_quietly(|| others.1(run, &mut Shared(observer)));
        let result = ended(&board, 0, &devices[0], caught(result));
        // Nothing is sent: it is disconnected when all have ended.
        let _ = ended_all.recv_timeout(limits.patience);
        drop(is_done);
        result
    })
}

/// How a rank ended. If it failed by itself, all others end.
fn ended<T>(board: &Board, rank: usize, device: &str, result: Result<T, TrainError>) -> Result<T, TrainError> {
    result.map_err(|error| match error {
        // Another rank's. Where a signal stopped that one, nothing failed.
        TrainError::OfRank { rank, device, source } => match *source {
            TrainError::Stopped { signal } => TrainError::Stopped { signal },
            _ => TrainError::OfRank { rank, device, source },
        },
        TrainError::Stopped { signal } => {
            board.fail(rank, Arc::new(TrainError::Stopped { signal }));
            TrainError::Stopped { signal }
        }
        error => {
            let source = Arc::new(error);
            board.fail(rank, Arc::clone(&source));
            TrainError::OfRank { rank, device: device.to_owned(), source }
        }
    })
}

/// Passes on the warnings of a rank that is not the first. All else the first one reports.
struct Relay {
    warnings: Sender<String>,
    rank: usize,
    device: String,
}

impl Observer for Relay {
    fn on(&mut self, event: Event<'_>) {
        if let Event::Warning(warning) = event {
            // Nobody listens when the run has ended.
            let _ = self.warnings.send(format!("rank {} ({}): {warning}", self.rank, self.device));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;
    use crate::device_panics::device_is_open;
    use crate::events::Silent;
    use crate::ranks::exchange::Patience;

    /// Ranks that exchange without end until `fails` returns an error.
    fn run(ranks: usize, fails: impl Fn(usize, usize) -> Result<(), TrainError> + Send + Sync + 'static) -> TrainError {
        let devices: Vec<String> = (0..ranks).map(|rank| format!("device-{rank}")).collect();
        let open = |rank: Arc<dyn Exchange>, _: &mut dyn Observer| Ok(rank);
        let work = move |rank: Arc<dyn Exchange>, _: &mut dyn Observer| -> Result<(), TrainError> {
            for step in 0.. {
                fails(rank.rank(), step)?;
                rank.gather_bytes(Vec::new(), Patience::AsLongAsItTakes)?;
            }
            Ok(())
        };
        on_devices(LIMITS, &devices, &mut Silent, open, |rank, _| Ok(rank), work).unwrap_err()
    }

    #[test]
    fn failure_of_one_ends_all() {
        for failing in [0, 1, 2] {
            let error = run(3, move |rank, step| match (rank == failing, step) {
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
            let error = run(2, move |rank, step| {
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
    fn panic_of_a_device_is_a_failure_of_the_device() {
        device_is_open();
        let error = run(2, |rank, step| {
            assert!(rank != 1 || step < 3, "out of device memory allocating 7 bytes");
            Ok(())
        });
        assert!(
            matches!(&error, TrainError::OfRank { rank: 1, source, .. }
            if matches!(**source, TrainError::DeviceFailed { .. })),
            "{error}"
        );
        assert_eq!(error.kind(), crate::error::ErrorKind::Run);
    }

    #[test]
    fn signal_of_one_stops_all() {
        for stopped in [0, 1] {
            let error =
                run(2, move |rank, _| if rank == stopped { Err(TrainError::Stopped { signal: 15 }) } else { Ok(()) });
            assert!(matches!(error, TrainError::Stopped { signal: 15 }), "{error}");
        }
    }

    #[test]
    fn rank_that_hangs_is_left_behind() {
        let devices = ["a".to_owned(), "b".to_owned()];
        let limits = Limits { deadline: Duration::from_millis(200), patience: Duration::from_millis(200) };
        let open = |rank: Arc<dyn Exchange>, _: &mut dyn Observer| Ok(rank);
        let work = |rank: Arc<dyn Exchange>, _: &mut dyn Observer| {
            if rank.rank() == 1 {
                thread::sleep(Duration::from_secs(120));
            }
            rank.sum(vec![1.0])
        };
        let started = Instant::now();
        let error = on_devices(limits, &devices, &mut Silent, open, |rank, _| Ok(rank), work).unwrap_err().to_string();
        assert!(error.starts_with("rank 1 (b): it has not finished its share of a step"), "{error}");
        assert!(started.elapsed() < Duration::from_secs(60));
    }

    #[test]
    fn warnings_of_all_ranks_are_reported() {
        struct Warnings(Vec<String>);
        impl Observer for Warnings {
            fn on(&mut self, event: Event<'_>) {
                match event {
                    Event::Warning(text) | Event::Note(text) => self.0.push(text),
                    _ => {}
                }
            }
        }
        let devices = ["a".to_owned(), "b".to_owned()];
        let open = |rank: Arc<dyn Exchange>, _: &mut dyn Observer| Ok(rank);
        let work = |rank: Arc<dyn Exchange>, observer: &mut dyn Observer| {
            let number = rank.rank();
            observer.on(Event::Warning(format!("slow disk {number}")));
            observer.on(Event::Note(format!("note {number}")));
            rank.sum(vec![1.0])
        };
        let mut warnings = Warnings(Vec::new());
        on_devices(LIMITS, &devices, &mut warnings, open, |rank, _| Ok(rank), work).unwrap();
        warnings.0.sort();
        assert_eq!(warnings.0, ["note 0", "rank 1 (b): slow disk 1", "slow disk 0"]);
    }

    #[test]
    fn error_before_the_start_has_no_rank() {
        let devices = ["a".to_owned(), "b".to_owned()];
        let refuse = |_: Arc<dyn Exchange>, _: &mut dyn Observer| Err::<(), _>(TrainError::Usage("no data".to_owned()));
        let work = |(), _: &mut dyn Observer| Ok(());
        let error = on_devices(LIMITS, &devices, &mut Silent, refuse, |_, _| Ok(()), work).unwrap_err();
        assert_eq!(error.to_string(), "no data");
    }
}
