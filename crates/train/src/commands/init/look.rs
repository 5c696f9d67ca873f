//! Which data to train on, and what to evaluate on.

use std::path::Path;

use dualenc_data::{ImageRef, is_image_name, is_tar};
use toml::Value;

use crate::commands::init::candidate::Candidate;
use crate::commands::init::folder::look_into;
use crate::commands::init::found::Found;
use crate::commands::init::request::{FLAGS, InitColumns};
use crate::commands::init::shards::ShardSets;
use crate::commands::init::split::Split;
use crate::commands::init::survey::Survey;
use crate::error::TrainError;

/// Looks at `path`: a file, a folder, or a pattern of shards. In a folder, the first of these is taken: tables, those
/// named `train` first; shards; class folders; the folder `train`; images. Each must be readable.
///
/// # Errors
/// [`TrainError::Usage`] with what is there when nothing can be trained on.
pub(crate) fn look(path: &Path, columns: &InitColumns) -> Result<Found, TrainError> {
    let path = std::path::absolute(path).map_err(TrainError::read(path))?;
    if !path.exists() && !is_pattern(&path) {
        return Err(TrainError::Usage(format!("`{}` does not exist", path.display())));
    }
    let mut refused = Vec::new();
    let mut found = match path.is_dir() {
        true => look_into(&path, columns, &mut refused)?,
        false => look_at_file(&path, columns).map_err(|error| FLAGS.translate_error(error))?,
    };
    if columns.is_given() && !found.train.is_table() && !refused.is_empty() {
        return Err(TrainError::Usage(from_here(&format!(
            "`--image` and `--caption` name columns of a table, but no table here can be read with them; correct them, \
             or name the table by itself (`dualenc init FILE`):\n  {}",
            refused.join("\n  ")
        ))));
    }
    if columns.is_given() && !found.train.is_table() {
        return Err(TrainError::Usage(format!(
            "`--image` and `--caption` name columns of a table (csv, tsv, jsonl, json, parquet), but there is no table \
             to train on: found {} ({}); remove them, or name the table by itself (`dualenc init FILE`)",
            found.train.describe(),
            found.train.what
        )));
    }
    refuse_other_content(columns, &found.train)?;
    let mut lines = vec![format!("to train on: {}", found.train.describe())];
    lines.extend(found.validation.iter().map(|other| format!("to evaluate on: {}", other.describe())));
    lines.extend(found.classes.iter().map(|folder| format!("to classify: `{}`, class folders", folder.display())));
    lines.extend(found.unused.iter().map(|other| format!("not used: {other}")));
    lines.extend(refused.iter().map(|refused| format!("cannot be used: {refused}")));
    lines.append(&mut found.lines);
    lines.extend(remarks(&found.train)?);
    found.lines = lines.iter().map(|line| from_here(line)).collect();
    Ok(found)
}

/// Captions, or images, that are looked at.
const LOOKED_AT: usize = 100;

/// Refuses named columns that hold something else: texts as images, or names of images as captions.
fn refuse_other_content(columns: &InitColumns, train: &Candidate) -> Result<(), TrainError> {
    let dataset = &train.dataset;
    let (Some(_), Some(first)) = (dataset.images().next(), dataset.captions().next()) else { return Ok(()) };
    let path = train.keys.get("path").and_then(Value::as_str).unwrap_or(&train.what);
    // What is found without names.
    let other = |key: &str, named: &str| {
        let found = Candidate::recognised(Path::new(path), &InitColumns::default()).ok()?;
        found.keys.get(key)?.as_str().filter(|found| *found != named).map(str::to_owned)
    };
    let refuse = |key: &str, named: &str, holds: &str, expected: &str| {
        let instead = match other(key, named) {
            Some(found) => format!("; did you mean `--{key} {found}`?"),
            None => format!("; name another column with `--{key}`"),
        };
        Err(TrainError::Usage(from_here(&format!("`{path}`: `--{key} {named}` {holds}; expected {expected}{instead}"))))
    };
    if let (Some(image), Some(caption)) = (&columns.image, &columns.caption)
        && image == caption
    {
        return refuse("caption", caption, "is the column of `--image`, too", "a column of captions");
    }
    let is_text = |image: ImageRef| matches!(image, ImageRef::File(path) if !is_image_name(&path));
    // Images that are somewhere else may have names without an extension, but hardly names of several words.
    let has_words = || (0..dataset.num_images()).take(LOOKED_AT).any(|at| dataset.relative_key(at).contains(' '));
    if let Some(image) = &columns.image
        && dataset.images().all(is_text)
        && dataset.missing_files(0)?.count == dataset.num_images()
        && (has_words() || other("image", image).is_some())
    {
        let holds = format!("holds no images: there is no file `{}`", dataset.relative_key(0));
        return refuse("image", image, &holds, "paths of images");
    }
    let mut captions = dataset.captions().take(LOOKED_AT);
    if let Some(caption) = &columns.caption
        && captions.all(|caption| is_image_name(Path::new(caption.text)))
    {
        let holds = format!("holds names of images, such as `{}`", first.text);
        return refuse("caption", caption, &holds, "captions");
    }
    Ok(())
}

/// Paths below the current directory as the user would write them.
fn from_here(line: &str) -> String {
    let here = std::env::current_dir().map(|here| format!("`{}/", here.display()));
    here.map_or_else(|_| line.to_owned(), |here| line.replace(&here, "`"))
}

/// What the user should know about the training data.
fn remarks(train: &Candidate) -> Result<Vec<String>, TrainError> {
    let dataset = &train.dataset;
    let mut lines = dataset.notes.clone();
    lines.extend(train.remarks());
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

fn look_at_file(path: &Path, columns: &InitColumns) -> Result<Found, TrainError> {
    let mut found = Found::of(Candidate::recognised(path, columns)?);
    found.other_splits();
    let is_train = Split::of_file(path) == Some(Split::Train) && found.validation.is_none();
    let Some(dir) = path.parent().filter(|dir| is_train && dir.is_dir()) else { return Ok(found) };
    let Survey { tables, shards, .. } = Survey::of(dir)?;
    if is_tar(path) {
        if let Some(sets) = ShardSets::of(&shards) {
            found.validation = sets.validation.and_then(|shards| Candidate::shards(shards).ok());
        }
    } else if !is_pattern(path) {
        let other = |split: Split| Candidate::recognised(split.beside(path, &tables)?, columns).ok();
        found.validation = other(Split::Validation);
        found.unused.extend(other(Split::Test).map(|test| test.describe()));
    }
    Ok(found)
}
