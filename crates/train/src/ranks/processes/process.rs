//! Whether a process of the same machine runs, by what its kernel says.

use std::io::{Error, ErrorKind, Result};

use serde::{Deserialize, Serialize};

/// A process of a machine. Numbers are used again, so it is known by its start too.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Process {
    number: u32,
    /// When it started, in ticks of the machine.
    started: u64,
}

impl Process {
    /// This process; `None`: the kernel has no `/proc`.
    pub fn own() -> Option<Self> {
        let number = std::process::id();
        Some(Self { number, started: started(number).ok()?? })
    }

    /// Whether the kernel of this machine knows it, and that it runs.
    pub fn is_seen(&self) -> bool {
        matches!(started(self.number), Ok(Some(started)) if started == self.started)
    }

    /// Whether it does not run any more. A file that cannot be read says nothing.
    pub fn has_ended(&self) -> bool {
        matches!(started(self.number), Ok(found) if found != Some(self.started))
    }
}

/// When a process started, if it runs. What proc(5) calls `starttime` is the 22nd field, the state the third.
fn started(number: u32) -> Result<Option<u64>> {
    /// "No such process": it ended while the file was open.
    const ESRCH: i32 = 3;
    let stat = match std::fs::read_to_string(format!("/proc/{number}/stat")) {
        Err(error) if error.kind() == ErrorKind::NotFound || error.raw_os_error() == Some(ESRCH) => return Ok(None),
        stat => stat?,
    };
    let odd = || Error::from(ErrorKind::InvalidData);
    // The name, in brackets, may have brackets.
    let (_, fields) = stat.rsplit_once(')').ok_or_else(odd)?;
    let mut fields = fields.split_whitespace();
    match fields.next().ok_or_else(odd)? {
        // It has ended, and nobody has asked how.
        "Z" | "X" => Ok(None),
        _ => fields.nth(18).and_then(|started| started.parse().ok()).map(Some).ok_or_else(odd),
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn end_is_seen() {
        let own = Process::own().unwrap();
        assert!(own.is_seen() && !own.has_ended());
        let mut child = Command::new("sleep").arg("600").spawn().unwrap();
        let number = child.id();
        let other = Process { number, started: started(number).unwrap().unwrap() };
        assert!(other.is_seen() && !other.has_ended());
        // Another process that has its number now.
        let earlier = Process { started: other.started - 1, ..other.clone() };
        assert!(!earlier.is_seen() && earlier.has_ended());
        child.kill().unwrap();
        // Until it is waited for, it is a zombie.
        while std::fs::read_to_string(format!("/proc/{number}/stat")).unwrap().contains(") R")
            || std::fs::read_to_string(format!("/proc/{number}/stat")).unwrap().contains(") S")
        {}
        assert!(!other.is_seen() && other.has_ended());
        child.wait().unwrap();
        assert!(!other.is_seen() && other.has_ended());
    }
}
