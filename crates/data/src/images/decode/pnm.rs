//! Netpbm's formats: PBM, PGM and PPM, plain or binary, as Pillow reads them, and PAM.
//!
//! Samples are scaled from the file's largest value to 255, as in Pillow. Grey of more than 8 bits becomes the nearest
//! 8-bit level.

use ::image::ColorType;

use crate::error::ImageError;
use crate::images::decode::limits::Gate;
use crate::images::decode::pixels::{Raw, nearest_level, over_white};

const FORMAT: &str = "pnm";

/// What a header says.
struct Header {
    width: u32,
    height: u32,
    /// Samples per pixel: grey, grey and alpha, RGB, or RGB and alpha.
    depth: usize,
    /// The sample that stands for white.
    max: u32,
    /// How the samples are written.
    style: Style,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Style {
    /// Rows of bits, padded to bytes; 1 is black.
    Bits,
    /// Digits 0 and 1, with or without space between them; 1 is black.
    PlainBits,
    /// Decimal numbers.
    Plain,
    /// One byte, or two with the high one first where `max` is over 255.
    Binary,
}

/// Decodes the first image of the file.
///
/// # Errors
/// [`ImageError::Damaged`] for a header or samples that are malformed or missing; [`ImageError::TooLarge`] above the
/// limits of `gate`.
pub(crate) fn read(bytes: &[u8], gate: &mut Gate<'_>) -> Result<Raw, ImageError> {
    let mut input = Input { bytes, at: 2 };
    let header = input.header()?;
    let Header { width, height, depth, max, style } = header;
    let (columns, rows) = (width as usize, height as usize);
    let row_bytes = match style {
        Style::Bits => columns.div_ceil(8),
        Style::PlainBits => columns,
        // A digit, and a space before the next number.
        Style::Plain => (columns * depth).saturating_mul(2),
        Style::Binary => columns * depth * if max > 255 { 2 } else { 1 },
    };
    let expected = row_bytes.saturating_mul(rows) - usize::from(style == Style::Plain && columns > 0 && rows > 0);
    let found = bytes.len().saturating_sub(input.at);
    // Before anything is allocated: a header of a few bytes can announce as many pixels as the limit allows.
    gate.check(FORMAT, (width, height))?;
    if found < expected {
        return Err(damaged(format!("truncated: it has {found} of {expected} bytes of pixels")));
    }
    gate.admit(FORMAT, (width, height), 3)?;

    let levels: Vec<u8> = (0..=max.min(65_535)).map(|value| level(value, max, depth)).collect();
    // Binary samples over the maximum count as the maximum, as in Pillow.
    let scale = |value: u32| levels[value.min(max) as usize];
    let mut data = Vec::with_capacity(columns * rows * 3);
    for row in 0..rows {
        let start = input.at + row * row_bytes;
        match style {
            Style::Bits => {
                let packed = &bytes[start..start + row_bytes];
                data.extend((0..columns).flat_map(|x| [if packed[x / 8] << (x % 8) & 0x80 == 0 { 255 } else { 0 }; 3]));
            }
            Style::Binary if max > 255 => {
                let samples = bytes[start..start + row_bytes].as_chunks::<2>().0;
                let samples = samples.iter().map(|&pair| scale(u16::from_be_bytes(pair).into()));
                push_pixels(&mut data, samples, depth);
            }
            Style::Binary => {
                push_pixels(&mut data, bytes[start..start + row_bytes].iter().map(|&v| scale(v.into())), depth);
            }
            Style::PlainBits => {
                for _ in 0..columns {
                    data.extend([if input.plain_bit()? { 0 } else { 255 }; 3]);
                }
            }
            Style::Plain => {
                let mut samples = Vec::with_capacity(columns * depth);
                for _ in 0..columns * depth {
                    let value = input.number("a sample")?;
                    if value > max {
                        return Err(damaged(format!("the sample {value} is over the maximum {max} of its header")));
                    }
                    samples.push(scale(value));
                }
                push_pixels(&mut data, samples.into_iter(), depth);
            }
        }
    }
    Ok(Raw { width, height, data, color: ColorType::Rgb8, orientation: 1, whole: None })
}

/// The 8-bit level of a sample.
fn level(value: u32, max: u32, depth: usize) -> u8 {
    let scaled = |white: f64| (f64::from(value) / f64::from(max) * white).round_ties_even();
    if depth == 1 && max > 255 { nearest_level(scaled(65535.0) as u16) } else { scaled(255.0) as u8 }
}

fn push_pixels(data: &mut Vec<u8>, mut samples: impl Iterator<Item = u8>, depth: usize) {
    while let Some(first) = samples.next() {
        let mut next = || samples.next().unwrap_or(first);
        match depth {
            1 => data.extend([first; 3]),
            2 => {
                let alpha = next();
                data.extend([over_white(first, alpha); 3]);
            }
            3 => data.extend([first, next(), next()]),
            _ => {
                let (green, blue, alpha) = (next(), next(), next());
                data.extend([first, green, blue].map(|value| over_white(value, alpha)));
            }
        }
    }
}

/// The bytes of a file, and how many have been read.
struct Input<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Input<'_> {
    fn header(&mut self) -> Result<Header, ImageError> {
        let kind = self.bytes[1];
        if kind == b'7' {
            return self.pam_header();
        }
        let (width, height) = (self.number("the width")?, self.number("the height")?);
        let is_bitmap = matches!(kind, b'1' | b'4');
        let max = if is_bitmap { 1 } else { self.number("the maximum")? };
        if !(1..=65_535).contains(&max) {
            return Err(damaged(format!("its maximum is {max}; expected 1 to 65535")));
        }
        let style = match kind {
            b'1' => Style::PlainBits,
            b'4' => Style::Bits,
            b'2' | b'3' => Style::Plain,
            _ => Style::Binary,
        };
        Ok(Header { width, height, depth: if matches!(kind, b'3' | b'6') { 3 } else { 1 }, max, style })
    }

    fn pam_header(&mut self) -> Result<Header, ImageError> {
        let mut header = Header { width: 0, height: 0, depth: 0, max: 0, style: Style::Binary };
        loop {
            let rest = &self.bytes[self.at..];
            let Some(len) = rest.iter().position(|&byte| byte == b'\n') else {
                return Err(damaged("its header has no `ENDHDR`".to_owned()));
            };
            self.at += len + 1;
            let line = String::from_utf8_lossy(&rest[..len]);
            let (key, value) = line.trim().split_once(' ').unwrap_or((line.trim(), ""));
            let number = || {
                let parsed = value.trim().parse::<u32>();
                parsed.map_err(|_| damaged(format!("`{key}` in its header is `{value}`; expected a number")))
            };
            match key {
                "WIDTH" => header.width = number()?,
                "HEIGHT" => header.height = number()?,
                "DEPTH" => header.depth = number()? as usize,
                "MAXVAL" => header.max = number()?,
                "ENDHDR" => break,
                _ => {}
            }
        }
        if !(1..=4).contains(&header.depth) || !(1..=65_535).contains(&header.max) {
            let (depth, max) = (header.depth, header.max);
            return Err(damaged(format!(
                "it has depth {depth} and maximum {max}; expected a depth of 1 to 4 and a maximum of 1 to 65535"
            )));
        }
        Ok(header)
    }

    /// The next decimal number, after spaces and comments. The one space that ends it is read too.
    fn number(&mut self, what: &str) -> Result<u32, ImageError> {
        self.skip_space();
        let digits = self.bytes[self.at..].iter().take_while(|byte| byte.is_ascii_digit()).count();
        // 10 digits, as in Pillow.
        let text = std::str::from_utf8(&self.bytes[self.at..self.at + digits.min(10)]).unwrap_or_default();
        self.at += digits;
        let ends = self.bytes.get(self.at).is_none_or(|byte| is_space(*byte) || *byte == b'#');
        match text.parse() {
            Ok(value) if ends && digits <= 10 => {
                // A comment after the number belongs to the space.
                if self.bytes.get(self.at).is_some_and(|&byte| is_space(byte)) {
                    self.at += 1;
                }
                Ok(value)
            }
            _ if self.at >= self.bytes.len() => Err(damaged(format!("truncated: it ends before {what}"))),
            _ => Err(damaged(format!("{what} at byte {} is not a number", self.at - digits))),
        }
    }

    fn plain_bit(&mut self) -> Result<bool, ImageError> {
        self.skip_space();
        let byte = self.bytes.get(self.at).copied();
        self.at += 1;
        match byte {
            Some(b'0') => Ok(false),
            Some(b'1') => Ok(true),
            Some(_) => Err(damaged(format!("the sample at byte {} is neither 0 nor 1", self.at - 1))),
            None => Err(damaged("truncated: it ends before its last sample".to_owned())),
        }
    }

    fn skip_space(&mut self) {
        while let Some(&byte) = self.bytes.get(self.at) {
            if byte == b'#' {
                let line = self.bytes[self.at..].iter().position(|byte| matches!(byte, b'\n' | b'\r'));
                self.at = line.map_or(self.bytes.len(), |len| self.at + len);
            } else if is_space(byte) {
                self.at += 1;
            } else {
                return;
            }
        }
    }
}

/// The white space of C's `isspace`.
fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t'..=b'\r')
}

fn damaged(reason: String) -> ImageError {
    ImageError::Damaged { format: FORMAT, reason }
}
