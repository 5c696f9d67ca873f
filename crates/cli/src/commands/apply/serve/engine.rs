//! A model and an index, as the server wants them.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use dualenc_data::{Limits, parse_template};
use dualenc_serve::{Classified, Engine, EngineError, IndexInfo, Picture, Query, Served};
use dualenc_train::{Answering, ErrorKind, Index, TrainError};
use serde_json::{Value, json};

use crate::commands::apply::search::on_one_line;
use crate::commands::apply::serve::pictures::Pictures;
use crate::report::notice;

/// Answers with a model, and with an index if there is one.
pub struct ModelEngine {
    pub served: Served,
    /// Only the thread of the model takes it.
    pub model: Mutex<Answering>,
    pub index: Option<Arc<Index>>,
    /// Where relative paths of the index start.
    pub root: PathBuf,
    /// Limits of the pictures.
    pub limits: Limits,
}

impl ModelEngine {
    fn model(&self) -> MutexGuard<'_, Answering> {
        // A panic while it was locked leaves a model that is only read.
        self.model.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What the server can show of an index.
pub fn index_info(index: &Index, pictures: &Pictures) -> IndexInfo {
    IndexInfo { rows: index.rows(), has_pictures: pictures.can_be_shown() }
}

/// Says once that a request had texts that are longer than the model reads.
fn report_cut(model: &Answering) {
    if let Some(note) = model.note_of_cut() {
        notice::write(&on_one_line(&note));
    }
}

fn failed(error: TrainError) -> EngineError {
    match error.kind() {
        ErrorKind::Input => EngineError::Unusable(error.to_string()),
        _ => EngineError::Failed(error.to_string()),
    }
}

fn rows(values: &[f32], dim: usize) -> Vec<Vec<f32>> {
    values.chunks_exact(dim).map(<[f32]>::to_vec).collect()
}

impl Engine for ModelEngine {
    fn served(&self) -> Served {
        self.served.clone()
    }

    fn embed_texts(&self, texts: &[String]) -> Result<Vec<Vec<f32>>, EngineError> {
        let model = self.model();
        let found = model.texts(texts).map_err(failed)?;
        report_cut(&model);
        Ok(rows(&found.into_normalized(), self.served.dim))
    }

    fn embed_images(&self, images: &[Vec<u8>]) -> Result<Vec<Vec<f32>>, EngineError> {
        let found = self.model().images(images).map_err(failed)?;
        Ok(rows(&found.into_normalized(), self.served.dim))
    }

    fn classify(
        &self,
        images: &[Vec<u8>],
        labels: &[String],
        templates: &[String],
        top: usize,
    ) -> Result<Classified, EngineError> {
        let templates = templates.iter().map(|template| parse_template(template)).collect::<Result<Vec<_>, _>>();
        let templates = templates.map_err(EngineError::Unusable)?;
        let mut model = self.model();
        let found = model.classify(images, labels, &templates, top).map_err(failed)?;
        report_cut(&model);
        Ok(Classified(found.into_iter().map(|labels| json!(labels)).collect()))
    }

    fn search(&self, query: &Query, top: usize) -> Result<Vec<Value>, EngineError> {
        let model = self.model();
        let query = match query {
            Query::Text(text) => model.texts(std::slice::from_ref(text)),
            Query::Image(image) => model.images(std::slice::from_ref(image)),
        };
        report_cut(&model);
        let hits = model.nearest(&query.map_err(failed)?, top).map_err(failed)?;
        Ok(hits.iter().map(|hit| json!(hit)).collect())
    }

    fn picture(&self, row: usize) -> Result<Picture, EngineError> {
        let Some(path) = self.index.as_ref().and_then(|index| index.image_path(row)) else {
            return Err(EngineError::Absent(format!("the index has no image in row {row}")));
        };
        let bytes = dualenc_train::small_picture(&self.root.join(path), &self.limits)
            .map_err(|error| EngineError::Absent(error.to_string()))?;
        Ok(Picture { media_type: "image/jpeg", bytes })
    }
}
