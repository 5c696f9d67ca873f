//! Entries that no rule reads, and the samples that are lost with them.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use crate::conversions::of_folder;
use crate::counted::counted;
use crate::dataset::skipped_rows::Left;
use crate::sources::folder::file_names::{is_number_like, quoted};
use crate::sources::image_files::is_image_name;

/// Why a sample without a known extension is left out.
pub(crate) const UNREAD: &str = "unread extension";

/// Files without an extension that writers put beside samples.
const DOCUMENTS: [&str; 11] = [
    ".DS_Store",
    "README",
    "LICENSE",
    "LICENCE",
    "COPYING",
    "NOTICE",
    "CHANGELOG",
    "MANIFEST",
    "VERSION",
    "MD5SUMS",
    "SHA256SUMS",
];

/// Names of JSON files about a shard.
const ABOUT: [&str; 5] = ["stats", "meta", "metadata", "info", "dataset_info"];

/// Entries that share their name up to the last dot, and are not read.
#[derive(Debug)]
pub(crate) struct Unread {
    /// The key that webdataset gives them: the name up to the first dot.
    pub key: String,
    /// The name up to the last dot.
    name: String,
    /// In lower case.
    extensions: Vec<String>,
}

impl Unread {
    /// What is left out.
    pub(crate) fn left(&self, shard: &Path) -> Left {
        let (shard, name) = (shard.display(), &self.name);
        let extensions = self.shown();
        Left::sample(
            format!("{shard}/{name}"),
            format!("`{shard}`: `{name}` has only {extensions}: no image or caption of a known extension"),
        )
    }

    fn shown(&self) -> String {
        let noun = if self.extensions.len() == 1 { "the extension" } else { "the extensions" };
        format!("{noun} {}", quoted(&self.extensions))
    }

    /// What stands between the key and the last dot: `05.12` in `IMG_2024.05.12.png`.
    fn middle(&self) -> &str {
        self.name[self.key.len()..].trim_start_matches('.')
    }

    fn has_image(&self) -> bool {
        self.extensions.iter().any(|extension| is_image(extension))
    }

    /// Whether a sample is lost. A lone file that is no image, such as `README.md`, is none. Beside a sample that is
    /// read, only an image with a number in place of a field is: `0.seg.png` is a field of `0`, `0.05.12.png` is not.
    fn is_lost(&self, has_read_entry: bool) -> bool {
        match has_read_entry {
            true => self.has_image() && is_number_like(self.middle()),
            false => self.has_image() || self.extensions.len() > 1,
        }
    }
}

/// The entries of a shard that are not read.
#[derive(Debug, Default)]
pub(crate) struct UnreadEntries {
    by_name: HashMap<String, usize>,
    found: Vec<Unread>,
}

impl UnreadEntries {
    /// Adds an entry; `extension`: as it is written.
    pub(crate) fn add(&mut self, key: &str, extension: &str) {
        let name = match extension.rsplit_once('.') {
            Some((middle, _)) => format!("{key}.{middle}"),
            None => key.to_owned(),
        };
        let Self { by_name, found } = self;
        let at = *by_name.entry(name).or_insert_with_key(|name| {
            found.push(Unread { key: key.to_owned(), name: name.clone(), extensions: Vec::new() });
            found.len() - 1
        });
        found[at].extensions.push(extension.to_lowercase());
    }

    /// The keys with images, and their extensions.
    pub(crate) fn images(&self) -> impl Iterator<Item = (&str, &str)> {
        let image = |unread: &'_ Unread| unread.extensions.iter().position(|extension| is_image(extension));
        self.found
            .iter()
            .filter_map(move |unread| Some((unread.key.as_str(), unread.extensions[image(unread)?].as_str())))
    }

    /// The samples that are lost. `has_read_entry`: whether a key has an entry that is read.
    pub(crate) fn lost(self, has_read_entry: impl Fn(&str) -> bool) -> Vec<Unread> {
        self.found.into_iter().filter(|unread| unread.is_lost(has_read_entry(&unread.key))).collect()
    }
}

/// Counts of the samples that are lost, for the message about them.
#[derive(Debug, Default)]
pub(crate) struct UnreadTally {
    count: usize,
    /// The first of them.
    first: String,
    /// Those with a dot in the name.
    dotted: usize,
    /// Extensions of images.
    images: BTreeMap<String, usize>,
}

impl UnreadTally {
    /// Counts a sample.
    pub(crate) fn count(&mut self, unread: &Unread) {
        if self.count == 0 {
            self.first = format!("{} of `{}`", unread.shown(), unread.name);
        }
        self.count += 1;
        self.dotted += usize::from(!unread.middle().is_empty());
        for extension in unread.extensions.iter().filter(|extension| is_image(extension)) {
            *self.images.entry(extension.clone()).or_default() += 1;
        }
    }

    /// What is left out, why, and what to do; `None` if nothing is.
    pub(crate) fn describe(&self) -> Option<String> {
        let what = match self.count {
            0 => return None,
            1 => "1 sample has".to_owned(),
            count => format!("{} have", counted(count, "sample")),
        };
        Some(format!("{what} no entry of a known extension, such as {}: {}", self.first, self.way_out()))
    }

    /// Whether most of the names have several dots, each with an extension of its own.
    pub(crate) fn are_cut_names(&self) -> bool {
        self.dotted * 2 > self.count && self.images.len() > 2
    }

    pub(crate) fn way_out(&self) -> String {
        let most = self.images.iter().max_by_key(|(_, count)| **count);
        let converted = most.and_then(|(extension, _)| of_folder(extension));
        match converted {
            Some(converted) if self.dotted == 0 => converted,
            _ if self.dotted > 0 => "names are cut at their first dot, as webdataset does; rename the entries without \
                                     further dots, or name their extensions with `image` and `caption`"
                .to_owned(),
            _ => "name the extension of the images with `image`, and that of the captions with `caption`".to_owned(),
        }
    }
}

/// Whether the last part of an extension is that of an image, also of one that cannot be decoded.
pub(crate) fn is_image(extension: &str) -> bool {
    is_image_name(&Path::new("x").with_extension(extension))
}

/// Whether an entry without an extension is about the data: a document, a mark of webdataset such as `__done__`, or a
/// file of macOS beside another.
pub(crate) fn is_document(name: &str) -> bool {
    let base = name.rsplit('/').next().unwrap_or(name);
    let is_mark = base.len() > 4 && base.starts_with("__") && base.ends_with("__");
    is_mark || base.starts_with("._") || DOCUMENTS.contains(&base)
}

/// Whether a lone JSON entry without a caption is about the shard, as `_stats.json` is.
pub(crate) fn is_about_shard(key: &str) -> bool {
    let base = key.rsplit('/').next().unwrap_or(key);
    base.starts_with('_') || base.ends_with("_stats") || ABOUT.contains(&base)
}

#[cfg(test)]
mod tests {
    use crate::dataset::Dataset;
    use crate::sources::one_or_many::OneOrMany;
    use crate::sources::webdataset::tests::read;

    const READ: [(&str, &str); 2] = [("0.png", ""), ("0.txt", "a")];

    fn with(entries: &[(&str, &str)]) -> Dataset {
        read(&[&READ[..], entries].concat(), |_| {}).unwrap()
    }

    #[test]
    fn names_with_dots_are_counted() {
        let dataset = with(&[
            ("IMG_2024.05.12.png", ""),
            ("IMG_2024.05.12.txt", "x"),
            ("IMG_2024.05.13.PNG", ""),
            ("IMG_2024.05.13.txt", "y"),
            ("a/x.y.jpg", ""),
        ]);
        assert_eq!(dataset.num_captions(), 1);
        assert_eq!(dataset.skipped.by_cause(), "unread extension (3)");
        let first = &dataset.skipped.rows[0];
        assert!(first.key.as_ref().unwrap().ends_with("s.tar/IMG_2024.05.12"), "{first:?}");
        let expected = "`IMG_2024.05.12` has only the extensions `05.12.png`, `05.12.txt`";
        assert!(first.message.contains(expected), "{first:?}");
        let expected = "`DIR/s.tar`: 3 samples have no entry of a known extension, such as the extensions `05.12.png`, \
                        `05.12.txt` of `IMG_2024.05.12`: names are cut at their first dot, as webdataset does; rename";
        assert!(dataset.warnings.join("\n").contains(expected), "{:?}", dataset.warnings);
    }

    #[test]
    fn image_of_unread_format_is_counted() {
        let dataset = with(&[("1.heic", ""), ("2.image", ""), ("2.label", ""), ("3.avif", ""), ("3.txt", "z")]);
        assert_eq!(dataset.skipped.by_cause(), "unread extension (2), no image (1)");
        let messages = dataset.skipped.first(3);
        assert!(messages.contains("`3` has no image: the extension `avif` is not read"), "{messages}");
        let warnings = dataset.warnings.join("\n");
        assert!(warnings.contains("2 samples have no entry of a known extension"), "{warnings}");
        assert!(warnings.contains("the extension `heic` of `1`: convert the HEIC"), "{warnings}");
    }

    #[test]
    fn fields_of_samples_and_documents_are_no_loss() {
        let dataset = with(&[
            ("0.seg.png", ""),
            ("0.seg.txt", ""),
            ("0.json", "{\"caption\": \"c\"}"),
            ("0.cls", "1"),
            ("0.pth", ""),
            ("0.__key__", "0"),
            ("README.md", ""),
            ("README", ""),
            ("__done__", ""),
            ("._0.png", ""),
            ("_stats.json", "{\"count\": 1}"),
            ("00000_stats.json", "{\"count\": 1}"),
        ]);
        assert_eq!((dataset.skipped.count, dataset.warnings.len()), (0, 0), "{:?}", dataset.skipped);
        // The image of another sample: its name was cut to that of a sample that is read.
        let dataset = with(&[("0.05.12.png", ""), ("0.05.12.txt", "x")]);
        assert_eq!(dataset.skipped.by_cause(), "unread extension (1)");
    }

    #[test]
    fn shard_of_names_with_dots() {
        let entries = [("I.1.png", ""), ("I.1.txt", "x"), ("I.2.png", ""), ("I.3.png", "")];
        let error = read(&entries, |_| {}).unwrap_err();
        assert!(error.contains("unread extension (3)"), "{error}");
        assert!(error.contains("names are cut at their first dot") && !error.contains("set `image"), "{error}");
    }

    #[test]
    fn named_extensions_have_other_images() {
        let entries = [("0.a.png", ""), ("0.txt", "x"), ("0.1.png", ""), ("1.b.png", "")];
        let dataset = read(&entries, |source| source.image = Some(OneOrMany(vec!["a.png".to_owned()]))).unwrap();
        assert_eq!(dataset.skipped.by_cause(), "unread extension (1)", "`0.1.png` is a view of `0`");
    }
}
