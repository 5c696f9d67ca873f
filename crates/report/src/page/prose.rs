//! Sentences with code in backticks.

use maud::{Markup, html};

/// `text` with what stands in backticks as code.
pub(crate) fn prose(text: &str) -> Markup {
    let parts: Vec<&str> = text.split('`').collect();
    html! {
        @for (place, part) in parts.iter().enumerate() {
            @if place % 2 == 0 { (part) }
            @else if place + 1 < parts.len() { code { (part) } }
            // The last one has no partner.
            @else { "`" (part) }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn backticks_become_code() {
        let shown = |text: &str| prose(text).into_string();
        assert_eq!(shown("set `a < b` or `c`."), "set <code>a &lt; b</code> or <code>c</code>.");
        assert_eq!(shown("`a` and `b"), "<code>a</code> and `b");
        assert_eq!(shown("none"), "none");
    }
}
