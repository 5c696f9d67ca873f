//! Runs this process as a rank, and ends all when one fails.

use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};
use std::thread;

use dualenc_data::catch_quietly;

use crate::config::RunConfig;
use crate::error::TrainError;
use crate::events::{Event, Observer};
use crate::ranks::caught::caught;
use crate::ranks::exchange::{Exchange, Patience};
use crate::ranks::observers::{Shared, forward};
use crate::ranks::processes::agreement::agree;
use crate::ranks::processes::process_rank::ProcessRank;
use crate::ranks::processes::world::World;

/// Opens a run with `open` on the first process, and its replica with `follow` on the others, then trains it with
/// `work`. `start`: how it starts, which must be the same for all. The observer of the first process hears all; that of
/// another only that training starts.
///
/// # Errors
/// Those of `open`, as they are; then the first error of a rank, with its number, machine and device. All other ranks
/// end too.
pub(crate) fn on_processes<R, T>(
    world: &Arc<World>,
    (config, start): (&RunConfig, String),
    observer: &mut dyn Observer,
    open: impl FnOnce(Arc<dyn Exchange>, &mut dyn Observer) -> Result<R, TrainError>,
    follow: impl FnOnce(Arc<dyn Exchange>, &str) -> Result<R, TrainError>,
    work: impl FnOnce(R, &mut dyn Observer) -> Result<T, TrainError>,
) -> Result<T, TrainError> {
    let ranks: Arc<dyn Exchange> = Arc::new(ProcessRank(Arc::clone(world)));
    if world.rank > 0 {
        let mut relay = Relay { world, observer };
        let result = catch_quietly(|| {
            let agreed = agree(world, &ranks, config, start)?;
            let run = follow(Arc::clone(&ranks), &agreed.device)?;
            end_together(&*ranks, work(run, &mut relay)?)
        });
        return ended(world, true, caught(result));
    }
    let (observer, mut is_open) = (&Mutex::new(observer), false);
    thread::scope(|scope| {
        let (is_done, done) = channel::<()>();
        if let Some(warnings) = world.take_warnings() {
            scope.spawn(move || forward(&warnings, &done, observer));
        }
        let result = catch_quietly(|| {
            let agreed = agree(world, &ranks, config, start)?;
            Shared(observer).on(Event::Note(agreed.note));
            agreed.warning.into_iter().for_each(|warning| Shared(observer).on(Event::Warning(warning)));
            let run = open(Arc::clone(&ranks), &mut Shared(observer))?;
            is_open = true;
            end_together(&*ranks, work(run, &mut Shared(observer))?)
        });
        let result = ended(world, is_open, caught(result));
        drop(is_done);
        result
    })
}

/// Waits for the others, so that nothing that they report is lost.
fn end_together<T>(ranks: &dyn Exchange, done: T) -> Result<T, TrainError> {
    ranks.gather_bytes(Vec::new(), Patience::AsLongAsItTakes).map(|_| done)
}

/// How this rank ended. If it failed by itself, all others end. `has_rank`: whether its error names it.
fn ended<T>(world: &World, has_rank: bool, result: Result<T, TrainError>) -> Result<T, TrainError> {
    result.map_err(|error| match error {
        // Another rank's. Where a signal stopped that one, nothing failed.
        TrainError::OfRank { rank, device, source } => match *source {
            TrainError::Stopped { signal } => TrainError::Stopped { signal },
            _ => TrainError::OfRank { rank, device, source },
        },
        error => {
            world.fail(&error);
            match error {
                TrainError::Stopped { signal } => TrainError::Stopped { signal },
                error if !has_rank => error,
                error => {
                    let rank = world.rank;
                    TrainError::OfRank { rank, device: world.place(rank), source: Arc::new(error) }
                }
            }
        }
    })
}

/// The observer of a rank that is not the first: its warnings reach the first one.
struct Relay<'a> {
    world: &'a World,
    observer: &'a mut dyn Observer,
}

impl Observer for Relay<'_> {
    fn on(&mut self, event: Event<'_>) {
        match event {
            Event::Warning(warning) => self.world.warn(&warning),
            // From here on, a signal has to wait for the others.
            start @ Event::Start { .. } => self.observer.on(start),
            _ => {}
        }
    }
}
