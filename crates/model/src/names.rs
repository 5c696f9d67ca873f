//! Where each family keeps its tensors on disk: a key-mapping table a family, read in both directions.
//!
//! The left column is this crate's own path, the same for every family; the right one is the name in the files that
//! `save_pretrained` writes (transformers 4 and 5 write the same names for these families). `{n}` is the block's number.

use crate::weights::WeightFiles;

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
}

#[derive(Debug, Clone, Copy)]
enum Kind {
    /// `.weight` (transposed) and `.bias`.
    Linear,
    /// `.weight` and `.bias` as they are.
    Norm,
    /// One tensor.
    Tensor(Layout),
}

type Row = (&'static str, &'static str, Kind);

/// The names of one family, and the prefix that they carry in the files at hand.
#[derive(Debug, Clone)]
pub(crate) struct NameTable {
    rows: &'static [Row],
    prefix: String,
}

impl NameTable {
    /// A family's table without prefix, for writing.
    pub fn new(family: Family) -> Self {
        Self { rows: family.rows(), prefix: String::new() }
    }

    /// A family's table with whichever of the family's usual prefixes these files use.
    pub fn for_files(family: Family, files: &WeightFiles) -> Self {
        let prefix = family.prefixes().iter().find(|prefix| files.has_prefix(&format!("{prefix}{}", family.probe())));
        Self { rows: family.rows(), prefix: (*prefix.unwrap_or(&"")).to_owned() }
    }

    /// Name and layout in the files of the parameter at `path`.
    pub fn stored(&self, path: &str) -> Option<(String, Layout)> {
        let (template, block) = template_of(path);
        self.rows.iter().find_map(|(ours, theirs, kind)| {
            let (suffix, layout) = match (kind, template.strip_prefix(ours)?) {
                (Tensor(layout), "") => ("", *layout),
                (Linear, ".weight") => (".weight", Transposed),
                (Norm, ".weight") => (".weight", Same),
                (Linear | Norm, ".bias") => (".bias", Same),
                _ => return None,
            };
            Some((format!("{}{}{suffix}", self.prefix, theirs.replace("{n}", &block)), layout))
        })
    }
}

/// `encoder.blocks.3.norm` to `encoder.blocks.{n}.norm` and `3`.
fn template_of(path: &str) -> (String, String) {
    let mut block = String::new();
    let parts: Vec<&str> = path
        .split('.')
        .map(|part| {
            if part.bytes().all(|b| b.is_ascii_digit()) {
                part.clone_into(&mut block);
                "{n}"
            } else {
                part
            }
        })
        .collect();
    (parts.join("."), block)
}

/// The older names of LayerNorm's parameters, still found in early BERT checkpoints.
pub(crate) fn modern_norm_name(name: &str) -> String {
    name.replace("LayerNorm.gamma", "LayerNorm.weight").replace("LayerNorm.beta", "LayerNorm.bias")
}

/// Families that share their names on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Family {
    Vit,
    Deit,
    Dinov2,
    Bert,
    Roberta,
    /// Projections and temperature of the composite.
    Head,
}

impl Family {
    fn rows(self) -> &'static [Row] {
        match self {
            Self::Vit | Self::Deit => VIT,
            Self::Dinov2 => DINOV2,
            Self::Bert | Self::Roberta => BERT,
            Self::Head => HEAD,
        }
    }

    /// What a head model puts before the names of its tower; the composite's own prefixes come first.
    fn prefixes(self) -> &'static [&'static str] {
        match self {
            Self::Vit => &["", "vit."],
            Self::Deit => &["", "deit."],
            Self::Dinov2 => &["", "dinov2.", "backbone."],
            Self::Bert => &["", "bert."],
            Self::Roberta => &["", "roberta."],
            Self::Head => &[""],
        }
    }

    /// The start of a name that every file of the family has.
    fn probe(self) -> &'static str {
        match self {
            Self::Vit | Self::Deit | Self::Dinov2 => "embeddings.patch_embeddings",
            Self::Bert | Self::Roberta => "embeddings.word_embeddings",
            Self::Head => "visual_projection",
        }
    }
}

use Kind::{Linear, Norm, Tensor};
use Layout::{Leading, LeadingVector, Patches, Same, Scalar, Transposed};

const VIT: &[Row] = &[
    ("patch.weight", "embeddings.patch_embeddings.projection.weight", Tensor(Patches)),
    ("patch.bias", "embeddings.patch_embeddings.projection.bias", Tensor(Same)),
    ("class_token", "embeddings.cls_token", Tensor(LeadingVector(2))),
    ("distillation_token", "embeddings.distillation_token", Tensor(LeadingVector(2))),
    ("positions", "embeddings.position_embeddings", Tensor(Leading(1))),
    ("encoder.blocks.{n}.attention_norm", "encoder.layer.{n}.layernorm_before", Norm),
    ("encoder.blocks.{n}.attention.query", "encoder.layer.{n}.attention.attention.query", Linear),
    ("encoder.blocks.{n}.attention.key", "encoder.layer.{n}.attention.attention.key", Linear),
    ("encoder.blocks.{n}.attention.value", "encoder.layer.{n}.attention.attention.value", Linear),
    ("encoder.blocks.{n}.attention.output", "encoder.layer.{n}.attention.output.dense", Linear),
    ("encoder.blocks.{n}.mlp_norm", "encoder.layer.{n}.layernorm_after", Norm),
    ("encoder.blocks.{n}.mlp.up", "encoder.layer.{n}.intermediate.dense", Linear),
    ("encoder.blocks.{n}.mlp.down", "encoder.layer.{n}.output.dense", Linear),
    ("final_norm", "layernorm", Norm),
    ("pooler", "pooler.dense", Linear),
];

const DINOV2: &[Row] = &[
    ("patch.weight", "embeddings.patch_embeddings.projection.weight", Tensor(Patches)),
    ("patch.bias", "embeddings.patch_embeddings.projection.bias", Tensor(Same)),
    ("class_token", "embeddings.cls_token", Tensor(LeadingVector(2))),
    ("positions", "embeddings.position_embeddings", Tensor(Leading(1))),
    ("encoder.blocks.{n}.attention_norm", "encoder.layer.{n}.norm1", Norm),
    ("encoder.blocks.{n}.attention.query", "encoder.layer.{n}.attention.attention.query", Linear),
    ("encoder.blocks.{n}.attention.key", "encoder.layer.{n}.attention.attention.key", Linear),
    ("encoder.blocks.{n}.attention.value", "encoder.layer.{n}.attention.attention.value", Linear),
    ("encoder.blocks.{n}.attention.output", "encoder.layer.{n}.attention.output.dense", Linear),
    ("encoder.blocks.{n}.attention_scale", "encoder.layer.{n}.layer_scale1.lambda1", Tensor(Same)),
    ("encoder.blocks.{n}.mlp_norm", "encoder.layer.{n}.norm2", Norm),
    ("encoder.blocks.{n}.mlp.up", "encoder.layer.{n}.mlp.fc1", Linear),
    ("encoder.blocks.{n}.mlp.down", "encoder.layer.{n}.mlp.fc2", Linear),
    ("encoder.blocks.{n}.mlp_scale", "encoder.layer.{n}.layer_scale2.lambda1", Tensor(Same)),
    ("final_norm", "layernorm", Norm),
];

const BERT: &[Row] = &[
    ("words", "embeddings.word_embeddings.weight", Tensor(Same)),
    ("positions", "embeddings.position_embeddings.weight", Tensor(Same)),
    ("token_types", "embeddings.token_type_embeddings.weight", Tensor(Same)),
    ("embedding_norm", "embeddings.LayerNorm", Norm),
    ("encoder.blocks.{n}.attention.query", "encoder.layer.{n}.attention.self.query", Linear),
    ("encoder.blocks.{n}.attention.key", "encoder.layer.{n}.attention.self.key", Linear),
    ("encoder.blocks.{n}.attention.value", "encoder.layer.{n}.attention.self.value", Linear),
    ("encoder.blocks.{n}.attention.output", "encoder.layer.{n}.attention.output.dense", Linear),
    ("encoder.blocks.{n}.attention_norm", "encoder.layer.{n}.attention.output.LayerNorm", Norm),
    ("encoder.blocks.{n}.mlp.up", "encoder.layer.{n}.intermediate.dense", Linear),
    ("encoder.blocks.{n}.mlp.down", "encoder.layer.{n}.output.dense", Linear),
    ("encoder.blocks.{n}.mlp_norm", "encoder.layer.{n}.output.LayerNorm", Norm),
    ("pooler", "pooler.dense", Linear),
];

const HEAD: &[Row] = &[
    ("image_projection.weight", "visual_projection.weight", Tensor(Transposed)),
    ("text_projection.weight", "text_projection.weight", Tensor(Transposed)),
    ("logit_scale", "logit_scale", Tensor(Scalar)),
    ("logit_bias", "logit_bias", Tensor(Scalar)),
];
