//! Exported directories of every family, loaded in transformers itself.

use std::process::Command;

/// `DUALENC_PYTHON` names a Python with the packages of `scripts/goldens.py`.
#[test]
#[ignore = "needs Python: run scripts/check_parity.sh"]
fn exported_families_match_transformers() {
    let python = std::env::var_os("DUALENC_PYTHON").expect("`DUALENC_PYTHON` names no Python: run check_parity.sh");
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../../scripts/check_families.py");
    let output = Command::new(python).arg(script).arg(env!("CARGO_BIN_EXE_dualenc")).output().unwrap();
    let printed = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{printed}");
}
