//! The index of one shard: its samples with the positions of their images.

use std::collections::{BTreeMap, HashMap};
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;
use std::sync::Arc;

use serde_json::Value;

use crate::dataset::skipped_rows::{Left, SkippedRows};
use crate::error::DataError;
use crate::files;
use crate::images::disk::MAX_ENCODED_BYTES;
use crate::images::location::ImageRef;
use crate::sources::webdataset::fields::{Field, Fields, RANKS, Role};
use crate::sources::webdataset::shard_kind::refuse_others;
use crate::sources::webdataset::unread::{Unread, UnreadEntries, is_document};
use crate::sources::webdataset::watched_reader::WatchedReader;

/// Largest caption entry read; captions are a few hundred bytes.
const MAX_TEXT_BYTES: u64 = 1 << 20;

/// Most bytes that an entry may make the tar library read: its header, extension headers (a long name, PAX records),
/// and a caption. The library holds extension headers in memory, at the size that the shard says.
const MAX_READ_PER_ENTRY: u64 = 4 * MAX_TEXT_BYTES;

/// Most zeros behind an archive. Archives are padded to records of 20 blocks (10 KiB), or as many as the writer was
/// asked for; tapes had up to 1 MiB.
const MAX_PADDING_BYTES: u64 = 1 << 20;

/// Entries start at multiples of this size (POSIX.1-1988, ustar).
const TAR_BLOCK_BYTES: u64 = 512;

/// Extensions that are counted; those of shards without dots in their keys are a handful.
pub(crate) const MAX_EXTENSIONS: usize = 100;

/// The entries of one key.
#[derive(Default)]
pub(crate) struct Sample {
    pub key: String,
    /// How many extensions are preferred to that of the image, and the image.
    image: Option<(usize, ImageRef)>,
    /// Captions by field; none if the text is empty.
    captions: Vec<(Field, Vec<String>)>,
    has_json: bool,
    /// What is wrong with an entry that would have a caption.
    pub problem: Option<String>,
    /// The problem is damage, not that a JSON object lacks a key.
    pub is_malformed: bool,
    /// The `status` that img2dataset wrote, unless it is a success.
    pub status: Option<String>,
    /// The extension of an image that is not read.
    pub unread_image: Option<String>,
}

/// What the best entry of a sample for one slot holds.
pub(crate) struct Best {
    pub field: Field,
    pub captions: Vec<String>,
    /// A preferred entry is there, and empty.
    pub is_fallback: bool,
}

impl Sample {
    /// The image.
    pub(crate) fn image(&self) -> Option<&ImageRef> {
        self.image.as_ref().map(|(_, image)| image)
    }

    /// Whether no entry has an image or a caption, and none is damaged.
    pub(crate) fn is_bare(&self) -> bool {
        let Self { image, captions, is_malformed, status, unread_image, .. } = self;
        image.is_none() && captions.is_empty() && !is_malformed && status.is_none() && unread_image.is_none()
    }

    /// Takes the captions of a slot out of the preferred entry that has any; empty ones if all are empty.
    pub(crate) fn take(&mut self, slot: u8) -> Option<Best> {
        let mut best: Option<Best> = None;
        for rank in 0..RANKS {
            let here = self.captions.iter_mut().find(|(field, _)| (field.slot, field.rank) == (slot, rank));
            let Some((field, captions)) = here else { continue };
            let captions = std::mem::take(captions);
            let is_fallback = best.is_some();
            let is_empty = captions.iter().all(|caption| caption.trim().is_empty());
            best = Some(Best { field: *field, captions, is_fallback });
            if !is_empty {
                break;
            }
        }
        best
    }
}

/// The samples of a shard in the order of their first entries.
#[derive(Default)]
pub(crate) struct Index {
    pub samples: Vec<Sample>,
    /// Samples without an entry that is read.
    pub lost: Vec<Unread>,
    pub skipped: SkippedRows,
    /// Number of entries by extension.
    pub extensions: BTreeMap<String, usize>,
    /// The keys of the first `.json` entry that lacks a caption.
    pub json_keys: Vec<String>,
    /// Text entries with several lines.
    pub several_lines: usize,
}

/// Indexes one shard; if `strict`, damage is an error.
pub(crate) fn index_shard(shard: &Path, fields: &Fields, strict: bool) -> Result<Index, DataError> {
    let mut file = files::open(shard)?;
    let metadata = file.metadata().map_err(DataError::read(shard))?;
    if !metadata.is_file() {
        return Err(DataError::NotAFile { path: shard.to_owned() });
    }
    refuse_others(&mut file, shard)?;
    index_reader(file, metadata.len(), shard, fields, strict)
}

/// Indexes a shard of `shard_len` bytes. A failure of the disk is an error even if damage is not: it says nothing
/// about the shard.
pub(crate) fn index_reader(
    reader: impl Read + Seek,
    shard_len: u64,
    shard: &Path,
    fields: &Fields,
    strict: bool,
) -> Result<Index, DataError> {
    let tar: Arc<Path> = Arc::from(shard);
    let mut index = Index::default();
    let (mut by_key, mut unread) = (HashMap::new(), UnreadEntries::default());
    // Start of the part that is not known to be intact.
    let mut intact = 0;
    let (reader, watch) = WatchedReader::new(reader, MAX_READ_PER_ENTRY);
    let mut archive = tar::Archive::new(reader);
    let mut damage = None;
    for entry in archive.entries_with_seek().map_err(DataError::read(shard))? {
        let outcome = entry.map_err(|error| error.to_string()).and_then(|mut entry| {
            let (offset, len) = (entry.raw_file_position(), entry.size());
            let end = offset.checked_add(len).filter(|end| *end <= shard_len);
            let end = end.ok_or_else(|| format!("an entry of {len} bytes goes past the end of the file"))?;
            let kind = entry.header().entry_type();
            if kind.is_file() {
                add(&mut entry, &tar, fields, &mut index, (&mut by_key, &mut unread))?;
            } else if !kind.is_dir() && !kind.is_pax_global_extensions() {
                let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
                index.skipped.note("link or device", || {
                    format!("`{}`: `{name}` is a link or device, not a file", shard.display())
                });
            }
            Ok(end)
        });
        watch.renew();
        match outcome {
            Ok(end) => intact = end.next_multiple_of(TAR_BLOCK_BYTES),
            Err(reason) => {
                damage = Some(reason);
                break;
            }
        }
    }
    if damage.is_none() {
        if shard_len < intact + TAR_BLOCK_BYTES {
            let place = format!("`{}` has no end-of-archive marker at byte {intact}", shard.display());
            index.skipped.note("damaged shard", || format!("{place}: it may have been cut off"));
        }
        damage = damage_behind(archive.into_inner(), intact, shard_len).unwrap_or_else(|error| Some(error.to_string()));
    }
    let path = shard.to_owned();
    if let Some(source) = watch.take_failure() {
        return Err(DataError::Read { path, source });
    }
    if let Some(reason) = damage {
        let error = DataError::Shard { path, offset: intact, kept: index.samples.len(), reason };
        if strict {
            return Err(error);
        }
        index.skipped.note("damaged shard", || error.to_string());
    }
    for (key, extension) in unread.images() {
        if let Some(&at) = by_key.get(key) {
            index.samples[at].unread_image.get_or_insert_with(|| extension.to_owned());
        }
    }
    index.lost = unread.lost(|key| by_key.contains_key(key));
    // With named extensions, images of other extensions are views of their samples.
    if fields.prefers_images() {
        index.lost.retain(|lost| !by_key.contains_key(&lost.key));
    }
    Ok(index)
}

/// Adds one regular entry to its sample.
fn add(
    entry: &mut tar::Entry<'_, impl Read>,
    tar: &Arc<Path>,
    fields: &Fields,
    index: &mut Index,
    (by_key, unread): (&mut HashMap<String, usize>, &mut UnreadEntries),
) -> Result<(), String> {
    let name = entry.path_bytes().into_owned();
    let Ok(name) = String::from_utf8(name) else {
        let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        index.skipped.note("malformed name", || format!("`{}`: the name `{name}` is not UTF-8", tar.display()));
        return Ok(());
    };
    let left = |fault: &str| {
        let tar = tar.display();
        Left::sample(format!("{tar}/{name}"), format!("`{tar}`: `{name}` {fault}"))
    };
    let Some((key, extension)) = split_key(&name) else {
        if !is_document(&name) {
            index.skipped.note("no extension", || left("has no extension"));
        }
        return Ok(());
    };
    let (written, extension) = (extension, extension.to_lowercase());
    let known = index.extensions.len();
    if let Some(count) = index.extensions.get_mut(&extension) {
        *count += 1;
    } else if known < MAX_EXTENSIONS {
        index.extensions.insert(extension.clone(), 1);
    }
    let Some(role) = fields.role(&extension) else {
        unread.add(key, written);
        return Ok(());
    };
    let is_image = matches!(role, Role::Image(_));
    let limit = if is_image { MAX_ENCODED_BYTES } else { MAX_TEXT_BYTES };
    if entry.size() > limit {
        let size = entry.size();
        index.skipped.note("too large", || left(&format!("has {size} bytes, over the limit of {limit}")));
        return Ok(());
    }
    let at = *by_key.entry(key.to_owned()).or_insert_with(|| {
        index.samples.push(Sample { key: key.to_owned(), ..Sample::default() });
        index.samples.len() - 1
    });
    let sample = &mut index.samples[at];
    let is_duplicate = match role {
        // One of a preferred extension takes its place.
        Role::Image(rank) => sample.image.as_ref().is_some_and(|(known, _)| *known <= rank),
        Role::Text(field) | Role::Label(field) => sample.captions.iter().any(|(known, _)| *known == field),
        Role::Json => extension == "json" && sample.has_json,
    };
    if is_duplicate {
        // With preferred extensions, another image is expected.
        if !is_image || !fields.prefers_images() {
            index.skipped.note("duplicate entry", || left("is a duplicate entry of its sample"));
        }
        return Ok(());
    }
    if let Role::Image(rank) = role {
        let (offset, len) = (entry.raw_file_position(), entry.size());
        sample.image = Some((rank, ImageRef::TarEntry { tar: Arc::clone(tar), name, offset, len }));
        return Ok(());
    }
    let mut bytes = Vec::new();
    entry.take(MAX_TEXT_BYTES).read_to_end(&mut bytes).map_err(|error| error.to_string())?;
    let problem = match role {
        Role::Text(field) | Role::Label(field) => match fields.text(&bytes) {
            Ok((captions, several)) => {
                index.several_lines += usize::from(several);
                sample.captions.push((field, captions));
                None
            }
            Err(reason) => Some((format!("`{name}` {reason}"), true)),
        },
        Role::Json | Role::Image(_) => {
            sample.has_json |= extension == "json";
            match serde_json::from_slice::<Value>(bytes.strip_prefix("\u{feff}".as_bytes()).unwrap_or(&bytes)) {
                Ok(value) => {
                    add_json(fields, &value, &name, &extension, sample, &mut index.json_keys).map(|it| (it, false))
                }
                Err(error) => Some((format!("`{name}` is not JSON: {error}"), true)),
            }
        }
    };
    if let Some((problem, is_malformed)) = problem.filter(|(_, malformed)| *malformed || sample.problem.is_none()) {
        sample.problem = Some(problem);
        sample.is_malformed = is_malformed;
    }
    Ok(())
}

/// Adds the captions of a JSON entry; returns what it lacks.
fn add_json(
    fields: &Fields,
    value: &Value,
    name: &str,
    extension: &str,
    sample: &mut Sample,
    json_keys: &mut Vec<String>,
) -> Option<String> {
    let status = value.get("status").and_then(Value::as_str).filter(|status| *status != "success");
    sample.status = status.map(str::to_owned).or(sample.status.take());
    let (found, lacking) = fields.json(value, extension);
    for (field, captions) in found {
        if !sample.captions.iter().any(|(known, _)| *known == field) {
            sample.captions.push((field, captions));
        }
    }
    let first = lacking.first()?;
    if json_keys.is_empty() {
        *json_keys = value.as_object().map_or(Vec::new(), |object| object.keys().cloned().collect());
    }
    Some(format!("`{name}` has no caption under `{first}`"))
}

/// What is wrong behind the end of an archive, which is its first block of zeros. Entries behind it would not be read:
/// the file has a hole, or is two archives.
fn damage_behind(mut reader: impl Read + Seek, end: u64, shard_len: u64) -> std::io::Result<Option<String>> {
    let len = shard_len.saturating_sub(end);
    let mut padding = Vec::new();
    if len <= MAX_PADDING_BYTES {
        reader.seek(SeekFrom::Start(end))?;
        reader.take(len).read_to_end(&mut padding)?;
    }
    let is_padding = len <= MAX_PADDING_BYTES && padding.iter().all(|&byte| byte == 0);
    Ok((!is_padding).then(|| format!("{len} bytes follow the end of the archive, a block of zeros there")))
}

/// Splits `dir/a.b.jpg` into `dir/a` and `b.jpg`, as the webdataset library does; `None` without an extension.
fn split_key(name: &str) -> Option<(&str, &str)> {
    let base = name.rfind('/').map_or(0, |slash| slash + 1);
    let dot = base + name[base..].find('.')?;
    (dot > base).then(|| (&name[..dot], &name[dot + 1..]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sources::folder::options::TextCaptions;
    use crate::sources::webdataset::tests::shard;

    /// A shard on a disk that fails after a number of reads and seeks.
    struct Failing(std::io::Cursor<Vec<u8>>, usize);

    impl Failing {
        fn count(&mut self) -> std::io::Result<()> {
            self.1 = self.1.checked_sub(1).ok_or_else(|| std::io::Error::from_raw_os_error(5))?;
            Ok(())
        }
    }

    impl Read for Failing {
        fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
            self.count().and_then(|()| self.0.read(buffer))
        }
    }

    impl Seek for Failing {
        fn seek(&mut self, to: SeekFrom) -> std::io::Result<u64> {
            self.count().and_then(|()| self.0.seek(to))
        }
    }

    #[test]
    fn failing_disk_is_no_damage() {
        let (bytes, path) = (shard(0..4), Path::new("s.tar"));
        let fields = Fields::new(&[], Vec::new(), TextCaptions::Lines);
        let mut failed = 0;
        for strict in [true, false] {
            for calls in 0.. {
                let disk = Failing(std::io::Cursor::new(bytes.clone()), calls);
                match index_reader(disk, bytes.len() as u64, path, &fields, strict) {
                    Ok(index) => {
                        assert_eq!((index.samples.len(), index.skipped.count), (4, 0));
                        break;
                    }
                    Err(DataError::Read { path, source }) => {
                        assert_eq!((path.as_path(), source.raw_os_error()), (Path::new("s.tar"), Some(5)));
                        failed += 1;
                    }
                    Err(other) => panic!("{other}"),
                }
            }
        }
        assert!(failed > 20, "only {failed} reads");
    }

    #[test]
    fn keys_end_at_first_dot() {
        // The groups of `base_plus_ext` in `webdataset/tariterators.py`: `^((?:.*/|)[^.]+)[.]([^/]*)$`.
        for (name, expected) in [
            ("a/b.c/d.seg.png", Some(("a/b.c/d", "seg.png"))),
            ("./0.JPG", Some(("./0", "JPG"))),
            ("a/b/c.input.jpg", Some(("a/b/c", "input.jpg"))),
            (".x/y.z", Some((".x/y", "z"))),
            ("a..png", Some(("a", ".png"))),
            ("x.", Some(("x", ""))),
            ("\u{e9} b.c d", Some(("\u{e9} b", "c d"))),
            ("a.b/c", None),
            ("..a.png", None),
            ("no", None),
        ] {
            assert_eq!(split_key(name), expected, "{name}");
        }
        // There it is `hidden` of `a/`. Such entries are `._x.jpg` and `.DS_Store` of macOS.
        assert_eq!(split_key("a/.hidden"), None);
    }
}
