//! Exported directories of every family in transformers itself.

use std::process::Command;

/// Runs where `DUALENC_PYTHON` names a Python that has the packages of `scripts/goldens.py`.
#[test]
#[expect(clippy::print_stderr, reason = "a test that checks nothing must say so")]
fn transformers_computes_the_same_from_exported_directories_of_every_family() {
    let Some(python) = std::env::var_os("DUALENC_PYTHON") else {
        eprintln!("SKIPPED: `DUALENC_PYTHON` names no Python with transformers; nothing was checked");
        return;
    };
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../../scripts/check_families.py");
    let output = Command::new(python).arg(script).arg(env!("CARGO_BIN_EXE_dualenc")).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
}
