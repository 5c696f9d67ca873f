//! Embeddings in a safetensors file, as `dualenc embed` writes them: `image_embeds` and `text_embeds` of shape
//! `[rows, dim]`, with JSON lists of paths and texts in the metadata.

use std::collections::HashMap;
use std::path::Path;

use memmap2::Mmap;
use safetensors::{Dtype, SafeTensors};

use crate::error::SearchError;
use crate::opened::{Kind, Names, Opened, Part};
use crate::vectors::{Element, Vectors};

/// The metadata entry with the fingerprint of the model.
const MODEL_ENTRY: &str = "model";

/// Bytes before the header: its length.
const LENGTH_BYTES: usize = size_of::<u64>();

/// Tensors that an error names.
const MOST_NAMED: usize = 8;

/// What a file can hold, in order of preference: the tensor, what its rows are, and the metadata entry of their names.
const PARTS: [(Part, &str, Kind, &str); 2] =
    [(Part::Images, "image_embeds", Kind::Images, "image_paths"), (Part::Texts, "text_embeds", Kind::Texts, "texts")];

/// Whether a file starts as a safetensors file does.
pub(crate) fn is_safetensors(file: &[u8]) -> bool {
    let length = file.first_chunk().map(|&length| u64::from_le_bytes(length));
    length.is_some_and(|length| length < 1 << 40) && file.get(LENGTH_BYTES) == Some(&b'{')
}

/// Opens the embeddings of `part`.
pub(crate) fn open(map: Mmap, path: &Path, part: Part) -> Result<Opened, SearchError> {
    let problem = |problem: String| SearchError::file(path, problem);
    let (header, metadata) = SafeTensors::read_metadata(&map).map_err(|error| {
        problem(format!("its header as a safetensors file is damaged or cut off ({error}); write it again"))
    })?;
    let tensors = metadata.tensors();
    let is_wanted = |of: Part| part == Part::Any || part == of;
    let found = PARTS.iter().find_map(|&(of, tensor, kind, names)| {
        is_wanted(of).then(|| tensors.get(tensor).map(|info| (*info, tensor, kind, names)))?
    });
    let Some((info, tensor, kind, names)) = found else {
        let wanted: Vec<_> = PARTS.iter().filter(|(of, ..)| is_wanted(*of)).map(|(_, name, ..)| *name).collect();
        return Err(problem(format!(
            "it has no tensor `{}`, but {}; write it with `dualenc embed`",
            wanted.join("` or `"),
            named(tensors.keys())
        )));
    };
    let element = match info.dtype {
        Dtype::F32 => Element::F32,
        Dtype::F16 => Element::F16,
        other => return Err(problem(format!("`{tensor}` has values of {other:?}; expected F32 or F16"))),
    };
    let &[rows, dim] = info.shape.as_slice() else {
        return Err(problem(format!("`{tensor}` has the shape {:?}; expected [rows, dim]", info.shape)));
    };
    let start = LENGTH_BYTES + header;
    let (found, expected) = (map.len() - start.min(map.len()), metadata.data_len());
    if found != expected {
        return Err(problem(format!(
            "it is cut off or damaged: {found} bytes follow its header, which says {expected}; write it again"
        )));
    }
    let none = HashMap::new();
    let entries = metadata.metadata().as_ref().unwrap_or(&none);
    let model = entries.get(MODEL_ENTRY).cloned();
    let names = match entries.get(names) {
        None => Names::None,
        Some(list) => {
            let list: Vec<String> = serde_json::from_str(list)
                .map_err(|error| problem(format!("its list `{names}` is damaged ({error}); write it again")))?;
            if list.len() != rows {
                let count = list.len();
                return Err(problem(format!(
                    "`{names}` names {count} rows, but `{tensor}` has {rows}; write it again"
                )));
            }
            Names::List(list)
        }
    };
    let vectors = Vectors::new(map, start + info.data_offsets.0, element, rows, dim)
        .ok_or_else(|| problem(format!("`{tensor}` is cut off; write it again")))?;
    Ok(Opened { vectors, kind, names, model })
}

/// The first names in order, and how many there are beside them.
fn named<'a>(names: impl Iterator<Item = &'a String>) -> String {
    let mut names: Vec<&str> = names.map(String::as_str).collect();
    names.sort_unstable();
    let rest = names.len().saturating_sub(MOST_NAMED);
    names.truncate(MOST_NAMED);
    match (names.is_empty(), rest) {
        (true, _) => "no tensor at all".to_owned(),
        (_, 0) => format!("`{}`", names.join("`, `")),
        _ => format!("`{}` and {rest} more", names.join("`, `")),
    }
}
