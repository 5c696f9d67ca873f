//! The first directory of a TIFF, as far as the decoder has to be guarded or led.

use crate::error::ImageError;

const FORMAT: &str = "tiff";
const PHOTOMETRIC: u64 = 262;

/// The tags that are read, in groups of consecutive numbers. Values of others may lie anywhere.
const READ_TAGS: [std::ops::RangeInclusive<u64>; 13] = [
    // The kind of page, its size, samples, compression and colours.
    254..=259,
    262..=262,
    266..=266,
    // Strips, orientation, samples per pixel, and planes.
    273..=279,
    284..=284,
    // The predictor, the palette, and tiles.
    317..=317,
    320..=320,
    322..=325,
    // Extra samples, their format, tables of JPEG, and subsampling.
    338..=339,
    347..=347,
    530..=530,
    // XMP, and the version of DNG.
    700..=700,
    50_706..=50_706,
];

/// Where the parts of a directory are: classic TIFF, and BigTIFF with numbers of 8 bytes.
struct Layout {
    is_little: bool,
    /// Place and size of the offset of the directory.
    offset: (usize, usize),
    /// Size of the number of entries.
    count: usize,
    /// Size of an entry.
    entry: usize,
    /// Place of the value in an entry; the number of values is between the type and it.
    value: usize,
}

impl Layout {
    fn of(bytes: &[u8]) -> Self {
        let is_little = bytes.starts_with(b"II");
        match bytes.get(2..4) {
            Some([43, _] | [_, 43]) => Self { is_little, offset: (8, 8), count: 8, entry: 20, value: 12 },
            _ => Self { is_little, offset: (4, 4), count: 2, entry: 12, value: 8 },
        }
    }

    fn number(&self, bytes: &[u8], at: usize, len: usize) -> Option<u64> {
        let field = bytes.get(at..at.checked_add(len)?)?;
        let shift_in = |sum: u64, byte: &u8| sum << 8 | u64::from(*byte);
        Some(if self.is_little { field.iter().rev().fold(0, shift_in) } else { field.iter().fold(0, shift_in) })
    }

    /// The places of all entries.
    fn entries(&self, bytes: &[u8]) -> Option<impl Iterator<Item = usize>> {
        let directory = usize::try_from(self.number(bytes, self.offset.0, self.offset.1)?).ok()?;
        let entries = usize::try_from(self.number(bytes, directory, self.count)?).ok()?;
        let end = directory.checked_add(self.count)?.checked_add(entries.checked_mul(self.entry)?)?;
        (end <= bytes.len()).then(|| (directory + self.count..end).step_by(self.entry))
    }
}

/// Checks that the directory and the values of [`READ_TAGS`] lie inside the file: the decoder allocates what a
/// directory announces.
///
/// # Errors
/// [`ImageError::Damaged`].
pub(crate) fn check(bytes: &[u8]) -> Result<(), ImageError> {
    let cut = || ImageError::Damaged {
        format: FORMAT,
        reason: format!("truncated: its {} bytes do not hold all of its directory", bytes.len()),
    };
    let layout = Layout::of(bytes);
    for at in layout.entries(bytes).ok_or_else(cut)? {
        let tag = layout.number(bytes, at, 2).ok_or_else(cut)?;
        if !READ_TAGS.iter().any(|tags| tags.contains(&tag)) {
            continue;
        }
        let count_len = layout.value - 4;
        let kind = layout.number(bytes, at + 2, 2).ok_or_else(cut)?;
        let count = layout.number(bytes, at + 4, count_len).ok_or_else(cut)?;
        let size = match kind {
            3 | 8 => 2,
            4 | 9 | 11 | 13 => 4,
            5 | 10 | 12 | 16..=18 => 8,
            _ => 1,
        };
        let len = count.saturating_mul(size);
        let inline = count_len as u64;
        let start =
            if len <= inline { 0 } else { layout.number(bytes, at + layout.value, count_len).ok_or_else(cut)? };
        if start.saturating_add(len) > bytes.len() as u64 {
            return Err(cut());
        }
    }
    Ok(())
}

/// A copy of the file in which the first page is grey: the tag of its colours has the value 1. `None` if it has no such
/// tag.
pub(crate) fn as_grey(bytes: &[u8]) -> Option<Vec<u8>> {
    let layout = Layout::of(bytes);
    let entry = layout.entries(bytes)?.find(|&at| layout.number(bytes, at, 2) == Some(PHOTOMETRIC))?;
    let mut patched = bytes.to_vec();
    let value = patched.get_mut(entry + layout.value..entry + layout.value + 2)?;
    value.copy_from_slice(&if layout.is_little { [1, 0] } else { [0, 1] });
    Some(patched)
}
