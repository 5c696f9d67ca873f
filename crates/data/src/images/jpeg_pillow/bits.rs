//! The bits of a scan, without the zeros that are stuffed after 0xFF (ITU-T T.81, F.2.2.5).

/// Bits are taken from the top of `buffer`. Loops work on a copy, which stays in registers.
#[derive(Clone, Copy)]
pub(super) struct Bits<'a> {
    data: &'a [u8],
    /// The first byte that is not in the buffer.
    at: usize,
    buffer: u64,
    /// Bits of the buffer that may be taken.
    count: u32,
    /// Zero bits of `count` after the data: a file that needs them ends too early.
    padding: u32,
}

impl<'a> Bits<'a> {
    pub(super) fn new(data: &'a [u8], at: usize) -> Self {
        Self { data, at, buffer: 0, count: 0, padding: 0 }
    }

    /// Makes at least 32 bits available.
    #[inline(always)]
    pub(super) fn refill(&mut self) {
        if self.count < 32 {
            self.refill_from_data();
        }
    }

    #[inline(always)]
    fn refill_from_data(&mut self) {
        if let Some(chunk) = self.data.get(self.at..).and_then(|rest| rest.first_chunk::<8>()) {
            let word = u64::from_be_bytes(*chunk);
            if !has_ff(word) {
                self.buffer |= word >> self.count;
                let bytes = (64 - self.count) / 8;
                self.at += bytes as usize;
                self.count += 8 * bytes;
                return;
            }
        }
        *self = self.refilled_by_bytes();
    }

    #[cold]
    #[inline(never)]
    fn refilled_by_bytes(mut self) -> Self {
        // What lies below the bits that count may be the start of the next byte.
        self.buffer &= !(u64::MAX.checked_shr(self.count).unwrap_or(0));
        while self.count <= 56 {
            let byte = match (self.data.get(self.at), self.data.get(self.at + 1)) {
                (Some(0xFF), Some(0)) => {
                    self.at += 2;
                    0xFF
                }
                (Some(0xFF), _) | (None, _) => {
                    self.padding += 8;
                    0
                }
                (Some(&byte), _) => {
                    self.at += 1;
                    byte
                }
            };
            self.buffer |= u64::from(byte) << (56 - self.count);
            self.count += 8;
        }
        self
    }

    /// The next `count` bits, from 1 to 32, which stay.
    #[inline(always)]
    pub(super) fn peek(&self, count: u32) -> usize {
        (self.buffer >> (64 - count)) as usize
    }

    /// Drops `count` bits of those available.
    #[inline(always)]
    pub(super) fn drop(&mut self, count: u32) {
        self.buffer <<= count;
        self.count -= count;
    }

    /// The next `count` bits, from 0 to 16, of those available.
    #[inline(always)]
    pub(super) fn take(&mut self, count: u32) -> i32 {
        // Two shifts, because one by 64 is not defined.
        let bits = (self.buffer >> 1 >> (63 - count)) as i32;
        self.drop(count);
        bits
    }

    /// A number of `size` bits, from 0 to 16: those that start with 0 are negative (`EXTEND`, F.2.2.1).
    #[inline(always)]
    pub(super) fn take_signed(&mut self, size: u32) -> i32 {
        let bits = self.take(size);
        extended(bits, size)
    }

    /// Whether bits after the end of the data were taken.
    pub(super) fn is_overrun(&self) -> bool {
        self.padding > self.count
    }

    /// Goes on after the restart marker of this number; `None` if it does not follow.
    pub(super) fn restart(&mut self, number: u8) -> Option<()> {
        // The rest of the last byte is fill bits. Whole bytes before the marker would be damage.
        if self.is_overrun() || self.count - self.padding >= 8 {
            return None;
        }
        if self.data.get(self.at..self.at + 2)? != [0xFF, 0xD0 + number] {
            return None;
        }
        *self = Self::new(self.data, self.at + 2);
        Some(())
    }

    /// Where the data that follow start; `None` if this scan ended too early.
    pub(super) fn end(&self) -> Option<usize> {
        (!self.is_overrun()).then_some(self.at)
    }
}

/// `bits` as a signed number of `size` bits.
#[inline(always)]
pub(super) fn extended(bits: i32, size: u32) -> i32 {
    // All ones where the first bit is 0.
    let is_negative = (bits >> (size.max(1) - 1)) - 1;
    bits + (is_negative & (1 - (1 << size)))
}

/// Whether a byte of `word` is 0xFF.
#[inline(always)]
fn has_ff(word: u64) -> bool {
    const ONES: u64 = u64::from_ne_bytes([1; 8]);
    let inverse = !word;
    inverse.wrapping_sub(ONES) & word & (ONES << 7) != 0
}
