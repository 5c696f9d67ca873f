//! Huffman codes to coefficients: the blocks of a scan that has them whole (ITU-T T.81, F.2.2).

use super::bits::Bits;
use super::blocks::Blocks;
use super::frame::{Component, File, Frame, ScanHeader};
use super::inverse_dct::Block;
use super::tables::{Huffman, LOOKED_UP, ZIGZAG};

/// A scan with all coefficients of all components.
pub(super) struct Scan<'a> {
    bits: Bits<'a>,
    components: Vec<Coded<'a>>,
    restarts: Restarts,
}

/// A component of a scan, with its codes.
pub(super) struct Coded<'a> {
    pub(super) index: usize,
    pub(super) dc: &'a Huffman,
    pub(super) ac: &'a Huffman,
    /// The first coefficient of the block before.
    pub(super) predicted: i32,
}

/// Counts MCUs between restart markers.
pub(super) struct Restarts {
    interval: usize,
    left: usize,
    number: u8,
}

impl Restarts {
    pub(super) fn new(interval: usize) -> Self {
        Self { interval, left: interval, number: 0 }
    }

    /// Called before an MCU: whether a restart marker was read; `None` if it is missing.
    #[inline(always)]
    pub(super) fn before_mcu(&mut self, bits: &mut Bits<'_>) -> Option<bool> {
        if self.interval == 0 {
            return Some(false);
        }
        let is_due = self.left == 0;
        if is_due {
            bits.restart(self.number)?;
            self.number = (self.number + 1) % 8;
            self.left = self.interval;
        }
        self.left -= 1;
        Some(is_due)
    }
}

impl<'a> Scan<'a> {
    /// The scan of `header`, which has all components; `None` if a code or a table is missing.
    pub(super) fn new(file: &'a File<'_>, header: &ScanHeader) -> Option<Self> {
        let components = header.components.iter().map(|component| {
            Some(Coded {
                index: component.index,
                dc: file.dc_codes[component.dc].as_ref()?,
                ac: file.ac_codes[component.ac].as_ref()?,
                predicted: 0,
            })
        });
        Some(Self {
            bits: Bits::new(file.bytes, file.at),
            components: components.collect::<Option<_>>()?,
            restarts: Restarts::new(file.restart_interval),
        })
    }

    /// Reads the next row of MCUs into `blocks`, which are those of one row and 0; `None` if the data are damaged.
    #[inline(always)]
    pub(super) fn read_row(&mut self, frame: &Frame, blocks: &mut Blocks) -> Option<()> {
        let mut bits = self.bits;
        for column in 0..frame.mcu_columns {
            if self.restarts.before_mcu(&mut bits)? {
                self.components.iter_mut().for_each(|component| component.predicted = 0);
            }
            for coded in &mut self.components {
                let Component { horizontal, vertical, .. } = frame.components[coded.index];
                let (blocks, columns) = blocks.of(coded.index, vertical, 0);
                for y in 0..vertical {
                    for x in column * horizontal..(column + 1) * horizontal {
                        read_block(&mut bits, coded, &mut blocks[y * columns + x])?;
                    }
                }
            }
        }
        self.bits = bits;
        (!bits.is_overrun()).then_some(())
    }

    /// Where the data end; `None` if they ended too early.
    pub(super) fn end(&self) -> Option<usize> {
        self.bits.end()
    }
}

/// Reads the coefficients of one block into `block`, which is 0; `None` if the data are damaged.
#[inline(always)]
pub(super) fn read_block(bits: &mut Bits<'_>, coded: &mut Coded<'_>, block: &mut Block) -> Option<()> {
    coded.predicted = coded.predicted.wrapping_add(read_difference(bits, coded.dc)?);
    block[0] = coded.predicted as i16;
    let mut index = 1;
    while index < 64 {
        bits.refill();
        let entry = coded.ac.entries[bits.peek(LOOKED_UP)];
        if entry.is_whole() {
            bits.drop(entry.len());
            index += entry.run();
            block[usize::from(ZIGZAG[index & 127] & 63)] = entry.coefficient() as i16;
            index += 1;
            continue;
        }
        let symbol = read_symbol(bits, coded.ac)?;
        let (run, size) = (usize::from(symbol >> 4), u32::from(symbol & 0xF));
        if size > 0 {
            index += run;
            block[usize::from(ZIGZAG[index & 127] & 63)] = bits.take_signed(size) as i16;
            index += 1;
        } else if run == 15 {
            index += 16;
        } else {
            return Some(());
        }
    }
    // A run beyond the block is damage.
    (index == 64).then_some(())
}

/// The symbol of the next code; at least 16 more bits are available after it.
#[inline(always)]
pub(super) fn read_symbol(bits: &mut Bits<'_>, code: &Huffman) -> Option<u8> {
    bits.refill();
    let (len, symbol) = match code.plain[bits.peek(LOOKED_UP)] {
        (0, _) => code.long(bits.peek(16))?,
        (len, symbol) => (u32::from(len), symbol),
    };
    bits.drop(len);
    Some(symbol)
}

/// The difference of a first coefficient from the one before.
#[inline(always)]
pub(super) fn read_difference(bits: &mut Bits<'_>, code: &Huffman) -> Option<i32> {
    bits.refill();
    let entry = code.entries[bits.peek(LOOKED_UP)];
    if entry.is_whole() && entry.run() == 0 {
        bits.drop(entry.len());
        return Some(entry.coefficient());
    }
    let size = u32::from(read_symbol(bits, code)?);
    (size < 16).then(|| bits.take_signed(size))
}
