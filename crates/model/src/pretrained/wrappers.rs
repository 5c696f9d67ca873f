//! Names of tensors that were saved from within another module: wrappers, whose prefix is taken off, and larger models,
//! whose prefix is only named.

use std::collections::BTreeMap;

use crate::weights::weight_files::WeightFiles;

/// Prefixes that wrappers put before all names, and what writes them. They may be nested.
const WRAPPERS: [(&str, &str); 3] = [
    ("module.", "DistributedDataParallel"),
    ("_orig_mod.", "torch.compile"),
    ("model.", "a module that holds the model as `self.model`"),
];

/// Takes the prefixes of wrappers off the names if that makes the files fit, with a note that says so. Otherwise
/// returns them unchanged.
///
/// `fits`: whether the files have the names of the model. Files that fit already are never changed, nor are files in
/// which two names would become one.
pub(crate) fn unwrap(files: WeightFiles, fits: impl Fn(&WeightFiles) -> bool) -> (WeightFiles, Option<String>) {
    if fits(&files) {
        return (files, None);
    }
    let (mut inner, mut taken) = (files.clone(), Vec::new());
    while !fits(&inner) {
        let Some(wrapper) = WRAPPERS.iter().find(|(prefix, _)| inner.has_prefix(prefix)) else { return (files, None) };
        let Some(renamed) = without_prefix(&inner, wrapper.0) else { return (files, None) };
        inner = renamed;
        taken.push(wrapper);
    }
    let prefix: String = taken.iter().map(|(prefix, _)| *prefix).collect();
    let writers: Vec<&str> = taken.iter().map(|(_, writer)| *writer).collect();
    let count = files.names().filter(|name| name.starts_with(&prefix)).count();
    let names = if count == 1 { "1 tensor name".to_owned() } else { format!("{count} tensor names") };
    (inner, Some(format!("`{prefix}` taken off {names}, as {} writes them", writers.join(" in "))))
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
