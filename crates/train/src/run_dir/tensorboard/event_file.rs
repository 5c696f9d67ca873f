//! The event file of a run. It follows from `metrics.jsonl` and the config alone: whoever opens it writes it anew.
//!
//! So each step stands in it once after any number of kills, and a file that was damaged, deleted or begun in mid-run
//! is made whole by the next resume. TensorBoard may be reading meanwhile. It goes on to the new file, since that has a
//! later name, and drops what it knows, since the first event there makes earlier ones void. The earlier file is
//! emptied, for readers that do not know such events; it is not removed, since TensorBoard's Python reader waits for a
//! file that disappears while it is read.

use std::ffi::OsStr;
use std::fs::{self, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::Value;

use crate::error::TrainError;
use crate::run_dir::append_file::AppendFile;
use crate::run_dir::atomic_file::write_whole_by;
use crate::run_dir::log_points::{Damage, LogPoints, fallback_time, read_points};
use crate::run_dir::tensorboard::events::{push_points, push_start};

/// Around the seconds since 1970 in the name of an event file. TensorBoard reads the files with `tfevents` in their
/// names, in the order of the names.
const NAME: [&str; 2] = ["events.out.tfevents.", ".dualenc"];

/// What temporary files are named after: not after the event file, since TensorBoard would read them.
pub(crate) const TEMPORARY_NAME: &str = "tensorboard";

/// How long an emptied file stays: far longer than the 5 seconds after which TensorBoard reads again.
const EMPTY_FOR: Duration = Duration::from_secs(3600);

/// Bytes that are gathered before they are written.
const BUFFER: usize = 1 << 16;

/// The open event file of a run.
#[derive(Debug)]
pub(crate) struct EventFile {
    file: AppendFile,
}

/// An event file that was written.
#[derive(Debug)]
pub(crate) struct WrittenEvents {
    pub path: PathBuf,
    /// What is wrong with the log that it is of.
    pub damage: Damage,
}

impl EventFile {
    /// Writes the event file in `dir` of the log at `log`, and opens it for what comes next.
    ///
    /// # Errors
    /// As for [`write_events`].
    pub fn open(dir: &Path, config_toml: &str, log: &Path) -> Result<Self, TrainError> {
        Ok(Self { file: AppendFile::open(&write_events(dir, config_toml, log)?.path)? })
    }

    /// Appends what a line of the log says.
    ///
    /// # Errors
    /// [`TrainError::Write`] when the file cannot be written; the event waits then.
    pub fn append(&mut self, line: &Value) -> Result<(), TrainError> {
        let mut events = Vec::new();
        if let Some(points) = LogPoints::of(line) {
            push_points(&mut events, &points, 0.0);
        }
        self.file.append(&events)
    }

    /// Whether events wait to be written.
    pub fn is_waiting(&self) -> bool {
        self.file.is_waiting()
    }

    /// As [`AppendFile::sync`].
    ///
    /// # Errors
    /// As for [`AppendFile::sync`].
    pub fn sync(&mut self) -> Result<(), TrainError> {
        self.file.sync()
    }
}

/// Writes an event file with the config and the whole log at `log` in `dir`, and empties the earlier ones.
///
/// # Errors
/// [`TrainError::Write`] when it cannot be written, [`TrainError::Read`] when the log or `dir` cannot be read. The
/// earlier file stays then.
pub(crate) fn write_events(dir: &Path, config_toml: &str, log: &Path) -> Result<WrittenEvents, TrainError> {
    let earlier = event_files(dir)?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since_1970| since_1970.as_secs());
    // Later than the earlier names, though a clock may be set back.
    let seconds = earlier.iter().map(|(seconds, _)| seconds.saturating_add(1)).max().map_or(now, |next| next.max(now));
    let path = dir.join(format!("{}{seconds:010}{}", NAME[0], NAME[1]));
    let fallback = fallback_time(log);
    let mut read = Ok(Damage::default());
    let written = write_whole_by(&path, OsStr::new(TEMPORARY_NAME), |file| {
        let (mut events, mut is_begun) = (Vec::with_capacity(2 * BUFFER), false);
        let mut begin = |events: &mut Vec<u8>, time: f64| {
            if !std::mem::replace(&mut is_begun, true) {
                push_start(events, time, config_toml);
            }
        };
        read = read_points(log, |points| {
            begin(&mut events, points.time.unwrap_or(fallback));
            push_points(&mut events, &points, fallback);
            if events.len() >= BUFFER {
                file.write_all(&events).map_err(TrainError::write(&path))?;
                events.clear();
            }
            Ok(())
        });
        if read.is_err() {
            return Err(io::ErrorKind::Other.into());
        }
        begin(&mut events, now as f64);
        file.write_all(&events)?;
        // Before the new file appears: TensorBoard warns of a file that changes when it has read a later one.
        earlier.iter().for_each(|(_, old)| retire(old));
        Ok(())
    });
    // What failed first.
    let damage = read?;
    written?;
    Ok(WrittenEvents { path, damage })
}

/// Empties an earlier file, or removes it if it has been empty for long. A failure is ignored: its events are void.
fn retire(old: &Path) {
    let Ok(metadata) = fs::metadata(old) else { return };
    if metadata.len() > 0 {
        let _ = OpenOptions::new().write(true).truncate(true).open(old);
    } else if metadata.modified().is_ok_and(|at| at.elapsed().is_ok_and(|age| age > EMPTY_FOR)) {
        let _ = fs::remove_file(old);
    }
}

/// The event files of runs in `dir`, with the seconds in their names.
fn event_files(dir: &Path) -> Result<Vec<(u64, PathBuf)>, TrainError> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).map_err(TrainError::read(dir))? {
        let path = entry.map_err(TrainError::read(dir))?.path();
        let name = path.file_name().and_then(OsStr::to_str);
        let seconds = name.and_then(|name| name.strip_prefix(NAME[0])?.strip_suffix(NAME[1])?.parse().ok());
        found.extend(seconds.map(|seconds| (seconds, path)));
    }
    Ok(found)
}
