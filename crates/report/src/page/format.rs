//! Numbers and long texts as they are shown.

/// Characters of a caption or name that a page shows.
pub(crate) const SHOWN_CHARACTERS: usize = 240;

/// A number with about `digits` significant digits, without an exponent where it stays short.
pub(crate) fn significant(value: f64, digits: usize) -> String {
    if !value.is_finite() {
        return not_finite(value).to_owned();
    }
    if value == 0.0 {
        return "0".to_owned();
    }
    let exponent = value.abs().log10().floor() as i32;
    if !(-4..7).contains(&exponent) {
        let text = format!("{value:.*e}", digits.saturating_sub(1));
        return minus(&match text.split_once('e') {
            Some((mantissa, exponent)) if mantissa.contains('.') => {
                format!("{}e{exponent}", mantissa.trim_end_matches('0').trim_end_matches('.'))
            }
            _ => text,
        });
    }
    let decimals = (digits as i32 - 1 - exponent).max(0) as usize;
    let text = format!("{value:.decimals$}");
    let text = if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { &text };
    let (whole, fraction) = text.split_once('.').map_or((text, None), |(whole, fraction)| (whole, Some(fraction)));
    let whole = grouped(whole);
    minus(&fraction.map_or(whole.clone(), |fraction| format!("{whole}.{fraction}")))
}

/// A count with commas between thousands.
pub(crate) fn count(value: u64) -> String {
    grouped(&value.to_string())
}

/// A count followed by a noun in the singular or the plural.
pub(crate) fn counted(value: usize, noun: &str) -> String {
    let plural = match noun {
        _ if value == 1 => noun.to_owned(),
        _ if noun.ends_with("ss") => format!("{noun}es"),
        _ => format!("{noun}s"),
    };
    format!("{} {plural}", count(value as u64))
}

/// A number with as many decimals as given.
pub(crate) fn fixed(value: f64, decimals: usize) -> String {
    if value.is_finite() { minus(&format!("{value:.decimals$}")) } else { not_finite(value).to_owned() }
}

/// A cosine similarity: two decimals are what a reader compares, three keep close ones apart.
pub(crate) fn cosine(value: f64) -> String {
    fixed(value, 3)
}

fn not_finite(value: f64) -> &'static str {
    if value.is_nan() {
        "not a number"
    } else if value > 0.0 {
        "infinite"
    } else {
        "\u{2212}infinite"
    }
}

/// With a minus sign, which is as wide as a digit, unlike the hyphen. What rounds to zero has none.
fn minus(text: &str) -> String {
    match text.strip_prefix('-') {
        Some(rest) if rest.chars().all(|letter| "0.".contains(letter)) => rest.to_owned(),
        Some(rest) => format!("\u{2212}{rest}"),
        None => text.to_owned(),
    }
}

fn grouped(digits: &str) -> String {
    let (sign, digits) = digits.strip_prefix('-').map_or(("", digits), |rest| ("-", rest));
    let mut text = String::from(sign);
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Labels of ticks: as many decimals as tell them apart, thousands as `k`, millions as `M`.
pub(crate) fn ticks(values: &[f64]) -> Vec<String> {
    let largest = values.iter().fold(0.0, |largest: f64, value| largest.max(value.abs()));
    let (divisor, suffix) = match largest {
        _ if largest >= 1e6 => (1e6, "M"),
        _ if largest >= 1e4 => (1e3, "k"),
        _ => (1.0, ""),
    };
    let exponent = if largest > 0.0 { largest.log10().floor() as i32 } else { 0 };
    if !(-3..10).contains(&exponent) {
        return values.iter().map(|value| significant(*value, 3)).collect();
    }
    let decimals = (0..=6).find(|decimals| {
        let factor = 10_f64.powi(*decimals as i32);
        values.iter().all(|value| {
            let scaled = value / divisor * factor;
            (scaled - scaled.round()).abs() < 1e-6 * scaled.abs().max(1.0)
        })
    });
    let label = |value: &f64| match *value {
        0.0 => "0".to_owned(),
        value => minus(&format!("{:.*}{suffix}", decimals.unwrap_or(6), value / divisor)),
    };
    values.iter().map(label).collect()
}

/// A text of at most `most` characters. What is cut off is replaced by an ellipsis.
pub(crate) fn shortened(text: &str, most: usize) -> String {
    match text.char_indices().nth(most) {
        None => text.to_owned(),
        Some(_) => text.chars().take(most.saturating_sub(1)).chain(['\u{2026}']).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_well() {
        let shown = [0.0, 1.0, -0.5, 3.2518, 1234.6, 0.00033333, 1e-9, 2.5e12, 14.285].map(|x| significant(x, 4));
        let expected =
            ["0", "1", "\u{2212}0.5", "3.252", "1,235", "0.0003333", "1e-9", "2.5e12", "14.29"].map(str::to_owned);
        assert_eq!(shown, expected);
        assert_eq!(fixed(-0.0001, 2), "0.00");
        assert_eq!([counted(1, "class"), counted(2, "class"), counted(0, "key")], ["1 class", "2 classes", "0 keys"]);
        assert_eq!((count(1_234_567), count(999)), ("1,234,567".to_owned(), "999".to_owned()));
    }

    #[test]
    fn not_finite_is_said() {
        for (value, said) in [(f64::NAN, "not a number"), (f64::INFINITY, "infinite")] {
            assert_eq!((significant(value, 3), fixed(value, 2)), (said.to_owned(), said.to_owned()));
        }
    }

    #[test]
    fn ticks_have_equal_decimals() {
        assert_eq!(ticks(&[0.0, 0.5, 1.0]), ["0", "0.5", "1.0"]);
        assert_eq!(ticks(&[0.0, 20_000.0, 40_000.0]), ["0", "20k", "40k"]);
        assert_eq!(ticks(&[1_000_000.0, 1_500_000.0]), ["1.0M", "1.5M"]);
        assert_eq!(ticks(&[0.0, 2e-5, 4e-5]), ["0", "2e-5", "4e-5"]);
        assert_eq!(ticks(&[]), Vec::<String>::new());
    }

    #[test]
    fn long_texts_are_cut_between_characters() {
        assert_eq!(shortened("日本語のテキスト", 4), "日本語…");
        assert_eq!(shortened("abc", 3), "abc");
    }
}
