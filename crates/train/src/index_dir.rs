//! `data.index_dir`: the tables of the training pairs in files, written once and then mapped into memory.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use dualenc_data::{
    Dataset, FoundIndex, INDEX_MANIFEST, IndexFile, IndexFiles, SourceTable, index_key, open_index, write_index,
};

use crate::commands::staged_output::StagedDir;
use crate::error::TrainError;
use crate::run_dir::atomic_file::write_synced;
use crate::run_dir::fail_point::fail_point;

/// The data sets of the sources `tables`: to train on, and those that the share `held_out` of the images makes. They
/// come from the index in `dir`, which is written if there is none, or if it is not of the shards of today.
///
/// # Errors
/// [`TrainError::Data`] when a source is missing, empty or malformed, or the index cannot be written;
/// [`TrainError::Usage`] when nothing can be written into `dir`.
pub(crate) fn indexed(
    dir: &Path,
    tables: &[(String, &SourceTable)],
    held_out: f64,
) -> Result<(Dataset, Option<Dataset>), TrainError> {
    let sources: Vec<&SourceTable> = tables.iter().map(|(_, table)| *table).collect();
    let key = index_key(&sources, held_out)?;
    let target = dir.join(&key);
    if let FoundIndex::Whole(train, validation) = open_index(&target, &sources)? {
        return Ok(noted(&target, *train, validation, None));
    }
    // Another process may be writing it, which this one waits for.
    let _lock = lock(dir, &key)?;
    let mut why = None;
    match open_index(&target, &sources)? {
        FoundIndex::Whole(train, validation) => return Ok(noted(&target, *train, validation, None)),
        FoundIndex::Absent => {}
        FoundIndex::Unusable(reason) => {
            clear(&target)?;
            why = Some(reason);
        }
    }
    let staged = StagedDir::new(&target)?;
    let manifest = write_index(tables, held_out, &Folder(staged.path().to_owned()))?;
    let path = staged.path().join(INDEX_MANIFEST);
    write_synced(&path, |file| file.write_all(&manifest)).map_err(TrainError::write(&path))?;
    fail_point("before_index");
    staged.commit(INDEX_MANIFEST)?;
    match open_index(&target, &sources)? {
        FoundIndex::Whole(train, validation) => Ok(noted(&target, *train, validation, Some(why))),
        FoundIndex::Absent => Err(changed(&target, "it is gone")),
        FoundIndex::Unusable(reason) => Err(changed(&target, &reason)),
    }
}

/// The error that an index is not as it was written a moment ago.
fn changed(target: &Path, reason: &str) -> TrainError {
    TrainError::Usage(format!(
        "the data index `{}` does not fit the shards right after it was written: {reason}; do not change shards or \
         index while a run starts",
        target.display()
    ))
}

/// Adds where the index is to the notes. `written`: it was written now, and why if there was another one.
fn noted(
    target: &Path,
    mut train: Dataset,
    validation: Option<Box<Dataset>>,
    written: Option<Option<String>>,
) -> (Dataset, Option<Dataset>) {
    let shown = target.display();
    if let Some(Some(reason)) = &written {
        train.warnings.push(format!("the data index `{shown}` was written anew: {reason}"));
    }
    let verb = if written.is_some() { "written to" } else { "read from" };
    train.notes.push(format!("data index {verb} `{shown}`"));
    (train, validation.map(|validation| *validation))
}

/// Waits until no other process writes the index `key`.
fn lock(dir: &Path, key: &str) -> Result<File, TrainError> {
    let path = dir.join(format!(".{key}.lock"));
    let open = || -> io::Result<File> {
        fs::create_dir_all(dir)?;
        let file = OpenOptions::new().create(true).truncate(false).append(true).open(&path)?;
        file.lock()?;
        Ok(file)
    };
    open().map_err(|source| match source.kind() {
        io::ErrorKind::PermissionDenied
        | io::ErrorKind::ReadOnlyFilesystem
        | io::ErrorKind::NotADirectory
        | io::ErrorKind::AlreadyExists => TrainError::Usage(format!(
            "`data.index_dir`: cannot write into `{}`: {source}; name another folder",
            dir.display()
        )),
        _ => TrainError::write(&path)(source),
    })
}

/// Removes the files of an index that cannot be used, the manifest first. Other files stay.
fn clear(target: &Path) -> Result<(), TrainError> {
    let manifest = target.join(INDEX_MANIFEST);
    match fs::remove_file(&manifest) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(TrainError::write(&manifest)(error)),
        _ => {}
    }
    for entry in fs::read_dir(target).map_err(TrainError::read(target))?.flatten() {
        let name = entry.file_name();
        let is_column = name.to_str().is_some_and(|name| name.starts_with("train.") || name.starts_with("validation."));
        if is_column {
            fs::remove_file(entry.path()).map_err(TrainError::write(&entry.path()))?;
        }
    }
    // So that the new one appears in one step. Something else may be in it.
    let _ = fs::remove_dir(target);
    Ok(())
}

/// The folder of an index that is being written.
#[derive(Debug)]
struct Folder(PathBuf);

impl IndexFiles for Folder {
    fn dir(&self) -> &Path {
        &self.0
    }

    fn create(&self, name: &str) -> io::Result<Box<dyn IndexFile>> {
        Ok(Box::new(Column(File::create_new(self.0.join(name))?)))
    }
}

struct Column(File);

impl Write for Column {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

impl IndexFile for Column {
    fn finish(self: Box<Self>) -> io::Result<()> {
        self.0.sync_all()
    }
}
