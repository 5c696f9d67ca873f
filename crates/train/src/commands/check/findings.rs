//! What a check found, for people and for programs.

use serde::Serialize;
use serde_json::{Map, Value, json};

use crate::error::{ErrorKind, TrainError};

/// Items of a finding that its text names; the JSON has all.
const MAX_LISTED: usize = 3;

/// How serious a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// For information.
    Fact,
    /// The run goes through, but its result may not be what is meant.
    Warning,
    /// The run stops, or its result is spoiled.
    Problem,
}

/// One thing that a check found.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Finding {
    /// How serious it is.
    pub level: Level,
    /// A few fixed words for programs, such as `bad_images`.
    pub code: &'static str,
    /// The config key that it is about, such as `data.train`.
    pub key: String,
    /// What was found and what to do, for people.
    pub message: String,
    /// Figures for programs.
    #[serde(skip_serializing_if = "Map::is_empty")]
    pub values: Map<String, Value>,
    /// Everything that it is about, such as all bad images.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub items: Vec<String>,
}

impl Finding {
    /// The message, and the first items on lines of their own.
    #[must_use]
    pub fn text(&self) -> String {
        let mut lines = vec![self.message.clone()];
        lines.extend(self.items.iter().take(MAX_LISTED).map(|item| format!("  {item}")));
        if self.items.len() > MAX_LISTED {
            lines.push(format!("  ... and {} more: `--json FILE` lists all", self.items.len() - MAX_LISTED));
        }
        lines.join("\n")
    }

    /// Adds a figure for programs.
    pub(crate) fn value(&mut self, name: &str, value: impl Into<Value>) -> &mut Self {
        self.values.insert(name.to_owned(), value.into());
        self
    }

    /// Adds what the finding is about.
    pub(crate) fn items(&mut self, items: Vec<String>) -> &mut Self {
        self.items = items;
        self
    }
}

/// The result of a check, in the order in which it was found.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Findings {
    /// Everything that was found.
    pub all: Vec<Finding>,
}

impl Findings {
    /// The findings of one level, as text.
    #[must_use]
    pub fn texts(&self, level: Level) -> Vec<String> {
        self.all.iter().filter(|finding| finding.level == level).map(Finding::text).collect()
    }

    /// The number of findings of one level.
    #[must_use]
    pub fn count(&self, level: Level) -> usize {
        self.all.iter().filter(|finding| finding.level == level).count()
    }

    /// All findings for programs: `problems` and `warnings` are counts, `findings` is a list.
    #[must_use]
    pub fn to_json(&self) -> Value {
        json!({
            "problems": self.count(Level::Problem),
            "warnings": self.count(Level::Warning),
            "findings": self.all.iter().map(|finding| json!(finding)).collect::<Vec<_>>(),
        })
    }

    pub(crate) fn add(
        &mut self,
        level: Level,
        code: &'static str,
        key: &str,
        message: impl Into<String>,
    ) -> &mut Finding {
        let (key, message) = (key.to_owned(), message.into());
        self.all.push(Finding { level, code, key, message, values: Map::new(), items: Vec::new() });
        let last = self.all.len() - 1;
        &mut self.all[last]
    }

    pub(crate) fn fact(&mut self, code: &'static str, key: &str, message: impl Into<String>) -> &mut Finding {
        self.add(Level::Fact, code, key, message)
    }

    pub(crate) fn warn(&mut self, code: &'static str, key: &str, message: impl Into<String>) -> &mut Finding {
        self.add(Level::Warning, code, key, message)
    }

    pub(crate) fn problem(&mut self, code: &'static str, key: &str, message: impl Into<String>) -> &mut Finding {
        self.add(Level::Problem, code, key, message)
    }

    /// The value of `result`. An error that the user can mend becomes a problem of the config key `key`.
    pub(crate) fn keep<T>(
        &mut self,
        code: &'static str,
        key: &str,
        result: Result<T, TrainError>,
    ) -> Result<Option<T>, TrainError> {
        match result.map_err(TrainError::without_key) {
            Ok(value) => Ok(Some(value)),
            Err(error) if error.kind() == ErrorKind::Input => {
                self.problem(code, key, format!("`{key}`: {}", with_causes(&error)));
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }
}

/// The message of an error and those of its causes, each once.
fn with_causes(error: &TrainError) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        let message = error.to_string();
        if !text.ends_with(&message) {
            text = format!("{text}: {message}");
        }
        cause = error.source();
    }
    text
}

/// A share for people: `0.3 %`.
pub(crate) fn percent(part: usize, whole: usize) -> String {
    let share = 100.0 * part as f64 / whole.max(1) as f64;
    match share {
        0.0 => "0 %".to_owned(),
        share if share < 0.1 => "less than 0.1 %".to_owned(),
        share => format!("{share:.1} %"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_names_three_items() {
        let mut findings = Findings::default();
        findings.warn("x", "data.train", "twelve").items((0..12).map(|item| item.to_string()).collect());
        let text = findings.all[0].text();
        assert_eq!(text, "twelve\n  0\n  1\n  2\n  ... and 9 more: `--json FILE` lists all");
        let json = findings.to_json();
        assert_eq!(json["findings"][0]["items"].as_array().unwrap().len(), 12);
        assert_eq!((&json["warnings"], &json["problems"]), (&json!(1), &json!(0)));
    }

    #[test]
    fn shares_are_not_rounded_to_nothing() {
        assert_eq!(percent(0, 10), "0 %");
        assert_eq!(percent(1, 10_000), "less than 0.1 %");
        assert_eq!(percent(3, 8), "37.5 %");
    }
}
