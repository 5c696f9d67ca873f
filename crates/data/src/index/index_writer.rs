//! Reads sources into an index, a few shards at a time.

use std::path::PathBuf;

use crate::dataset::Dataset;
use crate::dataset::part::{Part, PartUse};
use crate::dataset::skipped_rows::SkippedRows;
use crate::error::DataError;
use crate::index::files::IndexFiles;
use crate::index::inputs::inputs;
use crate::index::manifest::{Manifest, Side};
use crate::index::open::{data_set, described};
use crate::index::side_writer::SideWriter;
use crate::sources::source_table::{SourceTable, is_number};

/// The names of the data sets of an index.
const SIDES: [&str; 2] = ["train", "validation"];

/// Reads the shards of `tables` into an index, and returns the content of its manifest, which the caller writes when
/// all other files are on the disk. `held_out`: the share of the images that [`Dataset::split`] holds out.
///
/// # Errors
/// As for [`SourceTable::read`], with the key of its table; [`DataError::Write`]; [`DataError::Loader`] for sources
/// that are not shards, or paths that are not UTF-8.
pub fn write_index(
    tables: &[(String, &SourceTable)],
    held_out: f64,
    files: &dyn IndexFiles,
) -> Result<Vec<u8>, DataError> {
    // Before they are read: shards that change meanwhile are seen as changed at the next start.
    let inputs = inputs(&tables.iter().map(|(_, table)| *table).collect::<Vec<_>>())?;
    let names = if held_out > 0.0 { &SIDES[..] } else { &SIDES[..1] };
    let mut sides = names.iter().map(|name| SideWriter::create(files, name)).collect::<Result<Vec<_>, _>>()?;
    let (mut skipped, mut notes, mut warnings) = (SkippedRows::default(), Vec::new(), Vec::new());
    let mut uses = Vec::new();
    for (key, table) in tables {
        uses.push(table.usage().map_err(|error| error.in_table(key))?);
        let mut numbers = Numbers { count: 0, first: None, all: true };
        let mut take = |segment: Dataset| {
            numbers.count(&segment);
            if held_out > 0.0 {
                let (rest, share) = segment.split(held_out);
                sides[0].append(&rest)?;
                sides[1].append(&share)
            } else {
                sides[0].append(&segment)
            }
        };
        let mut last = table.read_segments(&mut take).map_err(|error| error.in_table(key))?;
        skipped.absorb(std::mem::take(&mut last.skipped));
        notes.append(&mut last.notes);
        warnings.append(&mut last.warnings);
        let part = last.parts().first().cloned().unwrap_or_else(|| Part::new(PathBuf::new(), 0..0, 0..0));
        take(last)?;
        if let (true, Some(first)) = (numbers.all, &numbers.first) {
            warnings.extend(table.warning_of_numbers(numbers.count, first));
        }
        sides.iter_mut().try_for_each(|side| side.end_part(&part))?;
    }
    let sides = sides.into_iter().map(SideWriter::finish).collect::<Result<Vec<_>, _>>()?;
    let mut manifest = Manifest { inputs, sides, skipped: skipped.into(), notes, warnings };
    for side in &mut manifest.sides {
        let fingerprint = fingerprint(side, &uses, files)?;
        (side.fingerprint, side.fingerprint_use) = (fingerprint, described(&uses));
    }
    manifest.bytes()
}

fn fingerprint(side: &Side, uses: &[PartUse], files: &dyn IndexFiles) -> Result<String, DataError> {
    let changed = |reason: String| DataError::Loader { reason: format!("the data index was changed: {reason}") };
    let dataset = data_set(side, files.dir(), uses).map_err(changed)?;
    Ok(blake3::Hash::from(dataset.fingerprint()?).to_hex().to_string())
}

/// Whether all captions of a source are numbers.
struct Numbers {
    count: usize,
    first: Option<String>,
    all: bool,
}

impl Numbers {
    fn count(&mut self, segment: &Dataset) {
        self.count += segment.num_captions();
        if self.first.is_none() {
            self.first = segment.captions().next().map(|caption| caption.text.to_owned());
        }
        self.all = self.all && segment.captions().all(|caption| is_number(caption.text));
    }
}
