//! `pack.json`: from which data and options a directory was packed, and how far.

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, BufWriter, Write};
use std::path::Path;

use dualenc_data::Limits;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::commands::pack::request::{PackForm, PackRequest};
use crate::commands::staged_output::StagedFile;
use crate::error::TrainError;
use crate::run_dir::atomic_file::target_of;

/// The manifest.
const MANIFEST: &str = "pack.json";

/// The list of what was left out.
pub const BAD_SAMPLES: &str = "bad_samples.jsonl";

/// The format of the manifest.
const FORMAT: u32 = 1;

/// What a directory holds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Manifest {
    format: u32,
    /// Of the data set, as hexadecimal digits.
    fingerprint: String,
    options: Value,
    /// Images of the data set.
    images: usize,
    pub complete: bool,
    pub chunks: Vec<Chunk>,
}

/// A shard, or a part of a folder.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Chunk {
    pub name: String,
    /// Its first image in the data set.
    pub first_image: usize,
    /// One more than its last image.
    pub next_image: usize,
    pub samples: usize,
    pub captions: usize,
    /// Images in its range that cannot be used.
    pub bad: usize,
    /// Of the shard; of a folder, of the samples in it.
    pub bytes: u64,
}

impl Manifest {
    /// The manifest in `out`, for the same data and options; a new one if `out` is empty or not there. Changes nothing.
    ///
    /// # Errors
    /// [`TrainError::Usage`] when `out` holds something else; [`TrainError::Read`].
    pub fn open(
        out: &Path,
        fingerprint: &str,
        (request, limits): (&PackRequest, &Limits),
        images: usize,
    ) -> Result<Self, TrainError> {
        let new = Self {
            format: FORMAT,
            fingerprint: fingerprint.to_owned(),
            options: request.options(limits),
            images,
            complete: false,
            chunks: Vec::new(),
        };
        let refuse = |why: String| Err(TrainError::Usage(format!("`{}` {why}", out.display())));
        let path = out.join(MANIFEST);
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let is_free = match fs::read_dir(out) {
                    // A command that was killed at once leaves no more than a temporary file.
                    Ok(mut entries) => {
                        entries.all(|entry| entry.is_ok_and(|entry| target_of(&entry.file_name()).is_some()))
                    }
                    Err(error) if error.kind() == io::ErrorKind::NotFound => true,
                    Err(error) => return Err(TrainError::read(out)(error)),
                };
                return if is_free { Ok(new) } else { refuse("is not empty; choose a new directory".to_owned()) };
            }
            Err(error) => return Err(TrainError::read(&path)(error)),
        };
        let mut found: Self = match serde_json::from_slice(&bytes) {
            Ok(found) => found,
            Err(error) => return refuse(format!("has a damaged `{MANIFEST}` ({error}); choose a new directory")),
        };
        let options = differing(&found.options, &new.options);
        let differs = [
            ("other data", found.fingerprint != new.fingerprint || found.images != new.images),
            (&*format!("other options ({options})"), !options.is_empty()),
            ("another format", found.format != new.format),
        ];
        if let Some((what, _)) = differs.iter().find(|(_, differs)| *differs) {
            return refuse(format!("was packed from {what}; choose a new directory, or delete it"));
        }
        if request.form == PackForm::Webdataset {
            found.keep_intact(out);
        }
        Ok(found)
    }

    /// Drops the first shard that is gone or has another size, and those after it: they are written again.
    fn keep_intact(&mut self, out: &Path) {
        let is_intact = |chunk: &Chunk| {
            chunk.samples == 0 || fs::metadata(out.join(&chunk.name)).is_ok_and(|file| file.len() == chunk.bytes)
        };
        let intact = self.chunks.iter().position(|chunk| !is_intact(chunk)).unwrap_or(self.chunks.len());
        if intact < self.chunks.len() {
            self.complete = false;
            self.chunks.truncate(intact);
        }
    }

    /// The image to go on with.
    pub fn next_image(&self) -> usize {
        self.chunks.last().map_or(0, |chunk| chunk.next_image)
    }

    /// The number of images that cannot be used, of those gone through.
    pub fn bad(&self) -> usize {
        self.chunks.iter().map(|chunk| chunk.bad).sum()
    }

    /// Writes the manifest to `out`.
    ///
    /// # Errors
    /// [`TrainError::Write`].
    pub fn save(&self, out: &Path) -> Result<(), TrainError> {
        write_staged(&out.join(MANIFEST), |file| {
            serde_json::to_writer_pretty(&mut *file, self)?;
            file.write_all(b"\n")
        })
    }
}

/// The options that differ, with their values: `` `quality` was null, now 80 ``.
fn differing(was: &Value, now: &Value) -> String {
    let names = [was, now].into_iter().filter_map(Value::as_object).flat_map(|options| options.keys());
    let names: BTreeSet<&String> = names.filter(|name| was.get(name) != now.get(name)).collect();
    let shown = |options: &Value, name: &str| options.get(name).map_or("not noted".to_owned(), Value::to_string);
    let item = |name: &String| format!("`{name}` was {}, now {}", shown(was, name), shown(now, name));
    names.into_iter().map(item).collect::<Vec<_>>().join(", ")
}

/// Writes a file that appears when it is complete. What a killed process has left of the file goes away.
///
/// # Errors
/// [`TrainError::Write`].
pub(crate) fn write_staged(path: &Path, fill: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> Result<(), TrainError> {
    let staged = StagedFile::new(path)?;
    let mut writer = BufWriter::new(staged.file());
    fill(&mut writer).and_then(|()| writer.flush()).map_err(TrainError::write(path))?;
    drop(writer);
    staged.commit()
}

/// Writes the list of what was left out; none without lines.
///
/// # Errors
/// [`TrainError::Write`].
pub(crate) fn save_bad(out: &Path, lines: &[Value]) -> Result<(), TrainError> {
    if lines.is_empty() {
        return Ok(());
    }
    write_staged(&out.join(BAD_SAMPLES), |file| lines.iter().try_for_each(|line| writeln!(file, "{line}")))
}

/// The list of what was left out.
///
/// # Errors
/// [`TrainError::Read`]; [`TrainError::Usage`] for a line that is not JSON.
pub(crate) fn load_bad(out: &Path) -> Result<Vec<Value>, TrainError> {
    let path = out.join(BAD_SAMPLES);
    let text = match fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(TrainError::read(&path)(error)),
    };
    let parse = |(line, number): (&str, usize)| {
        serde_json::from_str(line).map_err(|error| {
            TrainError::Usage(format!("`{}`, line {number} is damaged: {error}; delete the directory", path.display()))
        })
    };
    text.lines().zip(1..).map(parse).collect()
}
