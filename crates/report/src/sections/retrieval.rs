//! Retrieval examples as grids of pictures.

use maud::{Markup, html};

use crate::data::picture::{FoundImage, FoundText, RetrievalExamples};
use crate::page::format::{SHOWN_CHARACTERS, cosine, count, shortened};
use crate::page::frame::absent;
use crate::page::pictures::Pictures;
use crate::page::prose::prose;

/// Results of a query.
const SHOWN: usize = 5;

/// The examples in both directions.
pub(crate) fn examples(found: &RetrievalExamples, pictures: &mut Pictures) -> Markup {
    if found.texts.is_empty() && found.images.is_empty() {
        return absent("There are no retrieval examples.");
    }
    html! {
        @if !found.chosen.is_empty() { p.soft { (prose(&found.chosen)) } }
        @if !found.texts.is_empty() {
            h3 { "Text to image" }
            @for query in &found.texts {
                div.query {
                    div.ask {
                        span dir="auto" { "\u{201c}" (shortened(&query.text, SHOWN_CHARACTERS)) "\u{201d}" }
                        (rank(query.rank))
                    }
                    ol.grid.five { @for (place, image) in query.found.iter().take(SHOWN).enumerate() {
                        (image_found(place, image, pictures))
                    } }
                }
            }
        }
        @if !found.images.is_empty() {
            h3 { "Image to text" }
            @for query in &found.images {
                div.query {
                    div.ask {
                        (pictures.show(&query.picture, &format!("Query: {}", query.picture.path)))
                        (rank(query.rank))
                    }
                    ol.answers { @for text in query.found.iter().take(SHOWN) { (text_found(text)) } }
                }
            }
        }
    }
}

fn rank(rank: Option<u64>) -> Markup {
    html! {
        @match rank {
            Some(1) => span.rank { "first true match: rank 1" }
            Some(rank) => span.rank { "first true match: rank " (count(rank)) }
            None => {}
        }
    }
}

/// Right or wrong in words and a sign, beside the border's style and colour.
fn verdict(is_match: bool) -> Markup {
    html! { span.verdict { @if is_match { "\u{2713} match" } @else { "\u{2717} no match" } } }
}

fn image_found(place: usize, image: &FoundImage, pictures: &mut Pictures) -> Markup {
    let class = if image.is_match { "match" } else { "other" };
    html! {
        li.tile.(class) {
            (pictures.show(&image.picture, &format!("Rank {}: {}", place + 1, image.picture.path)))
            span.about { (verdict(image.is_match)) span.score { (cosine(image.score)) } }
        }
    }
}

fn text_found(text: &FoundText) -> Markup {
    let class = if text.is_match { "match" } else { "other" };
    html! {
        li class=(class) {
            (verdict(text.is_match))
            span.score { (cosine(text.score)) }
            span dir="auto" { (shortened(&text.text, SHOWN_CHARACTERS)) }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::picture::TextQuery;

    #[test]
    fn verdict_is_in_words() {
        let image = |is_match| FoundImage { score: f64::NAN, is_match, ..Default::default() };
        let query = TextQuery { text: "<x>".to_owned(), found: vec![image(true); 9], rank: Some(1) };
        let found = RetrievalExamples { texts: vec![query], ..Default::default() };
        let page = examples(&found, &mut Pictures::new(0)).into_string();
        assert_eq!(page.matches("\u{2713} match").count(), SHOWN);
        assert!(page.contains("&lt;x&gt;") && page.contains("not a number"));
        assert!(examples(&RetrievalExamples::default(), &mut Pictures::new(0)).into_string().contains("no retrieval"));
    }
}
