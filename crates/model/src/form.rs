//! The written form of values in a tower's architecture, which caches are keyed by.
//!
//! It is spelled out rather than derived, so that renaming a field or a variant keeps caches valid. Never change the
//! form of a value: that invalidates every cache. A new field goes at the end of its form, and only if it differs from
//! what it was before it existed.

use std::fmt::Display;

/// The form of an optional value.
pub(crate) fn option(value: Option<impl Display>) -> String {
    value.map_or_else(|| "none".to_owned(), |value| value.to_string())
}

/// The form of a list.
pub(crate) fn list<T: Display>(values: impl IntoIterator<Item = T>) -> String {
    let values: Vec<String> = values.into_iter().map(|value| value.to_string()).collect();
    format!("[{}]", values.join(" "))
}
