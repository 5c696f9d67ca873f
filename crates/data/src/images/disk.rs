//! Reading image bytes from disks that fail for a moment. What a bad image is, and what is a failure of the system, is
//! decided here.

use std::fs::File;
use std::io::{Error, ErrorKind, Read, Result, Seek, SeekFrom};
use std::path::Path;
use std::time::Duration;

use crate::error::ImageError;
use crate::files::is_absent;

/// Largest encoded image read into memory, of the largest image by default without compression: 8 bits of RGBA take
/// 716 MB.
pub(crate) const MAX_ENCODED_BYTES: u64 = 1 << 30;

/// Pauses before the second, third and fourth try. A full table of open files has room again within milliseconds; a
/// network file system that changes servers, within seconds. The tests of this crate do not wait.
const PAUSES: [Duration; 3] = if cfg!(test) {
    [Duration::ZERO; 3]
} else {
    [Duration::from_millis(100), Duration::from_secs(1), Duration::from_secs(4)]
};

/// Reads a whole file. The inner error is a bad image: an absent file, one that is not a regular file, is too large or
/// is shorter than the system says.
pub(crate) fn read_file(path: &Path) -> Result<std::result::Result<Vec<u8>, ImageError>> {
    let unreadable = |reason: String| Ok(Err(ImageError::Unreadable(reason)));
    let read = with_retries(path, || {
        let metadata = std::fs::metadata(path)?;
        // Reading a pipe or a device could block forever.
        if !metadata.is_file() {
            return unreadable("not a regular file".to_owned());
        }
        let len = metadata.len();
        if len > MAX_ENCODED_BYTES {
            return Ok(Err(ImageError::FileTooLarge { found: len, limit: MAX_ENCODED_BYTES }));
        }
        let bytes = read_at(path, 0, len)?;
        if (bytes.len() as u64) < len {
            return unreadable(format!("ends after {} of {len} bytes", bytes.len()));
        }
        Ok(Ok(bytes))
    });
    match read {
        Err(error) if is_absent(&error) => Ok(Err(ImageError::Absent(error.to_string()))),
        read => read,
    }
}

/// Reads `len` bytes at `offset` of a file of many samples: a shard, a table, features. One that is gone or has become
/// shorter since it was indexed is an error: all its samples are lost, not one image.
pub(crate) fn read_entry(path: &Path, offset: u64, len: u64) -> Result<Vec<u8>> {
    let bytes = with_retries(path, || read_at(path, offset, len))?;
    if (bytes.len() as u64) < len {
        let found = offset + bytes.len() as u64;
        let reason = format!("the file ends at byte {found}: it has changed since it was indexed");
        return Err(Error::new(ErrorKind::UnexpectedEof, reason));
    }
    Ok(bytes)
}

/// Up to `len` bytes at `offset`, fewer at the end of the file.
fn read_at(path: &Path, offset: u64, len: u64) -> Result<Vec<u8>> {
    let mut file = File::open(path)?;
    if offset > 0 {
        file.seek(SeekFrom::Start(offset))?;
    }
    let mut bytes = Vec::with_capacity(usize::try_from(len).unwrap_or(0));
    file.take(len).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Reads `path` with `attempt`, again after each of [`PAUSES`] while the error may pass. The last error says how often
/// it was tried.
fn with_retries<T>(path: &Path, attempt: impl Fn() -> Result<T>) -> Result<T> {
    let mut pauses = PAUSES.iter();
    loop {
        let error = match inject(path).map_or_else(&attempt, Err) {
            Ok(read) => return Ok(read),
            // A missing permission does not come back within seconds. It is no bad image either: on network file
            // systems a ticket that has run out denies every file at once.
            Err(error) if is_absent(&error) || error.kind() == ErrorKind::PermissionDenied => return Err(error),
            Err(error) => error,
        };
        let Some(pause) = pauses.next() else {
            return Err(Error::new(error.kind(), format!("{error}, in each of {} tries", PAUSES.len() + 1)));
        };
        std::thread::sleep(*pause);
    }
}

#[cfg(not(test))]
fn inject(_: &Path) -> Option<Error> {
    None
}

#[cfg(test)]
fn inject(path: &Path) -> Option<Error> {
    tests::next_fault(path)
}

#[cfg(test)]
pub(crate) mod tests {
    use std::collections::{HashMap, VecDeque};
    use std::path::PathBuf;
    use std::sync::{LazyLock, Mutex};

    use super::*;

    /// Error numbers of Linux.
    pub(crate) const EIO: i32 = 5;
    pub(crate) const EACCES: i32 = 13;
    const FAULTS: [i32; 7] = [EIO, ENOMEM, ENFILE, EMFILE, EINTR, ETIMEDOUT, ESTALE];
    const EINTR: i32 = 4;
    const ENOMEM: i32 = 12;
    const ENFILE: i32 = 23;
    const EMFILE: i32 = 24;
    const ETIMEDOUT: i32 = 110;
    pub(crate) const ESTALE: i32 = 116;

    static PLANNED: LazyLock<Mutex<HashMap<PathBuf, VecDeque<i32>>>> = LazyLock::new(Mutex::default);

    /// Plans the outcome of the next attempts to read `path`: an error number, or 0 for a real attempt.
    pub(crate) fn plan_faults(path: &Path, faults: impl IntoIterator<Item = i32>) {
        PLANNED.lock().unwrap().insert(path.to_owned(), faults.into_iter().collect());
    }

    /// How many planned outcomes are left.
    pub(crate) fn faults_left(path: &Path) -> usize {
        PLANNED.lock().unwrap().get(path).map_or(0, VecDeque::len)
    }

    pub(super) fn next_fault(path: &Path) -> Option<Error> {
        let fault = PLANNED.lock().unwrap().get_mut(path)?.pop_front()?;
        (fault != 0).then(|| Error::from_raw_os_error(fault))
    }

    #[test]
    fn passing_errors_are_retried() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.png");
        std::fs::write(&path, b"0123456789").unwrap();
        for fault in FAULTS {
            for count in 1..=3 {
                plan_faults(&path, vec![fault; count]);
                assert_eq!(read_file(&path).unwrap().unwrap(), b"0123456789", "{count} times {fault}");
                plan_faults(&path, vec![fault; count]);
                assert_eq!(read_entry(&path, 3, 4).unwrap(), b"3456", "{count} times {fault}");
                assert_eq!(faults_left(&path), 0);
            }
            plan_faults(&path, [fault; 9]);
            let error = read_file(&path).unwrap_err();
            assert!(error.to_string().ends_with(&format!("(os error {fault}), in each of 4 tries")), "{error}");
            assert_eq!(error.kind(), Error::from_raw_os_error(fault).kind());
            assert_eq!(faults_left(&path), 5);
            plan_faults(&path, []);
        }
    }

    #[test]
    fn missing_permission_is_an_error() {
        let path = Path::new("denied.png");
        plan_faults(path, [EACCES; 2]);
        assert_eq!(read_file(path).unwrap_err().kind(), ErrorKind::PermissionDenied);
        assert_eq!(faults_left(path), 1, "not tried again");
    }

    #[test]
    fn absent_files_are_bad_images() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("file"), b"x").unwrap();
        for name in ["none.png", "file/below.png", &"long".repeat(200), "nul\0.png"] {
            let error = read_file(&dir.path().join(name)).unwrap().unwrap_err();
            assert!(matches!(error, ImageError::Absent(_)), "{name}: {error}");
        }
        let error = read_file(dir.path()).unwrap().unwrap_err();
        assert_eq!(error.to_string(), "cannot be read: not a regular file");
    }

    #[test]
    fn changed_shard_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s.tar");
        assert_eq!(read_entry(&path, 0, 1).unwrap_err().kind(), ErrorKind::NotFound);
        std::fs::write(&path, b"0123456789").unwrap();
        let error = read_entry(&path, 8, 4).unwrap_err();
        assert_eq!(error.to_string(), "the file ends at byte 10: it has changed since it was indexed");
    }
}
