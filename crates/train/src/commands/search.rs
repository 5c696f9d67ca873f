//! `dualenc search` and `dualenc index`: the nearest images or texts of a query.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use dualenc_data::ImageRef;
use dualenc_model::parameters;
use dualenc_search::{Hit, Index, SearchError};
use parameters::ParamFilter;
use serde::{Serialize, Serializer};

use crate::commands::staged_output::StagedFile;
use crate::commands::with_encoder::with_encoder;
use crate::device::Compute;
use crate::error::TrainError;
use crate::events::Observer;
use crate::models::load::LoadedModel;
use crate::stop_flag::StopFlag;

/// What to search for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Query {
    /// What is like this text.
    Text(String),
    /// What is like the image in this file.
    Image(#[serde(serialize_with = "lossy")] PathBuf),
}

/// A path may hold bytes that are no text, which JSON cannot hold.
fn lossy<S: Serializer>(path: &Path, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&path.display())
}

/// Queries, and how to answer them.
#[derive(Debug, Clone)]
pub struct SearchRequest<'a> {
    /// Texts and images, in any order.
    pub queries: &'a [Query],
    /// Most hits of a query.
    pub top: usize,
    /// Images or texts per forward pass.
    pub batch_size: usize,
}

/// The hits of one query.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Answer {
    /// The query.
    pub query: Query,
    /// The nearest rows, the nearest first.
    pub hits: Vec<Hit>,
}

/// Finds the nearest rows of `index` to each query, in the order of the queries.
///
/// # Errors
/// - [`TrainError::Search`] or [`TrainError::Usage`] when the model has another width than the index, or is not the one
///   that wrote it;
/// - [`TrainError::Usage`] when there is no query, or an image cannot be used;
/// - [`TrainError::Data`] or [`TrainError::Model`] when a query cannot be encoded;
/// - [`TrainError::NotFiniteOutput`] when an embedding is not finite;
/// - [`TrainError::Stopped`] when `stop` is set.
pub fn search(
    loaded: &LoadedModel,
    index: &Index,
    request: &SearchRequest<'_>,
    compute: &Compute,
    stop: &StopFlag,
    observer: &mut dyn Observer,
) -> Result<Vec<Answer>, TrainError> {
    if request.queries.is_empty() {
        return Err(TrainError::Usage("there is nothing to search for; give a text or `--image FILE`".to_owned()));
    }
    check_index(loaded, index)?;
    let dim = loaded.model.embed_dim();
    let (mut texts, mut images) = (Vec::new(), Vec::new());
    for (number, query) in request.queries.iter().enumerate() {
        match query {
            Query::Text(text) => texts.push((number, text.as_str())),
            Query::Image(path) => images.push((number, ImageRef::File(path.clone()))),
        }
    }
    let mut embeds = vec![0.0; request.queries.len() * dim];
    let mut place = |numbers: &[usize], rows: &[f32]| {
        for (number, row) in numbers.iter().zip(rows.chunks_exact(dim)) {
            embeds[number * dim..][..dim].copy_from_slice(row);
        }
    };
    with_encoder(loaded, compute, stop, request.batch_size, |encoder| {
        if !texts.is_empty() {
            let (numbers, texts): (Vec<usize>, Vec<&str>) = texts.into_iter().unzip();
            place(&numbers, &encoder.texts(&texts, |_| ())?.features);
            encoder.report_cut("text", observer);
        }
        if !images.is_empty() {
            let (numbers, images): (Vec<usize>, Vec<ImageRef>) = images.into_iter().unzip();
            let (_, found, bad) = encoder.images(Arc::new(images), &loaded.processor, |_| ())?;
            if let Some(bad) = bad.first() {
                return Err(TrainError::Usage(format!(
                    "`{}` cannot be searched for: {}; name another image",
                    bad.key, bad.reason
                )));
            }
            place(&numbers, &found.features);
        }
        Ok(())
    })?;
    let hits = index.search(&embeds, dim, request.top).map_err(|error| match error {
        SearchError::Query { number, problem } => TrainError::Usage(format!(
            "the embedding of query {number} {problem}, so nothing is similar to it; use another model"
        )),
        error => error.into(),
    })?;
    let answers = request.queries.iter().zip(hits);
    Ok(answers.map(|(query, hits)| Answer { query: query.clone(), hits }).collect())
}

/// Refuses a model that did not write the embeddings of `index`, as far as the file says which one did.
///
/// # Errors
/// [`TrainError::Search`] or [`TrainError::Usage`] when the model has another width than the index, or is not the one
/// that wrote it;
/// [`TrainError::Model`] when the device cannot return its data.
pub(crate) fn check_index(loaded: &LoadedModel, index: &Index) -> Result<(), TrainError> {
    index.check_width(loaded.model.embed_dim()).map_err(|error| of_other_width(error, loaded.truncated_from))?;
    if index.has_model() {
        index.check_model(&parameters::fingerprint(&loaded.model, ParamFilter::All)?)?;
    }
    Ok(())
}

/// Says how a model finds rows of other width, where `--dim` may be the reason. `whole`: the width of the model, if its
/// embeddings are cut.
fn of_other_width(error: SearchError, whole: Option<usize>) -> TrainError {
    match (error, whole) {
        (SearchError::Width { path, rows, query }, Some(whole)) => TrainError::Usage(format!(
            "`{}` has embeddings of {rows} values, but `--dim` cuts those of the model to {query}; {}",
            path.display(),
            match rows {
                _ if rows == whole => format!("leave it out, or embed again with `--dim {query}`"),
                _ if rows < whole => format!("give the same as when they were written, `--dim {rows}`"),
                _ => "take the model that wrote them, or embed again with this one".to_owned(),
            }
        )),
        (SearchError::Width { path, rows, query }, None) if rows < query => TrainError::Usage(format!(
            "`{}` has embeddings of {rows} values, but those of the model have {query}; if this model wrote them with \
             `--dim {rows}`, give that again, else take the model that wrote them, or embed again with this one",
            path.display()
        )),
        (error, _) => error.into(),
    }
}

/// Writes the embeddings of an opened file as an index to `out`, which is replaced when the index is complete.
///
/// # Errors
/// [`TrainError::Write`]; [`TrainError::Usage`] when `out` is a directory or in none.
pub fn write_index(index: &Index, out: &Path) -> Result<(), TrainError> {
    let staged = StagedFile::new(out)?;
    index.write(&mut staged.file()).map_err(TrainError::write(out))?;
    staged.commit()
}
