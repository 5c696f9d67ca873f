//! Memory and disk space, from the system. Everything is `None` where the system does not say.

use std::fs;
use std::path::Path;

/// Memory of this process now.
pub(super) fn resident() -> Option<u64> {
    status("VmRSS:")
}

/// Highest memory of this process since [`reset_peak`].
pub(super) fn peak() -> Option<u64> {
    status("VmHWM:")
}

/// Makes [`peak`] start over from the memory in use now. Returns whether the system allows that.
pub(super) fn reset_peak() -> bool {
    // proc_pid_clear_refs(5): 5 resets the peak resident set size.
    fs::write("/proc/self/clear_refs", "5").is_ok()
}

/// What this process can have: its own memory, and what the machine and its control group have available.
pub(super) fn available() -> Option<u64> {
    let of_machine = kibibytes(&fs::read_to_string("/proc/meminfo").ok()?, "MemAvailable:")?;
    let of_group =
        group_available("/sys/fs/cgroup", ["memory.max", "memory.current", "inactive_file "]).or_else(|| {
            let names = ["memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file "];
            group_available("/sys/fs/cgroup/memory", names)
        });
    Some(of_group.map_or(of_machine, |of_group| of_group.min(of_machine)) + resident()?)
}

/// What a control group has left; `None` without a limit. File pages that nobody uses count as available, as in
/// `MemAvailable`.
fn group_available(dir: &str, [limit, usage, inactive]: [&str; 3]) -> Option<u64> {
    let dir = Path::new(dir);
    let number = |name: &str| fs::read_to_string(dir.join(name)).ok()?.trim().parse::<u64>().ok();
    let (limit, usage) = (number(limit)?, number(usage)?);
    let stat = fs::read_to_string(dir.join("memory.stat")).ok()?;
    let inactive: u64 = stat.lines().find_map(|line| line.strip_prefix(inactive)?.trim().parse().ok())?;
    Some(limit.saturating_sub(usage.saturating_sub(inactive)))
}

fn status(key: &str) -> Option<u64> {
    kibibytes(&fs::read_to_string("/proc/self/status").ok()?, key)
}

/// The bytes of a line such as `VmRSS:    1234 kB`.
fn kibibytes(text: &str, key: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(key))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok().map(|kibibytes| kibibytes * 1024)
}

/// Free space of the disk that `path`, or its nearest directory that exists, is on.
pub(super) fn free_disk(path: &Path) -> Option<u64> {
    #[cfg(unix)]
    {
        let dir = path.ancestors().find(|dir| dir.is_dir())?;
        let disk = rustix::fs::statvfs(dir).ok()?;
        Some(disk.f_bavail.saturating_mul(disk.f_frsize))
    }
    #[cfg(not(unix))]
    {
        let _ = path;
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_lines_of_proc() {
        let text = "Name:\tdualenc\nVmHWM:\t    2048 kB\nVmRSS:\t    1024 kB\n";
        assert_eq!(kibibytes(text, "VmRSS:"), Some(1 << 20));
        assert_eq!(kibibytes(text, "VmHWM:"), Some(2 << 20));
        assert_eq!(kibibytes(text, "VmSwap:"), None);
        assert_eq!(kibibytes("VmRSS: many kB", "VmRSS:"), None);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn linux_knows_memory_and_disk() {
        assert!(resident().unwrap() > 1 << 20 && peak().unwrap() >= resident().unwrap() / 2);
        assert!(available().unwrap() > resident().unwrap());
        let dir = tempfile::tempdir().unwrap();
        assert!(free_disk(&dir.path().join("not/there/yet")).is_some());
    }
}
