//! Splits a table into records, with what a reader of quotes has to know: where a field opened, and which lines it
//! swallowed. Where quotes are in order, the result is that of RFC 4180; blank lines are no records, and a carriage
//! return ends a line with or without a line feed.

use std::io::{BufRead, Result};

/// Longest record in bytes. More is a quote that is never closed, or a file without lines.
const MAX_RECORD_BYTES: usize = 16 << 20;

/// One record of a table.
#[derive(Debug, Default)]
pub(crate) struct Record {
    bytes: Vec<u8>,
    /// Field `i` is `bytes[ends[i - 1]..ends[i]]`.
    ends: Vec<usize>,
    /// 1-based number of the line where it starts.
    pub(crate) line: u64,
    /// The last quoted field that runs over lines.
    pub(crate) span: Option<Span>,
    /// Whether a closing quote is followed by more text, as in `"a" b`.
    pub(crate) text_after_quote: bool,
    /// Whether a field has blanks before its first quote, which therefore opens no quotes.
    pub(crate) has_blank_before_quote: bool,
    /// Whether blanks and quotes around a field were left off, as in `, "a"`.
    pub(crate) is_unquoted: bool,
    /// Whether a field has blanks and quotes around it that were not left off.
    pub(crate) keeps_quotes: bool,
}

/// A quoted field that runs over several lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Span {
    /// Line of the opening quote.
    pub(crate) line: u64,
    /// Number of lines.
    pub(crate) lines: u64,
    /// Number of lines within it that have as many delimiters as a row.
    pub(crate) rows: u64,
    /// Whether it holds the delimiter.
    pub(crate) has_delimiter: bool,
}

impl Record {
    /// Number of fields.
    pub(crate) fn len(&self) -> usize {
        self.ends.len()
    }

    /// Field number `at`, 0-based.
    pub(crate) fn get(&self, at: usize) -> Option<&[u8]> {
        let start = if at == 0 { 0 } else { *self.ends.get(at - 1)? };
        self.bytes.get(start..*self.ends.get(at)?)
    }

    /// The fields.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &[u8]> {
        (0..self.len()).filter_map(|at| self.get(at))
    }

    fn clear(&mut self) {
        self.bytes.clear();
        self.ends.clear();
        (self.span, self.text_after_quote) = (None, false);
        (self.has_blank_before_quote, self.is_unquoted, self.keeps_quotes) = (false, false, false);
    }

    fn end_field(&mut self, was_quoted: bool, quotes: Quotes) {
        let start = self.ends.last().copied().unwrap_or(0);
        let is_blank = self.bytes.get(start).is_some_and(|byte| matches!(byte, b' ' | b'\t'));
        if !was_quoted && is_blank && quotes != Quotes::Literal {
            self.unquote(start, quotes);
        }
        self.ends.push(self.bytes.len());
    }

    /// Removes blanks and quotes around the field that starts at `start`, if it has them and they are no part of the
    /// text.
    fn unquote(&mut self, start: usize, quotes: Quotes) {
        let field = self.bytes[start..].trim_ascii();
        if field.first() != Some(&b'"') {
            return;
        }
        self.has_blank_before_quote = true;
        let Some(inner) = field[1..].strip_suffix(b"\"") else { return };
        // Quotes within it are doubled, or else those around it may be part of the text, as in `"a" and "b"`.
        let text: Vec<&[u8]> = inner.split(|byte| *byte == b'"').collect();
        let is_doubled = text.len() % 2 == 1 && text.iter().skip(1).step_by(2).all(|between| between.is_empty());
        if !is_doubled || quotes == Quotes::AtStart {
            self.keeps_quotes = true;
            return;
        }
        let text = text.into_iter().step_by(2).collect::<Vec<_>>().join(&b'"');
        self.bytes.truncate(start);
        self.bytes.extend_from_slice(&text);
        self.is_unquoted = true;
    }
}

/// Which quotes quote a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Quotes {
    /// None.
    Literal,
    /// Those at the start of a field.
    AtStart,
    /// Also those after blanks at the start of a field, if they hold no delimiter, as in `a, "b"`.
    AfterBlanks,
}

/// What a read found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Found {
    Record,
    /// The end of the table.
    End,
    /// The table ends within the quotes that opened in line `line`, `lines` lines before the end.
    OpenQuote {
        line: u64,
        lines: u64,
    },
    /// The record or the quoted field that starts in `line` is longer than 16 MiB.
    TooLong {
        line: u64,
    },
}

impl Found {
    /// The line and what is wrong there; `None` for a record and for the end. `way_out`: what to do.
    pub(crate) fn problem(self, way_out: &str) -> Option<(u64, String)> {
        match self {
            Self::Record | Self::End => None,
            Self::OpenQuote { line, lines } => Some((
                line,
                format!("the quote that opens a field here is never closed, in {lines} lines to the end; {way_out}"),
            )),
            Self::TooLong { line } => {
                Some((line, format!("the row that starts here is longer than 16 MiB; {way_out}")))
            }
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    /// Before a record.
    Start,
    FieldStart,
    Field,
    Quoted,
    /// After a quote within quotes: doubled, or the closing one.
    Quote,
}

/// Reads the records of a table.
pub(crate) struct Records<R> {
    reader: R,
    delimiter: u8,
    quotes: Quotes,
    /// Number of columns, to recognise rows within quotes.
    columns: usize,
    line: u64,
    after_return: bool,
    /// Whether the last byte ended a line.
    at_line_start: bool,
}

impl<R: BufRead> Records<R> {
    /// `line`: 1-based number of the first line of `reader`.
    pub(crate) fn new(reader: R, delimiter: u8, has_quotes: bool, line: u64) -> Self {
        let quotes = match (has_quotes, delimiter) {
            (false, _) => Quotes::Literal,
            // Other delimiters often have blanks around them, and quotes that are part of the text.
            (true, b',' | b';') => Quotes::AfterBlanks,
            (true, _) => Quotes::AtStart,
        };
        Self { reader, delimiter, quotes, columns: usize::MAX, line, after_return: false, at_line_start: true }
    }

    /// Sets the number of columns.
    pub(crate) fn expect_columns(&mut self, columns: usize) {
        self.columns = columns;
    }

    /// Reads the next record into `record`.
    pub(crate) fn read(&mut self, record: &mut Record) -> Result<Found> {
        record.clear();
        let (mut state, mut was_quoted) = (State::Start, false);
        let mut span = Span { line: 0, lines: 1, rows: 0, has_delimiter: false };
        let mut delimiters_in_line = 0;
        loop {
            let chunk = self.reader.fill_buf()?;
            if chunk.is_empty() {
                return Ok(match state {
                    State::Start => Found::End,
                    State::Quoted => Found::OpenQuote {
                        line: span.line,
                        lines: self.line + 1 - span.line - u64::from(self.at_line_start),
                    },
                    _ => {
                        record.end_field(was_quoted, self.quotes);
                        Found::Record
                    }
                });
            }
            let mut at = 0;
            while at < chunk.len() {
                let byte = chunk[at];
                // A run of ordinary text in one go.
                if state == State::Field {
                    let ends = |byte: &u8| matches!(byte, b'\n' | b'\r') || *byte == self.delimiter;
                    let end = chunk[at..].iter().position(ends).map_or(chunk.len(), |len| at + len);
                    if end > at {
                        record.bytes.extend_from_slice(&chunk[at..end]);
                        (at, self.after_return) = (end, false);
                        continue;
                    }
                }
                at += 1;
                let is_break = matches!(byte, b'\n' | b'\r');
                self.line += u64::from(byte == b'\r' || byte == b'\n' && !self.after_return);
                let is_line_feed_of_return = byte == b'\n' && self.after_return;
                (self.after_return, self.at_line_start) = (byte == b'\r', is_break);
                if state == State::Start {
                    if is_break {
                        continue;
                    }
                    (state, record.line) = (State::FieldStart, self.line);
                }
                match state {
                    State::Quoted if byte == b'"' => state = State::Quote,
                    State::Quoted => {
                        record.bytes.push(byte);
                        if is_break && !is_line_feed_of_return {
                            span.rows += u64::from(span.lines > 1 && delimiters_in_line + 1 == self.columns);
                            (span.lines, delimiters_in_line) = (span.lines + 1, 0);
                        } else if byte == self.delimiter {
                            span.has_delimiter = true;
                            delimiters_in_line += 1;
                        }
                    }
                    State::Quote if byte == b'"' => {
                        record.bytes.push(byte);
                        state = State::Quoted;
                    }
                    State::FieldStart if byte == b'"' && self.quotes != Quotes::Literal => {
                        (state, was_quoted, delimiters_in_line) = (State::Quoted, true, 0);
                        span = Span { line: self.line, lines: 1, rows: 0, has_delimiter: false };
                    }
                    _ if is_break || byte == self.delimiter => {
                        if was_quoted && span.lines > 1 {
                            record.span = Some(span);
                        }
                        record.end_field(was_quoted, self.quotes);
                        (state, was_quoted) = (State::FieldStart, false);
                        if is_break {
                            self.reader.consume(at);
                            return Ok(Found::Record);
                        }
                    }
                    _ => {
                        record.text_after_quote |= state == State::Quote;
                        record.bytes.push(byte);
                        state = State::Field;
                    }
                }
            }
            let len = chunk.len();
            self.reader.consume(len);
            if record.bytes.len() > MAX_RECORD_BYTES {
                let line = if state == State::Quoted { span.line } else { record.line };
                return Ok(Found::TooLong { line });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::mix;

    /// Records of `text` as strings, and what was found at its end.
    fn records(text: &str, has_quotes: bool) -> (Vec<(u64, Vec<String>)>, Found) {
        let mut records = Records::new(text.as_bytes(), b',', has_quotes, 1);
        records.expect_columns(2);
        let (mut record, mut all) = (Record::default(), Vec::new());
        loop {
            match records.read(&mut record).unwrap() {
                Found::Record => {
                    let fields = record.iter().map(|field| String::from_utf8_lossy(field).into_owned()).collect();
                    all.push((record.line, fields));
                }
                found => return (all, found),
            }
        }
    }

    /// The `csv` crate is the reference: for all records if every quote is closed, else for all but the last.
    #[test]
    fn agrees_with_csv_crate() {
        for seed in 0..4000 {
            let len = mix(seed, &[0]) % 24;
            let text: String = (1..=len).map(|at| b"ab,\"\"\n\r,"[mix(seed, &[at]) as usize % 8] as char).collect();
            for quoting in [true, false] {
                let (found, end) = records(&text, quoting);
                let mut reader = ::csv::ReaderBuilder::new();
                let mut reader = reader.has_headers(false).flexible(true).quoting(quoting).from_reader(text.as_bytes());
                let expected: Vec<Vec<String>> = reader
                    .byte_records()
                    .map(|record| record.unwrap().iter().map(|it| String::from_utf8_lossy(it).into_owned()).collect())
                    .collect();
                let found: Vec<Vec<String>> = found.into_iter().map(|(_, fields)| fields).collect();
                let complete = if end == Found::End { expected.len() } else { expected.len() - 1 };
                assert_eq!(found, expected[..complete], "{text:?}, quoting {quoting}, {end:?}");
            }
        }
    }

    #[test]
    fn lines_are_those_of_editors() {
        let (found, _) = records("a,b\r\n\r\n\"c\r\nd\",e\nf,g\rh,i", true);
        let lines: Vec<u64> = found.iter().map(|(line, _)| *line).collect();
        assert_eq!(lines, [1, 3, 5, 6]);
        assert_eq!(found[1].1, ["c\r\nd", "e"]);
    }

    #[test]
    fn open_quote_names_its_line() {
        let (found, end) = records("a,b\nc,\"d\ne,f\ng,h\n", true);
        assert_eq!((found.len(), end), (1, Found::OpenQuote { line: 2, lines: 3 }));
        assert_eq!(records("a,b\nc,\"d\ne,f\ng,h\n", false).0.len(), 4);
    }

    #[test]
    fn spans_count_swallowed_rows() {
        let mut records = Records::new(&b"a,\"b\nc,d\ne,f\n,\",x\n\"p\" q,r\n"[..], b',', true, 1);
        records.expect_columns(2);
        let mut record = Record::default();
        assert_eq!(records.read(&mut record).unwrap(), Found::Record);
        assert_eq!(record.span, Some(Span { line: 1, lines: 4, rows: 2, has_delimiter: true }));
        assert!(!record.text_after_quote);
        assert_eq!(records.read(&mut record).unwrap(), Found::Record);
        assert!(record.text_after_quote && record.span.is_none());
        assert_eq!(record.get(0), Some(&b"p q"[..]));
    }

    #[test]
    fn endless_records_are_refused() {
        let long = format!("a,b\nc,\"{}", "x\n".repeat(MAX_RECORD_BYTES / 2 + 100_000));
        let mut records = Records::new(std::io::BufReader::new(long.as_bytes()), b',', true, 1);
        let mut record = Record::default();
        assert_eq!(records.read(&mut record).unwrap(), Found::Record);
        assert_eq!(records.read(&mut record).unwrap(), Found::TooLong { line: 2 });
    }
}
