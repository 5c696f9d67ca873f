//! Images that occur several times: in one list, or in the training data and an evaluation.

use std::collections::{BTreeMap, HashMap};

use dualenc_data::Dataset;

use crate::commands::check::findings::{Findings, counted, percent};
use crate::commands::check::images::Seen;
use crate::commands::check::look::{Look, LookIndex};
use crate::features::image_index::ImageList;

/// The usable images of a list: their numbers, the hashes of their files, and their looks.
#[derive(Default)]
pub(crate) struct Usable {
    numbers: Vec<usize>,
    contents: Vec<[u8; 32]>,
    looks: Vec<Look>,
}

impl Usable {
    pub fn of(seen: &[Seen]) -> Self {
        let mut usable = Self::default();
        for (number, seen) in seen.iter().enumerate() {
            if let Seen::Good { copy: Some((content, look)), .. } = seen {
                usable.numbers.push(number);
                usable.contents.push(*content);
                usable.looks.push(*look);
            }
        }
        usable
    }
}

/// Reports images of the training data with equal content, and images that look alike.
pub(crate) fn report_copies(list: &dyn ImageList, usable: &Usable, findings: &mut Findings) {
    let key = "data.train";
    let mut first: HashMap<[u8; 32], usize> = HashMap::new();
    let (mut equal, mut distinct) = (BTreeMap::<usize, Vec<usize>>::new(), Vec::new());
    for (at, content) in usable.contents.iter().enumerate() {
        match first.get(content) {
            Some(&known) => equal.entry(known).or_insert_with(|| vec![known]).push(at),
            None => {
                first.insert(*content, at);
                distinct.push(at);
            }
        }
    }
    let names =
        |group: &[usize]| group.iter().map(|&at| list.image(usable.numbers[at]).key()).collect::<Vec<_>>().join(" = ");
    let extra: usize = equal.values().map(|group| group.len() - 1).sum();
    if extra > 0 {
        let message = format!("{} the same file as another under another name:", is_or_are(extra, "training image"));
        let items = equal.values().map(|group| names(group)).collect();
        findings.warn("equal_images", key, message).value("count", extra).items(items);
    }

    let looks: Vec<Look> = distinct.iter().map(|&at| usable.looks[at]).collect();
    let groups = groups_of_near(&looks);
    let near: usize = groups.iter().map(|group| group.len() - 1).sum();
    if near > 0 {
        let message = format!(
            "{} almost like another (resized, compressed again, or hardly different):",
            look_or_looks(near, "training image")
        );
        let items = groups.iter().map(|group| names(&group.iter().map(|&at| distinct[at]).collect::<Vec<_>>()));
        let items = items.map(|names| names.replace(" = ", " ~ ")).collect();
        findings.warn("near_images", key, message).value("count", near).items(items);
    }
}

/// Groups of looks that are near, directly or through others. Each has at least two.
fn groups_of_near(looks: &[Look]) -> Vec<Vec<usize>> {
    // Equal looks first, so that they do not crowd the index.
    let mut order: Vec<usize> = (0..looks.len()).collect();
    order.sort_by_key(|&at| (looks[at], at));
    let mut root: Vec<usize> = (0..looks.len()).collect();
    let mut kinds: Vec<usize> = Vec::new();
    for at in order {
        match kinds.last() {
            Some(&kind) if looks[kind] == looks[at] => root[at] = kind,
            _ => kinds.push(at),
        }
    }
    let distinct: Vec<Look> = kinds.iter().map(|&at| looks[at]).collect();
    let index = LookIndex::new(&distinct);
    for (number, look) in distinct.iter().enumerate() {
        index.find(look, |other| {
            if other < number {
                let (one, two) = (find(&mut root, kinds[number]), find(&mut root, kinds[other]));
                root[one.max(two)] = one.min(two);
            }
            true
        });
    }
    let mut groups: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    for at in 0..looks.len() {
        groups.entry(find(&mut root, at)).or_default().push(at);
    }
    let mut groups: Vec<Vec<usize>> = groups.into_values().filter(|group| group.len() > 1).collect();
    groups.sort();
    groups
}

/// The root of the set of `at`, with paths halved on the way.
fn find(root: &mut [usize], mut at: usize) -> usize {
    while root[at] != at {
        root[at] = root[root[at]];
        at = root[at];
    }
    at
}

/// Reports images of an evaluation that are training images too, or look like one.
pub(crate) fn report_overlap(
    name: &str,
    (train_list, train): (&dyn ImageList, &Usable),
    (list, usable): (&dyn ImageList, &Usable),
    findings: &mut Findings,
) {
    let known: HashMap<&[u8; 32], usize> = train.contents.iter().zip(0..).collect();
    let index = LookIndex::new(&train.looks);
    let (mut equal, mut near) = (Vec::new(), Vec::new());
    for (at, content) in usable.contents.iter().enumerate() {
        let names = |other: usize, sign: &str| {
            let (one, other) = (list.image(usable.numbers[at]).key(), train_list.image(train.numbers[other]).key());
            if one == other { one } else { format!("{one} {sign} {other}") }
        };
        if let Some(&other) = known.get(content) {
            equal.push(names(other, "="));
            continue;
        }
        let mut found = None;
        index.find(&usable.looks[at], |other| {
            found = Some(other);
            false
        });
        near.extend(found.map(|other| names(other, "~")));
    }
    let total = usable.numbers.len();
    for (code, items, what) in [
        ("overlap_equal", equal, "are training images too: its figures say nothing about new images"),
        ("overlap_near", near, "look almost like a training image (resized, compressed again, or hardly different)"),
    ] {
        if !items.is_empty() {
            let count = items.len();
            let message = format!("evaluation `{name}`: {count} of {} {what}:", counted(total, "image"));
            let finding = findings.warn(code, &format!("eval.{name}"), message);
            finding.value("count", count).value("images", total).items(items);
        }
    }
}

/// Reports captions of an evaluation that are training captions too. `train`: their ids, sorted.
pub(crate) fn report_equal_captions(name: &str, train: &[u64], dataset: &Dataset, findings: &mut Findings) {
    /// Share above which the captions of an evaluation say little about new ones. Short captions repeat by chance.
    const MANY: f64 = 0.1;
    let ids = dataset.caption_ids();
    let is_known = |caption: &usize| train.binary_search(&ids[*caption]).is_ok();
    let equal: Vec<usize> = (0..ids.len()).filter(is_known).collect();
    if equal.is_empty() {
        return;
    }
    let (count, total) = (equal.len(), ids.len());
    let share = percent(count, total);
    let message = format!("evaluation `{name}`: {count} of {total} captions ({share}) are training captions too:");
    let items = equal.iter().map(|&caption| format!("`{}`", dataset.caption(caption).text)).collect();
    let finding = match count as f64 > MANY * total as f64 {
        true => findings.warn("overlap_captions", &format!("eval.{name}"), message),
        false => findings.fact("overlap_captions", &format!("eval.{name}"), message),
    };
    finding.value("count", count).value("captions", total).items(items);
}

fn is_or_are(count: usize, what: &str) -> String {
    format!("{} {}", counted(count, what), if count == 1 { "is" } else { "are" })
}

fn look_or_looks(count: usize, what: &str) -> String {
    format!("{} {}", counted(count, what), if count == 1 { "looks" } else { "look" })
}
