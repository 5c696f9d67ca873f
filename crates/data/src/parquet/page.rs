//! One page of a column: its header, and its levels and values as bytes.

use std::ops::Range;

use crate::parquet::codec::{UNCOMPRESSED, unpack};
use crate::parquet::file::{Fault, ParquetFile};
use crate::parquet::schema::Leaf;
use crate::parquet::thrift::{FALSE, I32, Parsed, STRUCT, TRUE, Thrift};

/// Largest page that is unpacked. The writer of `datasets` makes a page of up to 1,000 images.
pub(crate) const MAX_PAGE_BYTES: u64 = 1 << 30;

/// Most values of a page. Writers stop at 20,000 rows, or at 1 MiB, which a repeated value of a few bits fills late.
const MAX_PAGE_VALUES: u64 = 1 << 26;

/// Most rows of a page of images.
pub(crate) const MAX_PAGE_IMAGES: u64 = 1 << 20;

/// How much of the file is read to find a header; the rest of the list is for headers with long statistics.
const HEADER_BYTES: [u64; 4] = [256, 8 << 10, 512 << 10, 16 << 20];

/// The number of the encoding of levels.
const RLE: i64 = 3;

/// What a page is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum PageKind {
    Data,
    Dictionary,
    #[default]
    Other,
}

/// The header of a page.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct PageHeader {
    pub(crate) kind: PageKind,
    /// Length of the header itself in the file.
    pub(crate) len: u64,
    /// Length of the page behind it in the file.
    pub(crate) packed: u64,
    /// Length of the page in memory.
    unpacked: u64,
    /// Number of values, with nulls.
    pub(crate) values: u64,
    pub(crate) encoding: i64,
    /// Whether the levels have an encoding other than [`RLE`].
    has_old_levels: bool,
    /// Of pages in version 2 of the format.
    pub(crate) version_2: Option<Version2>,
}

/// What version 2 of the format adds to the header of a page: levels are not packed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Version2 {
    pub(crate) nulls: u64,
    def_bytes: u64,
    rep_bytes: u64,
    is_packed: bool,
}

impl PageHeader {
    /// Bytes of the page in memory.
    pub(crate) fn unpacked(&self) -> u64 {
        self.unpacked
    }
}

/// Reads the header at `at` of a chunk that ends at `end`.
pub(crate) fn read_header(file: &ParquetFile, at: u64, end: u64) -> Result<PageHeader, Fault> {
    let mut failure = String::new();
    for window in HEADER_BYTES {
        let len = window.min(end - at);
        match parse(&file.read(at, len)?) {
            Ok(header) => return check(header, end - at).map_err(Fault::Malformed),
            Err(reason) => failure = reason,
        }
        if len < window {
            break;
        }
    }
    Err(Fault::Malformed(format!("the page at byte {at} is damaged: {failure}; download or write it again")))
}

fn check(header: PageHeader, left: u64) -> Parsed<PageHeader> {
    let PageHeader { packed, unpacked, values, .. } = header;
    if header.len + packed > left {
        return Err("a page goes past the end of its column; download or write it again".to_owned());
    }
    if unpacked > MAX_PAGE_BYTES {
        return Err(format!(
            "a page has {unpacked} bytes, over the limit of {MAX_PAGE_BYTES}; write the file with fewer rows in a row \
             group, such as `row_group_size=100`"
        ));
    }
    if values > MAX_PAGE_VALUES {
        return Err(format!("a page has {values} values, over the limit of {MAX_PAGE_VALUES}"));
    }
    Ok(header)
}

fn parse(bytes: &[u8]) -> Parsed<PageHeader> {
    let mut header = PageHeader::default();
    let mut thrift = Thrift::new(bytes);
    let mut found = false;
    thrift.fields(|it, id, kind| {
        match (id, kind) {
            (1, I32) => {
                found = true;
                header.kind = match it.int()? {
                    0 | 3 => PageKind::Data,
                    2 => PageKind::Dictionary,
                    _ => PageKind::Other,
                };
            }
            (2, I32) => header.unpacked = it.size()?,
            (3, I32) => header.packed = it.size()?,
            (5, STRUCT) => it.fields(|it, id, kind| {
                match (id, kind) {
                    (1, I32) => header.values = it.size()?,
                    (2, I32) => header.encoding = it.int()?,
                    (3 | 4, I32) => header.has_old_levels |= it.int()? != RLE,
                    _ => return Ok(false),
                }
                Ok(true)
            })?,
            (7, STRUCT) => it.fields(|it, id, kind| {
                match (id, kind) {
                    (1, I32) => header.values = it.size()?,
                    (2, I32) => header.encoding = it.int()?,
                    _ => return Ok(false),
                }
                Ok(true)
            })?,
            (8, STRUCT) => header.version_2 = Some(version_2(it, &mut header.values, &mut header.encoding)?),
            _ => return Ok(false),
        }
        Ok(true)
    })?;
    header.len = thrift.position() as u64;
    if found { Ok(header) } else { Err("its header has no type".to_owned()) }
}

fn version_2(thrift: &mut Thrift<'_>, values: &mut u64, encoding: &mut i64) -> Parsed<Version2> {
    let mut version_2 = Version2 { is_packed: true, ..Version2::default() };
    thrift.fields(|it, id, kind| {
        match (id, kind) {
            (1, I32) => *values = it.size()?,
            (2, I32) => version_2.nulls = it.size()?,
            (4, I32) => *encoding = it.int()?,
            (5, I32) => version_2.def_bytes = it.size()?,
            (6, I32) => version_2.rep_bytes = it.size()?,
            (7, TRUE | FALSE) => version_2.is_packed = kind == TRUE,
            _ => return Ok(false),
        }
        Ok(true)
    })?;
    Ok(version_2)
}

/// The bytes of a page in memory, and which of them are what.
#[derive(Debug, Default)]
pub(crate) struct Page {
    pub(crate) bytes: Vec<u8>,
    /// Repetition levels; empty if the column has none.
    pub(crate) rep: Range<usize>,
    /// Definition levels; empty if the column has none.
    pub(crate) def: Range<usize>,
    pub(crate) values: Range<usize>,
    /// Number of bytes at the start that were not packed.
    pub(crate) not_packed: usize,
}

/// Reads the page behind a header that starts at `at`.
pub(crate) fn read_page(
    file: &ParquetFile,
    at: u64,
    header: &PageHeader,
    codec: i64,
    leaf: &Leaf,
) -> Result<Page, Fault> {
    let body = file.read(at + header.len, header.packed)?;
    page(body, header, codec, leaf)
        .map_err(|reason| Fault::Malformed(format!("column `{}`, page at byte {at}: {reason}", leaf.path.join("."))))
}

fn page(body: Vec<u8>, header: &PageHeader, codec: i64, leaf: &Leaf) -> Parsed<Page> {
    let unpacked = header.unpacked as usize;
    if let Some(version_2) = &header.version_2 {
        let (rep, def) = (version_2.rep_bytes as usize, version_2.def_bytes as usize);
        let levels = rep.saturating_add(def);
        if levels > body.len() || levels > unpacked {
            return Err("its levels are longer than the page".to_owned());
        }
        let is_packed = version_2.is_packed && codec != UNCOMPRESSED && unpacked > levels;
        let bytes = if is_packed {
            let mut bytes = body[..levels].to_vec();
            bytes.extend(unpack(codec, &body[levels..], unpacked - levels)?);
            bytes
        } else {
            body
        };
        let end = bytes.len();
        let not_packed = if is_packed { levels } else { end };
        return Ok(Page { bytes, rep: 0..rep, def: rep..levels, values: levels..end, not_packed });
    }
    let is_packed = codec != UNCOMPRESSED;
    let bytes = if !is_packed && body.len() == unpacked { body } else { unpack(codec, &body, unpacked)? };
    let has_levels = header.kind == PageKind::Data && leaf.max_def > 0;
    if has_levels && header.has_old_levels {
        return Err("its levels have the encoding of 2013; write the file again with a current program".to_owned());
    }
    let mut at = 0;
    let mut section = |is_there: bool| {
        if !is_there {
            return Ok(at..at);
        }
        let len = bytes.get(at..).and_then(|rest| rest.first_chunk::<4>()).ok_or("its levels end early")?;
        let start = at + 4;
        at = start.saturating_add(u32::from_le_bytes(*len) as usize);
        if at > bytes.len() { Err("its levels are longer than the page".to_owned()) } else { Ok(start..at) }
    };
    let rep = section(has_levels && leaf.max_rep > 0)?;
    let def = section(has_levels)?;
    let end = bytes.len();
    Ok(Page { bytes, rep, def, values: at..end, not_packed: if is_packed { 0 } else { end } })
}
