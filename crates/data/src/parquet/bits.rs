//! Numbers in few bits each: <https://parquet.apache.org/docs/file-format/data-pages/encodings/>.
//!
//! The readers hold positions only; the bytes of the page are passed to each call.

use crate::parquet::thrift::{Parsed, unzigzag};

const ENDS: &str = "a page ends early";

/// Levels and dictionary indices: runs of one number, and runs of numbers of `width` bits.
#[derive(Clone, Debug)]
pub(crate) struct Hybrid {
    at: usize,
    end: usize,
    width: u32,
    /// Numbers left of the run.
    left: u64,
    run: Run,
}

#[derive(Clone, Debug)]
enum Run {
    Repeated(u64),
    /// The position of the next number, in bits.
    Packed(usize),
}

impl Hybrid {
    /// Numbers of `width` bits in `at..end` of a page.
    pub(crate) fn new(at: usize, end: usize, width: u32) -> Parsed<Self> {
        if width > 32 {
            return Err(format!("a page has indices of {width} bits"));
        }
        Ok(Self { at, end, width, left: 0, run: Run::Repeated(0) })
    }

    pub(crate) fn next(&mut self, page: &[u8]) -> Parsed<u64> {
        // A run may be empty.
        while self.left == 0 {
            let header = varint(page, &mut self.at, self.end)?;
            let count = header >> 1;
            if header & 1 == 0 {
                let bytes = self.width.div_ceil(8) as usize;
                let value = bits(page, self.at * 8, bytes as u32 * 8, self.end)?;
                self.at += bytes;
                (self.left, self.run) = (count, Run::Repeated(value));
            } else {
                // Groups of 8 numbers. Some writers leave out the bytes after the last number.
                let groups = usize::try_from(count).unwrap_or(usize::MAX);
                self.run = Run::Packed(self.at * 8);
                self.left = count.saturating_mul(8);
                self.at = self.at.saturating_add(groups.saturating_mul(self.width as usize)).min(self.end);
            }
        }
        self.left -= 1;
        match &mut self.run {
            Run::Repeated(value) => Ok(*value),
            Run::Packed(bit) => {
                let value = bits(page, *bit, self.width, self.end)?;
                *bit += self.width as usize;
                Ok(value)
            }
        }
    }
}

/// Whole numbers as differences: `DELTA_BINARY_PACKED`.
#[derive(Clone, Debug)]
pub(crate) struct Delta {
    at: usize,
    end: usize,
    /// Numbers in a part of a block that share a width, and parts in a block.
    part_len: u64,
    parts: usize,
    /// Numbers left.
    left: u64,
    value: i64,
    is_first: bool,
    smallest: i64,
    /// Position of the widths of the block's parts, and the part that comes next.
    widths: usize,
    part: usize,
    width: u32,
    bit: usize,
    left_of_part: u64,
}

impl Delta {
    /// Numbers that start at `at` of a page, which has `most` values, nulls among them.
    pub(crate) fn new(page: &[u8], mut at: usize, end: usize, most: u64) -> Parsed<Self> {
        let block = varint(page, &mut at, end)?;
        let parts = varint(page, &mut at, end)?;
        let left = varint(page, &mut at, end)?;
        let value = unzigzag(varint(page, &mut at, end)?);
        // The format asks for multiples of 128 and 32. Writers use 128 to 1024, and 4 or 8.
        let is_sound = (1..=1 << 16).contains(&parts) && (1..=1 << 24).contains(&block) && block.is_multiple_of(parts);
        if !is_sound || !(block / parts).is_multiple_of(8) {
            return Err(format!("a page has blocks of {block} numbers in {parts} parts"));
        }
        if left > most {
            return Err(format!("a page of {most} values has {left} numbers"));
        }
        Ok(Self {
            at,
            end,
            part_len: block / parts,
            parts: parts as usize,
            left,
            value,
            is_first: true,
            smallest: 0,
            widths: 0,
            part: parts as usize,
            width: 0,
            bit: 0,
            left_of_part: 0,
        })
    }

    /// Position behind the numbers, once all were read.
    pub(crate) fn position(&self) -> usize {
        self.at
    }

    /// Number of numbers left.
    pub(crate) fn left(&self) -> u64 {
        self.left
    }

    pub(crate) fn next(&mut self, page: &[u8]) -> Parsed<i64> {
        self.left = self.left.checked_sub(1).ok_or(ENDS)?;
        if self.is_first {
            self.is_first = false;
            return Ok(self.value);
        }
        if self.left_of_part == 0 {
            if self.part == self.parts {
                self.smallest = unzigzag(varint(page, &mut self.at, self.end)?);
                (self.widths, self.part) = (self.at, 0);
                self.at = self.at.saturating_add(self.parts);
            }
            let width = page.get(self.widths.saturating_add(self.part)).filter(|_| self.at <= self.end).ok_or(ENDS)?;
            self.width = u32::from(*width);
            if self.width > 64 {
                return Err(format!("a page has numbers of {width} bits"));
            }
            self.bit = self.at * 8;
            self.at += self.part_len as usize / 8 * self.width as usize;
            self.part += 1;
            self.left_of_part = self.part_len;
        }
        self.left_of_part -= 1;
        let delta = bits(page, self.bit, self.width, self.end)?;
        self.bit += self.width as usize;
        self.value = self.value.wrapping_add(self.smallest).wrapping_add(delta as i64);
        Ok(self.value)
    }
}

/// `width` bits, at most 64, from position `bit`, the lowest first.
fn bits(page: &[u8], bit: usize, width: u32, end: usize) -> Parsed<u64> {
    if width == 0 {
        return Ok(0);
    }
    let (first, shift) = (bit / 8, bit % 8);
    let last = (bit + width as usize).div_ceil(8);
    if last > end {
        return Err(ENDS.to_owned());
    }
    let bytes = page.get(first..last).ok_or(ENDS)?;
    let all = bytes.iter().rev().fold(0u128, |all, &byte| all << 8 | u128::from(byte));
    Ok((all >> shift) as u64 & (u64::MAX >> (64 - width)))
}

/// A number of 7 bits in each byte, the lowest first.
pub(crate) fn varint(page: &[u8], at: &mut usize, end: usize) -> Parsed<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let byte = *page.get(*at).filter(|_| *at < end).ok_or(ENDS)?;
        *at += 1;
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Ok(value);
        }
    }
    Err("a page has a number of more than 64 bits".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_and_packed_numbers() {
        // The example of the format's description: 0 to 7 in 3 bits; before it 4 times 5, after it an empty run.
        let page = [0xff, 8, 5, 0b11, 0b1000_1000, 0b1100_0110, 0b1111_1010, 0, 0, 2, 7];
        let mut numbers = Hybrid::new(1, page.len(), 3).unwrap();
        let read: Vec<u64> = (0..13).map(|_| numbers.next(&page).unwrap()).collect();
        assert_eq!(read, [5, 5, 5, 5, 0, 1, 2, 3, 4, 5, 6, 7, 7]);
        assert_eq!(numbers.next(&page).unwrap_err(), ENDS);
        assert!(Hybrid::new(0, 4, 33).is_err());
    }

    #[test]
    fn differences_add_up() {
        // The second example of the format's description: 7, 5, 3, 1, 2, 3, 4, 5, in a block of 128 with 4 parts.
        let page = [0x80, 1, 4, 8, 14, 3, 2, 0, 0, 0, 0b1100_0000, 0b11_1111, 0, 0, 0, 0, 0, 0, 99];
        let mut numbers = Delta::new(&page, 0, page.len(), 8).unwrap();
        let read: Vec<i64> = (0..8).map(|_| numbers.next(&page).unwrap()).collect();
        assert_eq!(read, [7, 5, 3, 1, 2, 3, 4, 5]);
        assert_eq!((numbers.position(), numbers.left()), (18, 0));
        assert!(numbers.next(&page).is_err());
        assert!(Delta::new(&[0x80, 1, 0, 8, 14], 0, 5, 8).is_err(), "no parts");
    }
    #[test]
    fn unsound_blocks_are_refused() {
        let blocks = |page: &[u8], most| Delta::new(page, 0, page.len(), most).unwrap_err();
        // Blocks without numbers: each would be read in no time, and the next one after it.
        assert_eq!(blocks(&[0, 4, 8, 14, 3, 2, 0, 0, 0], 8), "a page has blocks of 0 numbers in 4 parts");
        // 2^63 equal numbers.
        let many = [0x80, 1, 4, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 1, 14, 0, 0, 0, 0, 0];
        assert_eq!(blocks(&many, 8), "a page of 8 values has 9223372036854775808 numbers");
    }
}
