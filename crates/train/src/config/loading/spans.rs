//! Moves the spans of TOML values, so that several texts share one range of positions.

use std::ops::Range;

use toml::Spanned;
use toml::de::DeValue;

/// Adds `offset` to every span of a value. The parser limits the depth of the recursion.
pub(super) fn shift(value: Spanned<DeValue<'_>>, offset: usize) -> Spanned<DeValue<'_>> {
    let span = moved(&value.span(), offset);
    let inner = match value.into_inner() {
        DeValue::Array(array) => DeValue::Array(array.into_iter().map(|item| shift(item, offset)).collect()),
        DeValue::Table(table) => {
            let entries = table.into_iter().map(|(key, value)| {
                let span = moved(&key.span(), offset);
                (Spanned::new(span, key.into_inner()), shift(value, offset))
            });
            DeValue::Table(entries.collect())
        }
        scalar => scalar,
    };
    Spanned::new(span, inner)
}

/// Adds `offset` to a span.
pub(super) fn moved(span: &Range<usize>, offset: usize) -> Range<usize> {
    span.start + offset..span.end + offset
}
