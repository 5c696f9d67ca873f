//! Results of a search.

use maud::{Markup, html};

use crate::data::pages::{PageOptions, SearchQuery, SearchResult, SearchResults};
use crate::page::format::{SHOWN_CHARACTERS, cosine, counted, shortened};
use crate::page::frame::{Frame, Section, absent};
use crate::page::pictures::{Pictures, path};
use crate::page::tables::key_values;

/// The results as a whole HTML page.
#[must_use]
pub fn render_results(results: &SearchResults, options: &PageOptions) -> String {
    let mut pictures = Pictures::new(options.picture_bytes);
    let mut sections = Vec::new();
    for (number, query) in results.queries.iter().enumerate() {
        let title = match &query.text {
            Some(text) => format!("\u{201c}{}\u{201d}", shortened(text, 60)),
            None => query.picture.as_ref().map_or("Query".to_owned(), |picture| shortened(&picture.path, 60)),
        };
        sections.push(Section::new(&format!("query-{number}"), &title, query_body(query, &mut pictures)));
    }
    if sections.is_empty() {
        sections.push(Section::new("results", "Results", absent("Nothing was searched for.")));
    }
    let frame = Frame {
        title: if results.title.is_empty() { "Search results" } else { &results.title },
        kind: "Search results",
        lead: if results.facts.is_empty() {
            html! {}
        } else {
            key_values(&results.facts)
        },
        made_by: &results.made_by,
        left_out: pictures.left_out(),
    };
    frame.render(&sections)
}

fn query_body(query: &SearchQuery, pictures: &mut Pictures) -> Markup {
    let long = query.text.as_ref().filter(|text| text.chars().count() > 60);
    html! {
        @if let Some(text) = long { p dir="auto" { (shortened(text, 2_000)) } }
        @if let Some(picture) = &query.picture {
            div.ask { (pictures.show(picture, &format!("Query: {}", picture.path))) }
        }
        @if query.results.is_empty() { (absent("Nothing was found.")) } @else {
            p.soft { (counted(query.results.len(), "result")) ", the best first, with their cosine similarity." }
            ol.grid { @for (place, result) in query.results.iter().enumerate() { (tile(place + 1, result, pictures)) } }
        }
    }
}

fn tile(rank: usize, result: &SearchResult, pictures: &mut Pictures) -> Markup {
    let alt = result.caption.as_ref().unwrap_or(&result.picture.path);
    html! {
        li.tile {
            (pictures.show(&result.picture, &shortened(alt, SHOWN_CHARACTERS)))
            span.about {
                span.score { (rank) ". " (cosine(result.score)) }
                @if let Some(caption) = &result.caption { span dir="auto" { (shortened(caption, SHOWN_CHARACTERS)) } }
                span.path { (path(&result.picture.path)) }
            }
        }
    }
}
