//! The footer of a file: its columns, and where their parts ("chunks") are.

use crate::parquet::file::{Fault, ParquetFile};
use crate::parquet::schema::{Element, Schema};
use crate::parquet::thrift::{BINARY, I32, I64, LIST, Parsed, STRUCT, Thrift};

/// Bytes at both ends of a file.
pub(crate) const MAGIC: &[u8; 4] = b"PAR1";

/// The last bytes of a file with an encrypted footer.
const ENCRYPTED: &[u8; 4] = b"PARE";

/// Length of the footer's length and of [`MAGIC`].
const TAIL_BYTES: u64 = 8;

/// Largest footer read; 10,000 row groups of 100 columns take about 100 MB.
const MAX_FOOTER_BYTES: u64 = 512 << 20;

/// The key under which the `datasets` library describes the columns.
const FEATURES_KEY: &str = "huggingface";

/// What the end of a file says.
#[derive(Debug)]
pub(crate) struct Footer {
    pub(crate) schema: Schema,
    pub(crate) groups: Vec<RowGroup>,
    /// JSON of the `datasets` library.
    pub(crate) huggingface: Option<String>,
}

/// Successive rows; each column has one chunk.
#[derive(Clone, Debug, Default)]
pub(crate) struct RowGroup {
    pub(crate) rows: u64,
    pub(crate) chunks: Vec<Chunk>,
}

/// The pages of one column for one row group.
#[derive(Clone, Debug, Default)]
pub(crate) struct Chunk {
    /// Position of the first page header in the file.
    pub(crate) start: u64,
    /// Length in bytes.
    pub(crate) len: u64,
    pub(crate) codec: i64,
    /// Number of values that are null; `None` if the file does not say.
    pub(crate) nulls: Option<u64>,
}

/// Reads the footer.
pub(crate) fn read_footer(file: &ParquetFile) -> Result<Footer, Fault> {
    let head = file.read(0, file.len().min(512))?;
    if !head.starts_with(MAGIC) {
        return Err(Fault::Malformed(not_parquet(&head)));
    }
    let incomplete = || {
        let reason = "the file starts as parquet, but ends without its footer: it is incomplete; download or write it \
                      again";
        Fault::Malformed(reason.to_owned())
    };
    let tail_at = file.len().checked_sub(TAIL_BYTES).filter(|at| *at >= MAGIC.len() as u64).ok_or_else(incomplete)?;
    let tail = file.read(tail_at, TAIL_BYTES)?;
    let Some((len, magic)) = tail.split_first_chunk::<4>() else { return Err(incomplete()) };
    if magic == ENCRYPTED {
        return Err(Fault::Malformed("the file is encrypted; write it without encryption".to_owned()));
    }
    if magic != MAGIC {
        return Err(incomplete());
    }
    let len = u64::from(u32::from_le_bytes(*len));
    if len > MAX_FOOTER_BYTES || len > tail_at - MAGIC.len() as u64 {
        return Err(Fault::Malformed(format!("the footer has {len} bytes, more than fit into the file")));
    }
    let bytes = file.read(tail_at - len, len)?;
    let footer = parse(&bytes, tail_at - len)?;
    Ok(footer)
}

fn not_parquet(head: &[u8]) -> String {
    let found = if head.is_empty() {
        "an empty file"
    } else if head.starts_with(b"version https://git-lfs") {
        return "it is a Git LFS pointer, not the file; run `git lfs pull`".to_owned();
    } else if head.trim_ascii_start().starts_with(b"<") {
        "HTML or XML, as of a failed download"
    } else if head.starts_with(ENCRYPTED) {
        "an encrypted parquet file"
    } else if head.starts_with(b"ARROW1") {
        return "it is an Arrow file, not parquet; write it with `Dataset.to_parquet` or `pyarrow.parquet`".to_owned();
    } else {
        "something else"
    };
    format!("it does not start with `PAR1`, as parquet does, but is {found}")
}

/// Parses the footer of a file with `data_len` bytes before it.
fn parse(bytes: &[u8], data_len: u64) -> Parsed<Footer> {
    let (mut elements, mut groups, mut huggingface) = (Vec::new(), Vec::new(), None);
    let mut schema = None;
    Thrift::new(bytes).fields(|it, id, kind| {
        match (id, kind) {
            (2, LIST) => {
                it.list(STRUCT, |it| {
                    elements.push(element(it)?);
                    Ok(())
                })?;
                schema = Some(Schema::new(std::mem::take(&mut elements))?);
            }
            (4, LIST) => {
                let schema = schema.as_ref().ok_or("the footer has row groups before its schema")?;
                it.list(STRUCT, |it| {
                    groups.push(row_group(it, schema, data_len)?);
                    Ok(())
                })?;
            }
            (5, LIST) => it.list(STRUCT, |it| {
                if let Some(features) = key_value(it)? {
                    huggingface = Some(features);
                }
                Ok(())
            })?,
            _ => return Ok(false),
        }
        Ok(true)
    })?;
    let schema = schema.ok_or("the footer has no schema")?;
    Ok(Footer { schema, groups, huggingface })
}

fn element(thrift: &mut Thrift<'_>) -> Parsed<Element> {
    let mut element = Element::default();
    let mut named = false;
    thrift.fields(|it, id, kind| {
        match (id, kind) {
            (1, I32) => element.physical = Some(it.int()?),
            (3, I32) => element.repetition = it.int()?,
            (4, BINARY) => (element.name, named) = (it.text()?.to_owned(), true),
            (5, I32) => element.children = it.int()?,
            (6, I32) => element.converted = Some(it.int()?),
            (10, STRUCT) => it.fields(|_, id, _| {
                element.logical = Some(id);
                Ok(false)
            })?,
            _ => return Ok(false),
        }
        Ok(true)
    })?;
    if named { Ok(element) } else { Err("a column has no name".to_owned()) }
}

fn key_value(thrift: &mut Thrift<'_>) -> Parsed<Option<String>> {
    let (mut key, mut value) = (&b""[..], &b""[..]);
    thrift.fields(|it, id, kind| {
        match (id, kind) {
            (1, BINARY) => key = it.binary()?,
            (2, BINARY) => value = it.binary()?,
            _ => return Ok(false),
        }
        Ok(true)
    })?;
    Ok((key == FEATURES_KEY.as_bytes()).then(|| String::from_utf8_lossy(value).into_owned()))
}

fn row_group(thrift: &mut Thrift<'_>, schema: &Schema, data_len: u64) -> Parsed<RowGroup> {
    let mut group = RowGroup::default();
    thrift.fields(|it, id, kind| {
        match (id, kind) {
            (1, LIST) => it.list(STRUCT, |it| {
                let leaf = schema.leaves.get(group.chunks.len()).ok_or("a row group has too many columns")?;
                group.chunks.push(chunk(it, &leaf.path, data_len)?);
                Ok(())
            })?,
            (3, I64) => group.rows = it.size()?,
            _ => return Ok(false),
        }
        Ok(true)
    })?;
    if group.chunks.len() < schema.leaves.len() {
        return Err(format!("a row group has {} of {} columns", group.chunks.len(), schema.leaves.len()));
    }
    Ok(group)
}

fn chunk(thrift: &mut Thrift<'_>, path: &[String], data_len: u64) -> Parsed<Chunk> {
    let name = || path.join(".");
    let (mut chunk, mut found) = (Chunk::default(), false);
    thrift.fields(|it, id, kind| {
        match (id, kind) {
            (1, BINARY) => {
                let other = it.text()?;
                if !other.is_empty() {
                    return Err(format!("the values of column `{}` are in another file, `{other}`", name()));
                }
            }
            (3, STRUCT) => (chunk, found) = (chunk_metadata(it, path)?, true),
            (8, STRUCT) => return Err(format!("column `{}` is encrypted; write it without encryption", name())),
            _ => return Ok(false),
        }
        Ok(true)
    })?;
    let end = chunk.start.checked_add(chunk.len);
    if !found || end.is_none_or(|end| end > data_len) {
        return Err(format!("column `{}` goes past the end of the file; download or write it again", name()));
    }
    Ok(chunk)
}

fn chunk_metadata(thrift: &mut Thrift<'_>, path: &[String]) -> Parsed<Chunk> {
    let mut chunk = Chunk::default();
    let (mut depth, mut data, mut dictionary, mut same) = (0, 0, 0, true);
    thrift.fields(|it, id, kind| {
        match (id, kind) {
            (3, LIST) => it.list(BINARY, |it| {
                let part = it.binary()?;
                same &= path.get(depth).is_some_and(|name| name.as_bytes() == part);
                depth += 1;
                Ok(())
            })?,
            (4, I32) => chunk.codec = it.int()?,
            (7, I64) => chunk.len = it.size()?,
            (9, I64) => data = it.size()?,
            (11, I64) => dictionary = it.size()?,
            (12, STRUCT) => it.fields(|it, id, kind| {
                let is_nulls = (id, kind) == (3, I64);
                if is_nulls {
                    chunk.nulls = u64::try_from(it.int()?).ok();
                }
                Ok(is_nulls)
            })?,
            _ => return Ok(false),
        }
        Ok(true)
    })?;
    if !same || depth != path.len() {
        return Err(format!("the columns of a row group are not those of the schema, at `{}`", path.join(".")));
    }
    // Some writers give 0 where there is no dictionary.
    chunk.start = if dictionary > 0 { dictionary.min(data) } else { data };
    Ok(chunk)
}
