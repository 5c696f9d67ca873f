//! Images that occur several times: in one list, or in the training data and an evaluation.

use std::collections::{BTreeMap, HashMap};

use dualenc_data::{Dataset, counted};

use crate::commands::check::findings::{Finding, Findings, percent};
use crate::commands::check::images::{Images, Seen};
use crate::commands::check::look::{Look, LookIndex};
use crate::features::image_index::ImageList;

/// Copies of an image that a line names; the JSON has all.
const NAMED: usize = 3;

/// The images of a list that were decoded: of each, its place in the list and its number among all images seen.
pub(crate) struct Usable(Vec<(u32, u32)>);

impl Usable {
    pub fn of(numbers: &[u32], images: &Images) -> Self {
        let is_whole = |number: &u32| matches!(images.seen(*number), Seen::Good { copy: Some(_), .. });
        Self((0..).zip(numbers.iter().copied()).filter(|(_, number)| is_whole(number)).collect())
    }

    /// The hash and the looks of each, in order. A plain image has no looks.
    fn copies<'a>(&'a self, images: &'a Images) -> impl Iterator<Item = (&'a [u8; 32], Option<&'a Look>)> {
        self.0.iter().filter_map(|(_, number)| match images.seen(*number) {
            Seen::Good { copy: Some((content, look)), .. } => Some((content, look.as_deref())),
            _ => None,
        })
    }

    /// The name of the image `at` in this order.
    fn name(&self, at: usize, list: &dyn ImageList) -> String {
        list.image(self.0[at].0 as usize).key()
    }
}

/// Reports images of the training data with equal content, and images that look alike. `are_features`: the images are
/// rows of features, which look like nothing.
pub(crate) fn report_copies(
    list: &dyn ImageList,
    usable: &Usable,
    (images, are_features): (&Images, bool),
    findings: &mut Findings,
) {
    let key = "data.train";
    let mut first: HashMap<&[u8; 32], usize> = HashMap::new();
    let (mut equal, mut distinct) = (BTreeMap::<usize, Vec<usize>>::new(), Vec::new());
    let (mut looks, mut plain) = (Vec::<&Look>::new(), 0);
    for (at, (content, look)) in usable.copies(images).enumerate() {
        match first.get(content) {
            Some(&known) => equal.entry(known).or_insert_with(|| vec![known]).push(at),
            None => {
                first.insert(content, at);
                match look {
                    Some(look) => {
                        distinct.push(at);
                        looks.push(look);
                    }
                    None => plain += 1,
                }
            }
        }
    }
    drop(first);
    let names = |group: &[usize]| {
        let mut names: Vec<String> = group.iter().map(|&at| usable.name(at, list)).collect();
        // Two sources may list one file.
        names.dedup();
        names
    };
    let extra: usize = equal.values().map(|group| group.len() - 1).sum();
    if extra > 0 {
        let message = format!("{} the same file as another under another name:", is_or_are(extra, "training image"));
        let groups = equal.values().map(|group| names(group)).collect();
        add_groups(findings.warn("equal_images", key, message).value("count", extra), groups, " = ");
    }

    let groups = groups_of_near(&looks);
    let near: usize = groups.iter().map(|group| group.len() - 1).sum();
    if near > 0 {
        let message = format!(
            "{} almost like another (resized, compressed again, or hardly different):",
            look_or_looks(near, "training image")
        );
        let groups = groups.iter().map(|group| names(&group.iter().map(|&at| distinct[at]).collect::<Vec<_>>()));
        add_groups(findings.warn("near_images", key, message).value("count", near), groups.collect(), " ~ ");
    }
    if plain > 0 && !are_features {
        let message = format!(
            "{} too plain to be compared with others: only equal files are found",
            is_or_are(plain, "training image")
        );
        findings.fact("plain_images", key, message).value("count", plain);
    }
}

/// Adds groups of names: an item for each, which has the first names, and all for programs.
fn add_groups(finding: &mut Finding, groups: Vec<Vec<String>>, sign: &str) {
    let item = |group: &Vec<String>| match group.as_slice() {
        [name] => format!("{name}, listed by several sources"),
        names if names.len() > NAMED => format!("{} and {} more", names[..NAMED].join(sign), names.len() - NAMED),
        names => names.join(sign),
    };
    let items = groups.iter().map(item).collect();
    finding.value("groups", groups).items(items);
}

/// Groups of looks that are near, directly or through others. Each has at least two.
fn groups_of_near(looks: &[&Look]) -> Vec<Vec<usize>> {
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
    let distinct: Vec<&Look> = kinds.iter().map(|&at| looks[at]).collect();
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
    images: &Images,
    findings: &mut Findings,
) {
    let known: HashMap<&[u8; 32], u32> = train.copies(images).map(|(content, _)| content).zip(0..).collect();
    let (numbers, looks): (Vec<usize>, Vec<&Look>) =
        (0..).zip(train.copies(images)).filter_map(|(number, (_, look))| Some((number, look?))).unzip();
    let index = LookIndex::new(&looks);
    let (mut equal, mut near) = (Vec::new(), Vec::new());
    for (at, (content, look)) in usable.copies(images).enumerate() {
        let names = |other: usize, sign: &str| {
            let (one, other) = (usable.name(at, list), train.name(other, train_list));
            if one == other { one } else { format!("{one} {sign} {other}") }
        };
        if let Some(&other) = known.get(content) {
            equal.push(names(other as usize, "="));
            continue;
        }
        let mut found = None;
        if let Some(look) = look {
            index.find(look, |other| {
                found = Some(numbers[other]);
                false
            });
        }
        near.extend(found.map(|other| names(other, "~")));
    }
    let total = usable.0.len();
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
