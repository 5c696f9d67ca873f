//! What a file is that should be a tar shard, by its first bytes.

use std::fs::File;
use std::io::{Read, Seek};
use std::path::Path;

use crate::error::DataError;

/// First bytes of other files, what they are, and the program that unpacks them to its output.
const OTHERS: [(&[u8], &str, Option<&str>); 8] = [
    (b"\x1f\x8b", "gzip-compressed", Some("gzip -dc")),
    (b"\x28\xb5\x2f\xfd", "zstd-compressed", Some("zstd -dc")),
    (b"BZh", "bzip2-compressed", Some("bzip2 -dc")),
    (b"\xfd7zXZ\0", "xz-compressed", Some("xz -dc")),
    (b"PK\x03\x04", "a zip archive", None),
    (b"PAR1", "a parquet file", None),
    (b"<!DOCTYPE", "an HTML page", None),
    (b"version https://git-lfs", "a Git LFS pointer", None),
];

/// Refuses a file that is something else than a tar archive, with the way out.
///
/// # Errors
/// [`DataError::Malformed`], [`DataError::Read`].
pub(crate) fn refuse_others(file: &mut File, path: &Path) -> Result<(), DataError> {
    let mut first = Vec::new();
    file.take(32).read_to_end(&mut first).map_err(DataError::read(path))?;
    file.rewind().map_err(DataError::read(path))?;
    let Some((_, what, unpack)) = OTHERS.iter().find(|(magic, ..)| first.starts_with(magic)) else { return Ok(()) };
    let way_out = match (*what, unpack) {
        (_, Some(unpack)) => {
            let name = path.file_name().unwrap_or_default().display().to_string();
            let name = ["tgz", "tar", "gz", "zst", "bz2", "xz", "tar"].iter().fold(name.as_str(), |name, end| {
                name.strip_suffix(end).and_then(|it| it.strip_suffix('.')).unwrap_or(name)
            });
            let to = path.with_file_name(format!("{name}.unpacked.tar"));
            format!(
                "images are read by position, which needs a plain tar file: unpack each shard with `{unpack} {} > {}`",
                path.display(),
                to.display()
            )
        }
        ("a Git LFS pointer", _) => "fetch the real file with `git lfs pull`".to_owned(),
        ("an HTML page", _) => "the download failed; fetch the shard again".to_owned(),
        _ => "expected a tar shard".to_owned(),
    };
    Err(DataError::Malformed { path: path.to_owned(), reason: format!("it is {what}; {way_out}") })
}
