//! Names of tensors that were saved from within another module. The prefix of a wrapper is taken off; that of a larger
//! model is only named.

use std::collections::{BTreeMap, BTreeSet};

use crate::weights::weight_files::WeightFiles;

/// Prefixes that wrappers put before all names, and what writes them. They may be nested.
const WRAPPERS: [(&str, &str); 3] = [
    ("module.", "DistributedDataParallel"),
    ("_orig_mod.", "torch.compile"),
    ("model.", "a module that holds the model as `self.model`"),
];

/// Parts of names that wrappers put before the names of the module that they hold, at any depth, and what writes them.
const INNER_WRAPPERS: [(&str, &str); 3] = [
    ("_orig_mod.", "torch.compile"),
    ("_checkpoint_wrapped_module.", "activation checkpointing"),
    ("_fsdp_wrapped_module.", "FullyShardedDataParallel"),
];

/// Takes what wrappers add to the names off them if that makes the files fit, with a note that says so. Otherwise
/// returns them unchanged.
///
/// `fits`: whether the files have the names of the model, as far as one name tells: layers within may still be wrapped.
/// Files without a wrapper are never changed, nor are files in which two names would become one.
pub(crate) fn unwrap(files: WeightFiles, fits: impl Fn(&WeightFiles) -> bool) -> (WeightFiles, Option<String>) {
    let has_inner =
        |files: &WeightFiles| files.names().any(|name| INNER_WRAPPERS.iter().any(|(part, _)| is_part(name, part)));
    let fits = |files: &WeightFiles| fits(files) && !has_inner(files);
    if fits(&files) {
        return (files, None);
    }
    if let Some((inner, note)) = without_prefixes(&files, fits) {
        return (inner, note);
    }
    let Some((bare, first)) = without_inner(&files) else { return (files, None) };
    match without_prefixes(&bare, fits) {
        Some((inner, second)) => {
            (inner, Some([Some(first), second].into_iter().flatten().collect::<Vec<_>>().join("; ")))
        }
        None => (files, None),
    }
}

/// The files without the prefixes of wrappers, and a note on what was taken off, if anything. `None` if they do not fit
/// then.
fn without_prefixes(files: &WeightFiles, fits: impl Fn(&WeightFiles) -> bool) -> Option<(WeightFiles, Option<String>)> {
    let (mut inner, mut taken) = (files.clone(), Vec::new());
    while !fits(&inner) {
        let wrapper = WRAPPERS.iter().find(|(prefix, _)| inner.has_prefix(prefix))?;
        inner = without_prefix(&inner, wrapper.0)?;
        taken.push(wrapper);
    }
    if taken.is_empty() {
        return Some((inner, None));
    }
    let prefix: String = taken.iter().map(|(prefix, _)| *prefix).collect();
    let writers: Vec<&str> = taken.iter().map(|(_, writer)| *writer).collect();
    let names = tensor_names(files.names().filter(|name| name.starts_with(&prefix)).count());
    Some((inner, Some(format!("`{prefix}` taken off {names}, as {} writes them", writers.join(" in ")))))
}

/// The files without the parts that wrappers add within names, and a note on what was taken off. `None` if there is
/// nothing to take off, or two names would become one.
fn without_inner(files: &WeightFiles) -> Option<(WeightFiles, String)> {
    let bare = |name: &str| {
        let kept = name.split_inclusive('.').filter(|part| INNER_WRAPPERS.iter().all(|(wrapper, _)| wrapper != part));
        kept.collect::<String>()
    };
    let names: BTreeSet<String> = files.names().map(bare).collect();
    let found: Vec<_> =
        INNER_WRAPPERS.iter().filter(|(part, _)| files.names().any(|name| is_part(name, part))).collect();
    if found.is_empty() || names.len() < files.names().count() {
        return None;
    }
    let changed = files.names().filter(|name| INNER_WRAPPERS.iter().any(|(part, _)| is_part(name, part)));
    let parts: Vec<String> = found.iter().map(|(part, _)| format!("`{part}`")).collect();
    let writers: Vec<&str> = found.iter().map(|(_, writer)| *writer).collect();
    let (parts, names, writers) = (parts.join(" and "), tensor_names(changed.count()), writers.join(" and "));
    Some((files.clone().renamed(bare), format!("{parts} taken out of {names}, as {writers} writes them")))
}

/// Whether a name has the part that a wrapper adds.
fn is_part(name: &str, part: &str) -> bool {
    name.starts_with(part) || name.contains(&format!(".{part}"))
}

fn tensor_names(count: usize) -> String {
    if count == 1 { "1 tensor name".to_owned() } else { format!("{count} tensor names") }
}

/// The files with `prefix` taken off every name that has it; `None` if two names would become one.
fn without_prefix(files: &WeightFiles, prefix: &str) -> Option<WeightFiles> {
    let clashes = files.names().filter_map(|name| name.strip_prefix(prefix)).any(|name| files.get(name).is_some());
    (!clashes).then(|| files.clone().renamed(|name| name.strip_prefix(prefix).unwrap_or(name).to_owned()))
}

/// The advice for weights in which the names `missing` stand behind a prefix, as in a larger model that has this one as
/// a part; `None` if most of them do not.
pub(crate) fn larger_model(missing: &[String], files: &WeightFiles) -> Option<String> {
    let mut prefixes: BTreeMap<&str, usize> = BTreeMap::new();
    for name in files.names() {
        // Of several names that end this one, the longest is meant.
        let end = missing.iter().filter_map(|missing| {
            let prefix = name.strip_suffix(missing.as_str())?;
            (prefix.ends_with('.')).then_some(prefix)
        });
        if let Some(prefix) = end.min_by_key(|prefix| prefix.len()) {
            *prefixes.entry(prefix).or_default() += 1;
        }
    }
    let (prefix, count) = prefixes.into_iter().max_by_key(|(_, count)| *count)?;
    (count * 2 > missing.len()).then(|| {
        let part = prefix.trim_end_matches('.');
        format!(
            "The weights have {count} of these names behind `{prefix}`, as a larger model that holds this one as \
             `{part}`. Save that part alone with `model.{part}.save_pretrained(DIR)`, or take `{prefix}` off the names \
             in the file."
        )
    })
}
