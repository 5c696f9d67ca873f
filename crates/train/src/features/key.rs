//! What a feature is found by, and how many were found.

use crate::config::Precision;
use crate::device::Compute;

/// Part of every feature's key: raised when the arithmetic of a tower's forward pass changes its bits.
const ARITHMETIC: &[u8] = b"dualenc towers 1";

/// Inputs whose features were computed, and that had them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Computed now.
    pub computed: usize,
    /// Kept before.
    pub kept: usize,
}

impl std::ops::AddAssign for Counts {
    fn add_assign(&mut self, other: Self) {
        self.computed += other.computed;
        self.kept += other.kept;
    }
}

/// The form of a tower's features: its own, and the precision that they are computed in.
pub(crate) fn form_of(tower: &str, compute: &Compute) -> String {
    match compute.locked_precision {
        Precision::F32 => tower.to_owned(),
        precision => format!("{tower} {}", precision.name()),
    }
}

/// The start of a store's key: the weights of a tower and `form`, its config and pooling. Two poolings of one tower may have
/// the same parameters; activations and norms have none at all.
pub(crate) fn tower_key(fingerprint: &str, form: &str) -> blake3::Hasher {
    let mut key = blake3::Hasher::new();
    key.update(ARITHMETIC).update(fingerprint.as_bytes());
    key.update(&(form.len() as u64).to_le_bytes()).update(form.as_bytes());
    key
}
