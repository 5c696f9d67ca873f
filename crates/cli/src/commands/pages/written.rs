//! The line about a page that was written.

use std::io::{self, Write};

use dualenc_train::WrittenPage;

/// Prints what was written, and its size.
pub fn print(out: &mut impl Write, page: &WrittenPage) -> io::Result<()> {
    writeln!(out, "wrote {} ({})", page.path.display(), size(page.bytes))
}

/// A number of bytes in decimal units.
fn size(bytes: usize) -> String {
    match bytes {
        0..1_000 => format!("{bytes} bytes"),
        1_000..1_000_000 => format!("{:.1} kB", bytes as f64 / 1e3),
        _ => format!("{:.1} MB", bytes as f64 / 1e6),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_units() {
        assert_eq!([12, 56_789, 2_500_000].map(size), ["12 bytes", "56.8 kB", "2.5 MB"]);
    }
}
