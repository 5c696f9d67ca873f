//! The families of text towers, one file each: what its `config.json` means, and how its tensors are named on disk.
//!
//! - `albert`: ALBERT.
//! - `bert`: BERT, RoBERTa, XLM-R, CamemBERT and ELECTRA.
//! - `clip`: the text towers of CLIP, SigLIP and SigLIP 2.
//! - `deberta`: DeBERTa-v2 and v3.
//! - `distilbert`: DistilBERT.
//! - `modernbert`: ModernBERT.
//! - `mpnet`: MPNet.

use crate::families::family::Family;
use crate::text::config::TextTowerConfig;

mod albert;
mod bert;
mod clip;
mod deberta;
mod distilbert;
mod modernbert;
mod mpnet;

/// Every text tower.
pub(super) const TEXT_FAMILIES: &[&Family<TextTowerConfig>] = &[
    &bert::BERT,
    &bert::ROBERTA,
    &bert::ELECTRA,
    &mpnet::MPNET,
    &distilbert::DISTILBERT,
    &albert::ALBERT,
    &modernbert::MODERNBERT,
    &deberta::DEBERTA_V2,
    &clip::CLIP,
    &clip::SIGLIP,
];
