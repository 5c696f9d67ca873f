//! Tables of image paths and captions, separated by commas, tabs or another character.

use std::io::{BufRead, Read};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::counted::counted;
use crate::dataset::Dataset;
use crate::dataset::selection::Selection;
use crate::dataset::skipped_rows::BadRows;
use crate::error::DataError;
use crate::sources::one_or_many::OneOrMany;
use crate::sources::rows::Rows;
use crate::sources::split_column::{SPLIT, Splits};
use crate::sources::tables::column_name::{column, columns};
use crate::sources::tables::dialect::{CLOSE_QUOTE, Dialect, Wanted};
use crate::sources::tables::path_text::shown;
use crate::sources::tables::records::{Found, Record, Records, Span};
use crate::sources::tables::text_file::{TextEncoding, TextFile, row_not_utf8};

/// Least number of lines for a warning about a quoted field that also holds the delimiter.
const LONG_FIELD_LINES: u64 = 4;

/// `[data.train.csv]` or `[data.train.tsv]`: a table with an image path and one or several captions per row. Rows with
/// the same image path share the image.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct CsvSource {
    /// The table.
    pub path: PathBuf,
    /// Column of the image path: its name, or its 1-based number if no column has that name. Default: `image`, or else
    /// the one column with another usual name.
    #[serde(default, deserialize_with = "column", skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// Column of the caption. Default: `caption`, or else the one column with another usual name.
    #[serde(default, deserialize_with = "column", skip_serializing_if = "Option::is_none")]
    pub caption: Option<String>,
    /// Columns of several captions, in place of `caption`.
    #[serde(default, deserialize_with = "columns", skip_serializing_if = "Option::is_none")]
    pub captions: Option<Vec<String>>,
    /// Directory that image paths are relative to. Default: the directory of the table.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub root: Option<PathBuf>,
    /// Values of the column `split` to read: a list, or separated by `+`. Default: every row.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub split: Option<OneOrMany<String>>,
    /// One ASCII character between columns. Default: by looking.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delimiter: Option<char>,
    /// Whether the first line names the columns. Default: by looking.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub header: Option<bool>,
    /// Whether a quote at the start of a field quotes it. Default true.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quote: Option<bool>,
    /// Encoding of the characters. Default: UTF-8 or UTF-16, by looking.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub encoding: Option<TextEncoding>,
    /// What to do with a malformed row. Default `error`.
    #[serde(default)]
    pub bad_rows: BadRows,
}

impl CsvSource {
    /// The table `path`; everything else is found by looking.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            image: None,
            caption: None,
            captions: None,
            root: None,
            split: None,
            delimiter: None,
            header: None,
            quote: None,
            encoding: None,
            bad_rows: BadRows::default(),
        }
    }

    /// Resolves relative paths against `base`.
    pub fn resolve(&mut self, base: &Path) {
        self.path = base.join(&self.path);
        self.root = self.root.take().map(|root| base.join(root));
    }

    /// Reads the table.
    ///
    /// # Errors
    /// [`DataError::Column`] if a column is missing, [`DataError::Row`] for a malformed row unless they are skipped and
    /// for a quote that is never closed, [`DataError::Malformed`] for keys that contradict each other or the table,
    /// [`DataError::Empty`] without a usable row, [`DataError::Read`].
    pub fn read(&self) -> Result<Dataset, DataError> {
        self.read_selected(None)
    }

    pub(crate) fn read_selected(&self, selection: Option<Selection>) -> Result<Dataset, DataError> {
        self.read_with(self.default_delimiter(), selection)
    }

    /// The same table with the columns that were found, and what the file is, for people.
    ///
    /// # Errors
    /// As for [`CsvSource::read`], of the first lines.
    pub(crate) fn look(&self, default_delimiter: u8) -> Result<(Self, String), DataError> {
        let file = TextFile::open(&self.path, self.encoding)?;
        let dialect = self.dialect(default_delimiter, &file)?;
        let mut found = self.clone();
        // A name that stands twice would be refused: what was written stays, or nothing.
        let image = &dialect.names[dialect.image];
        if dialect.is_unique(image) {
            found.image = Some(image.clone());
        }
        let captions = dialect.caption_names();
        match &captions[..] {
            captions if !captions.iter().all(|name| dialect.is_unique(name)) => {}
            [one] if self.captions.is_none() => found.caption = Some(one.clone()),
            _ => found.captions = Some(captions),
        }
        if !dialect.has_header {
            found.header = Some(false);
        }
        Ok((found, format!("{}; {}", described(&dialect, file.encoding), dialect.origin())))
    }

    /// The delimiter of tables with this extension.
    pub(crate) fn default_delimiter(&self) -> u8 {
        let is_tab = |extension: &std::ffi::OsStr| ["tsv", "tab"].iter().any(|tab| extension.eq_ignore_ascii_case(tab));
        if self.path.extension().is_some_and(is_tab) { b'\t' } else { b',' }
    }

    fn dialect(&self, default_delimiter: u8, file: &TextFile) -> Result<Dialect, DataError> {
        let malformed = |reason: String| DataError::Malformed { path: self.path.clone(), reason };
        let delimiter = self.delimiter.map(|delimiter| {
            let ascii = u8::try_from(delimiter).ok().filter(|it| it.is_ascii() && !matches!(it, b'"' | b'\n' | b'\r'));
            ascii.ok_or_else(|| malformed(format!("the delimiter is `{delimiter}`; expected an ASCII character")))
        });
        let captions = match (&self.caption, &self.captions) {
            (Some(_), Some(_)) => {
                return Err(malformed("`caption` and `captions` are both set; remove one".to_owned()));
            }
            (None, Some(captions)) if captions.is_empty() => {
                return Err(malformed("`captions` is empty; name the columns of captions".to_owned()));
            }
            (caption, captions) => captions.clone().or(caption.clone().map(|it| vec![it])).unwrap_or_default(),
        };
        let wanted = Wanted {
            path: &self.path,
            root: self.root.as_deref().or(self.path.parent()).unwrap_or(Path::new("")),
            image: self.image.as_deref(),
            captions: &captions,
            delimiter: delimiter.transpose()?,
            default_delimiter,
            header: self.header,
            has_quotes: self.quote.unwrap_or(true),
        };
        Dialect::find(wanted, &file.head, file.head_is_whole).map_err(|error| self.explain(error, file))
    }

    /// An error about the first line, if the file is no table or in another encoding: the names in it tell nothing.
    fn explain(&self, error: DataError, file: &TextFile) -> DataError {
        if !matches!(error, DataError::Column { .. } | DataError::Malformed { .. }) {
            return error;
        }
        let start: Vec<u8> = file.head.iter().copied().filter(|byte| !byte.is_ascii_whitespace()).take(2).collect();
        let reason = match (start.as_slice(), file.other_encoding()) {
            (b"[{" | b"{\"", _) => {
                "it is JSON, not a table: use `json = { path = \"..\" }` in place of `csv` or `tsv`, or give the file \
                 the extension `json`"
                    .to_owned()
            }
            (_, Some(encoding)) => format!("the first line has no usable columns: {encoding}"),
            _ => return error,
        };
        DataError::Malformed { path: self.path.clone(), reason }
    }

    pub(crate) fn read_with(&self, default_delimiter: u8, selection: Option<Selection>) -> Result<Dataset, DataError> {
        let mut rows = Rows::new(&self.path, self.root.as_deref(), "line", self.bad_rows, selection);
        let (dialect, encoding) = self.read_rows(default_delimiter, &mut rows)?;
        let described = described(&dialect, encoding);
        rows.finish(&described, &dialect.origin(), "a header, then one row per image and caption")
    }

    /// Adds the rows of the table to `rows`. The result is how the table is written, and its encoding for the log.
    pub(crate) fn read_rows(
        &self,
        default_delimiter: u8,
        rows: &mut Rows<'_>,
    ) -> Result<(Dialect, &'static str), DataError> {
        let path = &self.path;
        let mut file = TextFile::open(path, self.encoding)?;
        let dialect = self.dialect(default_delimiter, &file)?;
        let (skipped_bytes, skipped_lines) = dialect.skipped;
        let failed = |source: std::io::Error| DataError::Read { path: path.clone(), source };
        let mut start = vec![0; skipped_bytes];
        file.reader.read_exact(&mut start).map_err(failed)?;
        let mut records = Records::new(file.reader, dialect.delimiter, self.quote.unwrap_or(true), skipped_lines + 1);
        rows.paths.has_numbers = dialect.has_numbers;
        let (mut splits, split_columns) = self.splits(&dialect)?;
        let split_column = split_columns.first().copied();
        let (mut record, mut seen) = (Record::default(), Seen::default());
        if dialect.has_header {
            self.read_record(&mut records, &mut record).map_err(failed)??;
        }
        records.expect_columns(dialect.names.len());
        let mut number = 0;
        while self.read_record(&mut records, &mut record).map_err(failed)?? {
            number += 1;
            // A row with another number of fields is malformed whatever its split.
            if let Some(at) = split_column.filter(|_| record.len() == dialect.names.len()) {
                let split = String::from_utf8_lossy(record.get(at).unwrap_or_default());
                match split.trim() {
                    "" if splits.wanted.is_empty() => {}
                    "" => {
                        rows.no_split(record.line)?;
                        continue;
                    }
                    split if !splits.takes(split) => continue,
                    _ => {}
                }
            }
            let key = record.get(dialect.image).map_or("".into(), String::from_utf8_lossy);
            if rows.selects(number, &key) {
                seen.see(&record);
                self.push(&record, &dialect, rows, &mut seen)?;
            }
        }
        let doubled_split = split_column.filter(|_| split_columns.len() > 1).map(|at| &dialect.names[at]);
        for name in dialect.doubled.iter().chain(doubled_split) {
            let text = format!(
                "`{}`: several columns are named `{name}`; the first is used; to use another, \
                 give it a name of its own",
                path.display()
            );
            rows.builder.warn(text);
        }
        rows.num_other_splits = splits.num_others();
        let mixed = splits.check().map_err(|reason| DataError::Malformed { path: path.clone(), reason })?;
        if let Some(warning) = mixed {
            rows.builder.warn(format!("`{}`: {warning}", path.file_name().unwrap_or_default().display()));
        }
        seen.warn(path, rows);
        Ok((dialect, file.encoding))
    }

    /// The splits to read, and the columns with their name, of which the first has them.
    fn splits(&self, dialect: &Dialect) -> Result<(Splits, Vec<usize>), DataError> {
        let malformed = |reason: String| DataError::Malformed { path: self.path.clone(), reason };
        let splits = Splits::parse(self.split.as_ref()).map_err(malformed)?;
        let is_split = |at: &usize| {
            let is_named = dialect.has_header && dialect.names[*at].trim().eq_ignore_ascii_case(SPLIT);
            is_named && *at != dialect.image && !dialect.captions.contains(at)
        };
        let columns: Vec<usize> = (0..dialect.names.len()).filter(is_split).collect();
        if columns.is_empty() && !splits.wanted.is_empty() {
            let names = dialect.names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
            let reason = format!("`split` is set, and there is no column `{SPLIT}`; its columns are {names}");
            return Err(malformed(reason));
        }
        Ok((splits, columns))
    }

    /// Reads the next record; false at the end.
    fn read_record(
        &self,
        records: &mut Records<impl BufRead>,
        record: &mut Record,
    ) -> std::io::Result<Result<bool, DataError>> {
        let found = records.read(record)?;
        Ok(match found.problem(CLOSE_QUOTE) {
            None => Ok(found == Found::Record),
            Some((line, reason)) => Err(DataError::row(&self.path, "line", line, reason)),
        })
    }

    fn push(&self, record: &Record, dialect: &Dialect, rows: &mut Rows<'_>, seen: &mut Seen) -> Result<(), DataError> {
        let columns = dialect.names.len();
        if record.len() != columns {
            let reason = wrong_count(record, columns, dialect);
            return rows.malformed(record.line, reason);
        }
        if let Some(span) = record.span.filter(|_| record.text_after_quote) {
            let reason = format!(
                "a quoted field opens in line {} and runs over {} lines, and its closing quote is followed by more \
                 text; set `quote = false` to read quotes literally",
                span.line, span.lines
            );
            return rows.malformed(record.line, reason);
        }
        // Both are there: the record has all columns.
        let field = |at: usize| {
            let bytes = record.get(at).unwrap_or_default();
            std::str::from_utf8(bytes).map_err(|_| row_not_utf8(bytes, &format!("`{}`", dialect.names[at])))
        };
        let image = match field(dialect.image) {
            Ok(image) => image,
            Err(reason) => return rows.malformed(record.line, reason),
        };
        let captions: Result<Vec<&str>, String> = dialect.captions.iter().map(|&at| field(at)).collect();
        match captions {
            Ok(captions) => {
                captions.iter().for_each(|caption| seen.see_caption(record.line, caption));
                rows.push(record.line, image, captions.into_iter().enumerate())
            }
            Err(reason) => rows.malformed(record.line, reason),
        }
    }
}

/// What was recognised.
fn described(dialect: &Dialect, encoding: &str) -> String {
    format!("{}, {encoding}, {}", dialect.separated(), dialect.header())
}

/// Why a record has another number of fields than the header has columns.
fn wrong_count(record: &Record, columns: usize, dialect: &Dialect) -> String {
    let like = if dialect.has_header { "the header" } else { "the first line" };
    let found = format!("found {}; expected {columns}, as in {like}", counted(record.len(), "field"));
    if record.has_blank_before_quote {
        return format!(
            "{found}; a field has a blank before its quote, so the quote does not hold the field together: remove the \
             blanks after the delimiters"
        );
    }
    if record.len() > columns && dialect.delimiter == b',' {
        return format!(
            "{found}; if a caption holds an unquoted `,`, put it in quotes or separate the columns by tabs"
        );
    }
    found
}

/// Whether a caption is a list of texts, as pandas writes lists into tables: `["a", "b"]` or `['a', 'b']`.
fn is_list(caption: &str) -> bool {
    let inner = caption.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).map_or("", str::trim);
    inner.len() > 1 && inner.starts_with(['"', '\'']) && inner.ends_with(['"', '\''])
}

/// Whether a caption is within quotes that the table does not take as such.
fn is_quoted(caption: &str) -> bool {
    let within = |quote| caption.strip_prefix(quote).and_then(|rest| rest.strip_suffix(quote));
    within('\'').or_else(|| within('"')).is_some()
}

/// Quotes that may be no quotes, and captions that may be lists.
#[derive(Default)]
struct Seen {
    /// Number of rows with blanks before the quotes of a field, which are left off or are not; and the first line.
    before_quote: [(u64, u64); 2],
    /// Number of fields that run over lines and look like rows, and the first.
    spans: u64,
    first: Option<Span>,
    /// Number of rows with text after a closing quote, and the line of the first.
    after_quote: u64,
    line: u64,
    /// Number of captions that are lists of texts, and the line and text of the first.
    lists: (u64, u64, String),
    /// Number of captions within quotes that are part of them, and the line and text of the first.
    quoted: (u64, u64, String),
}

impl Seen {
    fn see(&mut self, record: &Record) {
        for (seen, is_seen) in self.before_quote.iter_mut().zip([record.is_unquoted, record.keeps_quotes]) {
            if is_seen {
                *seen = (seen.0 + 1, if seen.0 == 0 { record.line } else { seen.1 });
            }
        }
        if record.text_after_quote {
            self.after_quote += 1;
            self.line = if self.line == 0 { record.line } else { self.line };
        }
        let is_odd = |span: &Span| span.rows > 0 || span.lines >= LONG_FIELD_LINES && span.has_delimiter;
        if let Some(span) = record.span.filter(is_odd) {
            self.spans += 1;
            self.first.get_or_insert(span);
        }
    }

    fn see_caption(&mut self, line: u64, caption: &str) {
        let caption = caption.trim();
        for (seen, is_seen) in [(&mut self.lists, is_list(caption)), (&mut self.quoted, is_quoted(caption))] {
            if is_seen {
                if seen.0 == 0 {
                    *seen = (0, line, shown(caption));
                }
                seen.0 += 1;
            }
        }
    }

    fn warn(&self, path: &Path, rows: &mut Rows<'_>) {
        if let (count @ 1.., line, first) = &self.lists {
            let (captions, are) = if *count == 1 {
                ("1 caption looks like a list".to_owned(), "is")
            } else {
                (format!("{count} captions look like lists"), "are")
            };
            rows.builder.warn(format!(
                "`{}`, line {line}: {captions}, such as `{first}`, and {are} used as written; if the entries are \
                 captions, convert the table to JSON lines or Parquet, where a value can be a list, or give each \
                 caption a column of its own and name these in `captions`",
                path.display()
            ));
        }
        // Without quotes around paths, those of a caption are its own.
        if let (count @ 1.., line, first) = &self.quoted
            && rows.paths.has_quotes()
        {
            let captions = if *count == 1 { "1 caption is" } else { &format!("{count} captions are") };
            rows.builder.warn(format!(
                "`{}`, line {line}: {captions} in quotes as image paths are, such as `{first}`, and used with their \
                 quotes, unlike the paths; if these are no part of captions, write the table with `\"` in their place",
                path.display()
            ));
        }
        let literally = "if quotes are part of the captions, set `quote = false`";
        if let Some(span) = self.first {
            let fields = if self.spans == 1 { "a quoted field runs" } else { "quoted fields run" };
            rows.builder.warn(format!(
                "`{}`, line {}: {fields} over several lines ({} here) and may hold rows of the table ({}); {literally}",
                path.display(),
                span.line,
                span.lines,
                span.rows
            ));
        }
        let rows_have = |count| if count == 1 { "1 row has".to_owned() } else { format!("{count} rows have") };
        let outcomes = [("left off", literally), ("part of the text", "if they are not, remove the blanks")];
        for ((count, line), (outcome, way_out)) in self.before_quote.into_iter().zip(outcomes) {
            if count > 0 {
                rows.builder.warn(format!(
                    "`{}`, line {line}: {} a field in quotes with blanks before them; the quotes are {outcome}; \
                     {way_out}",
                    path.display(),
                    rows_have(count)
                ));
            }
        }
        if self.after_quote > 0 {
            let rows_are = rows_have(self.after_quote);
            rows.builder.warn(format!(
                "`{}`, line {}: {rows_are} a field with text after its closing quote; the quotes are left off; \
                 {literally}",
                path.display(),
                self.line
            ));
        }
    }
}
