//! The image-text pairs that a config names.

use std::path::Path;
use std::sync::Arc;

use dualenc_data::{Dataset, Source, SourceTable, counted, recognise, recognise_source};

use crate::config::{EvalData, RunConfig};
use crate::error::TrainError;
use crate::index_dir::indexed;

/// The pairs of `[data.train]`.
#[derive(Debug, Clone)]
pub(crate) struct Pairs {
    /// The pairs to train on.
    pub train: Arc<Dataset>,
    /// The pairs that `data.validation_fraction` holds out.
    pub validation: Option<Arc<Dataset>>,
}

impl Pairs {
    /// Reads the sources of `[data.train]`; no image is opened.
    ///
    /// # Errors
    /// [`TrainError::Data`] when a source is missing, empty or malformed; [`TrainError::Usage`] when the validation
    /// split leaves one side empty.
    pub fn read(config: &RunConfig) -> Result<Self, TrainError> {
        let tables = config.data.train.tables();
        let fraction = config.data.validation_fraction;
        let (mut train, validation, total) = match &config.data.index_dir {
            Some(dir) => {
                let (train, validation) = indexed(dir, &tables, fraction)?;
                let total = train.num_images() + validation.as_ref().map_or(0, Dataset::num_images);
                (train, validation, total)
            }
            None => {
                let all = read_all(&tables)?;
                let total = all.num_images();
                if fraction > 0.0 {
                    let (train, validation) = all.split(fraction);
                    (train, Some(validation), total)
                } else {
                    (all, None, total)
                }
            }
        };
        let Some(validation) = validation else { return Ok(Self { train: Arc::new(train), validation: None }) };
        for (side, dataset) in [("training", &train), ("validation", &validation)] {
            if dataset.num_images() == 0 {
                return Err(TrainError::Usage(format!(
                    "`data.validation_fraction` = {fraction} leaves no {side} image of {total}; use another fraction"
                )));
            }
        }
        let (images, captions) = (validation.num_images(), validation.num_captions());
        train.notes.push(format!(
            "held out as validation data: {} with {}",
            counted(images, "image"),
            counted(captions, "caption")
        ));
        Ok(Self { train: Arc::new(train), validation: Some(Arc::new(validation)) })
    }
}

/// The pairs of all sources, in memory.
fn read_all(tables: &[(String, &SourceTable)]) -> Result<Dataset, TrainError> {
    let read = |(key, table): &(String, &SourceTable)| table.read().map_err(|error| error.in_table(key));
    let mut sources = tables.iter().map(read).collect::<Result<Vec<_>, _>>()?;
    check_widths(tables, &sources)?;
    Ok(match (sources.pop(), sources.is_empty()) {
        (Some(only), true) => only,
        (last, _) => Dataset::concat(sources.into_iter().chain(last).collect()),
    })
}

/// Refuses features of different widths.
fn check_widths(tables: &[(String, &SourceTable)], sources: &[Dataset]) -> Result<(), TrainError> {
    let widths = |dataset: &Dataset| [dataset.image_feature_width(), dataset.text_feature_width()];
    let Some(first) = sources.first().map(widths) else { return Ok(()) };
    let Some((key, found)) =
        tables.iter().zip(sources).map(|((key, _), it)| (key, widths(it))).find(|(_, it)| *it != first)
    else {
        return Ok(());
    };
    let shown = |[image, text]: [Option<usize>; 2]| {
        let width = |width: Option<usize>| width.map_or_else(|| "no".to_owned(), |width| width.to_string());
        format!("{} values of images and {} of texts", width(image), width(text))
    };
    Err(TrainError::Usage(format!(
        "`{key}` has features of {}; expected {}, as in `{}`",
        shown(found),
        shown(first),
        tables[0].0
    )))
}

/// The data at `path`, recognised by their name and content. `root`: the folder at which relative paths of images
/// start.
///
/// # Errors
/// As for [`source_at`].
pub(crate) fn data_at(path: &Path, root: Option<&Path>) -> Result<SourceTable, TrainError> {
    Ok(recognise_source(source_at(path, root)?)?.source)
}

/// The source at `path`; `root`: the folder at which relative paths of images start.
///
/// # Errors
/// [`TrainError::Data`] when `path` cannot be read or is no form of data; [`TrainError::Usage`] when `root` is no
/// folder, or the source does not name files.
pub(crate) fn source_at(path: &Path, root: Option<&Path>) -> Result<Source, TrainError> {
    let source = Source::from_path(path)?;
    let Some(root) = root else { return Ok(source) };
    if !root.is_dir() {
        return Err(TrainError::Usage(format!("`--root`: `{}` is not a folder", root.display())));
    }
    source.with_root(root).ok_or_else(|| no_table(path))
}

/// The error that the data at `path` have no `--root`.
pub(crate) fn no_table(path: &Path) -> TrainError {
    TrainError::Usage(format!(
        "`--root` is the folder at which the image paths of a table start, but `{}` is no table: its images are in it; \
         remove `--root`",
        path.display()
    ))
}

/// Reads the pairs of `[eval.NAME]`. `validation`: the pairs that are used if `data` is `None`.
///
/// # Errors
/// As for [`Pairs::read`]; [`TrainError::Usage`] without data.
pub(crate) fn read_eval_data(
    name: &str,
    data: Option<&EvalData>,
    validation: Option<&Arc<Dataset>>,
) -> Result<Arc<Dataset>, TrainError> {
    match (data, validation) {
        (Some(EvalData::Path(path)), _) => Ok(Arc::new(recognise(path)?.source.read()?)),
        (Some(EvalData::Source(table)), _) => {
            let dataset = table.read().map_err(|error| error.in_table(&format!("eval.{name}.data")))?;
            Ok(Arc::new(dataset))
        }
        (None, Some(validation)) => Ok(Arc::clone(validation)),
        (None, None) => Err(TrainError::Usage(format!("evaluation `{name}` needs `data`"))),
    }
}
