//! What the embeddings look like.

use maud::{Markup, html};

use crate::data::pages::Report;
use crate::page::format::fixed;
use crate::plot::bars::similarity_histograms;
use crate::plot::scatter::embedding_map;

/// The histograms, the gap and the map; `None` if the run has none of them.
pub(crate) fn embeddings(report: &Report) -> Option<Markup> {
    let histograms = report.similarities.as_ref().and_then(|found| similarity_histograms("similarities", found));
    let map = report.map.as_ref().and_then(|map| embedding_map("embedding-map", map));
    let gap = report.modality_gap.map(gap);
    if histograms.is_none() && map.is_none() && gap.is_none() {
        return None;
    }
    Some(html! {
        @if let Some(gap) = gap { (gap) }
        @if let Some(histograms) = histograms { (histograms) }
        @if let Some(map) = map { (map) }
    })
}

fn gap(gap: f64) -> Markup {
    html! {
        p.callout {
            "Modality gap: " strong { (fixed(gap, 3)) } ". It is the distance between the mean image and the mean text "
            "embedding, from 0 to 2; contrastive training leaves one, and a smaller gap is not always better "
            "(Liang et al. 2022, arXiv:2203.02053)."
        }
    }
}
