//! What an evaluation measures, as one hash: figures of equal fingerprints can be compared.

/// Part of every fingerprint. Raise it when an evaluation computes another figure from the same data.
const VERSION: &str = "dualenc evaluation 1";

/// Collects named fields.
pub(crate) struct Fingerprint(blake3::Hasher);

impl Fingerprint {
    /// Starts the fingerprint of an evaluation of `task`.
    pub fn new(task: &str) -> Self {
        Self(blake3::Hasher::new()).text("version", VERSION).text("task", task)
    }

    /// Adds a field. Names and values are preceded by their lengths, so that fields cannot run together.
    #[must_use]
    pub fn bytes(mut self, name: &str, value: &[u8]) -> Self {
        for part in [name.as_bytes(), value] {
            self.0.update(&(part.len() as u64).to_le_bytes()).update(part);
        }
        self
    }

    /// Adds a text.
    #[must_use]
    pub fn text(self, name: &str, value: &str) -> Self {
        self.bytes(name, value.as_bytes())
    }

    /// Adds a list of texts.
    #[must_use]
    pub fn texts(self, name: &str, values: &[String]) -> Self {
        let counted = self.text(name, &values.len().to_string());
        values.iter().fold(counted, |fingerprint, value| fingerprint.text(name, value))
    }

    /// The hash in hexadecimal digits.
    pub fn finish(&self) -> String {
        self.0.finalize().to_hex().to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A change here starts a new count of the best checkpoint in every run: note it in the changelog.
    #[test]
    fn form_is_pinned() {
        let found = Fingerprint::new("loss").text("pool_size", "8").texts("templates", &["{c}".to_owned()]).finish();
        let mut text = Vec::new();
        for part in
            ["version", "dualenc evaluation 1", "task", "loss", "pool_size", "8", "templates", "1", "templates", "{c}"]
        {
            text.extend((part.len() as u64).to_le_bytes());
            text.extend(part.as_bytes());
        }
        assert_eq!(found, blake3::hash(&text).to_hex().to_string());
    }
}
