//! A hash of what a data set holds.

use std::ops::Range;

use crate::dataset::Dataset;
use crate::dataset::parallel_io::try_map_numbers;
use crate::dataset::part::Part;
use crate::error::DataError;
use crate::files;
use crate::images::location::ImageRef;

/// Largest number of files for which one thread reads the metadata sooner than more threads start.
const STATS_PER_THREAD: usize = 256;

/// Least bytes that are hashed at once: 128 chunks of blake3, several for each lane of a vector.
const BUFFER_BYTES: usize = 1 << 17;

/// Number of file lengths in memory at once.
const AT_ONCE: usize = 1 << 20;

impl Dataset {
    /// A hash of the paths (relative to the root of their source, so that moving it changes nothing), their order, the
    /// captions, and the length of each file in bytes; and of the weights, if there are any. An image in a parquet file
    /// counts by its row and the length of the file, and a row of features by its values alone. File *contents* are not
    /// read: an image replaced by another of equal length goes unnoticed.
    ///
    /// # Errors
    /// [`DataError::Read`] if the system cannot tell the length of a file. A missing file is no error.
    pub fn fingerprint(&self) -> Result<[u8; 32], DataError> {
        self.fingerprint_with(|_, _| ())
    }

    /// The length of some images in bytes; [`u64::MAX`] for a file that does not exist.
    fn file_lengths(&self, images: Range<usize>) -> Result<Vec<u64>, DataError> {
        try_map_numbers(images.len(), STATS_PER_THREAD, |number| match self.image(images.start + number) {
            ImageRef::File(path) => files::metadata(&path).map(|metadata| metadata.map_or(u64::MAX, |it| it.len())),
            ImageRef::TarEntry { len, .. } => Ok(len),
            ImageRef::ParquetCell { column, .. } => Ok(column.file_len()),
            ImageRef::FeatureRow { table, .. } => Ok((table.width() * size_of::<f32>()) as u64),
        })
    }

    /// [`Dataset::fingerprint`], after `look` was given the number and the length of each image; the length of a file
    /// that does not exist is [`u64::MAX`].
    ///
    /// # Errors
    /// [`DataError::Read`] if the system cannot tell the length of a file.
    pub(crate) fn fingerprint_with(&self, mut look: impl FnMut(usize, u64)) -> Result<[u8; 32], DataError> {
        let mut hasher = BufferedHasher::default();
        let mut field = |bytes: &[u8]| {
            hasher.update(&(bytes.len() as u64).to_le_bytes());
            hasher.update(bytes);
        };
        for part in &self.parts {
            for start in part.images.clone().step_by(AT_ONCE) {
                let images = start..part.images.end.min(start + AT_ONCE);
                for (number, len) in images.clone().zip(self.file_lengths(images)?) {
                    look(number, len);
                    hash_image(&self.image(number), part, len, &mut field);
                }
            }
        }
        for caption in self.captions() {
            if let Some((table, row)) = caption.features {
                field(b"features");
                field(&table.id(row).to_le_bytes());
            }
            field(caption.text.as_bytes());
            field(&(caption.image as u64).to_le_bytes());
        }
        if self.captions.has_slots() {
            field(b"slots");
            self.captions().for_each(|caption| field(&[caption.slot]));
        }
        let is_plain = |part: &Part| part.weight == 1.0 && part.caption_weights.is_empty() && part.templates.is_empty();
        if self.parts.len() > 1 || !self.parts.iter().all(is_plain) {
            for part in &self.parts {
                field(b"part");
                field(&(part.captions.len() as u64).to_le_bytes());
                field(&part.weight.to_le_bytes());
                field(&(part.caption_weights.len() as u64).to_le_bytes());
                part.caption_weights.iter().for_each(|weight| field(&weight.to_le_bytes()));
                if part.weights_by_place {
                    field(b"by place");
                }
                field(&(part.templates.len() as u64).to_le_bytes());
                part.templates.iter().for_each(|template| field(template.as_bytes()));
            }
        }
        Ok(hasher.finalize())
    }
}

/// Many short fields, hashed together: a call for each would cost more than hashing it, and only long inputs fill
/// vectors.
#[derive(Default)]
struct BufferedHasher {
    hasher: blake3::Hasher,
    buffer: Vec<u8>,
}

impl BufferedHasher {
    fn update(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
        if self.buffer.len() >= BUFFER_BYTES {
            self.hasher.update(&self.buffer);
            self.buffer.clear();
        }
    }

    fn finalize(mut self) -> [u8; 32] {
        *self.hasher.update(&self.buffer).finalize().as_bytes()
    }
}

fn hash_image(image: &ImageRef, part: &Part, len: u64, field: &mut impl FnMut(&[u8])) {
    if let ImageRef::FeatureRow { table, row } = image {
        field(b"features");
        field(&table.id(*row).to_le_bytes());
        return;
    }
    let path = image.path();
    field(path.strip_prefix(&part.root).unwrap_or(path).as_os_str().as_encoded_bytes());
    if let ImageRef::TarEntry { name, offset, .. } = image {
        field(name.as_bytes());
        field(&offset.to_le_bytes());
    }
    if let ImageRef::ParquetCell { row, .. } = image {
        field(b"row");
        field(&row.to_le_bytes());
    }
    field(&len.to_le_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_do_not_change_the_hash() {
        let fields: Vec<Vec<u8>> = (0..5000).map(|len| vec![len as u8; len % 171]).collect();
        let mut hasher = BufferedHasher::default();
        fields.iter().for_each(|field| hasher.update(field));
        let all = fields.concat();
        assert!(all.len() > 3 * BUFFER_BYTES);
        assert_eq!(hasher.finalize(), *blake3::hash(&all).as_bytes());
    }
}
