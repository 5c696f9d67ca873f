//! "Did you mean ..?": the known name closest to a mistyped one.

/// Lowest Jaro-Winkler similarity of a suggestion: the bound that clap uses for its own.
const MIN_JARO_WINKLER: f64 = 0.7;

/// Lowest normalised Damerau-Levenshtein similarity of a suggestion. It serves short names: `cvs` finds `csv`, which
/// Jaro-Winkler misses.
const MIN_DAMERAU_LEVENSHTEIN: f64 = 0.6;

/// The candidate closest to `word`, if one is close enough to be a typo. Case does not count, and `-` equals `_`.
pub fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let folded = |name: &str| name.to_lowercase().replace('-', "_");
    let word = folded(word);
    let similarity = |candidate: &str| {
        let candidate = folded(candidate);
        let edits = strsim::normalized_damerau_levenshtein(&word, &candidate);
        let jaro = strsim::jaro_winkler(&word, &candidate);
        (jaro > MIN_JARO_WINKLER || edits > MIN_DAMERAU_LEVENSHTEIN).then_some(jaro.max(edits))
    };
    candidates
        .into_iter()
        .filter_map(|candidate| Some((similarity(candidate)?, candidate)))
        .max_by(|(left, _), (right, _)| left.total_cmp(right))
        .map(|(_, candidate)| candidate)
}

#[cfg(test)]
mod tests {
    use super::nearest;

    #[test]
    fn nearest_finds_typos_only() {
        assert_eq!(nearest("captoin", ["image", "caption"]), Some("caption"));
        assert_eq!(nearest("cvs", ["csv", "tsv"]), Some("csv"));
        assert_eq!(nearest("Batch-Size", ["batch_size", "seed"]), Some("batch_size"));
        assert_eq!(nearest("image", ["filepath", "title"]), None);
        assert_eq!(nearest("image", []), None);
    }
}
