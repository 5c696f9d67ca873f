//! The columns of one data set of an index, which grow by segments.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::dataset::captions::null_words::is_null_word;
use crate::dataset::part::Part;
use crate::dataset::{Dataset, MAX_ROWS};
use crate::error::DataError;
use crate::images::location::ImageRef;
use crate::index::files::{IndexFile, IndexFiles};
use crate::index::inputs::text_of;
use crate::index::manifest::{ColumnRecord, PartRecord, Side};

/// Bytes of a column that wait to be written.
const BUFFER: usize = 1 << 20;

/// The columns, in the order in which `open` reads them.
pub(crate) const COLUMNS: [&str; 9] = [
    "image-names",
    "image-name-ends",
    "image-places",
    "texts",
    "text-ends",
    "caption-images",
    "caption-slots",
    "caption-offsets",
    "captions-of-images",
];

/// A column that is being written.
struct ColumnWriter {
    name: String,
    path: PathBuf,
    file: Box<dyn IndexFile>,
    hasher: blake3::Hasher,
    buffer: Vec<u8>,
    bytes: u64,
}

impl ColumnWriter {
    fn create(files: &dyn IndexFiles, name: String) -> Result<Self, DataError> {
        let path = files.dir().join(&name);
        let file = files.create(&name).map_err(DataError::write(&path))?;
        Ok(Self { name, path, file, hasher: blake3::Hasher::new(), buffer: Vec::new(), bytes: 0 })
    }

    fn push(&mut self, bytes: &[u8]) -> Result<(), DataError> {
        self.buffer.extend_from_slice(bytes);
        if self.buffer.len() >= BUFFER { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> Result<(), DataError> {
        self.hasher.update(&self.buffer);
        self.bytes += self.buffer.len() as u64;
        self.file.write_all(&self.buffer).map_err(DataError::write(&self.path))?;
        self.buffer.clear();
        Ok(())
    }

    fn finish(mut self) -> Result<ColumnRecord, DataError> {
        self.flush()?;
        self.file.finish().map_err(DataError::write(&self.path))?;
        Ok(ColumnRecord { file: self.name, bytes: self.bytes, blake3: self.hasher.finalize().to_hex().to_string() })
    }
}

/// The data set `name` of an index.
pub(crate) struct SideWriter {
    /// One for each of [`COLUMNS`].
    columns: Vec<ColumnWriter>,
    side: Side,
    shards: Vec<Arc<Path>>,
    name_bytes: u64,
    text_bytes: u64,
    /// Images and captions before the source that is being read.
    part_start: (usize, usize),
}

impl SideWriter {
    /// # Errors
    /// [`DataError::Write`].
    pub(crate) fn create(files: &dyn IndexFiles, name: &str) -> Result<Self, DataError> {
        let columns = COLUMNS.iter().map(|column| ColumnWriter::create(files, format!("{name}.{column}")));
        let mut columns = columns.collect::<Result<Vec<_>, _>>()?;
        // Captions of the first image start at 0.
        columns[7].push(&0u32.to_ne_bytes())?;
        let side = Side::default();
        Ok(Self { columns, side, shards: Vec::new(), name_bytes: 0, text_bytes: 0, part_start: (0, 0) })
    }

    /// Adds the images and captions of a segment, all of them in shards that no other segment has.
    ///
    /// # Errors
    /// [`DataError::Write`]; [`DataError::Loader`] for images that are not in shards, or too many rows.
    pub(crate) fn append(&mut self, segment: &Dataset) -> Result<(), DataError> {
        let (first_image, first_caption) = (self.side.images as u32, self.side.captions as u32);
        if self.side.captions + segment.num_captions() > MAX_ROWS {
            return Err(DataError::Loader { reason: format!("a data set has at most {MAX_ROWS} captions") });
        }
        let [names, name_ends, places, texts, text_ends, caption_images, slots, offsets, of_images] =
            &mut self.columns[..]
        else {
            return Err(DataError::Loader { reason: "the index has other columns".to_owned() });
        };
        for image in 0..segment.num_images() {
            let location = segment.image(image);
            let shards = &mut self.shards;
            let place = segment.images.in_shard(image, |shard| number_of(shards, shard));
            let (Some(place), ImageRef::TarEntry { name, len, .. }) = (place, &location) else {
                let reason = format!("`{}` is not in a shard, which `data.index_dir` needs", location.key());
                return Err(DataError::Loader { reason });
            };
            names.push(name.as_bytes())?;
            self.name_bytes += name.len() as u64;
            name_ends.push(&self.name_bytes.to_ne_bytes())?;
            places.push(bytemuck::cast_slice(&place))?;
            if *len == 0 {
                self.side.empty_images.push(first_image + image as u32);
            }
            offsets.push(&(first_caption + segment.offsets[image + 1]).to_ne_bytes())?;
        }
        for (number, caption) in segment.captions().enumerate() {
            texts.push(caption.text.as_bytes())?;
            self.text_bytes += caption.text.len() as u64;
            text_ends.push(&self.text_bytes.to_ne_bytes())?;
            caption_images.push(&(first_image + caption.image as u32).to_ne_bytes())?;
            slots.push(&[caption.slot])?;
            self.side.has_slots |= caption.slot > 0;
            of_images.push(&(first_caption + segment.of_image[number]).to_ne_bytes())?;
            if is_null_word(caption.text) {
                let (count, first) = &mut self.side.null_words;
                *count += 1;
                first.get_or_insert(first_caption + number as u32);
            }
        }
        self.side.images += segment.num_images();
        self.side.captions += segment.num_captions();
        Ok(())
    }

    /// Ends the source that was read into the segments since the last one ended.
    ///
    /// # Errors
    /// [`DataError::Loader`] if its root is not UTF-8.
    pub(crate) fn end_part(&mut self, of: &Part) -> Result<(), DataError> {
        let end = (self.side.images, self.side.captions);
        let part = Part { images: self.part_start.0..end.0, captions: self.part_start.1..end.1, ..of.clone() };
        self.part_start = end;
        self.side.parts.push(PartRecord::of(&part)?);
        Ok(())
    }

    /// Writes what is left.
    ///
    /// # Errors
    /// [`DataError::Write`]; [`DataError::Loader`] if the path of a shard is not UTF-8.
    pub(crate) fn finish(self) -> Result<Side, DataError> {
        let shards = self.shards.iter().map(|shard| text_of(shard).map(str::to_owned)).collect::<Result<_, _>>()?;
        let columns = self.columns.into_iter().map(ColumnWriter::finish).collect::<Result<_, _>>()?;
        Ok(Side { shards, columns, ..self.side })
    }
}

/// The number of a shard. Successive images mostly share the last one.
fn number_of(shards: &mut Vec<Arc<Path>>, shard: &Arc<Path>) -> u32 {
    let known = shards.last().is_some_and(|last| last.as_os_str() == shard.as_os_str());
    if !known {
        shards.push(Arc::clone(shard));
    }
    shards.len() as u32 - 1
}
