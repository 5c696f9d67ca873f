//! Suggests the known name that is nearest to an unknown one.

/// Below this Jaro-Winkler similarity a name is not offered, the bound that clap uses for its own suggestions.
const SIMILAR: f64 = 0.7;

/// Below this share of unchanged letters, a swap of two counted as one change, a short name is not offered; two of three,
/// so that `cvs` finds `csv`, which Jaro-Winkler does not.
const SIMILAR_SHORT: f64 = 0.6;

/// The name that was meant, if one is near.
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
