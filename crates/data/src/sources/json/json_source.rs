//! JSON in any of its forms.

use std::io::BufRead;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::dataset::Dataset;
use crate::dataset::selection::Selection;
use crate::dataset::skipped_rows::BadRows;
use crate::error::DataError;
use crate::sources::json::coco_file::read_coco;
use crate::sources::json::form::Form;
use crate::sources::json::items::{Place, Stop, for_each};
use crate::sources::json::objects::{Keys, Objects, brief, texts};
use crate::sources::json::shape::Shape;
use crate::sources::one_or_many::OneOrMany;
use crate::sources::rows::Rows;
use crate::sources::split_column::{SPLIT, Splits};
use crate::sources::tables::columns::repeated;
use crate::sources::tables::text_file::{TextEncoding, TextFile, row_not_utf8};

/// What a usable file holds.
const EXPECTED: &str = "objects with an image and captions, such as {\"image\": \"a.jpg\", \"caption\": \"a cat\"}";

/// What was read.
pub(crate) struct Read {
    /// Where image and captions come from.
    pub(crate) origin: String,
    /// The keys of captions; none if the form has no such keys, or no object was read.
    pub(crate) keys: Vec<String>,
    /// What to say of other keys that look like captions.
    pub(crate) also: String,
}

/// `[data.train.json]`: a list of objects, an object with such a list or with columns, COCO captions, a Karpathy split,
/// or one object per line.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct JsonSource {
    /// The file.
    pub path: PathBuf,
    /// Key of the image path. Default: `image`, or else the one key with another usual name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// Key of the caption or captions. Default: `caption`, or else the one key with another usual name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub caption: Option<String>,
    /// Keys of several captions, in place of `caption`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub captions: Option<Vec<String>>,
    /// Directory that image paths are relative to. Default: the directory of the file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub root: Option<PathBuf>,
    /// The splits to read: a list, or separated by `+`, such as `train+restval`. Default: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub split: Option<OneOrMany<String>>,
    /// Encoding of the characters. Default: UTF-8 or UTF-16, by looking.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub encoding: Option<TextEncoding>,
    /// What to do with a malformed object. Default `error`.
    #[serde(default)]
    pub bad_rows: BadRows,
}

impl JsonSource {
    /// The file `path`; everything else is found by looking.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            image: None,
            caption: None,
            captions: None,
            root: None,
            split: None,
            encoding: None,
            bad_rows: BadRows::default(),
        }
    }

    /// Resolves relative paths against `base`.
    pub fn resolve(&mut self, base: &Path) {
        self.path = base.join(&self.path);
        self.root = self.root.take().map(|root| base.join(root));
    }

    /// Reads the file.
    ///
    /// # Errors
    /// [`DataError::Malformed`] for another form, [`DataError::Row`] for a malformed object unless they are skipped,
    /// [`DataError::Empty`] without a usable object, [`DataError::Read`].
    pub fn read(&self) -> Result<Dataset, DataError> {
        self.read_selected(None)
    }

    pub(crate) fn read_selected(&self, selection: Option<Selection>) -> Result<Dataset, DataError> {
        self.read_form(false, selection)
    }

    /// The same file with the keys that were found in the first object, and what the file is, for people. Without such
    /// keys, the result is the file as it is: what is wrong with the object is said when it is read.
    ///
    /// # Errors
    /// As for [`JsonSource::read`], of the form.
    pub(crate) fn look(&self, prefers_lines: bool) -> Result<(Self, String), DataError> {
        let captions = self.captions()?;
        let (form, file) = self.form(prefers_lines, &captions, &self.splits()?)?;
        let described = format!("{}, {}", form.describe(), file.encoding);
        let mut found = self.clone();
        let (image, captions, origin) = match &form {
            Form::Columns { image, captions, .. } => {
                let quoted: Vec<String> = captions.iter().map(|key| format!("`{key}`")).collect();
                let origin = format!("image from `{image}`, caption from {}", quoted.join(" and "));
                (Some(image.clone()), captions.clone(), origin)
            }
            form => match self.first_keys(form, file.reader, captions) {
                Some(keys) => (keys.image().map(str::to_owned), keys.captions().to_vec(), keys.origin()),
                None => return Ok((found, described)),
            },
        };
        found.image = image;
        match &captions[..] {
            [one] if self.captions.is_none() => found.caption = Some(one.clone()),
            _ => found.captions = Some(captions),
        }
        Ok((found, format!("{described}; {origin}")))
    }

    /// The keys of image and captions in the first object.
    fn first_keys(&self, form: &Form, mut reader: impl BufRead, captions: Vec<&str>) -> Option<Keys> {
        let root = self.root.as_deref().or(self.path.parent()).unwrap_or(Path::new(""));
        let objects = Objects::new(self.image.as_deref(), captions, Vec::new());
        let mut first: Option<Value> = None;
        // An error ends the reading.
        let mut take = |_: &str, _: u64, value: Value| {
            first = Some(value);
            Err(DataError::Loader { reason: "one object is enough".to_owned() })
        };
        let ended = match form {
            Form::Lines => {
                let mut line = Vec::new();
                while line.trim_ascii().is_empty() {
                    line.clear();
                    if reader.read_until(b'\n', &mut line).ok()? == 0 {
                        return None;
                    }
                }
                take("", 1, serde_json::from_slice(&line).ok()?).map_err(Stop::Refused)
            }
            Form::Sequence => {
                let value = serde_json::Deserializer::from_reader(reader).into_iter::<Value>().next()?.ok()?;
                take("", 1, value).map_err(Stop::Refused)
            }
            Form::List => for_each(reader, Place::Top, &mut take),
            Form::Under { keys, .. } => {
                let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
                for_each(reader, Place::Under(&keys), &mut take)
            }
            Form::Coco | Form::ByImage | Form::Columns { .. } => return None,
        };
        let (Err(Stop::Refused(_)), Some(Value::Object(object))) = (ended, first) else { return None };
        objects.find_keys(&object, root).ok()
    }

    fn open(&self) -> Result<TextFile, DataError> {
        TextFile::open(&self.path, self.encoding)
    }

    fn malformed(&self, reason: impl Into<String>) -> DataError {
        DataError::Malformed { path: self.path.clone(), reason: reason.into() }
    }

    /// The keys of captions that the user wrote.
    fn captions(&self) -> Result<Vec<&str>, DataError> {
        if let Some(reason) = self.captions.as_deref().and_then(repeated) {
            return Err(self.malformed(reason));
        }
        match (&self.caption, &self.captions) {
            (Some(_), Some(_)) => Err(self.malformed("`caption` and `captions` are both set; remove one")),
            (None, Some(keys)) if keys.is_empty() => {
                Err(self.malformed("`captions` is empty; name the keys of captions"))
            }
            (_, Some(keys)) => Ok(keys.iter().map(String::as_str).collect()),
            (caption, None) => Ok(caption.as_deref().into_iter().collect()),
        }
    }

    fn splits(&self) -> Result<Vec<String>, DataError> {
        Ok(Splits::parse(self.split.as_ref()).map_err(|reason| self.malformed(reason))?.wanted)
    }

    /// The form, and the file anew.
    fn form(&self, prefers_lines: bool, captions: &[&str], splits: &[String]) -> Result<(Form, TextFile), DataError> {
        let file = self.open()?;
        let start = file.head.trim_ascii_start();
        let is_json = matches!(start, [b'[' | b'{', next, ..] if *next != 0);
        // A NUL that is not beside the first character is damage of a row.
        let is_odd = self.encoding.is_some() || matches!(file.head.as_slice(), [_, 0, ..] | [0, ..]);
        if let Some(encoding) = file.other_encoding().filter(|_| is_odd && !is_json) {
            return Err(self.malformed(format!("not JSON: {encoding}")));
        }
        match start.first() {
            None if file.head_is_whole => {
                let found = "an empty file".to_owned();
                return Err(DataError::Empty { path: self.path.clone(), found, expected: EXPECTED });
            }
            Some(b'[' | b'{') => {}
            _ if prefers_lines => return Ok((Form::Lines, file)),
            _ => {
                let start = String::from_utf8_lossy(&file.head[..file.head.len().min(40)]).into_owned();
                return Err(self.malformed(format!("not JSON: it starts with `{}`", start.trim())));
            }
        }
        if let Some(form) = Form::by_head(&file.head, prefers_lines) {
            return Ok((form, file));
        }
        let (shape, is_whole) = Shape::read(file.reader).map_err(|error| self.not_json(&error))?;
        let form = Form::of_object(&shape, is_whole, self.image.as_deref(), captions, splits)
            .map_err(|found| self.malformed(format!("it is {found}")))?;
        Ok((form, self.open()?))
    }

    fn not_json(&self, error: &serde_json::Error) -> DataError {
        if error.io_error_kind().is_some() {
            let source = std::io::Error::other(error.to_string());
            return DataError::Read { path: self.path.clone(), source };
        }
        let encoding = if error.to_string().contains("unicode code point") {
            "; save the file as UTF-8, or set `encoding = \"latin1\"` if it is in Latin-1 or Windows-1252"
        } else {
            ""
        };
        self.malformed(format!("not JSON: {error}{encoding}"))
    }

    /// Reads the file; `prefers_lines`: its name says that it has one object per line.
    pub(crate) fn read_form(&self, prefers_lines: bool, selection: Option<Selection>) -> Result<Dataset, DataError> {
        let mut rows = Rows::new(&self.path, self.root.as_deref(), "item", self.bad_rows, selection);
        let (described, objects) = self.read_rows(prefers_lines, &mut rows, false)?;
        rows.finish(&described, &objects.origin, EXPECTED)
    }

    /// Adds the objects of the file to `rows`. The result is what the file is, and what was read, for the log.
    /// `is_sparse`: see [`Objects`].
    pub(crate) fn read_rows(
        &self,
        prefers_lines: bool,
        rows: &mut Rows<'_>,
        is_sparse: bool,
    ) -> Result<(String, Read), DataError> {
        let (captions, splits) = (self.captions()?, self.splits()?);
        let (form, file) = self.form(prefers_lines, &captions, &splits)?;
        rows.set_unit(match form {
            Form::Lines => "line",
            Form::Coco => "annotation",
            Form::Columns { .. } => "row",
            _ => "item",
        });
        let described = format!("{}, {}", form.describe(), file.encoding);
        // Lists by split are chosen by their keys.
        let is_by_key = matches!(&form, Form::Under { keys, .. } if keys.iter().any(|key| splits.contains(key)));
        let splits = if is_by_key { Vec::new() } else { splits };
        let mut objects = Objects::new(self.image.as_deref(), captions.clone(), splits.clone());
        objects.is_sparse = is_sparse;
        let fixed = |origin: &str| Read { origin: origin.to_owned(), keys: Vec::new(), also: String::new() };
        let reader = file.reader;
        let read = match &form {
            Form::Lines => {
                self.read_lines(reader, &mut objects, rows)?;
                Ok(())
            }
            Form::Sequence => self.read_sequence(reader, &mut objects, rows),
            Form::List => {
                for_each(reader, Place::Top, &mut |_, number, value| push(&mut objects, rows, number, &value))
            }
            Form::Under { keys, unread } => {
                let all: Vec<&str> = keys.iter().chain(unread).map(String::as_str).collect();
                let (mut number, mut left) = (0, vec![0_u64; unread.len()]);
                let read = for_each(reader, Place::Under(&all), &mut |key, _, value| {
                    if let Some(at) = unread.iter().position(|name| name == key) {
                        left[at] += 1;
                        return Ok(());
                    }
                    number += 1;
                    push(&mut objects, rows, number, &value)
                });
                if left.iter().any(|&count| count > 0) {
                    let lists: Vec<String> =
                        unread.iter().zip(left).map(|(key, count)| format!("`{key}` ({count})")).collect();
                    let read = keys.iter().map(|key| format!("`{key}`")).collect::<Vec<_>>().join(" and ");
                    rows.builder.warn(format!(
                        "`{}`: only the list {read} is read; lists of objects that are not: {}; set `split` to the \
                         keys to read, with `+` between them",
                        self.path.file_name().unwrap_or_default().display(),
                        lists.join(", ")
                    ));
                }
                read
            }
            Form::Coco => {
                if !splits.is_empty() || !captions.is_empty() || self.image.is_some() {
                    return Err(self.malformed(
                        "it is COCO captions, which have fixed keys: remove `image`, `caption`, `captions` and `split`",
                    ));
                }
                let counts = read_coco(reader, rows)?.map_err(|error| self.not_json(&error))?;
                let described = format!("{described}, {} images, {} annotations", counts.images, counts.annotations);
                return Ok((described, fixed("image from `file_name`, caption from `annotations`")));
            }
            Form::Columns { image, captions, has_split } => {
                let columns = Objects::new(Some(image), captions.iter().map(String::as_str).collect(), splits);
                let origin = self.read_columns(reader, (image, captions, *has_split), columns, rows)?;
                return Ok((described, Read { origin, keys: captions.clone(), also: String::new() }));
            }
            Form::ByImage => {
                let set = [
                    ("image", self.image.is_some()),
                    ("caption", self.caption.is_some()),
                    ("captions", self.captions.is_some()),
                    ("split", self.split.is_some()),
                ];
                let set: Vec<String> =
                    set.iter().filter(|(_, is_set)| *is_set).map(|(key, _)| format!("`{key}`")).collect();
                if !set.is_empty() {
                    return Err(self.malformed(format!(
                        "it is an object with images as keys and captions as values, where {} has no meaning: remove \
                         it, or give a list of objects",
                        set.join(" and ")
                    )));
                }
                let read = for_each(reader, Place::Entries, &mut |image, number, value| {
                    if !rows.selects(number, image) {
                        return Ok(());
                    }
                    match texts(&value) {
                        Some(texts) if texts.is_empty() => rows.push_uncaptioned(number, image),
                        Some(texts) => rows.push(number, image, texts.iter().map(|text| (0, text.as_ref()))),
                        None => rows.malformed(number, format!("`{image}` is {}; expected captions", brief(&value))),
                    }
                });
                self.check(read)?;
                return Ok((described, fixed("image from the keys, caption from the values")));
            }
        };
        self.check(read)?;
        self.check_splits(&objects, rows)?;
        if let Some(reason) = objects.unseen() {
            return Err(self.malformed(reason));
        }
        Ok((described, Read { origin: objects.origin(), keys: objects.caption_keys(), also: objects.also() }))
    }

    fn check_splits(&self, objects: &Objects<'_>, rows: &mut Rows<'_>) -> Result<(), DataError> {
        rows.num_other_splits = objects.num_other_splits();
        if let Some(warning) = objects.check_splits().map_err(|reason| self.malformed(reason))? {
            let file = self.path.file_name().unwrap_or_default();
            rows.builder.warn(format!("`{}`: {warning}", file.display()));
        }
        Ok(())
    }

    fn check(&self, read: Result<(), Stop>) -> Result<(), DataError> {
        read.map_err(|stop| match stop {
            Stop::Json(error) => self.not_json(&error),
            Stop::Refused(error) => error,
        })
    }

    fn read_lines(
        &self,
        mut reader: impl BufRead,
        objects: &mut Objects<'_>,
        rows: &mut Rows<'_>,
    ) -> Result<(), DataError> {
        let (mut bytes, mut number) = (Vec::new(), 0);
        for line in 1.. {
            bytes.clear();
            if reader.read_until(b'\n', &mut bytes).map_err(DataError::read(&self.path))? == 0 {
                break;
            }
            if bytes.iter().all(u8::is_ascii_whitespace) {
                continue;
            }
            number += 1;
            if std::str::from_utf8(&bytes).is_err() {
                rows.malformed(line, row_not_utf8(&bytes, "the line"))?;
                continue;
            }
            match serde_json::from_slice::<Map<String, Value>>(bytes.trim_ascii_end()) {
                Ok(object) => objects.push(rows, number, line, &object)?,
                Err(error) => {
                    // It counts the lines of what it was given, one.
                    let error = error.to_string().replace(" at line 1 column ", " at column ");
                    rows.malformed(line, format!("not a JSON object: {error}"))?;
                }
            }
        }
        Ok(())
    }

    fn read_sequence(&self, reader: impl BufRead, objects: &mut Objects<'_>, rows: &mut Rows<'_>) -> Result<(), Stop> {
        let values = serde_json::Deserializer::from_reader(reader).into_iter::<Value>();
        for (value, number) in values.zip(1..) {
            push(objects, rows, number, &value.map_err(Stop::Json)?).map_err(Stop::Refused)?;
        }
        Ok(())
    }

    /// Reads columns side by side. They are lists, or objects with the same keys in the same order.
    fn read_columns(
        &self,
        reader: impl BufRead,
        (image, captions, has_split): (&str, &[String], bool),
        mut objects: Objects<'_>,
        rows: &mut Rows<'_>,
    ) -> Result<String, DataError> {
        let split = has_split.then_some(SPLIT);
        let keys: Vec<&str> = [image].into_iter().chain(captions.iter().map(String::as_str)).chain(split).collect();
        let mut columns: Vec<Vec<(Option<String>, Value)>> = vec![Vec::new(); keys.len()];
        let read = for_each(reader, Place::Columns(&keys), &mut |key, _, value| {
            let cells = match value {
                Value::Array(cells) => cells.into_iter().map(|cell| (None, cell)).collect(),
                Value::Object(cells) => {
                    let mut cells: Vec<(Option<String>, Value)> =
                        cells.into_iter().map(|(row, cell)| (Some(row), cell)).collect();
                    // Row labels of pandas are mostly numbers; the parser sorts them as texts.
                    cells.sort_by_cached_key(|(row, _)| {
                        let row = row.clone().unwrap_or_default();
                        (row.parse::<u64>().unwrap_or(u64::MAX), row)
                    });
                    cells
                }
                other => return Err(self.malformed(format!("`{key}` is {}; expected a column", brief(&other)))),
            };
            for (at, _) in keys.iter().enumerate().filter(|(_, name)| **name == key) {
                columns[at].clone_from(&cells);
            }
            Ok(())
        });
        self.check(read)?;
        let len = columns[0].len();
        for (column, key) in columns.iter().zip(&keys) {
            let is_aligned = column.iter().zip(&columns[0]).all(|((row, _), (first, _))| row == first);
            if column.len() != len || !is_aligned {
                return Err(self.malformed(format!(
                    "the columns `{image}` and `{key}` have other rows: {len} and {}",
                    column.len()
                )));
            }
        }
        for at in 0..len {
            let cells = keys.iter().zip(&mut columns).map(|(key, column)| {
                let value = std::mem::take(&mut column[at].1);
                ((*key).to_owned(), value)
            });
            let object: Map<String, Value> = cells.collect();
            objects.push(rows, at as u64 + 1, at as u64 + 1, &object)?;
        }
        self.check_splits(&objects, rows)?;
        Ok(objects.origin())
    }
}

fn push(objects: &mut Objects<'_>, rows: &mut Rows<'_>, number: u64, value: &Value) -> Result<(), DataError> {
    match value {
        Value::Object(object) => objects.push(rows, number, number, object),
        other => rows.malformed(number, format!("{} is no object; expected an image and captions", brief(other))),
    }
}
