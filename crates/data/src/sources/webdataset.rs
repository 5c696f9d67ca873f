//! WebDataset: tar shards of `key.jpg` with `key.txt` or `key.json`. Each shard is indexed once; its images are then
//! read by position, in any order. Nothing is ever unpacked, so hostile entry names and links do no harm.

use std::collections::HashMap;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::dataset::Dataset;
use crate::dataset::builder::DatasetBuilder;
use crate::dataset::parallel_io::map_files;
use crate::dataset::selection::Selection;
use crate::dataset::skipped_rows::SkippedRows;
use crate::error::DataError;
use crate::files::is_dir;
use crate::images::disk::MAX_ENCODED_BYTES;
use crate::images::location::ImageRef;
use crate::sources::image_files::IMAGE_EXTENSIONS;
use crate::sources::rows::{default_caption, texts};
use crate::sources::shard_patterns::{empty, shards};
use crate::sources::watched_reader::WatchedReader;

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

/// `[data.train.webdataset]`: one shard, a folder of them, or a pattern with `*`, `?`, `{a,b}` or `{000..127}`.
///
/// Entries with the same key make a sample. The key is the name up to the first dot of its last component. The image
/// has the extension jpg, jpeg, png, webp or gif. The captions are the lines of `.txt`, else the value of a key in
/// `.json` (a string or a list of strings).
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct WebdatasetSource {
    /// A shard, a folder of shards, or a pattern.
    pub path: PathBuf,
    /// Key of the caption in `.json` entries. Default `caption`.
    #[serde(default = "default_caption")]
    pub caption: String,
    /// Whether a damaged shard is an error; if not, the samples before the damage are used. Default true.
    #[serde(default = "default_strict")]
    pub strict: bool,
}

const fn default_strict() -> bool {
    true
}

/// An image and its captions while a shard is indexed.
#[derive(Default)]
struct Sample {
    key: String,
    image: Option<ImageRef>,
    txt: Option<Vec<String>>,
    json: Option<Vec<String>>,
}

#[derive(Default)]
struct Index {
    samples: Vec<Sample>,
    skipped: SkippedRows,
}

impl WebdatasetSource {
    /// The shards of `path`; a damaged one is an error.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), caption: default_caption(), strict: true }
    }

    /// Resolves a relative path against `base`.
    pub fn resolve(&mut self, base: &Path) {
        self.path = base.join(&self.path);
    }

    /// Indexes the shards.
    ///
    /// # Errors
    /// [`DataError::Shard`] for a damaged shard if `strict`, [`DataError::Malformed`] for an invalid pattern,
    /// [`DataError::NotAFile`] for a shard that is not a regular file, [`DataError::Empty`] without a usable sample,
    /// [`DataError::Read`].
    pub fn read(&self) -> Result<Dataset, DataError> {
        self.read_selected(None)
    }

    pub(crate) fn read_selected(&self, selection: Option<Selection>) -> Result<Dataset, DataError> {
        let shards = shards(&self.path)?;
        // Each thread indexes one shard at a time: a read and a seek per entry.
        let indices = map_files(&shards, 1, |shard| self.index(shard));
        let root = if is_dir(&self.path)? { Some(self.path.as_path()) } else { self.path.parent() };
        let mut builder = DatasetBuilder::new(root.unwrap_or(Path::new(""))).with_selection(selection);
        let mut row = 0;
        for (shard, index) in shards.iter().zip(indices) {
            let index = index?;
            builder.skipped.absorb(index.skipped);
            for sample in index.samples {
                row += 1;
                if !builder.selects(row, &sample.key) {
                    continue;
                }
                let missing = match (&sample.image, sample.txt.or(sample.json)) {
                    (Some(image), Some(captions)) => {
                        let mut pushed = false;
                        for caption in &captions {
                            pushed |= builder.push(image.clone(), caption);
                        }
                        if pushed {
                            continue;
                        }
                        "an empty caption"
                    }
                    (Some(_), None) => "no caption",
                    (None, _) => "no image",
                };
                builder.skipped.note(missing.trim_start_matches("an "), || {
                    format!("`{}`: sample `{}` has {missing}", shard.display(), sample.key)
                });
            }
        }
        if builder.is_empty() {
            return Err(empty(
                &self.path,
                format!("{} shards, {} unusable entries", shards.len(), builder.skipped.count),
            ));
        }
        builder.finish(&self.path)
    }

    /// Indexes one shard.
    fn index(&self, shard: &Path) -> Result<Index, DataError> {
        let file = File::open(shard).map_err(DataError::read(shard))?;
        let metadata = file.metadata().map_err(DataError::read(shard))?;
        if !metadata.is_file() {
            return Err(DataError::NotAFile { path: shard.to_owned() });
        }
        self.index_reader(file, metadata.len(), shard)
    }

    /// Indexes a shard of `shard_len` bytes. A failure of the disk is an error even if damage is not: it says nothing
    /// about the shard.
    fn index_reader(&self, reader: impl Read + Seek, shard_len: u64, shard: &Path) -> Result<Index, DataError> {
        let tar: Arc<Path> = Arc::from(shard);
        let mut index = Index::default();
        let mut by_key = HashMap::new();
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
                    self.add(&mut entry, &tar, &mut index, &mut by_key)?;
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
            damage =
                damage_behind(archive.into_inner(), intact, shard_len).unwrap_or_else(|error| Some(error.to_string()));
        }
        let path = shard.to_owned();
        if let Some(source) = watch.take_failure() {
            return Err(DataError::Read { path, source });
        }
        if let Some(reason) = damage {
            let error = DataError::Shard { path, offset: intact, kept: index.samples.len(), reason };
            if self.strict {
                return Err(error);
            }
            index.skipped.note("damaged shard", || error.to_string());
        }
        Ok(index)
    }

    /// Adds one regular entry to its sample.
    fn add(
        &self,
        entry: &mut tar::Entry<'_, impl Read>,
        tar: &Arc<Path>,
        index: &mut Index,
        by_key: &mut HashMap<String, usize>,
    ) -> Result<(), String> {
        let name = entry.path_bytes().into_owned();
        let Ok(name) = String::from_utf8(name) else {
            let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
            index.skipped.note("malformed name", || format!("`{}`: the name `{name}` is not UTF-8", tar.display()));
            return Ok(());
        };
        let Some((key, extension)) = split_key(&name) else { return Ok(()) };
        let extension = extension.to_lowercase();
        let is_image = IMAGE_EXTENSIONS.contains(&extension.as_str());
        if !is_image && extension != "txt" && extension != "json" {
            return Ok(());
        }
        let limit = if is_image { MAX_ENCODED_BYTES } else { MAX_TEXT_BYTES };
        if entry.size() > limit {
            let size = entry.size();
            index.skipped.note("too large", || {
                format!("`{}`: `{name}` has {size} bytes, over the limit of {limit}", tar.display())
            });
            return Ok(());
        }
        let at = *by_key.entry(key.to_owned()).or_insert_with(|| {
            index.samples.push(Sample { key: key.to_owned(), ..Sample::default() });
            index.samples.len() - 1
        });
        let sample = &mut index.samples[at];
        let duplicate = match extension.as_str() {
            "txt" => sample.txt.is_some(),
            "json" => sample.json.is_some(),
            _ => sample.image.is_some(),
        };
        if duplicate {
            index.skipped.note("duplicate entry", || {
                format!("`{}`: `{name}` is a duplicate entry of its sample", tar.display())
            });
            return Ok(());
        }
        if is_image {
            let (offset, len) = (entry.raw_file_position(), entry.size());
            sample.image = Some(ImageRef::TarEntry { tar: Arc::clone(tar), name, offset, len });
            return Ok(());
        }
        let mut bytes = Vec::new();
        entry.take(MAX_TEXT_BYTES).read_to_end(&mut bytes).map_err(|error| error.to_string())?;
        match self.captions(&bytes, &extension) {
            Ok(captions) if extension == "txt" => sample.txt = Some(captions),
            Ok(captions) => sample.json = Some(captions),
            Err(reason) => {
                index.skipped.note("malformed caption", || format!("`{}`: `{name}` {reason}", tar.display()))
            }
        }
        Ok(())
    }

    fn captions(&self, bytes: &[u8], extension: &str) -> Result<Vec<String>, String> {
        let text = std::str::from_utf8(bytes).map_err(|_| "is not UTF-8".to_owned())?;
        if extension == "txt" {
            let lines = text.trim_start_matches('\u{feff}').lines().map(str::trim).filter(|line| !line.is_empty());
            return Ok(lines.map(str::to_owned).collect());
        }
        let value: Value = serde_json::from_str(text).map_err(|error| format!("is not JSON: {error}"))?;
        let captions = value.get(&self.caption).and_then(texts);
        let captions = captions.ok_or_else(|| format!("has no caption under `{}`", self.caption))?;
        Ok(captions.into_iter().map(str::to_owned).collect())
    }
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

    fn entry(tar: &mut tar::Builder<Vec<u8>>, name: &str, bytes: &[u8]) {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        tar.append_data(&mut header, name, bytes).unwrap();
    }

    pub(super) fn shard(samples: std::ops::Range<usize>) -> Vec<u8> {
        let mut tar = tar::Builder::new(Vec::new());
        for i in samples {
            entry(&mut tar, &format!("part/{i:04}.jpg"), format!("image {i}").as_bytes());
            if i % 2 == 0 {
                entry(&mut tar, &format!("part/{i:04}.txt"), format!("caption {i}\nsecond {i}\n").as_bytes());
            } else {
                entry(&mut tar, &format!("part/{i:04}.json"), format!("{{\"caption\": \"caption {i}\"}}").as_bytes());
            }
        }
        tar.into_inner().unwrap()
    }

    #[test]
    fn shards_keep_order() {
        let dir = tempfile::tempdir().unwrap();
        for number in 0..3 {
            std::fs::write(dir.path().join(format!("s-{number:03}.tar")), shard(number * 4..number * 4 + 4)).unwrap();
        }
        let all = WebdatasetSource::new(dir.path()).read().unwrap();
        assert_eq!((all.num_images(), all.num_captions()), (12, 18));
        for (i, image) in all.images().enumerate() {
            assert_eq!(image.read().unwrap(), format!("image {i}").into_bytes());
        }
        assert_eq!(all.caption(all.captions_of(10)[1] as usize).text, "second 10");
        assert!(all.image(5).key().ends_with("s-001.tar/part/0005.jpg"), "{}", all.image(5).key());
        for (pattern, images) in [("s-*.tar", 12), ("s-{001..002}.tar", 8), ("s-{000,002}.tar", 8), ("s-00?.tar", 12)] {
            let found = WebdatasetSource::new(dir.path().join(pattern)).read().unwrap();
            assert_eq!(found.num_images(), images, "{pattern}");
        }
        let error = WebdatasetSource::new(dir.path().join("s-{000..003}.tar")).read().unwrap_err().to_string();
        assert!(error.contains("s-003.tar`: No such file"), "{error}");
        let error = WebdatasetSource::new(dir.path().join("t-*.tar")).read().unwrap_err().to_string();
        assert!(error.contains("no file that matches the pattern"), "{error}");
    }

    #[test]
    fn truncated_shard() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s.tar");
        let whole = shard(0..4);
        // Four samples of two entries, each a header and a block; the cut is inside the last image.
        std::fs::write(&path, &whole[..6 * 1024 + 512 + 3]).unwrap();
        let error = WebdatasetSource::new(&path).read().unwrap_err().to_string();
        let expected = "damaged at byte 6144: an entry of 7 bytes goes past the end of the file; 3 samples before the \
                        damage are intact (set `strict = false` to use them and continue)";
        assert!(error.contains(expected), "{error}");
        let intact = WebdatasetSource { strict: false, ..WebdatasetSource::new(&path) }.read().unwrap();
        assert_eq!((intact.num_images(), intact.skipped.count), (3, 1));

        let mut broken = whole;
        broken[2 * 1024 + 150] ^= 0x55;
        std::fs::write(&path, &broken).unwrap();
        let error = WebdatasetSource::new(&path).read().unwrap_err().to_string();
        assert!(error.contains("s.tar` is damaged at byte"), "{error}");
    }

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
        let mut failed = 0;
        for strict in [true, false] {
            let source = WebdatasetSource { strict, ..WebdatasetSource::new(path) };
            for calls in 0.. {
                let disk = Failing(std::io::Cursor::new(bytes.clone()), calls);
                match source.index_reader(disk, bytes.len() as u64, path) {
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
    fn skips_hostile_entries() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s.tar");
        let mut tar = tar::Builder::new(Vec::new());
        let mut link = tar::Header::new_gnu();
        link.set_entry_type(tar::EntryType::Symlink);
        link.set_size(0);
        tar.append_link(&mut link, "evil.jpg", "/etc/passwd").unwrap();
        entry(&mut tar, "evil.txt", b"a link");
        entry(&mut tar, "good.png", b"x");
        entry(&mut tar, "good.txt", b"good");
        entry(&mut tar, "good.txt", b"again");
        entry(&mut tar, "blank.png", b"x");
        entry(&mut tar, "blank.txt", b" \n");
        entry(&mut tar, "odd.png", b"x");
        entry(&mut tar, "odd.json", b"{\"text\": 1}");
        // `append_data` refuses such a name, so the header is written by hand.
        let mut header = tar::Header::new_gnu();
        header.as_gnu_mut().unwrap().name[..15].copy_from_slice(b"../../up/up.jpg");
        header.set_size(1);
        header.set_cksum();
        tar.append(&header, &b"x"[..]).unwrap();
        std::fs::write(&path, tar.into_inner().unwrap()).unwrap();

        let dataset = WebdatasetSource::new(&path).read().unwrap();
        assert_eq!(dataset.captions().map(|caption| caption.text).collect::<Vec<_>>(), ["good"]);
        let skipped = dataset.skipped.first(10);
        for part in [
            "`evil.jpg` is a link or device",
            "sample `evil` has no image",
            "`good.txt` is a duplicate entry",
            "sample `blank` has an empty caption",
            "`odd.json` has no caption under `caption`",
            "sample `odd` has no caption",
            "sample `../../up/up` has no caption",
        ] {
            assert!(skipped.contains(part), "{part} is not in:\n{skipped}");
        }
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1, "nothing was unpacked");
    }

    #[test]
    fn keys_end_at_first_dot() {
        assert_eq!(split_key("a/b.c/d.seg.png"), Some(("a/b.c/d", "seg.png")));
        assert_eq!(split_key("a/.hidden"), None);
    }
}
