//! Output of a command that appears under its name only when it is complete: beside it, a temporary file or directory
//! is filled, which goes away when the command fails or is stopped. What a killed process left is removed by the next
//! command that writes the same output.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use tempfile::{Builder, NamedTempFile, TempDir};

use crate::error::TrainError;
use crate::run_dir::atomic_file::{RANDOM_CHARS, TEMPORARY, parent, sync_parent, target_of};

/// Checks that a file can have the path `target`: it is no directory, and in one that exists.
///
/// # Errors
/// [`TrainError::Usage`].
pub fn check_output_file(target: &Path) -> Result<(), TrainError> {
    if target.is_dir() {
        return Err(TrainError::Usage(format!("`{}` is a directory; name a file", target.display())));
    }
    let parent = parent(target);
    if !parent.is_dir() {
        return Err(TrainError::Usage(format!(
            "cannot write `{}`: `{}` is not a directory; create it, or name another file",
            target.display(),
            parent.display()
        )));
    }
    Ok(())
}

/// Checks that `target`, the value of `--out`, is no file yet, for output that took a user's choices to make.
///
/// # Errors
/// [`TrainError::Usage`].
pub(crate) fn refuse_existing(target: &Path) -> Result<(), TrainError> {
    // A link that leads nowhere is there too.
    if fs::symlink_metadata(target).is_err() {
        return Ok(());
    }
    Err(TrainError::Usage(format!(
        "`{}` exists already, and is not overwritten; name another file with `--out`, or delete it",
        target.display()
    )))
}

/// A file that is not yet visible under its name.
pub(crate) struct StagedFile {
    temporary: NamedTempFile<File>,
    target: PathBuf,
    /// Whether `target` is a device or a pipe, which is written to and not replaced.
    is_stream: bool,
}

impl StagedFile {
    /// Creates the temporary file for `target`, in the same directory. If `target` is a link to a file, it stays one.
    ///
    /// # Errors
    /// [`TrainError::Write`] when it cannot be created; [`TrainError::Usage`] when `target` is a directory or a link
    /// that leads nowhere, or there is no directory for it.
    pub fn new(target: &Path) -> Result<Self, TrainError> {
        check_output_file(target)?;
        let is_stream = fs::metadata(target).is_ok_and(|there| !there.is_file());
        let target = &if is_stream { target.to_owned() } else { linked_file(target)? };
        let (in_system, prefix) = (std::env::temp_dir(), prefix(target));
        let parent = if is_stream { in_system.as_path() } else { parent(target) };
        remove_dead(parent, target);
        let create = || -> io::Result<NamedTempFile<File>> {
            loop {
                // Created here, since tempfile's own files are readable by their owner only.
                let temporary = Builder::new()
                    .prefix(&prefix)
                    .rand_bytes(RANDOM_CHARS)
                    .make_in(parent, |path| File::create_new(path))?;
                // A process that cleans up may hold the lock first, and remove the file.
                let _ = temporary.as_file().lock();
                if temporary.path().exists() {
                    return Ok(temporary);
                }
            }
        };
        let temporary = create().map_err(unwritable(target))?;
        Ok(Self { temporary, target: target.to_owned(), is_stream })
    }

    /// The file to fill.
    pub fn file(&self) -> &File {
        self.temporary.as_file()
    }

    /// Syncs the file and gives it its name. An existing file is replaced; a device or a pipe gets the content.
    ///
    /// # Errors
    /// [`TrainError::Write`]. An existing file is untouched then, unless only the sync of the directory failed.
    pub fn commit(self) -> Result<(), TrainError> {
        if self.is_stream {
            let copy = || {
                let mut stream = File::options().write(true).open(&self.target)?;
                io::copy(&mut self.temporary.reopen()?, &mut stream)
            };
            return copy().map(drop).map_err(TrainError::write(&self.target));
        }
        let persist = || {
            self.temporary.as_file().sync_all()?;
            self.temporary.persist(&self.target).map_err(|error| error.error)
        };
        persist().map_err(TrainError::write(&self.target))?;
        sync_parent(&self.target)
    }
}

/// Where `target` leads if it is a link.
fn linked_file(target: &Path) -> Result<PathBuf, TrainError> {
    match fs::symlink_metadata(target) {
        Ok(there) if there.is_symlink() => fs::canonicalize(target).map_err(|error| {
            let link = target.display();
            TrainError::Usage(format!(
                "`{link}` is a link that leads nowhere ({error}); delete it, or name another file"
            ))
        }),
        _ => Ok(target.to_owned()),
    }
}

/// A directory that is not yet visible under its name.
pub(crate) struct StagedDir {
    temporary: TempDir,
    target: PathBuf,
    /// Whether `target` exists, and `temporary` is inside it: a mounted directory cannot be replaced.
    is_inside: bool,
    /// Locked while this process fills the directory.
    _lock: File,
}

impl StagedDir {
    /// Creates the temporary directory for `target`, which must not exist or be empty.
    ///
    /// # Errors
    /// [`TrainError::Usage`] when `target` is not empty; [`TrainError::Write`] when nothing can be created there.
    pub fn new(target: &Path) -> Result<Self, TrainError> {
        let prefix = prefix(target);
        let is_inside = target.is_dir();
        let place = if is_inside { target } else { parent(target) };
        remove_dead(place, target);
        let has_entries = || fs::read_dir(target).is_ok_and(|mut entries| entries.next().is_some());
        if target.is_file() || (is_inside && has_entries()) {
            return Err(TrainError::Usage(format!("`{}` is not empty; choose a new directory", target.display())));
        }
        let create = || -> io::Result<(TempDir, File)> {
            fs::create_dir_all(place)?;
            loop {
                let mut builder = Builder::new();
                builder.prefix(&prefix).rand_bytes(RANDOM_CHARS);
                // tempfile's own directories are open to their owner only.
                #[cfg(unix)]
                builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o777));
                let temporary = builder.tempdir_in(place)?;
                let lock = File::open(temporary.path())?;
                let _ = lock.lock();
                if temporary.path().exists() {
                    return Ok((temporary, lock));
                }
            }
        };
        let (temporary, lock) = create().map_err(unwritable(target))?;
        Ok(Self { temporary, target: target.to_owned(), is_inside, _lock: lock })
    }

    /// The directory to fill.
    pub fn path(&self) -> &Path {
        self.temporary.path()
    }

    /// Gives the directory its name. If the target existed, its files are moved there; `last` comes after all others.
    ///
    /// # Errors
    /// [`TrainError::Write`].
    pub fn commit(self, last: &str) -> Result<(), TrainError> {
        let Self { temporary, target, is_inside, .. } = self;
        let commit = || -> io::Result<()> {
            if !is_inside {
                let temporary = temporary.keep();
                return fs::rename(&temporary, &target).inspect_err(|_| {
                    let _ = fs::remove_dir_all(&temporary);
                });
            }
            let mut names: Vec<OsString> = fs::read_dir(temporary.path())?
                .map(|entry| entry.map(|entry| entry.file_name()))
                .collect::<io::Result<_>>()?;
            names.sort_by_key(|name| (name == last, name.clone()));
            names.iter().try_for_each(|name| fs::rename(temporary.path().join(name), target.join(name)))?;
            temporary.close()
        };
        commit().map_err(TrainError::write(&target))?;
        sync_parent(&target.join(last))?;
        sync_parent(&target)
    }
}

/// The start of temporary names for `target`.
fn prefix(target: &Path) -> OsString {
    let name = target.file_name().unwrap_or(OsStr::new("out"));
    [OsStr::new("."), name, OsStr::new(TEMPORARY)].into_iter().collect()
}

/// A place where nothing may be written is the user's to mend; any other failure may pass.
fn unwritable(target: &Path) -> impl FnOnce(io::Error) -> TrainError {
    move |source| match source.kind() {
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem | io::ErrorKind::NotADirectory => {
            TrainError::Usage(format!("cannot write `{}`: {source}; name another place", target.display()))
        }
        _ => TrainError::write(target)(source),
    }
}

/// Removes what processes that were killed left of `target` in `dir`: a living process holds a lock. What cannot be
/// opened or removed stays.
fn remove_dead(dir: &Path, target: &Path) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let is_ours = target_of(&name).is_some_and(|found| target.file_name() == Some(OsStr::new(found)));
        let Some(kind) = entry.file_type().ok().filter(|kind| is_ours && (kind.is_file() || kind.is_dir())) else {
            continue;
        };
        let path = entry.path();
        if File::open(&path).is_ok_and(|file| file.try_lock().is_ok()) {
            let _ = if kind.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn names(dir: &Path) -> Vec<String> {
        let entries = fs::read_dir(dir).unwrap();
        let mut names: Vec<String> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn uncommitted_output_goes_away() {
        let root = tempfile::tempdir().unwrap();
        let (file, dir, mounted) = (root.path().join("a"), root.path().join("new/b"), root.path().join("c"));
        fs::write(&file, "old").unwrap();
        fs::create_dir(&mounted).unwrap();
        let staged = StagedFile::new(&file).unwrap();
        staged.file().write_all(b"half").unwrap();
        drop(staged);
        for target in [&dir, &mounted] {
            let staged = StagedDir::new(target).unwrap();
            fs::write(staged.path().join("config.json"), "{}").unwrap();
            drop(staged);
        }
        assert_eq!(fs::read(&file).unwrap(), b"old");
        assert_eq!(names(root.path()), ["a", "c", "new"]);
        assert!(names(&mounted).is_empty() && names(&root.path().join("new")).is_empty());
    }

    #[test]
    fn commit_shows_all_files() {
        let root = tempfile::tempdir().unwrap();
        let (dir, mounted) = (root.path().join("new/b"), root.path().join("c"));
        fs::create_dir(&mounted).unwrap();
        for target in [&dir, &mounted] {
            let staged = StagedDir::new(target).unwrap();
            for name in ["config.json", "model.safetensors"] {
                fs::write(staged.path().join(name), name).unwrap();
            }
            staged.commit("config.json").unwrap();
            assert_eq!(names(target), ["config.json", "model.safetensors"]);
            assert!(StagedDir::new(target).is_err());
        }
        let file = root.path().join("a");
        let staged = StagedFile::new(&file).unwrap();
        staged.file().write_all(b"whole").unwrap();
        staged.commit().unwrap();
        assert_eq!(fs::read(&file).unwrap(), b"whole");
        assert_eq!(names(root.path()), ["a", "c", "new"]);
        assert!(StagedFile::new(&dir).is_err());
    }

    #[cfg(unix)]
    #[test]
    fn links_and_pipes_stay() {
        let root = tempfile::tempdir().unwrap();
        let [file, link, dangling, pipe] = ["file", "link", "dangling", "pipe"].map(|name| root.path().join(name));
        fs::write(&file, "old").unwrap();
        std::os::unix::fs::symlink("file", &link).unwrap();
        std::os::unix::fs::symlink("nothing", &dangling).unwrap();
        assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        let write = |target: &Path| {
            let staged = StagedFile::new(target)?;
            staged.file().write_all(b"new").unwrap();
            staged.commit()
        };
        write(&link).unwrap();
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert_eq!(fs::read(&file).unwrap(), b"new");
        let error = write(&dangling).unwrap_err().to_string();
        assert!(error.contains("is a link that leads nowhere"), "{error}");
        // A pipe is opened when both ends are there.
        std::thread::scope(|scope| {
            let reader = scope.spawn(|| fs::read(&pipe).unwrap());
            write(&pipe).unwrap();
            assert_eq!(reader.join().unwrap(), b"new");
        });
        assert!(!fs::metadata(&pipe).unwrap().is_file());
        assert_eq!(names(root.path()), ["dangling", "file", "link", "pipe"]);
    }

    #[test]
    fn removes_leftovers_of_dead_processes() {
        let root = tempfile::tempdir().unwrap();
        let target = root.path().join("a");
        fs::write(root.path().join(".a.tmp-abc123"), "dead").unwrap();
        fs::write(root.path().join(".b.tmp-abc123"), "of another output").unwrap();
        fs::write(root.path().join(".a.tmp-notes.txt"), "mine").unwrap();
        fs::create_dir(root.path().join(".a.tmp-dir456")).unwrap();
        let living = StagedFile::new(&target).unwrap();
        let second = StagedFile::new(&target).unwrap();
        assert!(living.temporary.path().exists());
        drop((living, second));
        assert_eq!(names(root.path()), [".a.tmp-notes.txt", ".b.tmp-abc123"]);
    }
}
