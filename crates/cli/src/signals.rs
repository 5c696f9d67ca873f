//! SIGINT, SIGTERM and SIGHUP.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use dualenc_train::{Event, Observer, StopFlag};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGXFSZ};

use crate::report::notice;

/// How often the flag is looked at, to say that a signal has arrived.
const POLL: Duration = Duration::from_millis(20);

/// Signals this close to the first are one request: `timeout` and job schedulers signal a process and then
/// its group.
const SAME: Duration = Duration::from_secs(1);

/// What the next signal does: it ends the process at once, with 128 and its number, until work begins that must be
/// stopped in an orderly way.
pub struct Signals {
    stop: StopFlag,
    /// Of each signal, whether it ends the process at once.
    ends_at_once: Vec<Arc<AtomicBool>>,
    has_begun: AtomicBool,
    is_muted: bool,
    is_launched: bool,
}

impl Signals {
    /// Ends the process at the first signal. For work that writes nothing, such as loading a model.
    pub fn end_at_once() -> anyhow::Result<Self> {
        let (stop, mut ends_at_once) = (StopFlag::default(), Vec::new());
        let all = [SIGINT, SIGTERM].into_iter().chain(is_hangup_heard().then_some(SIGHUP));
        for (signal, exit_code) in all.map(|signal| (signal, 128 + signal)) {
            let at_once = Arc::new(AtomicBool::new(true));
            signal_hook::flag::register_conditional_shutdown(signal, exit_code, Arc::clone(&at_once))?;
            signal_hook::flag::register_usize(signal, stop.shared(), usize::try_from(signal)?)?;
            ends_at_once.push(at_once);
        }
        Ok(Self { stop, ends_at_once, has_begun: AtomicBool::new(false), is_muted: false, is_launched: false })
    }

    /// From now on, a signal is answered without a word: another process says it.
    pub fn mute(&mut self) {
        self.is_muted = true;
    }

    /// From now on, the answer to a signal says that a launcher may not wait: it ends several processes soon after.
    pub fn launched(&mut self) {
        self.is_launched = true;
    }

    /// The flag that a signal sets.
    pub fn flag(&self) -> &StopFlag {
        &self.stop
    }

    /// From now on, the first signal only sets the returned flag, so that the command can stop in an orderly way, and
    /// says so. A later one ends the process at once, unless it comes within [`SAME`] of the first.
    pub fn begin_work(&self) -> &StopFlag {
        self.begin(match self.is_launched {
            false => "stopping after the work in progress; press Ctrl-C again to quit without saving",
            true => {
                "stopping after the step; if the launcher ends the run before, `--resume` continues from the newest \
                     checkpoint"
            }
        })
    }

    /// [Begins work](Signals::begin_work) that saves nothing: a server answers requests until it is stopped.
    pub fn begin_serving(&self) -> &StopFlag {
        self.begin("stopping after the requests in progress; press Ctrl-C again to quit at once")
    }

    fn begin(&self, answer: &'static str) -> &StopFlag {
        if !self.has_begun.swap(true, Ordering::SeqCst) {
            self.ends_at_once.iter().for_each(|at_once| at_once.store(false, Ordering::SeqCst));
            let (stop, ends_at_once, is_muted) = (self.stop.clone(), self.ends_at_once.clone(), self.is_muted);
            std::thread::spawn(move || {
                while stop.signal().is_none() {
                    std::thread::sleep(POLL);
                }
                if !is_muted {
                    notice::write(answer);
                }
                std::thread::sleep(SAME);
                ends_at_once.iter().for_each(|at_once| at_once.store(true, Ordering::SeqCst));
            });
        }
        &self.stop
    }
}

/// Forwards events, and [begins work](Signals::begin_work) with the first that reports work done.
pub struct BeginWork<'a> {
    pub signals: &'a Signals,
    pub observer: &'a mut dyn Observer,
}

impl Observer for BeginWork<'_> {
    fn on(&mut self, event: Event<'_>) {
        if let Event::Start { .. } | Event::Work { .. } = event {
            self.signals.begin_work();
        }
        self.observer.on(event);
    }
}

/// Whether the end of the terminal or of the connection ends this process: not under `nohup`, which has SIGHUP ignored.
/// A handler would undo that. Only Linux says without `unsafe` code which signals are ignored.
fn is_hangup_heard() -> bool {
    let status = std::fs::read_to_string("/proc/self/status");
    let ignored = status.ok().and_then(|text| {
        let mask = text.lines().find_map(|line| line.strip_prefix("SigIgn:"))?;
        u64::from_str_radix(mask.trim(), 16).ok()
    });
    ignored.is_some_and(|mask| mask & (1 << (SIGHUP - 1)) == 0)
}

/// Turns the signal of a file that grows beyond a limit into an error of the write, which names the file.
pub fn ignore_file_limit() -> anyhow::Result<()> {
    signal_hook::flag::register(SIGXFSZ, Arc::default())?;
    Ok(())
}
