//! What a folder has to train on.

use std::path::{Path, PathBuf};

use dualenc_data::{OneOrMany, image_files, without_side_files};

use crate::commands::init::candidate::Candidate;
use crate::commands::init::found::Found;
use crate::commands::init::request::{FLAGS, InitColumns};
use crate::commands::init::shards::ShardSets;
use crate::commands::init::split::Split;
use crate::commands::init::survey::{Survey, has_classes, images_below};
use crate::error::TrainError;

/// `columns`: of tables. `refused` receives what looks like data and cannot be read, with the reason.
///
/// # Errors
/// [`TrainError::Usage`] with what is there when nothing can be trained on.
pub(crate) fn look_into(dir: &Path, columns: &InitColumns, refused: &mut Vec<String>) -> Result<Found, TrainError> {
    let survey = Survey::of(dir)?;
    // Tables first: where there is one, it says what the captions of the images are.
    let mut found = look_at_tables(&survey, columns, refused);
    if found.is_none() && !survey.shards.is_empty() {
        found = look_at_shards(dir, &survey, refused);
    }
    if found.is_none() {
        found = captions_in_text(&survey, columns).map(Found::of);
    }
    if found.is_none()
        && let Some(found) = look_into_annotations(&survey, columns, refused)
    {
        return Ok(found);
    }
    // The layout of the `datasets` library.
    if let (true, Some(data)) = (found.is_none(), survey.data_folder()?) {
        return look_into(&data, columns, refused);
    }
    if found.is_none() {
        if has_classes(dir)? {
            found = consider(Candidate::classes(dir), dir, refused).map(Found::of);
        } else if let Some(found) = look_into_splits(&survey, columns, refused)? {
            return Ok(found);
        } else if let Some(folder) = survey.only_folder(dir)? {
            return look_into_only((folder, dir), &survey, columns, refused);
        } else if !images_below(dir)?.is_empty() {
            found = consider(Candidate::recognised(dir, columns), dir, refused).map(Found::of);
            let splits: Vec<String> = survey.split_folders().iter().map(|it| format!("`{}`", it.display())).collect();
            if let (Some(found), false) = (&mut found, splits.is_empty()) {
                let named = splits.join(", ");
                found.lines.push(format!("warning: all images are trained on, also those of {named}"));
            }
        }
        // The captions are in what cannot be read: names such as `IMG 0001` are no substitute.
        if !refused.is_empty() && found.as_ref().is_some_and(|found| found.train.has_captions_from_names()) {
            return Err(unread(dir, refused));
        }
    }
    let Some(mut found) = found else { return Err(nothing(dir, &survey, refused)) };
    for folder in survey.folders.iter().filter(|folder| !found.train.is_below(folder)) {
        if !has_classes(folder)? {
            continue;
        }
        if found.classes.is_none() {
            found.classes = Some(folder.clone());
        } else {
            let folder = folder.display();
            found
                .unused
                .push(format!("`{folder}`, class folders too: `images` of an `[eval.NAME]` of its own names it"));
        }
    }
    Ok(found)
}

/// The tables in a folder: the first is trained on, those named `train` before others and other splits last.
fn look_at_tables(survey: &Survey, columns: &InitColumns, refused: &mut Vec<String>) -> Option<Found> {
    let tables = without_side_files(survey.tables.iter().filter(|table| !is_text(table)).cloned().collect());
    let mut tables: Vec<&PathBuf> = tables.iter().collect();
    tables.sort_by_key(|table| match Split::of_file(table) {
        Some(Split::Train) => 0,
        None => 1,
        Some(Split::Validation | Split::Test) => 2,
    });
    let mut candidates = Vec::new();
    for table in tables {
        let found = Candidate::recognised(table, columns);
        if found.is_ok() || !is_own(table) {
            candidates.extend(consider(found, table, refused).map(|found| (table, found)));
        }
    }
    let mut candidates = candidates.into_iter();
    let (table, train) = candidates.next()?;
    let mut found = Found::of(train);
    found.other_splits();
    let beside = Split::Validation.beside(table, &survey.tables).filter(|_| found.validation.is_none());
    for (_, candidate) in candidates {
        if beside.is_some_and(|path| candidate.has_path(path)) {
            found.validation = Some(candidate);
        } else {
            found.unused.push(candidate.describe());
        }
    }
    Some(found)
}

/// The shards in a folder, those of other splits apart.
fn look_at_shards(dir: &Path, survey: &Survey, refused: &mut Vec<String>) -> Option<Found> {
    let mut read = |path: OneOrMany<PathBuf>| {
        let shown = path.0.first().cloned().unwrap_or_default();
        consider(Candidate::shards(path), &shown, refused)
    };
    let Some(sets) = ShardSets::of(&survey.shards) else {
        return read(dir.to_owned().into()).map(Found::of);
    };
    let mut found = Found::of(read(sets.train)?);
    found.validation = sets.validation.and_then(&mut read);
    found.unused.extend(sets.unused.into_iter().filter_map(read).map(|other| other.describe()));
    Some(found)
}

/// The folder `train`, and those of the other splits beside it.
fn look_into_splits(
    survey: &Survey,
    columns: &InitColumns,
    refused: &mut Vec<String>,
) -> Result<Option<Found>, TrainError> {
    let Some(train) = survey.split_folder(Split::Train) else { return Ok(None) };
    let mut found = look_into(train, columns, refused)?;
    if let (None, Some(other)) = (&found.validation, survey.split_folder(Split::Validation)) {
        // The classes of a labelled split serve to classify.
        match look_into(other, columns, &mut Vec::new()) {
            Ok(split) if split.train.has_classes => found.classes = Some(other.clone()),
            Ok(split) => found.validation = Some(split.train),
            Err(error) => found.unused.push(error.to_string()),
        }
    }
    if let Some(test) = survey.split_folder(Split::Test) {
        let test_data = look_into(test, columns, &mut Vec::new()).map(|found| found.train.describe());
        found.unused.push(test_data.unwrap_or_else(|_| format!("`{}`, without captions", test.display())));
    }
    Ok(Some(found))
}

/// The one folder with data. Captions in another folder are not read: a warning or the error says so.
fn look_into_only(
    (folder, dir): (&Path, &Path),
    survey: &Survey,
    columns: &InitColumns,
    refused: &mut Vec<String>,
) -> Result<Found, TrainError> {
    let has_unread = !refused.is_empty();
    let mut elsewhere = None;
    for other in survey.folders.iter().filter(|other| *other != folder) {
        let texts = Survey::of(other)?.extensions;
        if ["txt", "json", "caption"].iter().any(|extension| texts.contains_key(*extension)) {
            elsewhere.get_or_insert(format!(
                "`{}` has text files that are not read: move captions beside their images, into `{}`",
                other.display(),
                folder.display()
            ));
        }
    }
    match (look_into(folder, columns, refused), elsewhere) {
        (Ok(mut found), Some(elsewhere)) if found.train.has_captions_from_names() => {
            found.lines.push(format!("warning: {elsewhere}"));
            Ok(found)
        }
        // The captions are in what cannot be read, beside the folder of the images.
        (Err(TrainError::Usage(_)), _) if has_unread => Err(unread(dir, refused)),
        (Err(TrainError::Usage(text)), Some(elsewhere)) => Err(TrainError::Usage(format!("{text}\n  {elsewhere}"))),
        (found, _) => found,
    }
}

/// A candidate, unless it cannot be read: then `refused` receives the reason.
fn consider(found: Result<Candidate, TrainError>, path: &Path, refused: &mut Vec<String>) -> Option<Candidate> {
    let tell = |error: TrainError| {
        let (name, text) = (format!("`{}`", path.display()), FLAGS.translate(&error.to_string()));
        refused.push(if text.contains(&name) { text } else { format!("{name}: {text}") });
    };
    found.map_err(tell).ok()
}

/// A text file that lists images and captions, as `Flickr8k.token.txt` and Kaggle's `captions.txt` do.
fn captions_in_text(survey: &Survey, columns: &InitColumns) -> Option<Candidate> {
    survey.tables.iter().filter(|path| is_text(path)).find_map(|path| {
        let candidate = Candidate::recognised(path, columns).ok()?;
        let missing = candidate.dataset.missing_files(0).ok()?.count;
        (missing * 2 < candidate.dataset.num_images()).then_some(candidate)
    })
}

/// What the folder `annotations` beside the images lists, as in COCO.
fn look_into_annotations(survey: &Survey, columns: &InitColumns, refused: &mut Vec<String>) -> Option<Found> {
    let folder = survey.folders.iter().find(|folder| folder.ends_with("annotations"))?;
    let found = look_into(folder, columns, &mut Vec::new());
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

/// Whether a file has a name that `dualenc data pack` gives to what it writes beside data.
fn is_own(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name == "pack.json" || name == "bad_samples.jsonl")
}

fn is_text(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("txt"))
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

#[cfg(test)]
mod tests {
    use std::fs::{create_dir_all, write};

    use super::*;

    /// What is found in a folder with these files, and what is refused.
    fn look(files: &[(&str, &str)]) -> (Result<Found, String>, Vec<String>) {
        let dir = tempfile::tempdir().unwrap();
        for (name, content) in files {
            let path = dir.path().join(name);
            create_dir_all(path.parent().unwrap()).unwrap();
            write(path, content).unwrap();
        }
        let mut refused = Vec::new();
        let found = look_into(dir.path(), &InitColumns::default(), &mut refused);
        let shown = dir.path().display().to_string();
        (found.map_err(|error| error.to_string().replace(&shown, "DIR")), refused)
    }

    #[test]
    fn files_of_pack_are_no_data() {
        let table = ("pairs.csv", "image,caption\n1.png,x\n");
        let own = [("pack.json", r#"{"chunks": [{"name": "a", "first_image": 0}], "complete": true, "images": 1234}"#)];
        let (found, refused) =
            look(&[&[("1.png", ""), table][..], &own, &[("bad_samples.jsonl", "{\"row\": 1}")]].concat());
        assert!(found.is_ok_and(|found| found.train.format == "csv" && found.unused.is_empty()) && refused.is_empty());
    }

    #[test]
    fn captions_without_image_are_counted() {
        let about = |caption: &str| {
            format!("{{\"caption\": \"{caption}\", \"url\": \"u\", \"key\": \"0\", \"width\": 128, \"height\": 128}}")
        };
        let about = ["a cat", "a dog", "a bird"].map(about);
        let files = [
            ("00000/0.png", ""),
            ("00000/0.txt", "a cat"),
            ("00000/0.json", &about[0]),
            ("00000/1.png", ""),
            ("00000/1.txt", "a dog"),
            ("00000/1.json", &about[1]),
            ("00000/2.txt", "a bird"),
            ("00000/2.json", &about[2]),
        ];
        let (found, refused) = look(&files);
        let train = found.unwrap().train;
        assert_eq!((train.format.as_str(), train.dataset.num_images(), refused), ("folder", 2, Vec::new()));
        assert_eq!(train.dataset.skipped.by_cause(), "no image (1)");
        assert!(!train.keys.contains_key("captions_from"), "{:?}", train.keys);
    }

    #[test]
    fn unread_table_beside_images_is_named() {
        let table = ("t.csv", "Foto;Beschreibung;Preis\nbilder/1.png;x;1\nbilder/2.png;y;2\n");
        let (found, _) = look(&[("bilder/1.png", ""), ("bilder/2.png", ""), table]);
        let error = found.unwrap_err();
        assert!(error.contains("`DIR` has images, and data that cannot be read") && error.contains("t.csv"), "{error}");
    }
}
