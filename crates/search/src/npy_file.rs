//! Arrays that `numpy.save` wrote (numpy.lib.format, versions 1 to 3).

use std::path::Path;

use memmap2::Mmap;

use crate::error::SearchError;
use crate::opened::{Kind, Names, Opened};
use crate::vectors::{Element, Vectors};

/// The first bytes of the file.
pub(crate) const MAGIC: &[u8] = b"\x93NUMPY";

const EXPECTED: &str = "expected `<f4` or `<f2` values of shape [rows, dim] in C order; save it with \
                        `numpy.save(FILE, numpy.ascontiguousarray(rows, dtype=\"<f4\"))`";

/// Opens an array of shape `[rows, dim]`.
pub(crate) fn open(map: Mmap, path: &Path) -> Result<Opened, SearchError> {
    let problem = |found: &str| SearchError::file(path, format!("it is a numpy array, but {found}; {EXPECTED}"));
    let (header, start) = header(&map).ok_or_else(|| problem("its header is damaged or cut off"))?;
    let field = |name: &str| value_of(header, name).ok_or_else(|| problem(&format!("its header has no `{name}`")));
    let element = match field("descr")? {
        "'<f4'" => Element::F32,
        "'<f2'" => Element::F16,
        other => return Err(problem(&format!("its values are {other}"))),
    };
    if field("fortran_order")? != "False" {
        return Err(problem("it is in Fortran order"));
    }
    let shape = field("shape")?;
    let sizes = shape.trim_matches(['(', ')']).split(',').map(str::trim).filter(|size| !size.is_empty());
    let sizes: Option<Vec<usize>> = sizes.map(|size| size.parse().ok()).collect();
    let Some(&[rows, dim]) = sizes.as_deref() else {
        return Err(problem(&format!("its shape is {shape}")));
    };
    let found = map.len() - start;
    let bytes = rows.checked_mul(dim).and_then(|values| values.checked_mul(element.size()));
    if bytes != Some(found) {
        return Err(problem(&format!("its shape {shape} does not fit the {found} bytes after its header")));
    }
    let vectors = Vectors::new(map, start, element, rows, dim).ok_or_else(|| problem("it is cut off"))?;
    Ok(Opened { vectors, kind: Kind::Rows, names: Names::None, model: None })
}

/// The header, and where the values start.
fn header(file: &[u8]) -> Option<(&str, usize)> {
    let version = *file.get(MAGIC.len())?;
    let at = MAGIC.len() + 2;
    let (len, start) = match version {
        1 => (usize::from(u16::from_le_bytes(*file.get(at..)?.first_chunk()?)), at + 2),
        2 | 3 => (usize::try_from(u32::from_le_bytes(*file.get(at..)?.first_chunk()?)).ok()?, at + 4),
        _ => return None,
    };
    let end = start.checked_add(len)?;
    Some((std::str::from_utf8(file.get(start..end)?).ok()?, end))
}

/// The value of a field in the text of a Python dictionary.
fn value_of<'a>(header: &'a str, name: &str) -> Option<&'a str> {
    let (_, rest) = header.split_once(&format!("'{name}':"))?;
    let rest = rest.trim_start();
    let end = if rest.starts_with('(') { rest.find(')')? + 1 } else { rest.find([',', '}'])? };
    Some(rest[..end].trim())
}
