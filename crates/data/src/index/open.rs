//! The data sets in an index.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use crate::dataset::captions::CaptionTable;
use crate::dataset::columns::column::{Column, Texts};
use crate::dataset::columns::mapped_file::MappedFile;
use crate::dataset::images::ImageTable;
use crate::dataset::part::PartUse;
use crate::dataset::skipped_rows::SkippedRows;
use crate::dataset::{Dataset, Known};
use crate::error::DataError;
use crate::files::metadata;
use crate::index::inputs::{difference, inputs};
use crate::index::manifest::{ColumnRecord, INDEX_MANIFEST, Manifest, Side};
use crate::index::side_writer::COLUMNS;
use crate::sources::source_table::SourceTable;

/// What is in the folder of an index.
#[derive(Debug)]
pub enum FoundIndex {
    /// The data sets: to train on, and held out, if the index has such a one.
    Whole(Box<Dataset>, Option<Box<Dataset>>),
    /// There is none.
    Absent,
    /// It cannot be used, and must be written anew: why.
    Unusable(String),
}

/// Opens the index of `tables` in `dir`, after a check of every byte.
///
/// # Errors
/// Those of finding the shards and of reading templates, and [`DataError::Read`] if the system cannot read the folder.
pub fn open_index(dir: &Path, tables: &[&SourceTable]) -> Result<FoundIndex, DataError> {
    let path = dir.join(INDEX_MANIFEST);
    if metadata(&path)?.is_none() {
        return Ok(match metadata(dir)? {
            Some(_) => FoundIndex::Unusable(format!("`{}` is missing", path.display())),
            None => FoundIndex::Absent,
        });
    }
    let bytes = match std::fs::read(&path) {
        // Another process begins to write it anew.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(FoundIndex::Absent),
        read => read.map_err(DataError::read(&path))?,
    };
    let Some(manifest) = Manifest::of(&bytes) else {
        return Ok(FoundIndex::Unusable(format!("`{}` is damaged", path.display())));
    };
    if let Some(difference) = difference(&manifest.inputs, &inputs(tables)?) {
        return Ok(FoundIndex::Unusable(difference));
    }
    let uses = tables.iter().map(|table| table.usage()).collect::<Result<Vec<_>, _>>()?;
    let sides: Result<Vec<Dataset>, String> = manifest.sides.iter().map(|side| checked(side, dir, &uses)).collect();
    let mut sides = match sides {
        Ok(sides) => sides.into_iter(),
        Err(reason) => return Ok(FoundIndex::Unusable(reason)),
    };
    let Some(mut train) = sides.next() else {
        return Ok(FoundIndex::Unusable(format!("`{}` names no data set", path.display())));
    };
    train.skipped = SkippedRows::from(manifest.skipped);
    (train.notes, train.warnings) = (manifest.notes, manifest.warnings);
    Ok(FoundIndex::Whole(Box::new(train), sides.next().map(Box::new)))
}

/// The data set of a side, if its columns are as they were written.
fn checked(side: &Side, dir: &Path, uses: &[PartUse]) -> Result<Dataset, String> {
    // A thread per column: the longest takes most of the time.
    std::thread::scope(|scope| {
        let threads: Vec<_> = side.columns.iter().map(|column| scope.spawn(move || check(column, dir))).collect();
        let results =
            threads.into_iter().map(|thread| thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
        results.collect::<Result<Vec<()>, String>>()
    })?;
    data_set(side, dir, uses)
}

/// Checks the length and the hash of the file of a column, without keeping its bytes in memory.
fn check(column: &ColumnRecord, dir: &Path) -> Result<(), String> {
    let path = dir.join(&column.file);
    let mut hasher = blake3::Hasher::new();
    let hashed = File::open(&path).and_then(|file| hasher.update_reader(file).map(|_| ()));
    hashed.map_err(|error| format!("cannot read `{}`: {error}", path.display()))?;
    if hasher.count() != column.bytes {
        return Err(format!("`{}` has {} bytes; expected {}", path.display(), hasher.count(), column.bytes));
    }
    if hasher.finalize().to_hex().as_str() != column.blake3 {
        return Err(format!("`{}` is damaged", path.display()));
    }
    Ok(())
}

/// The data set of a side, with its columns in the files of `dir`.
///
/// # Errors
/// What is wrong with them.
pub(crate) fn data_set(side: &Side, dir: &Path, uses: &[PartUse]) -> Result<Dataset, String> {
    let open = |column: &ColumnRecord| MappedFile::open(&dir.join(&column.file)).map_err(|error| error.to_string());
    let files = side.columns.iter().map(open).collect::<Result<Vec<_>, _>>()?;
    let files: [MappedFile; COLUMNS.len()] =
        files.try_into().map_err(|files: Vec<_>| format!("it has {} columns", files.len()))?;
    let [names, name_ends, places, texts, text_ends, caption_images, slots, offsets, of_images] = files;
    let (name_bytes, text_bytes) = (names.bytes().len(), texts.bytes().len());
    let names = Texts { bytes: Column::mapped(names, name_bytes)?, ends: Column::mapped(name_ends, side.images)? };
    let shards = side.shards.iter().map(|shard| Arc::from(Path::new(shard))).collect();
    let images = ImageTable::of_shards(names, Column::mapped(places, side.images)?, shards);
    let texts = Texts { bytes: Column::mapped(texts, text_bytes)?, ends: Column::mapped(text_ends, side.captions)? };
    let slots = if side.has_slots { Column::mapped(slots, side.captions)? } else { Column::default() };
    let captions = CaptionTable::of(texts, Column::mapped(caption_images, side.captions)?, slots);
    let mut parts: Vec<_> = side.parts.iter().map(|part| part.part()).collect();
    if parts.len() != uses.len() {
        return Err(format!("it has {} sources", parts.len()));
    }
    parts.iter_mut().zip(uses).for_each(|(part, of)| part.use_as(of));
    let is_known = side.fingerprint_use == described(uses);
    let fingerprint = is_known.then(|| blake3::Hash::from_hex(&side.fingerprint).ok()).flatten();
    let known = Known {
        fingerprint: fingerprint.map(|hash| *hash.as_bytes()),
        empty_images: side.empty_images.clone(),
        null_words: side.null_words,
    };
    Ok(Dataset {
        images,
        captions,
        parts,
        offsets: Column::mapped(offsets, side.images + 1)?,
        of_image: Column::mapped(of_images, side.captions)?,
        known: Some(Arc::new(known)),
        ..Dataset::default()
    })
}

/// How the pairs of all sources are used, as text: a fingerprint covers it.
pub(crate) fn described(uses: &[PartUse]) -> String {
    // Texts and numbers are JSON; weights are finite.
    let json = serde_json::to_string(uses).unwrap_or_else(|error| error.to_string());
    blake3::hash(json.as_bytes()).to_hex().to_string()
}
