//! The key of a feature cache.
//!
//! A key is the hash of written texts, never of a derived `Debug` form: the form of the tower's architecture and
//! pooling (`dualenc_model`), the arithmetic, and the fingerprint of the weights. Tests pin the texts.

/// Part of every key. Raise it when the arithmetic of a tower's forward pass changes the bits of its outputs.
const ARITHMETIC: &[u8] = b"dualenc towers 2";

/// Starts the key of a tower's cache. `form` comes from [`dualenc_model::ImageTower::form`] or
/// [`dualenc_model::TextTower::form`]. The `fingerprint` of the weights alone is not enough: activations and norms
/// without parameters leave no trace in them, and neither does the pooling. `arithmetic` is what
/// `Compute::locked_arithmetic` names.
pub(crate) fn tower_key(fingerprint: &str, form: &str, arithmetic: &str) -> blake3::Hasher {
    let form = format!("{form}; precision: {arithmetic}");
    let mut key = blake3::Hasher::new();
    key.update(ARITHMETIC).update(fingerprint.as_bytes());
    key.update(&(form.len() as u64).to_le_bytes()).update(form.as_bytes());
    key
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(fingerprint: &str, form: &str, arithmetic: &str) -> String {
        tower_key(fingerprint, form, arithmetic).finalize().to_hex().to_string()
    }

    /// A change here invalidates every cache: note it in the changelog.
    #[test]
    fn key_is_pinned() {
        let expected = blake3::hash(b"dualenc towers 2weights\x1c\0\0\0\0\0\0\0architecture; precision: f32");
        assert_eq!(key("weights", "architecture", "f32"), expected.to_hex().to_string());
    }

    #[test]
    fn key_depends_on_every_part() {
        let keys = [
            key("weights", "a", "f32"),
            key("other weights", "a", "f32"),
            key("weights", "b", "f32"),
            key("weights", "a", "bf16"),
        ];
        for (at, key) in keys.iter().enumerate() {
            assert!(!keys[..at].contains(key), "{at}");
        }
    }
}
