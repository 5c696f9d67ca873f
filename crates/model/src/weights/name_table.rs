//! From the path of a parameter to its name on disk: one table per family, read in both directions. The tables are in
//! the families' files, below `families`.
//!
//! The left column is the path in this crate, the same for every family. The right column is the name in the files that
//! `save_pretrained` writes (the same in transformers 4 and 5 for these families). `{n}` is the number of a block, or
//! of a stage and then of a block, in the same order on both sides.

use crate::weights::layout::Layout;
use crate::weights::matrix::Part;
use crate::weights::weight_files::WeightFiles;

/// What a row of a table stands for.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Kind {
    /// `.weight` (transposed) and `.bias`.
    Linear,
    /// One of several linears stored as one: `.weight` and `.bias`.
    LinearPart(Part),
    /// The same under names that end in `_weight` and `_bias` (PyTorch's MultiheadAttention).
    PackedPart(Part),
    /// `.weight` and `.bias`, unchanged.
    Norm,
    /// A norm with statistics: also `.running_mean`, `.running_var` and `.num_batches_tracked`.
    BatchNorm,
    /// One tensor.
    Tensor(Layout),
}

/// Path in this crate, name on disk, and what they stand for.
pub(crate) type Row = (&'static str, &'static str, Kind);

/// Concatenates two tables, for families that differ in a few rows.
pub(crate) const fn concat<const N: usize>(first: &[Row], second: &[Row]) -> [Row; N] {
    let mut rows = [first[0]; N];
    let mut n = 0;
    while n < N {
        rows[n] = if n < first.len() { first[n] } else { second[n - first.len()] };
        n += 1;
    }
    rows
}

/// Names that every text family has beside its own, without a prefix: the `Dense` layers of sentence-transformers.
const SENTENCE_ROWS: &[Row] = &[("dense.{n}.linear", "dense.{n}.linear", Kind::Linear)];

/// The names of a family's tensors on disk.
#[derive(Debug)]
pub(crate) struct Names {
    /// The table.
    pub rows: &'static [Row],
    /// Prefixes that model classes with a head put before the tower's names, in the order in which they are tried.
    pub prefixes: &'static [&'static str],
    /// A name, or the start of one, that every file of the family holds below its prefix.
    pub probe: &'static str,
}

/// The names of one family with the prefix that a set of files uses.
#[derive(Debug, Clone)]
pub(crate) struct NameTable {
    rows: &'static [Row],
    prefix: String,
}

impl NameTable {
    /// The family's names without a prefix, for writing.
    pub fn new(names: &Names) -> Self {
        Self { rows: names.rows, prefix: String::new() }
    }

    /// The family's names with the prefix that `files` use; none if no known prefix matches.
    pub fn for_files(names: &Names, files: &WeightFiles) -> Self {
        let prefix = names.prefixes.iter().find(|prefix| files.has_prefix(&format!("{prefix}{}", names.probe)));
        Self { rows: names.rows, prefix: (*prefix.unwrap_or(&"")).to_owned() }
    }

    /// Whether `files` hold the parameter at `path`.
    pub fn has(&self, files: &WeightFiles, path: &str) -> bool {
        self.stored(path).is_some_and(|(name, _)| files.get(&name).is_some())
    }

    /// The name and layout on disk of the parameter at `path`; `None` if the family has no such parameter.
    pub fn stored(&self, path: &str) -> Option<(String, Layout)> {
        let (template, numbers) = template_of(path);
        let (rows, prefix) =
            if path.starts_with("dense.") { (SENTENCE_ROWS, "") } else { (self.rows, self.prefix.as_str()) };
        rows.iter().find_map(|(ours, theirs, kind)| {
            let (suffix, layout) = match (kind, template.strip_prefix(ours)?) {
                (Kind::Tensor(layout), "") => ("", *layout),
                (Kind::Linear, ".weight") => (".weight", Layout::Transposed),
                (Kind::Norm, ".weight") => (".weight", Layout::Same),
                (Kind::Linear | Kind::Norm, ".bias") => (".bias", Layout::Same),
                (Kind::BatchNorm, ".num_batches_tracked") => (".num_batches_tracked", Layout::Scalar),
                (Kind::BatchNorm, suffix) => (*BATCH_NORM.iter().find(|known| **known == suffix)?, Layout::Same),
                (Kind::LinearPart(part), ".weight") => (".weight", Layout::TransposedPart(*part)),
                (Kind::LinearPart(part), ".bias") => (".bias", Layout::VectorPart(*part)),
                (Kind::PackedPart(part), ".weight") => ("_weight", Layout::TransposedPart(*part)),
                (Kind::PackedPart(part), ".bias") => ("_bias", Layout::VectorPart(*part)),
                _ => return None,
            };
            let name = numbers.iter().fold((*theirs).to_owned(), |name, number| name.replacen("{n}", number, 1));
            Some((format!("{prefix}{name}{suffix}"), layout))
        })
    }

    /// The number of the block that the stored tensor `name` belongs to, from 0; `None` if it is in none.
    pub fn block_of(&self, name: &str) -> Option<usize> {
        let name = name.strip_prefix(&self.prefix)?;
        self.rows.iter().find_map(|(_, stored, _)| {
            let (before, _) = stored.split_once("{n}")?;
            name.strip_prefix(before)?.split('.').next()?.parse().ok()
        })
    }
}

/// Suffixes of a batch norm's tensors of shape `[channels]`.
const BATCH_NORM: [&str; 4] = [".weight", ".bias", ".running_mean", ".running_var"];

/// Splits `stages.3.blocks.1.norm` into `stages.{n}.blocks.{n}.norm` and `["3", "1"]`.
fn template_of(path: &str) -> (String, Vec<&str>) {
    let is_number = |part: &&str| part.bytes().all(|b| b.is_ascii_digit());
    let template: Vec<&str> = path.split('.').map(|part| if is_number(&part) { "{n}" } else { part }).collect();
    (template.join("."), path.split('.').filter(is_number).collect())
}

/// Replaces the older names of LayerNorm's parameters, as in early BERT checkpoints.
pub(crate) fn modern_norm_name(name: &str) -> String {
    name.replace("LayerNorm.gamma", "LayerNorm.weight").replace("LayerNorm.beta", "LayerNorm.bias")
}
