//! Windows-1252, the superset of Latin-1 that Windows programs write. The table is that of the WHATWG Encoding
//! Standard, in which every byte stands for a character.

use std::io::{Read, Result};

/// The characters of the bytes 0x80 to 0x9F. All others are those of Latin-1, with the same numbers as in Unicode.
const FROM_0X80: [char; 32] = [
    '\u{20AC}', '\u{81}', '\u{201A}', '\u{192}', '\u{201E}', '\u{2026}', '\u{2020}', '\u{2021}', '\u{2C6}', '\u{2030}',
    '\u{160}', '\u{2039}', '\u{152}', '\u{8D}', '\u{17D}', '\u{8F}', '\u{90}', '\u{2018}', '\u{2019}', '\u{201C}',
    '\u{201D}', '\u{2022}', '\u{2013}', '\u{2014}', '\u{2DC}', '\u{2122}', '\u{161}', '\u{203A}', '\u{153}', '\u{9D}',
    '\u{17E}', '\u{178}',
];

/// Decodes what it reads to UTF-8.
pub(super) struct Windows1252Reader<R> {
    inner: R,
    /// Decoded bytes that did not fit; the first `taken` are gone.
    pending: Vec<u8>,
    taken: usize,
}

impl<R> Windows1252Reader<R> {
    pub(super) fn new(inner: R) -> Self {
        Self { inner, pending: Vec::new(), taken: 0 }
    }
}

impl<R: Read> Read for Windows1252Reader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize> {
        if self.taken == self.pending.len() {
            let mut bytes = [0; 4096];
            let read = self.inner.read(&mut bytes)?;
            (self.taken, self.pending) = (0, Vec::with_capacity(2 * read));
            for &byte in &bytes[..read] {
                let character = match byte {
                    0x80..=0x9f => FROM_0X80[usize::from(byte - 0x80)],
                    _ => char::from(byte),
                };
                self.pending.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
            }
        }
        let len = buffer.len().min(self.pending.len() - self.taken);
        buffer[..len].copy_from_slice(&self.pending[self.taken..self.taken + len]);
        self.taken += len;
        Ok(len)
    }
}
