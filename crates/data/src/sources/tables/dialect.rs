//! How a table is written, by its first lines: the delimiter, whether it has a header, and which columns hold image and
//! caption.

use std::path::Path;

use crate::counted::counted;
use crate::error::DataError;
use crate::sources::image_files::is_image_name;
use crate::sources::tables::columns::{Holds, is_about};
use crate::sources::tables::image_path::{ImagePaths, without_number};
use crate::sources::tables::path_text::{file_url, not_local, shown};
use crate::sources::tables::records::{Found, Record, Records};

/// Records that are looked at.
const LOOKED_AT: usize = 50;

/// Images that are looked for where only values tell which column has them.
const LOOKED_FOR: usize = 10;

/// Share of values that are names of images in the column of images: 19 of 20.
const NEARLY_ALL: (usize, usize) = (19, 20);

/// Delimiters that are tried, after the default one.
const DELIMITERS: [u8; 4] = *b"\t;|,";

/// What to do about a quote that is never closed.
pub(crate) const CLOSE_QUOTE: &str = "close it, or set `quote = false` to read quotes literally";

/// How well a delimiter fits: whether the columns are named, an image is in the first line, and all lines have as many
/// fields.
type Score = (bool, bool, bool);

/// What a missing column would hold, its name in the config, and a hint.
type MissingColumn = (Holds, Option<String>, String);

/// Fields of the first line that a message shows.
const SHOWN_FIELDS: usize = 4;

/// What the user wrote about a table.
#[derive(Clone, Copy)]
pub(crate) struct Wanted<'a> {
    pub(crate) path: &'a Path,
    /// Directory of the images.
    pub(crate) root: &'a Path,
    pub(crate) image: Option<&'a str>,
    /// Empty: the default.
    pub(crate) captions: &'a [String],
    pub(crate) delimiter: Option<u8>,
    pub(crate) default_delimiter: u8,
    pub(crate) header: Option<bool>,
    pub(crate) has_quotes: bool,
}

/// How a table is written.
#[derive(Debug)]
pub(crate) struct Dialect {
    pub(crate) delimiter: u8,
    pub(crate) has_header: bool,
    /// Whether the first line counts as data only because it has no usual name of a column.
    is_header_unclear: bool,
    /// Bytes and lines before the table: Excel's `sep=` line.
    pub(crate) skipped: (usize, u64),
    /// Names of the columns; their 1-based numbers without header.
    pub(crate) names: Vec<String>,
    pub(crate) image: usize,
    pub(crate) captions: Vec<usize>,
    /// Whether the column of images is known by its values alone.
    is_by_values: bool,
    /// What to say of other columns that look like captions.
    also: String,
    /// Whether each image looked at ends in `#` and a caption number.
    pub(crate) has_numbers: bool,
    /// Columns that share the name of a column that is used.
    pub(crate) doubled: Option<String>,
}

impl Dialect {
    /// Looks at `head`, the start of the table. `is_whole`: whether `head` is the whole table.
    ///
    /// # Errors
    /// [`DataError::Column`] if a column is missing, [`DataError::Malformed`] if the first line is no header, which
    /// cannot be guessed at, [`DataError::Empty`] for a table without a line.
    pub(crate) fn find(wanted: Wanted<'_>, head: &[u8], is_whole: bool) -> Result<Self, DataError> {
        let (separator, skipped) = separator_line(head);
        let rest = &head[skipped.0..];
        let set = wanted.delimiter.or(separator);
        let candidates: Vec<u8> = match set {
            Some(delimiter) => vec![delimiter],
            None => [wanted.default_delimiter].into_iter().chain(DELIMITERS).collect(),
        };
        let mut best: Option<(Score, u8, Vec<Vec<String>>)> = None;
        for delimiter in candidates {
            let mut rows = first_rows(rest, delimiter, wanted.has_quotes, is_whole);
            if rows.is_empty() {
                // A quote in the first line that is never closed: if the table goes on, its reader says so.
                let mut records = Records::new(rest, delimiter, wanted.has_quotes, skipped.1 + 1);
                let found = records.read(&mut Record::default());
                if let Some((line, reason)) = found.ok().filter(|_| is_whole).and_then(|it| it.problem(CLOSE_QUOTE)) {
                    return Err(DataError::row(wanted.path, "line", line, reason));
                }
                rows = first_rows(rest, delimiter, false, is_whole);
            }
            let Some(first) = rows.first() else { continue };
            let is_split = first.len() > 1;
            let score = (
                find_columns(wanted, &rows).is_ok(),
                is_split && first.iter().any(|field| is_image(field)),
                is_split && rows.iter().all(|row| row.len() == first.len()),
            );
            if best.as_ref().is_none_or(|(most, ..)| score > *most) {
                best = Some((score, delimiter, rows));
            }
        }
        let Some((_, delimiter, rows)) = best else {
            return Err(DataError::Empty {
                path: wanted.path.to_owned(),
                found: "an empty file".to_owned(),
                expected: "a header, then one row per image and caption",
            });
        };
        let first = &rows[0];
        let (image, captions, has_header) = choose(wanted, &rows, delimiter)?;
        let data = if has_header { &rows[1..] } else { &rows[..] };
        let images: Vec<&String> = data.iter().filter_map(|row| row.get(image)).collect();
        let numbers = (1..=first.len()).map(|number| number.to_string());
        let names: Vec<String> = if has_header { first.clone() } else { numbers.collect() };
        let is_doubled = |&at: &usize| names.iter().filter(|name| **name == names[at]).count() > 1;
        let used = || [image].into_iter().chain(captions.iter().copied());
        let is_written = |name: &String| wanted.image == Some(name.as_str()) || wanted.captions.contains(name);
        if let Some(at) = used().find(|at| is_doubled(at) && is_written(&names[*at])) {
            let numbers: Vec<String> =
                (1..=names.len()).filter(|it| names[it - 1] == names[at]).map(|it| it.to_string()).collect();
            return Err(DataError::Malformed {
                path: wanted.path.to_owned(),
                reason: format!(
                    "columns {} are all named `{}`, which does not say which of them is meant; give each a name of its \
                     own, or name the columns by number, such as `image = \"{}\"` and `caption = \"{}\"`",
                    numbers.join(" and "),
                    names[at],
                    image + 1,
                    captions[0] + 1
                ),
            });
        }
        if let Some((_, column)) = captions.iter().enumerate().find(|(at, column)| captions[..*at].contains(column)) {
            let reason = format!(
                "`captions` names column {} (`{}`) twice, so that its captions would count twice; name it once",
                column + 1,
                names[*column]
            );
            return Err(DataError::Malformed { path: wanted.path.to_owned(), reason });
        }
        // Columns by number are those that are meant.
        let is_guessed = |at: &usize| match *at == image {
            true => wanted.image.is_none(),
            false => wanted.captions.is_empty(),
        };
        let doubled = used().find(|at| is_doubled(at) && is_guessed(at)).map(|at| names[at].clone());
        let is_guessed = has_header && wanted.captions.is_empty();
        let also = if is_guessed { Holds::also(&names, &captions, |at| at != image) } else { String::new() };
        let is_by_values = has_header && wanted.image.is_none() && Holds::Image.find(&names, None).is_err();
        Ok(Self {
            delimiter,
            is_by_values,
            also,
            has_header,
            is_header_unclear: !has_header && wanted.header.is_none() && !is_data(wanted.root, first),
            skipped,
            has_numbers: !images.is_empty() && images.iter().all(|image| without_number(image).is_some()),
            image,
            captions,
            doubled,
            names,
        })
    }

    /// Where image and captions come from, for the log.
    pub(crate) fn origin(&self) -> String {
        let name = |at: usize| {
            if self.has_header { format!("`{}`", self.names[at]) } else { format!("column {}", self.names[at]) }
        };
        let captions: Vec<String> = self.captions.iter().map(|&at| name(at)).collect();
        let by_values = if self.is_by_values { " (its values are names of images that are there)" } else { "" };
        format!("image from {}{by_values}, caption from {}{}", name(self.image), captions.join(" and "), self.also)
    }

    /// Whether no other column has this name.
    pub(crate) fn is_unique(&self, name: &str) -> bool {
        self.names.iter().filter(|it| *it == name).count() == 1
    }

    /// The columns of captions.
    pub(crate) fn caption_names(&self) -> Vec<String> {
        self.captions.iter().map(|&at| self.names[at].clone()).collect()
    }

    /// What to say of other columns that look like captions.
    pub(crate) fn also(&self) -> &str {
        &self.also
    }

    /// Whether there is a header, in words.
    pub(crate) fn header(&self) -> &'static str {
        match (self.has_header, self.is_header_unclear) {
            (true, _) => "header",
            (false, false) => "no header",
            (false, true) => "no header (if the first line is one, set `header = true`)",
        }
    }

    /// The delimiter in words.
    pub(crate) fn separated(&self) -> String {
        match self.delimiter {
            b',' => "comma-separated".to_owned(),
            b'\t' => "tab-separated".to_owned(),
            other => format!("separated by `{}`", char::from(other)),
        }
    }
}

/// Excel's first line `sep=;`: its delimiter, and the bytes and lines to skip.
fn separator_line(head: &[u8]) -> (Option<u8>, (usize, u64)) {
    let end = head.iter().position(|byte| matches!(byte, b'\r' | b'\n')).unwrap_or(head.len());
    let line = &head[..end];
    let is_separator = line.get(..4).is_some_and(|start| start.eq_ignore_ascii_case(b"sep="));
    match line.get(4..) {
        Some(&[delimiter]) if is_separator && delimiter.is_ascii() => {
            let breaks = if head[end..].starts_with(b"\r\n") { 2 } else { usize::from(end < head.len()) };
            (Some(delimiter), (end + breaks, 1))
        }
        _ => (None, (0, 0)),
    }
}

/// The first records, trimmed; none that may be cut off.
fn first_rows(text: &[u8], delimiter: u8, has_quotes: bool, is_whole: bool) -> Vec<Vec<String>> {
    let (mut records, mut record) = (Records::new(text, delimiter, has_quotes, 1), Record::default());
    let mut rows: Vec<Vec<String>> = Vec::new();
    // Reading memory cannot fail.
    while rows.len() < LOOKED_AT && matches!(records.read(&mut record), Ok(Found::Record)) {
        rows.push(record.iter().map(|field| String::from_utf8_lossy(field).trim().to_owned()).collect());
    }
    if !is_whole && rows.len() > 1 && rows.len() < LOOKED_AT {
        rows.pop();
    }
    rows
}

/// The columns by the names in the header, or else by what is left and by the values. Beside a column with such a name,
/// others may be written by their numbers.
fn find_columns(wanted: Wanted<'_>, rows: &[Vec<String>]) -> Result<(usize, Vec<usize>), MissingColumn> {
    let header = &rows[0];
    let find = |holds: Holds, name: Option<&str>| {
        holds.find(header, name).map_err(|hint| {
            let is_number = name.is_some_and(|name| name.parse::<usize>().is_ok());
            let hint = if is_number { format!("; there are {}", counted(header.len(), "column")) } else { hint };
            (holds, name.map(str::to_owned), hint)
        })
    };
    let image = find(Holds::Image, wanted.image).or_else(|missing| by_values(wanted, rows, missing));
    let captions: Vec<Result<usize, MissingColumn>> = if wanted.captions.is_empty() {
        vec![find(Holds::Caption, None)]
    } else {
        wanted.captions.iter().map(|name| find(Holds::Caption, Some(name))).collect()
    };
    // Numbers alone do not say whether the first line is a header.
    let is_header = wanted.header == Some(true) || image.is_ok() || captions.iter().any(Result::is_ok);
    let number = |missing: &MissingColumn| numbered(missing.1.as_deref()?, header.len());
    let (image, captions) = match image {
        // What is wrong is the other column, not the number.
        Err(missing) if !is_header && number(&missing).is_some() => {
            let other = captions.into_iter().filter_map(Result::err).find(|other| number(other).is_none());
            return Err(other.unwrap_or(missing));
        }
        Err(missing) => (number(&missing).ok_or(missing)?, captions),
        Ok(image) => (image, captions),
    };
    let other = 1_usize.wrapping_sub(image);
    let is_other = header.len() == 2 && !header[other].is_empty() && !is_about(&header[other]);
    let caption = |found: Result<usize, MissingColumn>| {
        found.or_else(|missing| match missing.1 {
            None if is_other => Ok(other),
            _ => number(&missing).ok_or(missing),
        })
    };
    Ok((image, captions.into_iter().map(caption).collect::<Result<_, _>>()?))
}

/// The column with this 1-based number, of `count`.
fn numbered(name: &str, count: usize) -> Option<usize> {
    name.parse().ok().filter(|at| (1..=count).contains(at)).map(|at: usize| at - 1)
}

/// The only column with values that are names of images, if these are there; else `missing`, which names it.
fn by_values(wanted: Wanted<'_>, rows: &[Vec<String>], missing: MissingColumn) -> Result<usize, MissingColumn> {
    let (header, data) = (&rows[0], &rows[1..]);
    let values = |at: usize| data.iter().filter_map(move |row| row.get(at)).filter(|value| !value.is_empty());
    let is_image_column = |at: &usize| {
        let named = values(*at).filter(|value| is_image_name(Path::new(value.as_str()))).count();
        named > 0 && named * NEARLY_ALL.1 >= values(*at).count() * NEARLY_ALL.0 && !is_image(&header[*at])
    };
    let found: Vec<usize> = (0..header.len()).filter(is_image_column).collect();
    let ([at], None) = (&found[..], wanted.image) else { return Err(missing) };
    if Holds::Image.is_named(header) {
        return Err(missing);
    }
    let mut paths = ImagePaths::new(wanted.root);
    let looked: Vec<bool> =
        values(*at).take(LOOKED_FOR).map(|value| paths.find(value).is_ok_and(|path| path.is_file())).collect();
    if looked.iter().filter(|is_there| **is_there).count() * 2 > looked.len() {
        return Ok(*at);
    }
    let (holds, name, _) = missing;
    let column = &header[*at];
    Err((holds, name, format!("; the values of `{column}` are names of images: set `image = \"{column}\"`")))
}

/// Image column, caption columns, and whether the first line is a header.
fn choose(wanted: Wanted<'_>, rows: &[Vec<String>], delimiter: u8) -> Result<(usize, Vec<usize>, bool), DataError> {
    let first = &rows[0][..];
    let numbered = || {
        let number = |name: &str| numbered(name, first.len());
        let captions: Option<Vec<usize>> = wanted.captions.iter().map(|name| number(name)).collect();
        Some((number(wanted.image?)?, captions.filter(|captions| !captions.is_empty())?))
    };
    let is_data = is_data(wanted.root, first);
    let malformed = |reason: String| DataError::Malformed { path: wanted.path.to_owned(), reason };
    let by_number = "name the columns by number, such as `image = \"1\"` and `caption = \"2\"`";
    if wanted.header == Some(false) {
        let pair = headerless_pair(first).filter(|_| wanted.image.is_none() && wanted.captions.is_empty());
        let (image, captions) = numbered().or(pair).ok_or_else(|| {
            malformed(format!("without a header, {by_number}: there are {} columns, {}", first.len(), sample(first)))
        })?;
        return Ok((image, captions, false));
    }
    let (holds, name, hint) = match find_columns(wanted, rows) {
        Ok((image, captions)) => return Ok((image, captions, true)),
        Err(missing) => missing,
    };
    if let Some((image, captions)) = numbered() {
        let has_known_name = [Holds::Image, Holds::Caption].iter().any(|holds| holds.is_named(first));
        let has_header = wanted.header.unwrap_or(has_known_name && !is_data);
        return Ok((image, captions, has_header));
    }
    if is_data && wanted.header.is_none() {
        if let Some((image, captions)) = headerless_pair(first)
            && wanted.image.is_none()
            && wanted.captions.is_empty()
        {
            return Ok((image, captions, false));
        }
        return Err(malformed(format!(
            "the first line looks like data: {}; add a header line, or set `header = false` and {by_number}",
            sample(first)
        )));
    }
    let is_other = |character: &u8| *character != delimiter && first[0].contains(char::from(*character));
    let other = DELIMITERS.iter().find(|it| first.len() == 1 && is_other(it));
    let hint = match other {
        Some(b'\t') => "; the table seems to use another delimiter: set `delimiter = \"\\t\"`".to_owned(),
        Some(&other) => {
            format!("; the table seems to use another delimiter: set `delimiter = \"{}\"`", char::from(other))
        }
        None => hint,
    };
    Err(DataError::Column {
        path: wanted.path.to_owned(),
        column: name.unwrap_or_else(|| holds.key().to_owned()),
        found: first.to_vec(),
        hint: Some(hint).filter(|hint| !hint.is_empty()),
    })
}

/// Image and caption of a table that has these two columns and no header.
fn headerless_pair(first: &[String]) -> Option<(usize, Vec<usize>)> {
    match first {
        [one, other] if is_image(other) && !is_image(one) => Some((1, vec![0])),
        [_, _] => Some((0, vec![1])),
        _ => None,
    }
}

/// Whether a first line holds values, not names.
fn is_data(root: &Path, first: &[String]) -> bool {
    first.iter().any(|field| is_image(field) || !field.is_empty() && root.join(field).is_file())
}

/// Whether a field looks like the path or the URL of an image.
fn is_image(field: &str) -> bool {
    let path = without_number(field).unwrap_or(field);
    is_image_name(Path::new(path)) || file_url(field).is_some() || not_local(field).is_some()
}

/// The first fields of a line.
fn sample(first: &[String]) -> String {
    let fields: Vec<String> = first.iter().take(SHOWN_FIELDS).map(|field| format!("`{}`", shown(field))).collect();
    format!("{}{}", fields.join(", "), if first.len() > SHOWN_FIELDS { ", ..." } else { "" })
}
