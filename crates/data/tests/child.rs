//! Runs a test of this binary again in a process of its own, for limits and output that belong to a process.

use std::process::{Command, Output};

/// Set in the child process.
const CHILD: &str = "DUALENC_TEST_CHILD";

/// Whether this process is a child that [`run`] started.
pub fn is_child() -> bool {
    std::env::var_os(CHILD).is_some()
}

/// Runs the test `name` (its path in this binary) in a child process, through a shell that first executes `limits`,
/// such as `ulimit -n 64`.
pub fn run(name: &str, limits: &str) -> Output {
    let exe = std::env::current_exe().unwrap();
    let script = format!("{limits}\nexec \"$0\" \"$@\"");
    let mut command = Command::new("sh");
    command.arg("-c").arg(script).arg(exe).args([name, "--exact", "--nocapture", "--test-threads=1"]);
    command.env(CHILD, "1").env_remove("RUST_BACKTRACE").output().unwrap()
}

/// Asserts that the child passed, and that it ran one test; returns its standard error.
pub fn assert_passed(output: &Output) -> String {
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr).into_owned());
    assert!(output.status.success() && out.contains("1 passed"), "{}\n{out}\n{err}", output.status);
    err
}
