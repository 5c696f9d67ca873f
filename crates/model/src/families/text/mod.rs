//! The families of text towers, one file each: what its `config.json` means, and how its tensors are named on disk.
//!
//! - `albert`: ALBERT.
//! - `bert`: BERT, RoBERTa, XLM-R, CamemBERT and ELECTRA.
//! - `clip`: the text towers of CLIP, SigLIP and SigLIP 2.
//! - `decoder`: Llama, Mistral, Qwen2 and Qwen3.
//! - `deberta`: DeBERTa-v2 and v3.
//! - `distilbert`: DistilBERT.
//! - `gemma`: the text model of Gemma 3, EmbeddingGemma.
//! - `gte`: GTE, which its own code calls `new`.
//! - `modernbert`: ModernBERT.
//! - `mpnet`: MPNet.
//! - `rotary`: rotary positions as configs write them, of several families.
//! - `t5`: the encoders of T5 and T5 1.1.

use crate::families::family::Family;
use crate::text::config::TextTowerConfig;

mod albert;
mod bert;
mod clip;
mod deberta;
mod decoder;
mod distilbert;
mod gemma;
mod gte;
mod modernbert;
mod mpnet;
mod rotary;
mod t5;

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
    &decoder::LLAMA,
    &decoder::MISTRAL,
    &decoder::QWEN2,
    &decoder::QWEN3,
    &gemma::GEMMA3,
    &t5::GATED_T5,
    &t5::T5,
    &gte::GTE,
    &clip::CLIP,
    &clip::SIGLIP,
];
