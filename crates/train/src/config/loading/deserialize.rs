//! Deserialises the tree into a [`RunConfig`], past the entries that are wrong.

use std::collections::BTreeSet;

use super::required_keys::{self, Missing};
use super::serde_errors;
use super::toml_tree::Document;
use crate::config::error::Problem;
use crate::config::schema::RunConfig;

/// Reads the tree, reporting each entry at fault and taking it out until the rest can be read. The second value holds the
/// keys that were reported, whose values in the configuration are stand-ins.
pub(super) fn deserialize(
    document: &mut Document<'_>,
    problems: &mut Vec<Problem>,
) -> (Option<RunConfig>, BTreeSet<String>) {
    let mut reported: BTreeSet<String> = problems.iter().map(|problem| problem.key.clone()).collect();
    let mut missing = Vec::new();
    let mut taken_out = BTreeSet::new();
    let config = loop {
        required_keys::complete(document, &mut missing);
        let error = match document.read::<RunConfig>() {
            Ok(config) => break Some(config),
            Err(error) => error,
        };
        let explained = serde_errors::explain(document, &error);
        let key = &explained.problem.key;
        // A table that is incomplete because an entry of it was taken out is no second problem.
        let follows =
            reported.iter().any(|reported| reported.strip_prefix(key).is_some_and(|rest| rest.starts_with('.')));
        if problems.is_empty() || !(follows || covers(&reported, key)) {
            reported.insert(key.clone());
            problems.push(explained.problem);
        }
        let path: Vec<&str> = explained.at_fault.iter().map(String::as_str).collect();
        let can_go_on = document.get(&path).is_some() && taken_out.insert(explained.at_fault.clone());
        document.remove(&path);
        reported.insert(path.join("."));
        // A required key that was misspelt is reported once, by the name it has.
        reported.extend(explained.meant);
        if !can_go_on {
            // Nothing was taken out, or the same again: reading once more would meet the same error.
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

/// Whether a key, or a table it stands in, is among the reported ones.
pub(super) fn covers(reported: &BTreeSet<String>, key: &str) -> bool {
    let stops = key.match_indices('.').map(|(at, _)| at).chain([key.len()]);
    stops.into_iter().any(|stop| key.get(..stop).is_some_and(|prefix| reported.contains(prefix)))
}
