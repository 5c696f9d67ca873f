//! Quantisation tables and Huffman codes (ITU-T T.81, B.2.4 and annex C).

/// Where the coefficients lie that a file has in zigzag order (figure A.6). What is behind the last one stays there.
pub(super) const ZIGZAG: [u8; 128] = {
    let mut order = [63; 128];
    let (mut row, mut column, mut index) = (0_i32, 0_i32, 0);
    while index < 64 {
        order[index] = (8 * row + column) as u8;
        let is_up = (row + column) % 2 == 0;
        if is_up && column == 7 {
            row += 1;
        } else if is_up && row == 0 {
            column += 1;
        } else if is_up {
            (row, column) = (row - 1, column + 1);
        } else if row == 7 {
            column += 1;
        } else if column == 0 {
            row += 1;
        } else {
            (row, column) = (row + 1, column - 1);
        }
        index += 1;
    }
    order
};

/// Factors of the coefficients, row by row.
pub(super) type Quantisation = [i16; 64];

/// Bits that are looked up at once.
pub(super) const LOOKED_UP: u32 = 10;

/// A code and the coefficient after it, where both together have at most [`LOOKED_UP`] bits: from the lowest bit, their
/// length, a run and the coefficient. Otherwise 0.
#[derive(Clone, Copy)]
pub(super) struct Entry(i32);

impl Entry {
    /// Bits of the code and the coefficient.
    #[inline(always)]
    pub(super) fn len(self) -> u32 {
        self.0 as u32 & 0xFF
    }

    /// Whether the coefficient is there.
    #[inline(always)]
    pub(super) fn is_whole(self) -> bool {
        self.0 != 0
    }

    /// Zeros before the coefficient.
    #[inline(always)]
    pub(super) fn run(self) -> usize {
        (self.0 >> 8 & 0xF) as usize
    }

    #[inline(always)]
    pub(super) fn coefficient(self) -> i32 {
        self.0 >> 16
    }
}

/// A Huffman code.
pub(super) struct Huffman {
    /// By the next [`LOOKED_UP`] bits.
    pub(super) entries: Box<[Entry; 1 << LOOKED_UP]>,
    /// By the same bits: the length of the code and its symbol; 0 for a longer code.
    pub(super) plain: Box<[(u8, u8); 1 << LOOKED_UP]>,
    /// By length: one more than the last code, shifted to 16 bits; a code is of the first length with a higher limit.
    limits: [u32; 18],
    /// By length: what to add to a code for the index of its symbol.
    offsets: [i32; 17],
    symbols: [u8; 256],
}

impl Huffman {
    /// The code with `counts[len - 1]` codes of each length; `None` if there is none.
    pub(super) fn new(counts: &[u8; 16], listed: &[u8]) -> Option<Self> {
        let total: usize = counts.iter().map(|&count| usize::from(count)).sum();
        let mut symbols = [0; 256];
        symbols.get_mut(..total)?.copy_from_slice(listed.get(..total)?);
        let mut entries = Box::new([Entry(0); 1 << LOOKED_UP]);
        let mut plain = Box::new([(0, 0); 1 << LOOKED_UP]);
        let (mut limits, mut offsets) = ([0; 18], [0; 17]);
        let (mut code, mut index) = (0_u32, 0_usize);
        for len in 1..=16_u32 {
            let count = u32::from(counts[len as usize - 1]);
            offsets[len as usize] = index as i32 - code as i32;
            for _ in 0..count {
                if len <= LOOKED_UP {
                    let first = (code as usize) << (LOOKED_UP - len);
                    let end = first + (1 << (LOOKED_UP - len));
                    plain.get_mut(first..end)?.fill((len as u8, symbols[index]));
                    let covered = entries.get_mut(first..end)?;
                    for (rest, entry) in covered.iter_mut().enumerate() {
                        *entry = entry_of(symbols[index], len, rest);
                    }
                }
                code += 1;
                index += 1;
            }
            // A code of ones only is reserved, and more codes than bits allow are damage.
            if count > 0 && code >= 1 << len {
                return None;
            }
            limits[len as usize] = code << (16 - len);
            code <<= 1;
        }
        limits[17] = u32::MAX;
        Some(Self { entries, plain, limits, offsets, symbols })
    }

    /// Length and symbol of the code that starts the 16 `bits` and is longer than [`LOOKED_UP`]; `None` if none does.
    #[cold]
    #[inline(never)]
    pub(super) fn long(&self, bits: usize) -> Option<(u32, u8)> {
        let bits = bits as u32;
        let len = (LOOKED_UP + 1..=17).find(|&len| bits < self.limits[len as usize])?;
        let offset = self.offsets.get(len as usize)?;
        let index = (bits >> (16 - len)) as i32 + offset;
        Some((len, *self.symbols.get(usize::try_from(index).ok()?)?))
    }
}

/// The entry of a code of `len` bits for `symbol`, followed by the bits `rest`.
fn entry_of(symbol: u8, len: u32, rest: usize) -> Entry {
    let (run, size) = (i32::from(symbol >> 4), u32::from(symbol & 0xF));
    let bits_after = LOOKED_UP - len;
    if size == 0 || size > bits_after {
        return Entry(0);
    }
    let bits = (rest >> (bits_after - size)) as i32;
    let number = super::bits::extended(bits, size);
    Entry(number << 16 | run << 8 | (len + size) as i32)
}
