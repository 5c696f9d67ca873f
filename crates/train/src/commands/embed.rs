//! `dualenc embed`: writes embeddings of images and texts to one safetensors file. Features go to a temporary file as
//! they are computed, so that memory does not grow with the number of images, except by their paths.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufWriter, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use dualenc_data::{FeatureColumn, FeatureTable, ImageRef, LeftOut, Skipped, read_text_rows};
use dualenc_model::{Tower, parameters};
use parameters::ParamFilter;
use safetensors::tensor::{Dtype, Metadata, TensorInfo};
use serde_json::{Value, json};

use crate::commands::listed_images::{ListedImages, MAX_LISTED, list_images};
use crate::commands::staged_output::StagedFile;
use crate::commands::with_encoder::with_encoder;
use crate::device::Compute;
use crate::error::TrainError;
use crate::eval::encoder::{Embeddings, Encoder};
use crate::events::{Event, Observer};
use crate::features::absent::{check_rows, no_tower};
use crate::models::load::LoadedModel;
use crate::stop_flag::StopFlag;

/// Number of images with features in memory at a time: a multiple of every usual batch size.
const WINDOW_IMAGES: usize = 4096;

/// Rows that are normalised and written at a time.
const BLOCK_ROWS: usize = 1024;

/// Alignment of the values in a safetensors file, in bytes.
const ALIGNMENT: usize = 8;

/// Maximum size of the list of texts in the metadata, in bytes. Readers parse the header before anything else.
const MAX_TEXTS_BYTES: usize = 16 << 20;

/// What to embed, and how.
#[derive(Debug, Clone)]
pub struct EmbedRequest<'a> {
    /// An image, a folder of images with its subfolders, or data in any form that
    /// [`Source::from_path`](dualenc_data::Source::from_path) knows: its distinct images are taken in the order of the
    /// rows. Of a model without an image tower, a file of features.
    pub images: Option<&'a Path>,
    /// The folder at which relative paths of images in a table start; `None`: the folder of the table.
    pub root: Option<&'a Path>,
    /// A file with one text per line. Of a model without a text tower, a file of features.
    pub texts: Option<&'a Path>,
    /// Whether to also write the projections before normalisation.
    pub raw: bool,
    /// Images or texts per forward pass.
    pub batch_size: usize,
    /// Maximum fraction of the images that may be skipped because they cannot be used, from 0 to 1.
    pub max_bad_fraction: f64,
}

/// What was written.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Embedded {
    /// Rows of `image_embeds`.
    pub num_images: usize,
    /// Rows of `text_embeds`.
    pub num_texts: usize,
    /// Width of both.
    pub dim: usize,
    /// Images that could not be used, which have no row.
    pub skipped: Vec<Skipped>,
    /// Files in the folder of images that are no images.
    pub left_out: LeftOut,
    /// Rows of the table of images, or samples of the shards, without an image or a caption.
    pub skipped_rows: usize,
}

/// Writes L2-normalised embeddings to `out`: `image_embeds`, shape `[images, dim]`, and `text_embeds`, shape
/// `[texts, dim]`. With `raw`, also writes `image_features` and `text_features`. The metadata entries `image_paths` and
/// `texts` are JSON lists with one path and one text per row; `skipped_images` is a JSON list of the images that could
/// not be used, each with the reason, if there are any. Texts of more than 16 MiB are left out of the metadata;
/// `num_texts` and `texts_blake3`, the hash of the list, are always there; `model` is the fingerprint of the model's
/// parameters, by which a search refuses another model. `out` is replaced when everything is
/// computed, and untouched otherwise.
///
/// # Errors
/// - [`TrainError::Usage`] when there is nothing to embed, too few images can be used, or an embedding is not finite;
/// - [`TrainError::Read`] or [`TrainError::Data`] when a file cannot be read;
/// - [`TrainError::Write`] when `out` cannot be written;
/// - [`TrainError::Stopped`] when `stop` is set.
pub fn embed(
    loaded: &LoadedModel,
    request: &EmbedRequest<'_>,
    out: &Path,
    compute: &Compute,
    stop: &StopFlag,
    observer: &mut dyn Observer,
) -> Result<Embedded, TrainError> {
    if request.images.is_none() && request.texts.is_none() {
        return Err(TrainError::Usage("there is nothing to embed; give `--images`, `--texts` or both".to_owned()));
    }
    let texts = request.texts.map(|path| Texts::open(path, loaded)).transpose()?;
    let list = |path| match loaded.model.image_tower.is_absent() {
        true => Ok(ListedImages { images: rows_of(path)?, ..ListedImages::default() }),
        false => list_images(path, request.root, observer),
    };
    let listed = request.images.map(list).transpose()?;
    let staged = StagedFile::new(out)?;
    let model = loaded.model.valid();
    let work = Work { loaded, request, compute, stop, out };
    let mut done = Embedded { dim: model.embed_dim(), ..Embedded::default() };
    let fingerprint = parameters::fingerprint(&loaded.model, ParamFilter::All)?;
    let (mut kinds, mut metadata) = (Vec::new(), BTreeMap::from([("model".to_owned(), fingerprint)]));
    if let Some(listed) = listed {
        (done.left_out, done.skipped_rows) = (listed.left_out, listed.skipped_rows);
        let (rows, paths, skipped) = work.images(listed.images, observer)?;
        (done.num_images, done.skipped) = (paths.len(), skipped);
        metadata.insert("image_paths".to_owned(), Value::from(paths).to_string());
        if !done.skipped.is_empty() {
            let skipped = |bad: &Skipped| json!({ "image": bad.key, "reason": bad.reason });
            let skipped: Vec<Value> = done.skipped.iter().map(skipped).collect();
            metadata.insert("skipped_images".to_owned(), Value::from(skipped).to_string());
        }
        kinds.push(("image", rows));
    }
    if let Some(texts) = texts {
        kinds.push(("text", work.texts(&texts, observer)?));
        done.num_texts = texts.len();
        metadata.extend(text_metadata(texts.into_names(), MAX_TEXTS_BYTES));
    }
    write_file(staged.file(), kinds, metadata, request.raw, stop).map_err(|error| match error {
        WriteError::Io(error) => TrainError::write(out)(error),
        WriteError::Other(error) => error,
    })?;
    staged.commit()?;
    Ok(done)
}

/// The texts of a request.
enum Texts {
    Written(Vec<String>),
    /// Features, for a model without a text tower.
    Rows(Arc<FeatureTable>),
}

impl Texts {
    fn open(path: &Path, loaded: &LoadedModel) -> Result<Self, TrainError> {
        if !loaded.model.text_tower.is_absent() {
            return Ok(Self::Written(read_text_rows(path)?));
        }
        let table = open_features(path, Tower::Text)?;
        check_rows(&table)?;
        Ok(Self::Rows(Arc::new(table)))
    }

    fn len(&self) -> usize {
        match self {
            Self::Written(texts) => texts.len(),
            Self::Rows(table) => table.num_rows() as usize,
        }
    }

    /// What a search shows.
    fn into_names(self) -> Vec<String> {
        match self {
            Self::Written(texts) => texts,
            Self::Rows(table) => (0..table.num_rows()).map(|row| table.key(row)).collect(),
        }
    }
}

/// Features for a side of a model that has no tower for it.
fn open_features(path: &Path, tower: Tower) -> Result<FeatureTable, TrainError> {
    let column = if tower == Tower::Image { "image_embedding" } else { "text_embedding" };
    let extension = path.extension().unwrap_or_default().to_string_lossy().to_lowercase();
    if !["safetensors", "npy", "parquet", "pq"].contains(&extension.as_str()) {
        return Err(TrainError::Usage(no_tower(tower, &format!("`{}`", path.display()))));
    }
    Ok(FeatureTable::open(&[path.to_owned()], FeatureColumn { name: None, parquet: column })?)
}

/// Each row of a file of features of images.
fn rows_of(path: &Path) -> Result<Vec<ImageRef>, TrainError> {
    let table = Arc::new(open_features(path, Tower::Image)?);
    Ok((0..table.num_rows()).map(|row| ImageRef::FeatureRow { table: Arc::clone(&table), row }).collect())
}

/// The metadata entries about `texts`, which leave out a list of more than `limit` bytes.
fn text_metadata(texts: Vec<String>, limit: usize) -> BTreeMap<String, String> {
    let num_texts = texts.len().to_string();
    let list = Value::from(texts).to_string();
    let hash = blake3::hash(list.as_bytes()).to_hex().to_string();
    let mut entries = BTreeMap::from([("num_texts".to_owned(), num_texts), ("texts_blake3".to_owned(), hash)]);
    if list.len() <= limit {
        entries.insert("texts".to_owned(), list);
    }
    entries
}

/// What both kinds of input need.
struct Work<'a> {
    loaded: &'a LoadedModel,
    request: &'a EmbedRequest<'a>,
    compute: &'a Compute,
    stop: &'a StopFlag,
    out: &'a Path,
}

impl Work<'_> {
    fn with_encoder<R>(&self, run: impl FnOnce(&Encoder<'_>) -> R) -> R {
        with_encoder(self.loaded, self.compute, self.stop, self.request.batch_size, run)
    }

    /// The features of the images that can be used, their paths, and the other images.
    fn images(
        &self,
        images: Vec<ImageRef>,
        observer: &mut dyn Observer,
    ) -> Result<(Rows, Vec<String>, Vec<Skipped>), TrainError> {
        let total = images.len();
        let mut rows = Rows::new(self.loaded.model.embed_dim(), self.out)?;
        let (mut paths, mut skipped) = (Vec::new(), Vec::new());
        for (window, first) in images.chunks(WINDOW_IMAGES).zip((0..).step_by(WINDOW_IMAGES)) {
            let window = Arc::new(window.to_vec());
            let (usable, embeddings, bad) = self.with_encoder(|encoder| {
                encoder.images(Arc::clone(&window) as _, &self.loaded.processor, |done| {
                    observer.on(Event::Work { name: "images", done: first + done, total });
                })
            })?;
            let new = usable.iter().map(|&image| window[image].key());
            paths.extend(new);
            rows.append(&embeddings.features)?;
            for bad in bad {
                let bad = Skipped { image: first + bad.image, ..bad };
                observer.on(Event::Skipped { image: &bad, of: "the input", listed_in: Some(self.out) });
                skipped.push(bad);
            }
            self.check_skipped(&skipped, total)?;
        }
        Ok((rows, paths, skipped))
    }

    /// Refuses more skipped images than the request allows.
    fn check_skipped(&self, skipped: &[Skipped], total: usize) -> Result<(), TrainError> {
        let (bad, limit) = (skipped.len(), self.request.max_bad_fraction);
        if bad as f64 <= limit * total as f64 && bad < total {
            return Ok(());
        }
        let line = |skipped: &Skipped| format!("  {}: {}", skipped.key, skipped.reason);
        let mut lines: Vec<String> = skipped.iter().take(MAX_LISTED).map(line).collect();
        if bad > MAX_LISTED {
            lines.push(format!("  ... and {} more", bad - MAX_LISTED));
        }
        // No limit allows that.
        let (limit, or) = if bad == total {
            (String::new(), "")
        } else {
            (format!(", more than `--max-bad-fraction` {limit} allows"), ", or raise `--max-bad-fraction`")
        };
        Err(TrainError::Usage(format!(
            "{bad} of {total} images cannot be used{limit}; nothing was written:\n{}\nrepair or remove them{or}",
            lines.join("\n")
        )))
    }

    /// The features of the texts, row by row.
    fn texts(&self, texts: &Texts, observer: &mut dyn Observer) -> Result<Rows, TrainError> {
        let (mut rows, total) = (Rows::new(self.loaded.model.embed_dim(), self.out)?, texts.len());
        self.with_encoder(|encoder| match texts {
            Texts::Written(texts) => {
                let progress = |done| observer.on(Event::Work { name: "texts", done, total });
                encoder.texts_into(texts, progress, |text, row| rows.write(text, row))?;
                encoder.report_cut("text", observer);
                Ok::<_, TrainError>(())
            }
            Texts::Rows(table) => {
                for first in (0..total).step_by(WINDOW_IMAGES) {
                    let count = WINDOW_IMAGES.min(total - first);
                    let embeds = encoder.text_rows(count, |at| Some((table, (first + at) as u64)), |_| ())?;
                    rows.append(&embeds.features)?;
                    observer.on(Event::Work { name: "texts", done: first + count, total });
                }
                Ok(())
            }
        })?;
        Ok(rows)
    }
}

/// Rows of features in a temporary file without a name, which the system removes when it is closed.
struct Rows {
    file: File,
    dim: usize,
    count: usize,
    /// The output, for errors: the file is in its directory.
    out: PathBuf,
}

impl Rows {
    fn new(dim: usize, out: &Path) -> Result<Self, TrainError> {
        let parent = out.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let file = tempfile::tempfile_in(parent).map_err(TrainError::write(out))?;
        Ok(Self { file, dim, count: 0, out: out.to_owned() })
    }

    /// Writes consecutive rows after the last one.
    fn append(&mut self, values: &[f32]) -> Result<(), TrainError> {
        self.write(self.count, values)
    }

    /// Writes consecutive rows from `row` on.
    fn write(&mut self, row: usize, values: &[f32]) -> Result<(), TrainError> {
        let start = (row * self.dim * size_of::<f32>()) as u64;
        let write = |file: &mut File| {
            file.seek(SeekFrom::Start(start))?;
            file.write_all(bytemuck::cast_slice(values))
        };
        write(&mut self.file).map_err(TrainError::write(&self.out))?;
        self.count = self.count.max(row + values.len() / self.dim.max(1));
        Ok(())
    }

    /// Copies all rows to `to`, little-endian.
    fn copy(&mut self, normalize: bool, stop: &StopFlag, to: &mut dyn Write) -> Result<(), WriteError> {
        self.file.seek(SeekFrom::Start(0))?;
        for first in (0..self.count).step_by(BLOCK_ROWS) {
            if let Some(signal) = stop.signal() {
                return Err(WriteError::Other(TrainError::Stopped { signal }));
            }
            let mut features = vec![0f32; BLOCK_ROWS.min(self.count - first) * self.dim];
            self.file.read_exact(bytemuck::cast_slice_mut(&mut features))?;
            let block = Embeddings { dim: self.dim, features };
            let mut block = if normalize { block.normalized() } else { block.features };
            if cfg!(target_endian = "big") {
                block.iter_mut().for_each(|value| *value = f32::from_bits(value.to_bits().swap_bytes()));
            }
            to.write_all(bytemuck::cast_slice(&block))?;
        }
        Ok(())
    }
}

/// Why the file could not be written.
enum WriteError {
    Io(io::Error),
    Other(TrainError),
}

impl From<io::Error> for WriteError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// Writes the safetensors file of `kinds`: `image` before `text`, so that its tensors are in the order of their names.
fn write_file(
    file: &File,
    mut kinds: Vec<(&'static str, Rows)>,
    metadata: BTreeMap<String, String>,
    raw: bool,
    stop: &StopFlag,
) -> Result<(), WriteError> {
    let tensors: &[(&str, bool)] = if raw { &[("embeds", true), ("features", false)] } else { &[("embeds", true)] };
    let (mut infos, mut end) = (Vec::new(), 0);
    for (kind, rows) in &kinds {
        for (name, _) in tensors {
            let (start, shape) = (end, vec![rows.count, rows.dim]);
            end += rows.count * rows.dim * size_of::<f32>();
            infos.push((format!("{kind}_{name}"), TensorInfo { dtype: Dtype::F32, shape, data_offsets: (start, end) }));
        }
    }
    let malformed = |error: &dyn std::fmt::Display| {
        WriteError::Other(TrainError::Internal(format!("the header of the embeddings is malformed: {error}")))
    };
    let header = Metadata::new(None, infos).map_err(|error| malformed(&error))?;
    let mut header = serde_json::to_value(&header).map_err(|error| malformed(&error))?;
    // The crate takes a map without an order, and files that hold the same would differ.
    header["__metadata__"] = json!(metadata);
    let mut header = serde_json::to_vec(&header).map_err(|error| malformed(&error))?;
    header.resize(header.len().next_multiple_of(ALIGNMENT), b' ');
    let mut to = BufWriter::new(file);
    to.write_all(&(header.len() as u64).to_le_bytes())?;
    to.write_all(&header)?;
    for (_, rows) in &mut kinds {
        for (_, normalize) in tensors {
            rows.copy(*normalize, stop, &mut to)?;
        }
    }
    Ok(to.flush()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_texts_leave_their_hash() {
        let texts = || vec!["a".to_owned(), "b".to_owned()];
        let (all, few) = (text_metadata(texts(), 9), text_metadata(texts(), 8));
        assert_eq!(all["texts"], "[\"a\",\"b\"]");
        assert_eq!(few.keys().collect::<Vec<_>>(), ["num_texts", "texts_blake3"]);
        assert_eq!((&few["num_texts"], &few["texts_blake3"]), (&"2".to_owned(), &all["texts_blake3"]));
    }
}
