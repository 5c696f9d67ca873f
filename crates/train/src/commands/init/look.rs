//! Which data to train on, and what to evaluate on.

use std::path::{Path, PathBuf};

use dualenc_data::{image_files, is_side_file};

use crate::commands::init::candidate::Candidate;
use crate::commands::init::survey::{Survey, has_classes, images_below, is_train, is_validation, validation_of};
use crate::error::TrainError;

/// What was found.
#[derive(Debug)]
pub(crate) struct Found {
    pub train: Candidate,
    /// Pairs that the training data do not have.
    pub validation: Option<Candidate>,
    /// A folder with one folder per class that the training data do not have.
    pub classes: Option<PathBuf>,
    /// What could be trained on too, in words.
    pub alternatives: Vec<String>,
    /// All of this in words.
    pub lines: Vec<String>,
}

/// Looks at `path`: a file, a folder, or a pattern of shards. In a folder, the first of these is taken: the folder
/// `train`; tables, those named `train` first; shards; class folders; images. Each must be readable.
///
/// # Errors
/// [`TrainError::Usage`] with what is there when nothing can be trained on.
pub(crate) fn look(path: &Path) -> Result<Found, TrainError> {
    let path = std::path::absolute(path).map_err(TrainError::read(path))?;
    if !path.exists() && !is_pattern(&path) {
        return Err(TrainError::Usage(format!("`{}` does not exist", path.display())));
    }
    let mut refused = Vec::new();
    let mut found = if path.is_dir() { look_into(&path, &mut refused)? } else { look_at_file(&path)? };
    if let Some(other) = &found.validation {
        found.lines.push(format!("to evaluate on: {}", other.describe()));
    }
    if let Some(classes) = &found.classes {
        found.lines.push(format!("to classify: `{}`, class folders", classes.display()));
    }
    let others = found.alternatives.iter().map(|other| format!("not used: {other}"));
    found.lines.extend(others.chain(refused.iter().map(|refused| format!("cannot be used: {refused}"))));
    found.lines.insert(0, format!("to train on: {}", found.train.describe()));
    found.lines.extend(remarks(&found.train)?);
    Ok(found)
}

/// What the user should know about the training data.
fn remarks(train: &Candidate) -> Result<Vec<String>, TrainError> {
    let dataset = &train.dataset;
    let mut lines = dataset.notes.clone();
    lines.extend(dataset.warnings.iter().map(|warning| format!("warning: {warning}")));
    if dataset.skipped.count > 0 {
        lines.push(format!("warning: rows that cannot be used: {}", dataset.skipped.by_cause()));
    }
    let missing = dataset.missing_files(1)?;
    if let Some(first) = missing.first.first() {
        let (count, all) = (missing.count, dataset.num_images());
        lines.push(format!("warning: {count} of {all} image files are missing, such as `{}`", first.display()));
    }
    Ok(lines)
}

/// Whether `path` is a pattern of shards.
fn is_pattern(path: &Path) -> bool {
    path.to_string_lossy().contains(['*', '?', '{', '[']) && !path.exists()
}

fn look_at_file(path: &Path) -> Result<Found, TrainError> {
    let is_pattern = is_pattern(path);
    let train = Candidate::recognised(path)?;
    let mut validation = Candidate::validation_split(path);
    if validation.is_some() {
        // It is in the same file.
    } else if let Some(dir) = path.parent().filter(|dir| dir.is_dir() && is_train(path) && !is_pattern) {
        let tables = Survey::of(dir)?.tables;
        validation = validation_of(path, &tables).and_then(|path| Candidate::recognised(path).ok());
    }
    Ok(Found { train, validation, classes: None, alternatives: Vec::new(), lines: Vec::new() })
}

/// `refused` receives what looks like data and cannot be read, with the reason.
fn look_into(dir: &Path, refused: &mut Vec<String>) -> Result<Found, TrainError> {
    let survey = Survey::of(dir)?;
    let mut candidates: Vec<Candidate> = Vec::new();
    let mut validation = None;
    // Tables first: where there is one, it says what the captions of the images are.
    let mut tables = survey.tables.clone();
    tables.sort_by_key(|table| (!is_train(table), is_validation(table), table.clone()));
    for table in &tables {
        if is_text(table) || is_side_file(table) {
            continue;
        }
        candidates.extend(consider(Candidate::recognised(table), table, refused));
    }
    let first = tables.iter().find(|table| candidates.first().is_some_and(|it| has_path(it, table)));
    if let Some(split) = first.and_then(|table| Candidate::validation_split(table)) {
        validation = Some(split);
    } else if let Some(other) = first.and_then(|table| validation_of(table, &survey.tables)) {
        validation = candidates.iter().find(|candidate| has_path(candidate, other)).cloned();
    }
    if candidates.is_empty() && !survey.shards.is_empty() {
        candidates.extend(consider(Candidate::shards(dir), dir, refused));
    }
    if candidates.is_empty() {
        candidates.extend(captions_in_text(&survey));
    }
    if candidates.is_empty()
        && let Some(found) = look_into_annotations(&survey, refused)
    {
        return Ok(found);
    }
    // The layout of the `datasets` library.
    if let (true, Some(data)) = (candidates.is_empty(), survey.data_folder()?) {
        return look_into(&data, refused);
    }
    if candidates.is_empty() {
        match (survey.split_folder(true), survey.split_folder(false)) {
            (Some(train), other) => {
                let mut found = look_into(train, refused)?;
                if let (None, Some(other)) = (&found.validation, other) {
                    // The classes of a labelled split serve to classify.
                    match look_into(other, refused) {
                        Ok(split) if split.train.has_classes => found.classes = Some(other.clone()),
                        Ok(split) => found.validation = Some(split.train),
                        Err(error) => found.lines.push(format!("not used: {error}")),
                    }
                }
                return Ok(found);
            }
            _ if has_classes(dir)? => candidates.extend(consider(Candidate::classes(dir), dir, refused)),
            _ if !images_below(dir)?.is_empty() => {
                candidates.extend(consider(Candidate::recognised(dir), dir, refused))
            }
            _ => {}
        }
        // The captions are in what cannot be read: names such as `IMG 0001` are no substitute.
        if !refused.is_empty() && candidates.first().is_some_and(Candidate::has_captions_from_names) {
            return Err(unread(dir, refused));
        }
    }
    let mut candidates = candidates.into_iter();
    let Some(train) = candidates.next() else { return Err(nothing(dir, &survey, refused)) };
    let mut classes = None;
    for folder in survey.folders.iter().filter(|folder| !train.is_below(folder)) {
        if classes.is_none() && has_classes(folder)? {
            classes = Some(folder.clone());
        }
    }
    let is_other = |candidate: &Candidate| {
        validation.as_ref().is_none_or(|validation| validation.keys.get("path") != candidate.keys.get("path"))
    };
    let alternatives = candidates.filter(is_other).map(|other| other.describe()).collect();
    Ok(Found { train, validation, classes, alternatives, lines: Vec::new() })
}

/// A candidate, unless it cannot be read: then `refused` receives the reason.
fn consider(found: Result<Candidate, TrainError>, path: &Path, refused: &mut Vec<String>) -> Option<Candidate> {
    let tell = |error: TrainError| {
        let (name, text) = (format!("`{}`", path.display()), error.to_string());
        refused.push(if text.contains(&name) { text } else { format!("{name}: {text}") });
    };
    found.map_err(tell).ok()
}

/// A text file that lists images and captions, as `Flickr8k.token.txt` and Kaggle's `captions.txt` do.
fn captions_in_text(survey: &Survey) -> Option<Candidate> {
    survey.tables.iter().filter(|path| is_text(path)).find_map(|path| {
        let candidate = Candidate::recognised(path).ok()?;
        let missing = candidate.dataset.missing_files(0).ok()?.count;
        (missing * 2 < candidate.dataset.num_images()).then_some(candidate)
    })
}

/// What the folder `annotations` beside the images lists, as in COCO.
fn look_into_annotations(survey: &Survey, refused: &mut Vec<String>) -> Option<Found> {
    let folder = survey.folders.iter().find(|folder| folder.ends_with("annotations"))?;
    let found = look_into(folder, &mut Vec::new());
    match found {
        Ok(found) if !found.train.has_captions_from_names() => Some(found),
        Ok(_) => None,
        Err(error) => {
            refused.push(format!("`{}`: {error}", folder.display()));
            None
        }
    }
}

/// The error that a folder has images, and captions that cannot be read.
fn unread(dir: &Path, refused: &[String]) -> TrainError {
    TrainError::Usage(format!(
        "`{}` has images, and data that cannot be read; correct it, name it by itself (`dualenc init FILE`), or move \
         it away if the names of the images are their captions:\n  {}",
        dir.display(),
        refused.join("\n  ")
    ))
}

fn is_text(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("txt"))
}

fn has_path(candidate: &Candidate, path: &Path) -> bool {
    candidate.keys.get("path").and_then(toml::Value::as_str).is_some_and(|it| Path::new(it) == path)
}

fn nothing(dir: &Path, survey: &Survey, refused: &[String]) -> TrainError {
    let mut text = format!(
        "`{}` holds nothing to train on: found {}; expected a table of images and captions (csv, tsv, jsonl, json, \
         parquet), tar shards, a folder of images with captions beside them or in their names, or one folder per class",
        dir.display(),
        survey.describe()
    );
    let way_out = image_files(dir).ok().and_then(|found| found.left_out.way_out());
    for line in refused.iter().chain(&way_out) {
        text.push_str(&format!("\n  {line}"));
    }
    TrainError::Usage(text)
}
