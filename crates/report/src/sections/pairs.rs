//! The worst and the best training pairs.

use maud::{Markup, html};

use crate::data::picture::{PairCard, PairScores};
use crate::page::format::{cosine, shortened};
use crate::page::pictures::{Pictures, path};

/// Characters of a caption on a card; its tooltip has more.
const CARD: usize = 110;

/// Cards of both kinds.
pub(crate) fn pairs(found: &PairScores, pictures: &mut Pictures) -> Markup {
    html! {
        @if !found.scored.is_empty() { p.soft { (found.scored) } }
        @if !found.worst.is_empty() {
            h3 { "Lowest similarity" }
            p.note { "These are the first to check for wrong captions." }
            (cards(&found.worst, pictures))
        }
        @if !found.best.is_empty() {
            h3 { "Highest similarity" }
            (cards(&found.best, pictures))
        }
    }
}

fn cards(cards: &[PairCard], pictures: &mut Pictures) -> Markup {
    html! {
        ol.grid.pairs { @for card in cards {
            @let is_long = card.caption.chars().count() > CARD;
            li.tile {
                (pictures.show(&card.picture, &card.picture.path))
                span.about {
                    span.score { (cosine(card.score)) }
                    span dir="auto" title=[is_long.then(|| shortened(&card.caption, 1_000))] {
                        (shortened(&card.caption, CARD))
                    }
                    span.path { (path(&card.picture.path)) }
                }
            }
        } }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_captions_are_cut() {
        let card = PairCard { caption: "日".repeat(9_000), score: -0.5, ..Default::default() };
        let found = PairScores { worst: vec![card], ..Default::default() };
        let page = pairs(&found, &mut Pictures::new(0)).into_string();
        assert!(page.contains("\u{2026}") && page.len() < 5_000 && page.contains("\u{2212}0.500"));
    }
}
