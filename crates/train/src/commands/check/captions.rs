//! Captions that say little: empty of meaning, repeated, or not captions at all.

use std::collections::{BTreeMap, HashMap, HashSet};

use dualenc_data::{Dataset, NULL_WORD_ADVICE, counted, is_null_word};
use serde_json::json;

use crate::commands::check::findings::{Findings, percent};
use crate::config::Duplicates;

/// Share of distinct captions below which most pairs of a batch are not distinguished.
const FEW: f64 = 0.01;

/// Extensions of files that turn up as captions.
const FILE_EXTENSIONS: [&str; 11] = ["jpg", "jpeg", "png", "webp", "gif", "bmp", "tif", "tiff", "mp4", "txt", "json"];

/// Hexadecimal digits of a hash, at least: those of 64 bits.
const HASH_DIGITS: usize = 16;

/// Longest text that is shown whole.
const MAX_SHOWN: usize = 80;

/// What a caption such as `NaN` is.
const MISSING: &str = "a missing value";

/// What a caption that is no caption looks like.
pub(crate) fn oddity(text: &str) -> Option<&'static str> {
    let lower = text.to_lowercase();
    let is_one_word = !text.contains(char::is_whitespace);
    if is_null_word(text) {
        return Some(MISSING);
    }
    if text.parse::<f64>().is_ok() || text.chars().all(|letter| letter.is_ascii_digit() || ",.-_/:".contains(letter)) {
        return Some("a number or a date");
    }
    let is_hash = text.len() >= HASH_DIGITS
        && text.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'-')
        && text.bytes().any(|byte| byte.is_ascii_digit());
    if is_hash {
        return Some("a hash");
    }
    if lower.contains("://") || lower.starts_with("www.") {
        return Some("a URL");
    }
    let extension = lower.rsplit_once('.').map_or("", |(_, extension)| extension);
    if is_one_word && FILE_EXTENSIONS.contains(&extension) {
        return Some("a file name");
    }
    let has_tag = text.match_indices('<').any(|(at, _)| {
        let tag = text[at + 1..].trim_start_matches('/');
        tag.starts_with(|letter: char| letter.is_ascii_alphabetic()) && tag.contains('>')
    });
    let has_entity = ["&amp;", "&lt;", "&gt;", "&quot;", "&nbsp;", "&#"].iter().any(|entity| lower.contains(entity));
    if has_tag || has_entity {
        return Some("HTML");
    }
    // UTF-8 that was read as Windows-1252 and saved again.
    let misread = ["Ã¤", "Ã¶", "Ã¼", "Ã©", "Ã¨", "Ã±", "â€™", "â€œ", "â€“", "Â "];
    let is_misread = misread.iter().any(|it| text.contains(it));
    (is_misread || text.contains('\u{fffd}')).then_some("a wrong encoding")
}

/// Reports what is odd about the training captions. `batch_size`: pairs per batch.
pub(crate) fn report_captions(dataset: &Dataset, batch_size: usize, duplicates: Duplicates, findings: &mut Findings) {
    let key = "data.train";
    let mut odd: BTreeMap<&str, (usize, Vec<String>)> = BTreeMap::new();
    for caption in dataset.captions() {
        if let Some(what) = oddity(caption.text) {
            let (count, examples) = odd.entry(what).or_default();
            *count += 1;
            examples.push(format!("`{}` of {}", shown(caption.text), dataset.image(caption.image).key()));
        }
    }
    let total = dataset.num_captions();
    for (what, (count, items)) in odd {
        let share = percent(count, total);
        let advice =
            if what == MISSING { format!("; they are used as written: {NULL_WORD_ADVICE}") } else { String::new() };
        let message = format!("{count} of {total} captions ({share}) look like {what}{advice}:");
        findings.warn("odd_captions", key, message).value("what", what).value("count", count).items(items);
    }
    report_equal_rows(dataset, findings);
    for (number, part) in dataset.parts().iter().enumerate() {
        let what = if dataset.parts().len() > 1 { format!("source {number}: ") } else { String::new() };
        let texts = part.captions.clone().map(|caption| dataset.caption(caption).text);
        if part.templates.is_empty() {
            report_distinct(&what, texts, batch_size, duplicates, findings);
        } else {
            report_balance(&what, texts, findings);
        }
    }
}

fn report_equal_rows(dataset: &Dataset, findings: &mut Findings) {
    let ids = dataset.caption_ids();
    let mut rows = HashSet::with_capacity(ids.len());
    let is_repeated = |number: &usize| !rows.insert((dataset.caption(*number).image, ids[*number]));
    let repeated: Vec<usize> = (0..ids.len()).filter(is_repeated).collect();
    if repeated.is_empty() {
        return;
    }
    let item = |&number: &usize| {
        let caption = dataset.caption(number);
        format!("{}: `{}`", dataset.image(caption.image).key(), shown(caption.text))
    };
    let (count, items) = (repeated.len(), repeated.iter().map(item).collect());
    let message = format!("{count} of {} pairs repeat the image and the caption of an earlier one:", ids.len());
    findings.warn("equal_rows", "data.train", message).value("count", count).items(items);
}

/// Reports too few distinct captions.
fn report_distinct<'a>(
    what: &str,
    texts: impl Iterator<Item = &'a str>,
    batch_size: usize,
    duplicates: Duplicates,
    findings: &mut Findings,
) {
    let counts = count(texts);
    let (total, distinct) = (counts.values().sum::<usize>(), counts.len());
    let Some((most, times)) = counts.iter().max_by_key(|(text, times)| (**times, std::cmp::Reverse(**text))) else {
        return;
    };
    let message = format!(
        "{what}{}, {distinct} distinct; the most frequent is `{}` ({times})",
        counted(total, "caption"),
        shown(most)
    );
    let key = "data.train";
    let finding = if distinct == 1 && total > 1 {
        let message = format!("{message}: nothing tells the pairs apart, so there is nothing to learn");
        findings.problem("one_caption", key, message)
    } else if distinct < batch_size.min(total) || distinct as f64 <= FEW * total as f64 {
        let are = match duplicates {
            Duplicates::Positives => "are positives of each other",
            Duplicates::Mask => "are left out of the loss",
            Duplicates::Ignore => "are negatives of each other (`train.duplicates = \"ignore\"`)",
        };
        let message = format!("{message}: most batches repeat captions, and pairs with equal captions {are}");
        findings.warn("few_captions", key, message)
    } else {
        findings.fact("captions", key, message)
    };
    finding.value("captions", total).value("distinct", distinct);
}

/// Reports how many images each class has.
pub(crate) fn report_balance<'a>(what: &str, texts: impl Iterator<Item = &'a str>, findings: &mut Findings) {
    let counts = count(texts);
    let sizes: Vec<(&str, usize)> = counts.into_iter().collect();
    report_classes("data.train", what, &sizes, findings);
}

/// Reports the sizes of classes.
pub(crate) fn report_classes(key: &str, what: &str, sizes: &[(&str, usize)], findings: &mut Findings) {
    let Some(least) = sizes.iter().min_by_key(|(name, size)| (*size, *name)) else { return };
    let most = sizes.iter().max_by_key(|(name, size)| (*size, std::cmp::Reverse(*name))).unwrap_or(least);
    let single: Vec<String> =
        sizes.iter().filter(|(_, size)| *size == 1).map(|(name, _)| format!("`{name}`")).collect();
    let message = format!(
        "{what}{} classes with {} (`{}`) to {} (`{}`) images",
        sizes.len(),
        least.1,
        shown(least.0),
        most.1,
        shown(most.0)
    );
    let finding = if sizes.len() == 1 {
        findings.problem("one_class", key, format!("{what}one class, `{}`: there is nothing to tell apart", least.0))
    } else {
        findings.fact("classes", key, message)
    };
    let names: serde_json::Map<String, serde_json::Value> =
        sizes.iter().map(|(name, size)| ((*name).to_owned(), json!(size))).collect();
    finding.value("min", least.1).value("max", most.1).value("images", names);
    if !single.is_empty() && sizes.len() > 1 {
        let message = format!("{what}{} of {} classes have one image:", single.len(), sizes.len());
        findings.warn("classes_of_one", key, message).value("count", single.len()).items(single);
    }
}

fn count<'a>(texts: impl Iterator<Item = &'a str>) -> HashMap<&'a str, usize> {
    let mut counts = HashMap::new();
    texts.for_each(|text| *counts.entry(text).or_default() += 1);
    counts
}

/// The start of a text, on one line.
pub(crate) fn shown(text: &str) -> String {
    let line = text.replace(['\n', '\r', '\t'], " ");
    if line.chars().count() <= MAX_SHOWN {
        return line;
    }
    line.chars().take(MAX_SHOWN).chain("...".chars()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn odd_captions_are_recognised() {
        for (text, expected) in [
            ("NaN", "a missing value"),
            ("n/a", "a missing value"),
            ("42", "a number or a date"),
            ("2021-03-04", "a number or a date"),
            ("d41d8cd98f00b204e9800998ecf8427e", "a hash"),
            ("123e4567-e89b-12d3-a456-426614174000", "a hash"),
            ("https://example.org/a.jpg", "a URL"),
            ("IMG_0001.JPG", "a file name"),
            ("a dog<br>on grass", "HTML"),
            ("cats &amp; dogs", "HTML"),
            ("ein KÃ¤tzchen", "a wrong encoding"),
            ("caf\u{fffd}", "a wrong encoding"),
        ] {
            assert_eq!(oddity(text), Some(expected), "{text}");
        }
        for text in [
            "a dog",
            "3 dogs",
            "none of them",
            "the year 2021",
            "a < b and c > d",
            "I <3 you",
            "deadbeef",
            "ein Kätzchen",
            "facade",
            "v1.2 of it",
        ] {
            assert_eq!(oddity(text), None, "{text}");
        }
    }

    #[test]
    fn distinct_captions_are_counted() {
        let levels = |texts: &[&str], batch_size| {
            let mut findings = Findings::default();
            report_distinct("", texts.iter().copied(), batch_size, Duplicates::Mask, &mut findings);
            findings.all[0].code
        };
        assert_eq!(levels(&["a", "a", "a"], 2), "one_caption");
        assert_eq!(levels(&["a", "b", "a"], 3), "few_captions");
        assert_eq!(levels(&["a", "b", "a"], 2), "captions");
        assert_eq!(levels(&["a", "b", "c"], 100), "captions", "all are distinct");
        assert_eq!(levels(&["a"], 100), "captions", "one pair");
    }

    #[test]
    fn classes_of_one_are_named() {
        let mut findings = Findings::default();
        report_classes("eval.z", "", &[("cat", 3), ("dog", 1)], &mut findings);
        assert_eq!(findings.all[0].message, "2 classes with 1 (`dog`) to 3 (`cat`) images");
        assert_eq!(findings.all[1].items, ["`dog`"]);
    }
}
