//! Writing a file so that its final name never shows an incomplete one.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File, Metadata};
use std::io::{self, BufWriter, Write};
use std::path::Path;

use crate::error::TrainError;

/// Between the name of a file and the random end of its temporary name, `.NAME.tmp-XXXXXX`.
pub(crate) const TEMPORARY: &str = ".tmp-";

/// Random characters at the end of a temporary name: tempfile's default.
pub(crate) const RANDOM_CHARS: usize = 6;

/// Writes `path` with `fill`: into a temporary file in the same directory, which is synced to the disk and then
/// renamed. An existing file is replaced.
///
/// # Errors
/// [`TrainError::Write`] when the file cannot be written. An existing file is untouched then, unless only the sync of
/// the directory failed.
pub(crate) fn write_whole(path: &Path, fill: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> Result<(), TrainError> {
    write_whole_by(path, path.file_name().unwrap_or_default(), fill)
}

/// [`write_whole`] with a temporary file that is named after `name`, `.NAME.tmp-XXXXXX`.
///
/// # Errors
/// As for [`write_whole`].
pub(crate) fn write_whole_by(
    path: &Path,
    name: &OsStr,
    fill: impl FnOnce(&mut dyn Write) -> io::Result<()>,
) -> Result<(), TrainError> {
    replace(path, name, fill).map_err(TrainError::write(path))?;
    sync_parent(path)
}

fn replace(path: &Path, name: &OsStr, fill: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> io::Result<()> {
    let prefix: OsString = [OsStr::new("."), name, OsStr::new(TEMPORARY)].into_iter().collect();
    // Created here, since tempfile's own files are readable by their owner only. Dropping it removes the file.
    let temporary = tempfile::Builder::new()
        .prefix(&prefix)
        .rand_bytes(RANDOM_CHARS)
        .make_in(parent(path), |path| File::create_new(path))?;
    fill_and_sync(temporary.as_file(), fill)?;
    temporary.persist(path).map_err(|error| error.error)?;
    Ok(())
}

/// Creates `path`, fills it, and syncs it to the disk.
pub(crate) fn write_synced<E: From<io::Error>>(
    path: &Path,
    fill: impl FnOnce(&mut dyn Write) -> Result<(), E>,
) -> Result<(), E> {
    fill_and_sync(&File::create(path)?, fill)
}

fn fill_and_sync<E: From<io::Error>>(file: &File, fill: impl FnOnce(&mut dyn Write) -> Result<(), E>) -> Result<(), E> {
    let mut writer = BufWriter::new(file);
    fill(&mut writer)?;
    writer.flush()?;
    Ok(file.sync_all()?)
}

/// Makes a rename in the parent directory of `path` durable.
///
/// # Errors
/// [`TrainError::Write`] when the directory cannot be synced.
pub(crate) fn sync_parent(path: &Path) -> Result<(), TrainError> {
    // Windows has no such call.
    if cfg!(unix) {
        let parent = parent(path);
        File::open(parent).and_then(|dir| dir.sync_all()).map_err(TrainError::write(parent))?;
    }
    Ok(())
}

/// Removes temporary files of [`write_whole`] for targets that `is_own` accepts, which killed processes left in `dir`.
/// No other process may be writing those targets.
///
/// # Errors
/// [`TrainError::Read`] when the directory cannot be read, [`TrainError::Write`] when a file cannot be removed.
pub(crate) fn remove_leftovers(dir: &Path, is_own: impl Fn(&str) -> bool) -> Result<(), TrainError> {
    for entry in fs::read_dir(dir).map_err(TrainError::read(dir))?.flatten() {
        let is_file = entry.file_type().is_ok_and(|kind| kind.is_file());
        if is_file && target_of(&entry.file_name()).is_some_and(&is_own) {
            fs::remove_file(entry.path()).map_err(TrainError::write(&entry.path()))?;
        }
    }
    Ok(())
}

/// The file that a temporary file is for; `None` for any other name.
pub(crate) fn target_of(name: &OsStr) -> Option<&str> {
    let (target, random) = name.to_str()?.strip_prefix('.')?.rsplit_once(TEMPORARY)?;
    let is_random = random.len() == RANDOM_CHARS && random.bytes().all(|byte| byte.is_ascii_alphanumeric());
    (is_random && !target.is_empty()).then_some(target)
}

/// The directory of `path`.
pub(crate) fn parent(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Whether `path` still names the open `file`.
pub(crate) fn is_still(path: &Path, file: &File) -> bool {
    match (fs::metadata(path), file.metadata()) {
        (Ok(there), Ok(open)) => is_same_file(&there, &open),
        _ => false,
    }
}

#[cfg(unix)]
fn is_same_file(one: &Metadata, other: &Metadata) -> bool {
    use std::os::unix::fs::MetadataExt;
    (one.dev(), one.ino()) == (other.dev(), other.ino())
}

/// Elsewhere, a file that is open cannot be deleted.
#[cfg(not(unix))]
fn is_same_file(_: &Metadata, _: &Metadata) -> bool {
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(dir: &Path) -> Vec<String> {
        let entries = fs::read_dir(dir).unwrap();
        let mut names: Vec<String> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn failed_write_keeps_old_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.json");
        write_whole(&path, |file| file.write_all(b"old")).unwrap();
        let error = write_whole(&path, |file| {
            file.write_all(b"half")?;
            Err(io::Error::other("no space"))
        });
        assert_eq!(error.unwrap_err().to_string(), format!("cannot write `{}`: no space", path.display()));
        assert_eq!(fs::read(&path).unwrap(), b"old");
        write_whole(&path, |file| file.write_all(b"new")).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new");
        assert_eq!(names(dir.path()), ["a.json"]);
    }

    #[cfg(unix)]
    #[test]
    fn permissions_follow_umask() {
        let dir = tempfile::tempdir().unwrap();
        let (plain, atomic) = (dir.path().join("plain"), dir.path().join("atomic"));
        fs::write(&plain, b"").unwrap();
        write_whole(&atomic, |_| Ok(())).unwrap();
        assert_eq!(fs::metadata(&atomic).unwrap().permissions(), fs::metadata(&plain).unwrap().permissions());
    }

    #[test]
    fn removes_only_leftovers() {
        let dir = tempfile::tempdir().unwrap();
        let others = [
            ".config.toml",
            ".config.toml.tmp-",
            ".config.toml.tmp-backup7",
            ".embeds.safetensors.tmp-aB3xYz",
            ".tmp-notes",
            "config.toml",
            "mine.tmp-abc123",
        ];
        for name in others.iter().chain(&[".config.toml.tmp-aB3xYz", ".metrics.jsonl.tmp-000000"]) {
            fs::write(dir.path().join(name), b"x").unwrap();
        }
        remove_leftovers(dir.path(), |target| ["config.toml", "metrics.jsonl"].contains(&target)).unwrap();
        assert_eq!(names(dir.path()), others);
    }
}
