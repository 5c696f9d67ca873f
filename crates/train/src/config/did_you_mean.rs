//! Suggests the known name that is nearest to an unknown one.

/// Minimum Jaro-Winkler similarity of a suggestion, as in clap.
const SIMILAR: f64 = 0.7;

/// Minimum normalised Damerau-Levenshtein similarity of a suggestion. It finds short names with swapped letters, such
/// as `csv` for `cvs` (2/3), which Jaro-Winkler does not.
const SIMILAR_SHORT: f64 = 0.6;

/// The known name that is most similar to `found`, if any is similar enough.
pub(super) fn nearest<'a>(found: &str, known: &[&'a str]) -> Option<&'a str> {
    let plain = |name: &str| name.to_lowercase().replace('-', "_");
    let found = plain(found);
    let similarity = |name: &str| {
        let name = plain(name);
        let short = strsim::normalized_damerau_levenshtein(&found, &name);
        let jaro = strsim::jaro_winkler(&found, &name);
        if jaro > SIMILAR || short > SIMILAR_SHORT { Some(jaro.max(short)) } else { None }
    };
    known
        .iter()
        .filter_map(|name| Some((similarity(name)?, *name)))
        .max_by(|(left, _), (right, _)| left.total_cmp(right))
        .map(|(_, name)| name)
}

pub(super) fn did_you_mean(name: &str) -> String {
    format!("did you mean `{name}`?")
}
