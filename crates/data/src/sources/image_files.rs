//! Finds the image files below a folder, and counts what it leaves out.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use crate::conversions::of_folder;
use crate::error::DataError;
use crate::files::is_absent;
use crate::look_at::what_is;

/// Extensions of image files, in lower case.
pub(crate) const IMAGE_EXTENSIONS: [&str; 20] = [
    "jpg", "jpeg", "jpe", "jfif", "pjpeg", "pjp", "png", "apng", "webp", "gif", "bmp", "dib", "tif", "tiff", "qoi",
    "pbm", "pgm", "ppm", "pnm", "pam",
];

/// Extensions of images that cannot be decoded, in lower case.
const UNDECODABLE: [&str; 52] = [
    "avif", "avifs", "heic", "heif", "hif", "jxl", "jp2", "j2k", "jpf", "jpx", "jpc", "j2c", "jxr", "svg", "svgz",
    "psd", "psb", "xcf", "ico", "cur", "icns", "exr", "hdr", "dds", "tga", "pcx", "pfm", "sgi", "ras", "xbm", "xpm",
    "fits", "eps", "ai", "wmf", "emf", "cr2", "cr3", "crw", "nef", "nrw", "arw", "srf", "sr2", "dng", "orf", "rw2",
    "raf", "pef", "srw", "3fr", "x3f",
];

/// Whether a name has the extension of an image, also of one that cannot be decoded.
#[must_use]
pub fn is_image_name(name: &Path) -> bool {
    let extension = extension_of(name);
    IMAGE_EXTENSIONS.contains(&extension.as_str()) || UNDECODABLE.contains(&extension.as_str())
}

/// Extensions of files that belong beside images: captions, metadata and documents.
const SIDE_FILES: [&str; 14] =
    ["txt", "caption", "json", "jsonl", "csv", "tsv", "parquet", "xml", "md", "yaml", "yml", "toml", "html", "log"];

/// Files that operating systems leave in folders, in lower case.
const SYSTEM_FILES: [&str; 3] = ["thumbs.db", "desktop.ini", "ehthumbs.db"];

/// Folders that systems add: macOS in zip archives (its files have the names of images but not their content), Jupyter,
/// Windows, and network storages of Synology.
const SYSTEM_FOLDERS: [&str; 5] = ["__MACOSX", "__pycache__", "System Volume Information", "$RECYCLE.BIN", "@eaDir"];

/// Bytes that decide whether a file without an extension is an image.
const PEEKED_BYTES: usize = 32;

/// Extensions that a description names.
const MOST_NAMED: usize = 8;

/// The image files below a folder.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ImageFiles {
    /// Sorted by path, byte by byte.
    pub files: Vec<PathBuf>,
    /// Other files.
    pub left_out: LeftOut,
}

/// How many files below a folder are no images that can be decoded, by extension in lower case.
///
/// Captions and metadata (`txt`, `json`, `csv`, ...), hidden files and those of operating systems do not count.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LeftOut {
    /// Images in formats that cannot be decoded, such as `heic`.
    pub undecodable: BTreeMap<String, usize>,
    /// Files of other kinds, such as `mov`; those without an extension as `no extension`.
    pub others: BTreeMap<String, usize>,
}

impl LeftOut {
    /// The number of files.
    #[must_use]
    pub fn count(&self) -> usize {
        self.undecodable.values().chain(self.others.values()).sum()
    }

    /// Adds the files of another folder.
    pub fn add(&mut self, other: Self) {
        for (sums, counts) in [(&mut self.undecodable, other.undecodable), (&mut self.others, other.others)] {
            for (extension, count) in counts {
                *sums.entry(extension).or_default() += count;
            }
        }
    }

    /// The files in words, such as `18 files left out: avif (6), heic (6), mov (6)`, the most frequent first. `None` if
    /// there are none.
    #[must_use]
    pub fn describe(&self) -> Option<String> {
        let mut counts: Vec<(&String, &usize)> = self.undecodable.iter().chain(&self.others).collect();
        counts.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
        let mut named: Vec<_> =
            counts.iter().take(MOST_NAMED).map(|(name, count)| format!("{name} ({count})")).collect();
        let rest: usize = counts.iter().skip(MOST_NAMED).map(|(_, count)| **count).sum();
        if rest > 0 {
            named.push(format!("others ({rest})"));
        }
        let files = if self.count() == 1 { "1 file" } else { &format!("{} files", self.count()) };
        (!named.is_empty()).then(|| format!("{files} left out: {}", named.join(", ")))
    }

    /// What a folder without images holds: `no image; 2 files left out: heic (2); convert the HEIC images: ..`.
    pub(crate) fn in_place_of_images(&self) -> String {
        let parts = ["no image".to_owned()].into_iter().chain(self.describe()).chain(self.way_out());
        parts.collect::<Vec<_>>().join("; ")
    }

    /// What makes images or tables of the most frequent files that are left out; `None` if nothing is known.
    #[must_use]
    pub fn way_out(&self) -> Option<String> {
        let counts = self.undecodable.iter().chain(&self.others);
        let known = counts.filter_map(|(extension, count)| Some((count, of_folder(extension)?)));
        known.max_by_key(|(count, _)| **count).map(|(_, way_out)| way_out)
    }

    fn note(&mut self, kind: Kind, extension: String) {
        let counts = match kind {
            Kind::Undecodable => &mut self.undecodable,
            Kind::Other => &mut self.others,
            Kind::Image | Kind::Ignored => return,
        };
        *counts.entry(extension).or_default() += 1;
    }
}

/// Every image file below `dir` (or `dir` itself if it is a file), by extension or, without one, by content. Names that
/// start with a dot are ignored, as is `__MACOSX`. Links to folders are followed, except to a folder that contains
/// them.
///
/// # Errors
/// [`DataError::Read`] if `dir` or a folder below it cannot be read.
pub fn image_files(dir: &Path) -> Result<ImageFiles, DataError> {
    let metadata = std::fs::metadata(dir).map_err(DataError::read(dir))?;
    let mut found = ImageFiles::default();
    if metadata.is_file() {
        found.files.push(dir.to_owned());
    } else {
        collect(dir, &mut Vec::new(), &mut found)?;
    }
    found.files.sort_by(|a, b| a.as_os_str().as_encoded_bytes().cmp(b.as_os_str().as_encoded_bytes()));
    Ok(found)
}

/// Whether a file or folder of this name is none of the user's data: hidden, or of an operating system.
pub(crate) fn is_ignored(name: &std::ffi::OsStr) -> bool {
    let name = name.as_encoded_bytes();
    name.starts_with(b".")
        || SYSTEM_FOLDERS.iter().any(|folder| name == folder.as_bytes())
        || SYSTEM_FILES.iter().any(|file| name.eq_ignore_ascii_case(file.as_bytes()))
}

/// Adds the files below `dir`. `above` has the real paths of the folders on the way down, so that a link back to one of
/// them ends the descent.
fn collect(dir: &Path, above: &mut Vec<PathBuf>, found: &mut ImageFiles) -> Result<(), DataError> {
    let real = std::fs::canonicalize(dir).map_err(DataError::read(dir))?;
    if above.contains(&real) {
        return Ok(());
    }
    above.push(real);
    for entry in std::fs::read_dir(dir).map_err(DataError::read(dir))? {
        let entry = entry.map_err(DataError::read(dir))?;
        if is_ignored(&entry.file_name()) {
            continue;
        }
        let path = entry.path();
        let mut kind = entry.file_type().map_err(DataError::read(&path))?;
        if kind.is_symlink() {
            // A dangling link is reported when the image is read; a dangling link without an image's name is ignored.
            match std::fs::metadata(&path) {
                Ok(metadata) => kind = metadata.file_type(),
                Err(error) if is_absent(&error) => {
                    if is_image_name(&path) {
                        found.files.push(path);
                    }
                    continue;
                }
                Err(source) => return Err(DataError::Read { path, source }),
            }
        }
        if kind.is_dir() {
            collect(&path, above, found)?;
        } else if kind.is_file() {
            match Kind::of(&path) {
                Kind::Image => found.files.push(path),
                kind => {
                    let extension = extension_of(&path);
                    let named = if extension.is_empty() { "no extension".to_owned() } else { extension };
                    found.left_out.note(kind, named);
                }
            }
        }
    }
    above.pop();
    Ok(())
}

/// What to do with a file.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Image,
    Undecodable,
    Ignored,
    Other,
}

impl Kind {
    fn of(path: &Path) -> Self {
        let extension = extension_of(path);
        let extension = extension.as_str();
        if IMAGE_EXTENSIONS.contains(&extension) {
            Self::Image
        } else if UNDECODABLE.contains(&extension) {
            Self::Undecodable
        } else if SIDE_FILES.contains(&extension) {
            Self::Ignored
        } else if extension.is_empty() {
            Self::by_content(path)
        } else {
            Self::Other
        }
    }

    /// A text without an extension, such as `LICENSE`, is a side file.
    fn by_content(path: &Path) -> Self {
        let mut head = Vec::new();
        let read = File::open(path).and_then(|file| file.take(PEEKED_BYTES as u64).read_to_end(&mut head));
        let is_text = |bytes: &[u8]| {
            let text = match std::str::from_utf8(bytes) {
                Ok(text) => text,
                // A letter may be cut at the end.
                Err(error) if error.error_len().is_none() => return true,
                Err(_) => return false,
            };
            !text.chars().any(|letter| letter.is_control() && !letter.is_whitespace())
        };
        match (read, what_is(&head)) {
            (Ok(_), Some(content)) if content.is_image => Self::Image,
            (Ok(_), _) if is_text(&head) => Self::Ignored,
            // What cannot be read is no reason to give up: it may be no image at all.
            _ => Self::Other,
        }
    }
}

fn extension_of(path: &Path) -> String {
    path.extension().unwrap_or_default().to_string_lossy().to_lowercase()
}

#[cfg(test)]
mod tests {
    use std::fs::{create_dir_all, write};

    use super::*;

    #[cfg(unix)]
    #[test]
    fn link_to_parent_ends() {
        let dir = tempfile::tempdir().unwrap();
        create_dir_all(dir.path().join("a")).unwrap();
        write(dir.path().join("a/x.png"), b"").unwrap();
        std::os::unix::fs::symlink(dir.path(), dir.path().join("a/loop")).unwrap();
        assert_eq!(image_files(dir.path()).unwrap().files, [dir.path().join("a/x.png")]);
    }

    /// Writes files below a new folder; the content is that of their kind only where it is given.
    fn folder(files: &[(&str, &[u8])]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for (name, content) in files {
            let path = dir.path().join(name);
            create_dir_all(path.parent().unwrap()).unwrap();
            write(path, content).unwrap();
        }
        dir
    }

    #[test]
    fn every_image_extension_counts() {
        let names: Vec<String> = IMAGE_EXTENSIONS
            .iter()
            .flat_map(|name| [format!("a.{name}"), format!("B.{}", name.to_uppercase())])
            .collect();
        let dir = folder(&names.iter().map(|name| (name.as_str(), &b""[..])).collect::<Vec<_>>());
        let found = image_files(dir.path()).unwrap();
        assert_eq!((found.files.len(), found.left_out), (2 * IMAGE_EXTENSIONS.len(), LeftOut::default()));
    }

    #[test]
    fn other_files_are_counted() {
        let dir = folder(&[
            ("a.png", b""),
            ("a.txt", b"a caption"),
            ("x/1.avif", b""),
            ("x/2.AVIF", b""),
            ("x/3.heic", b""),
            ("x/clip.mov", b""),
            ("Thumbs.db", b""),
            ("desktop.ini", b""),
            (".DS_Store", b""),
            ("__MACOSX/._a.png", b""),
            ("__MACOSX/b.png", b""),
            ("metadata.jsonl", b""),
        ]);
        let found = image_files(dir.path()).unwrap();
        assert_eq!(found.files, [dir.path().join("a.png")]);
        assert_eq!(found.left_out.undecodable, [("avif".to_owned(), 2), ("heic".to_owned(), 1)].into());
        assert_eq!(found.left_out.others, [("mov".to_owned(), 1)].into());
        assert_eq!(found.left_out.describe().unwrap(), "4 files left out: avif (2), heic (1), mov (1)");
        assert_eq!(LeftOut::default().describe(), None);

        let mut sum = found.left_out.clone();
        sum.add(LeftOut { others: (0..9).map(|n| (format!("x{n}"), 1)).collect(), ..found.left_out });
        assert_eq!(sum.count(), 16);
        let described = sum.describe().unwrap();
        assert!(described.starts_with("16 files left out: avif (4), heic (2), mov (1), x0 (1), "), "{described}");
        assert!(described.ends_with(", x4 (1), others (4)"), "{described}");
    }

    #[test]
    fn file_without_extension_is_peeked() {
        let dir = folder(&[
            ("photo", b"\xff\xd8\xff\xe0 the rest"),
            ("LICENSE", b"Permission is hereby granted, free of charge, to any person"),
            ("empty", b""),
            ("data", b"\x00\x01\x02\x03"),
        ]);
        let found = image_files(dir.path()).unwrap();
        assert_eq!(found.files, [dir.path().join("photo")]);
        assert_eq!(found.left_out.describe().unwrap(), "1 file left out: no extension (1)");
    }
}
