//! The header of a `.npy` file: magic bytes, version, length, and a Python dictionary of `descr`, `fortran_order` and
//! `shape` (NumPy Enhancement Proposal 1).

use crate::features::number::Number;

/// The first bytes of a `.npy` file.
pub(crate) const MAGIC: &[u8] = b"\x93NUMPY";

/// Longest header that is read (`_MAX_HEADER_SIZE` of numpy is 10,000 bytes).
const MAX_HEADER: usize = 10_000;

/// The array of the file.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) number: Number,
    pub(crate) shape: Vec<u64>,
    /// Position of the first value in the file, in bytes.
    pub(crate) start: u64,
}

/// Bytes from the start of a file that hold any header.
pub(crate) const READ: usize = MAX_HEADER + 12;

/// Reads the header in the first bytes of a file, at least [`READ`] of them if the file has as many.
///
/// # Errors
/// What is wrong, and what to do.
pub(crate) fn parse(bytes: &[u8]) -> Result<Header, String> {
    let cut = || "its npy header is cut off: write the file again".to_owned();
    let version = *bytes.get(MAGIC.len()).ok_or_else(cut)?;
    let (len, at) = match version {
        1 => (bytes.get(8..10).map(|len| usize::from(u16::from_le_bytes([len[0], len[1]]))), 10),
        2 | 3 => {
            let len = bytes.get(8..12).map(|len| u32::from_le_bytes([len[0], len[1], len[2], len[3]]) as usize);
            (len, 12)
        }
        other => return Err(format!("its npy version is {other}; expected 1, 2 or 3")),
    };
    let len = len.ok_or_else(cut)?;
    if len > MAX_HEADER {
        return Err(format!("its npy header has {len} bytes; expected at most {MAX_HEADER}, as `numpy.save` writes"));
    }
    let text = bytes.get(at..at + len).ok_or_else(cut)?;
    let text = std::str::from_utf8(text).map_err(|_| "its npy header is not text".to_owned())?;
    let value = |key: &str| {
        let behind = text.split_once(&format!("'{key}':")).map(|(_, behind)| behind.trim_start());
        behind.ok_or_else(|| format!("its npy header has no `{key}`"))
    };
    let descr = value("descr")?;
    let descr = descr.strip_prefix('\'').and_then(|rest| rest.split('\'').next());
    let descr = descr.ok_or("its values are records of several fields; save one array of numbers")?;
    let number = number(descr)?;
    let order = value("fortran_order")?;
    let shape = shape(value("shape")?).ok_or("its npy header has no valid `shape`")?;
    if !order.starts_with("False") && shape.iter().filter(|&&size| size > 1).count() > 1 {
        return Err("it is stored column by column (Fortran order); save it with \
                    `numpy.save(path, numpy.ascontiguousarray(array))`"
            .to_owned());
    }
    Ok(Header { number, shape, start: (at + len) as u64 })
}

fn number(descr: &str) -> Result<Number, String> {
    Ok(match descr {
        "<f2" => Number::F16,
        "<f4" => Number::F32,
        "<f8" => Number::F64,
        "|i1" => Number::I8,
        "|u1" => Number::U8,
        "<i2" => Number::I16,
        "<u2" => Number::U16,
        "<i4" => Number::I32,
        "<u4" => Number::U32,
        "<i8" => Number::I64,
        "<u8" => Number::U64,
        big if big.starts_with('>') => {
            return Err(format!(
                "its values are big-endian (`{big}`); save it with `numpy.save(path, array.astype('<{}'))`",
                &big[1..]
            ));
        }
        other => {
            return Err(format!(
                "its values have the type `{other}`; expected numbers: save it with `array.astype('float32')`"
            ));
        }
    })
}

/// The sizes in `(3, 4), }`; a single one has a comma behind it.
fn shape(text: &str) -> Option<Vec<u64>> {
    let (inside, _) = text.strip_prefix('(')?.split_once(')')?;
    let parts = inside.split(',').map(str::trim).filter(|part| !part.is_empty());
    parts.map(|part| part.parse().ok()).collect()
}
