//! Collects broken rules.

/// A broken rule.
pub(crate) struct Violation {
    /// The key to point at.
    pub key: String,
    /// Other keys that the rule reads, `KEY.*` for every key below one. If one of them is already reported, the
    /// violation is not.
    pub others: Vec<String>,
    /// What was found, and what was expected.
    pub message: String,
    /// How to fix it.
    pub help: Option<String>,
}

/// Collects violations.
#[derive(Default)]
pub(super) struct Rules {
    pub broken: Vec<Violation>,
}

impl Rules {
    /// Records a violation unless `holds`: "`key` is `found`, expected `expected`".
    pub fn check(&mut self, holds: bool, key: &str, found: impl std::fmt::Display, expected: &str, help: &str) {
        if !holds {
            self.refuse(key, &[], format!("`{key}` is {found}, expected {expected}"), help);
        }
    }

    /// Records a violation. An empty `help` is none.
    pub fn refuse(&mut self, key: &str, others: &[&str], message: String, help: &str) {
        let help = (!help.is_empty()).then(|| help.to_owned());
        self.broken.push(Violation {
            key: key.to_owned(),
            others: others.iter().map(|key| (*key).to_owned()).collect(),
            message,
            help,
        });
    }
}
