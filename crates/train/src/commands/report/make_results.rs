//! The results of a search as a page.

use std::path::Path;

use dualenc_data::{ImageRef, Limits, counted};
use dualenc_report::{Entry, PageOptions, Picture, SearchQuery, SearchResult, SearchResults, render_results};
use dualenc_search::Hit;

use crate::commands::report::page_file::{MADE_BY, WrittenPage, write_page};
use crate::commands::report::thumbnails::Thumbnails;
use crate::commands::search::{Answer, Query};
use crate::error::TrainError;
use crate::events::{Event, Observer};

/// Writes the answers of a search as a page of thumbnails to `out`. `facts`: what was searched, as names and values.
/// Pictures that cannot be read are left out, and a warning counts them.
///
/// # Errors
/// [`TrainError::Usage`] or [`TrainError::Write`] when the page cannot be written.
pub fn write_results(
    answers: &[Answer],
    facts: &[(&str, String)],
    limits: &Limits,
    out: &Path,
    observer: &mut dyn Observer,
) -> Result<WrittenPage, TrainError> {
    let mut thumbnails = Thumbnails::new(*limits);
    let mut query = |answer: &Answer| {
        let (text, picture) = match &answer.query {
            Query::Text(text) => (Some(text.clone()), None),
            Query::Image(path) => {
                let image = ImageRef::File(path.clone());
                (None, Some(thumbnails.show(&image, path.display().to_string())))
            }
        };
        let results = answer.hits.iter().map(|hit| result(hit, &mut thumbnails)).collect();
        SearchQuery { text, picture, results }
    };
    let results = SearchResults {
        title: String::new(),
        queries: answers.iter().map(&mut query).collect(),
        facts: facts.iter().map(|(key, value)| Entry { key: (*key).to_owned(), value: value.clone() }).collect(),
        made_by: MADE_BY.to_owned(),
    };
    warn_of_unreadable(&thumbnails, observer);
    write_page(out, &render_results(&results, &PageOptions::default()))
}

fn result(hit: &Hit, thumbnails: &mut Thumbnails) -> SearchResult {
    let picture = match &hit.path {
        Some(path) => thumbnails.show(&ImageRef::File(path.into()), path.clone()),
        None => Picture { path: format!("row {}", hit.row), bytes: Vec::new() },
    };
    SearchResult { picture, score: f64::from(hit.score), caption: hit.text.clone() }
}

/// Warns of pictures that are missing on a page.
pub(super) fn warn_of_unreadable(thumbnails: &Thumbnails, observer: &mut dyn Observer) {
    if let [first, ..] = thumbnails.unreadable() {
        let count = counted(thumbnails.unreadable().len(), "picture");
        observer.on(Event::Warning(format!("{count} cannot be shown, such as {first}")));
    }
}
