//! Where each family keeps its tensors on disk: key-mapping tables, read in both directions. Each family's
//! table is in its own file below `family`.
//!
//! The left column is this crate's own path, the same for every family; the right one is the name in the files that
//! `save_pretrained` writes (transformers 4 and 5 write the same names for these families). `{n}` is a number (of the block, or of the stage and
//! then the block), in the same order on both sides.

use crate::weights::weight_files::WeightFiles;

/// How the file's tensor differs from the model's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Layout {
    /// Not at all.
    Same,
    /// `[in, out]` here, `[out, in]` there (PyTorch's Linear).
    Transposed,
    /// `[3 * patch * patch, width]` here, `[width, 3, patch, patch]` there (a convolution whose stride is its kernel).
    Patches,
    /// `[n, width]` here, with this many leading dimensions of 1 there.
    Leading(usize),
    /// `[1, width]` here, `[width]` with this many leading dimensions of 1 there.
    LeadingVector(usize),
    /// `[1]` here, a scalar there.
    Scalar,
    /// `[in, out]` here, the rows of part `index` of `[parts * out, in]` there (queries, keys and values in one matrix).
    TransposedPart(Part),
    /// `[out]` here, part `index` of `[parts * out]` there.
    VectorPart(Part),
}

/// One of several equal parts of a tensor, along its first dimension.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Part {
    /// From 0.
    pub index: usize,
    /// How many there are.
    pub of: usize,
}

/// What a row of a table names.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Kind {
    /// `.weight` (transposed) and `.bias`.
    Linear,
    /// A linear that is one of several in one matrix; `.weight` and `.bias`.
    LinearPart(Part),
    /// The same as two tensors whose names end in `_weight` and `_bias` (PyTorch's MultiheadAttention).
    PackedPart(Part),
    /// `.weight` and `.bias` as they are.
    Norm,
    /// A norm with statistics: `.running_mean`, `.running_var` and `.num_batches_tracked` besides.
    BatchNorm,
    /// One tensor.
    Tensor(Layout),
}

/// This crate's path, the name in the files, and what they name.
pub(crate) type Row = (&'static str, &'static str, Kind);

/// Two tables in one, for families that differ in a few rows.
pub(crate) const fn joined<const N: usize>(first: &[Row], second: &[Row]) -> [Row; N] {
    let mut rows = [first[0]; N];
    let mut n = 0;
    while n < N {
        rows[n] = if n < first.len() { first[n] } else { second[n - first.len()] };
        n += 1;
    }
    rows
}

/// Where a family keeps its tensors.
#[derive(Debug)]
pub(crate) struct Names {
    /// The table.
    pub rows: &'static [Row],
    /// What a head model puts before the names of its tower; the composite's own prefixes come first.
    pub prefixes: &'static [&'static str],
    /// The start of a name that every file of the family has.
    pub probe: &'static str,
}

/// The names of one family, and the prefix that they carry in the files at hand.
#[derive(Debug, Clone)]
pub(crate) struct NameTable {
    rows: &'static [Row],
    prefix: String,
}

impl NameTable {
    /// A family's table without prefix, for writing.
    pub fn new(names: &Names) -> Self {
        Self { rows: names.rows, prefix: String::new() }
    }

    /// A family's table with whichever of the family's usual prefixes these files use.
    pub fn for_files(names: &Names, files: &WeightFiles) -> Self {
        let prefix = names.prefixes.iter().find(|prefix| files.has_prefix(&format!("{prefix}{}", names.probe)));
        Self { rows: names.rows, prefix: (*prefix.unwrap_or(&"")).to_owned() }
    }

    /// Whether `files` hold the parameter at `path`.
    pub fn has(&self, files: &WeightFiles, path: &str) -> bool {
        self.stored(path).is_some_and(|(name, _)| files.get(&name).is_some())
    }

    /// Name and layout in the files of the parameter at `path`.
    pub fn stored(&self, path: &str) -> Option<(String, Layout)> {
        let (template, numbers) = template_of(path);
        self.rows.iter().find_map(|(ours, theirs, kind)| {
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
            Some((format!("{}{name}{suffix}", self.prefix), layout))
        })
    }
}

/// Tensors of a batch norm, as many values as channels.
const BATCH_NORM: [&str; 4] = [".weight", ".bias", ".running_mean", ".running_var"];

/// `stages.3.blocks.1.norm` to `stages.{n}.blocks.{n}.norm` and `3`, `1`.
fn template_of(path: &str) -> (String, Vec<&str>) {
    let is_number = |part: &&str| part.bytes().all(|b| b.is_ascii_digit());
    let template: Vec<&str> = path.split('.').map(|part| if is_number(&part) { "{n}" } else { part }).collect();
    (template.join("."), path.split('.').filter(is_number).collect())
}

/// The older names of LayerNorm's parameters, still found in early BERT checkpoints.
pub(crate) fn modern_norm_name(name: &str) -> String {
    name.replace("LayerNorm.gamma", "LayerNorm.weight").replace("LayerNorm.beta", "LayerNorm.bias")
}

/// Projections and temperature of the composite.
pub(crate) const HEAD: Names = Names {
    rows: &[
        ("image_projection.weight", "visual_projection.weight", Kind::Tensor(Layout::Transposed)),
        ("text_projection.weight", "text_projection.weight", Kind::Tensor(Layout::Transposed)),
        ("logit_scale", "logit_scale", Kind::Tensor(Layout::Scalar)),
        ("logit_bias", "logit_bias", Kind::Tensor(Layout::Scalar)),
    ],
    prefixes: &[""],
    probe: "visual_projection",
};
