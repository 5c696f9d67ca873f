//! Whether a process trains a run, found out without touching its lock.

use std::path::Path;

/// What is known of a lock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RunLock {
    /// A process holds it.
    Held,
    /// No process that is visible from here holds it.
    Free,
    /// The system does not say.
    Unknown,
}

/// The state of the lock file at `path`. Trying the lock would hold it for a moment, in which a run that starts would
/// be refused: the list of the kernel is read in its place.
#[cfg(target_os = "linux")]
pub(crate) fn lock_at(path: &Path) -> RunLock {
    use std::fs;
    use std::os::unix::fs::MetadataExt;

    let Ok(file) = fs::metadata(path) else { return RunLock::Free };
    let Ok(locks) = fs::read_to_string("/proc/locks") else { return RunLock::Unknown };
    let device = (rustix::fs::major(file.dev()), rustix::fs::minor(file.dev()));
    let is_held = locks.lines().filter_map(holder).any(|(pid, held_device, inode)| {
        // Some file systems report one device number for a file and another one for its locks.
        inode == file.ino() && (held_device == device || has_open(pid, path))
    });
    if is_held { RunLock::Held } else { RunLock::Free }
}

#[cfg(not(target_os = "linux"))]
pub(crate) fn lock_at(path: &Path) -> RunLock {
    if path.exists() { RunLock::Unknown } else { RunLock::Free }
}

/// The process, device and inode of a line of `/proc/locks` about a `flock` that is held.
#[cfg(target_os = "linux")]
fn holder(line: &str) -> Option<(u32, (u32, u32), u64)> {
    let mut words = line.split_whitespace().skip(1);
    (words.next()? == "FLOCK").then_some(())?;
    let pid = words.nth(2)?.parse().unwrap_or(0);
    let mut file = words.next()?.split(':');
    let mut hex = || u32::from_str_radix(file.next()?, 16).ok();
    let device = (hex()?, hex()?);
    Some((pid, device, file.next()?.parse().ok()?))
}

/// Whether a process has the file at `path` open, as far as this process may know.
#[cfg(target_os = "linux")]
fn has_open(pid: u32, path: &Path) -> bool {
    let Ok(path) = path.canonicalize() else { return false };
    let open = std::fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
    open.filter_map(|entry| entry.path().read_link().ok()).any(|target| target == path)
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::fs::File;

    use super::*;

    #[test]
    fn lines_about_held_locks_are_read() {
        let line = "1: FLOCK  ADVISORY  WRITE 9908 fe:00:7102971 0 EOF";
        assert_eq!(holder(line), Some((9908, (0xfe, 0), 7_102_971)));
        assert_eq!(holder("1: -> FLOCK  ADVISORY  WRITE 9908 fe:00:7102971 0 EOF"), None);
        assert_eq!(holder("2: POSIX  ADVISORY  READ 5433 08:01:7864448 128 128"), None);
    }

    #[test]
    fn held_lock_is_seen_and_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("run.lock");
        assert_eq!(lock_at(&path), RunLock::Free);
        let file = File::create(&path).unwrap();
        assert_eq!(lock_at(&path), RunLock::Free);
        file.lock().unwrap();
        assert_eq!(lock_at(&path), RunLock::Held);
        file.unlock().unwrap();
        assert_eq!(lock_at(&path), RunLock::Free);
    }
}
