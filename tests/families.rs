//! Exported directories of every family, loaded in transformers itself.

use std::process::Command;

/// Runs if `DUALENC_PYTHON` names a Python with the packages of `scripts/goldens.py`.
#[test]
#[expect(clippy::print_stderr, reason = "a test that checks nothing must say so")]
fn exported_families_match_transformers() {
    let Some(python) = std::env::var_os("DUALENC_PYTHON") else {
        eprintln!("SKIPPED: `DUALENC_PYTHON` names no Python with transformers; nothing was checked");
        return;
    };
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../../scripts/check_families.py");
    let output = Command::new(python).arg(script).arg(env!("CARGO_BIN_EXE_dualenc")).output().unwrap();
    let printed = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{printed}");
}
