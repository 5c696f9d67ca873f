//! Deserialises the tree into a [`RunConfig`], collecting every wrong entry.

use std::collections::BTreeSet;

use super::required_keys::{self, Missing};
use super::serde_errors;
use super::toml_tree::Document;
use crate::config::error::Problem;
use crate::config::schema::RunConfig;

/// Deserialises the tree. Serde stops at the first error, so each wrong entry is reported and removed until the rest
/// can be read. Also returns the reported keys: their values in the configuration are placeholders.
pub(super) fn deserialize(
    document: &mut Document<'_>,
    problems: &mut Vec<Problem>,
) -> (Option<RunConfig>, BTreeSet<String>) {
    let mut reported: BTreeSet<String> = problems.iter().map(|problem| problem.key.clone()).collect();
    let mut missing = Vec::new();
    let mut removed = BTreeSet::new();
    let config = loop {
        required_keys::insert_placeholders(document, &mut missing);
        let error = match document.read::<RunConfig>() {
            Ok(config) => break Some(config),
            Err(error) => error,
        };
        let explained = serde_errors::explain(document, &error);
        let key = &explained.problem.key;
        // A table from which an entry was removed may be incomplete; that is not a second problem.
        let follows =
            reported.iter().any(|reported| reported.strip_prefix(key).is_some_and(|rest| rest.starts_with('.')));
        if problems.is_empty() || !(follows || covers(&reported, key)) {
            reported.insert(key.clone());
            problems.push(explained.problem);
        }
        let path: Vec<&str> = explained.at_fault.iter().map(String::as_str).collect();
        let can_retry = document.get(&path).is_some() && removed.insert(explained.at_fault.clone());
        document.remove(&path);
        reported.insert(path.join("."));
        // A misspelt required key is reported as unknown, not also as missing.
        reported.extend(explained.meant);
        if !can_retry {
            // Nothing was removed, so the next try would find the same error.
            break None;
        }
    };
    for Missing { key, help, place } in missing {
        if !covers(&reported, &key) {
            let message = format!("missing key `{key}`");
            problems.push(Problem { message, help: Some(help.to_owned()), place, key: key.clone() });
        }
        reported.insert(key);
    }
    (config, reported)
}

/// Whether a key or one of its enclosing tables was reported; for `KEY.*`, whether any key below was.
pub(super) fn covers(reported: &BTreeSet<String>, key: &str) -> bool {
    if let Some(table) = key.strip_suffix('*') {
        return reported.iter().any(|reported| reported.starts_with(table));
    }
    let stops = key.match_indices('.').map(|(at, _)| at).chain([key.len()]);
    stops.into_iter().any(|stop| key.get(..stop).is_some_and(|prefix| reported.contains(prefix)))
}
