//! The frame of a page: head, navigation, foot. The page is one file and asks for nothing: its content security policy
//! allows its own style sheet and script, by hash, and embedded pictures, and nothing else.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use maud::{DOCTYPE, Markup, PreEscaped, html};
use sha2::{Digest, Sha256};

use crate::page::format::shortened;
use crate::page::prose::prose;

const STYLE: &str = include_str!("style.css");
const SCRIPT: &str = include_str!("script.js");

/// Characters of a reason that are shown at once: some name every file that is missing.
const SHOWN_REASON: usize = 300;

/// A section with its place in the navigation.
pub(crate) struct Section {
    /// Unique on the page; made of letters, digits and `-`.
    pub id: String,
    pub title: String,
    pub body: Markup,
}

impl Section {
    pub fn new(id: &str, title: &str, body: Markup) -> Self {
        Self { id: id.to_owned(), title: title.to_owned(), body }
    }
}

/// What stands around the sections.
pub(crate) struct Frame<'a> {
    pub title: &'a str,
    /// What kind of page this is, above the title.
    pub kind: &'a str,
    /// Below the title.
    pub lead: Markup,
    pub made_by: &'a str,
    /// What the page leaves out.
    pub left_out: Option<String>,
}

impl Frame<'_> {
    /// The whole page.
    pub fn render(&self, sections: &[Section]) -> String {
        let hash = |text: &str| format!("'sha256-{}'", STANDARD.encode(Sha256::digest(text)));
        let (style, script) = (hash(STYLE), hash(SCRIPT));
        let policy = format!(
            "default-src 'none'; style-src {style}; script-src {script}; img-src data:; \
             base-uri 'none'; form-action 'none'"
        );
        html! {
            (DOCTYPE)
            html lang="en" {
                head {
                    meta charset="utf-8";
                    meta http-equiv="Content-Security-Policy" content=(policy);
                    meta name="viewport" content="width=device-width, initial-scale=1";
                    meta name="color-scheme" content="light dark";
                    link rel="icon" href="data:,";
                    title { (self.title) " \u{2013} " (self.kind) }
                    style { (PreEscaped(STYLE)) }
                }
                body {
                    a.skip href="#main" { "Skip to the content" }
                    header.top {
                        p.kind { (emblem()) (self.kind) }
                        h1 { bdi { (self.title) } }
                        (self.lead)
                    }
                    @if sections.len() > 1 {
                        nav aria-label="Sections" {
                            ul { @for section in sections {
                                li { a href=(format!("#{}", section.id)) { bdi { (section.title) } } }
                            } }
                        }
                    }
                    main id="main" tabindex="-1" {
                        @for section in sections {
                            section id=(section.id) aria-labelledby=(format!("{}-h", section.id)) {
                                h2 id=(format!("{}-h", section.id)) { bdi { (section.title) } }
                                (section.body)
                            }
                        }
                    }
                    footer {
                        @if let Some(left_out) = &self.left_out { p { (left_out) } }
                        @if !self.made_by.is_empty() { p { "Made by " bdi { (self.made_by) } "." } }
                    }
                    script { (PreEscaped(SCRIPT)) }
                }
            }
        }
        .into_string()
    }
}

/// An image and a text that match.
fn emblem() -> Markup {
    html! {
        svg.emblem viewBox="0 0 30 14" aria-hidden="true" {
            path.line.axis stroke-width="1.6" d="M8 7H22" {}
            rect."fill"."s0" x="1" y="1.5" width="11" height="11" rx="2" {}
            circle."fill"."s1" cx="23" cy="7" r="6" {}
        }
    }
}

/// A short line where a part is missing.
pub(crate) fn absent(why: &str) -> Markup {
    let shown = shortened(why, SHOWN_REASON);
    html! {
        p.absent { (prose(&shown)) }
        @if shown != why { details { summary { "The whole reason" } p.absent { (prose(why)) } } }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_reasons_are_folded() {
        let short = absent("`a.png` is missing.").into_string();
        assert_eq!(short, "<p class=\"absent\"><code>a.png</code> is missing.</p>");
        let long = absent(&"`images/a.png`, ".repeat(100)).into_string();
        assert!(long.find("<details>").is_some_and(|at| at < 600), "{long}");
        assert_eq!(long.matches("<code>images/a.png</code>").count(), 118);
    }
}
