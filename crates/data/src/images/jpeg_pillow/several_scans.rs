//! Files with several scans: progressive ones, where scans refine the coefficients (ITU-T T.81, G.2), and those with a
//! scan for each component.

use super::bits::Bits;
use super::blocks::{Blocks, ComponentBlocks};
use super::frame::{Coding, Component, File, Frame, ScanHeader};
use super::inverse_dct::Block;
use super::scan::{Coded, Restarts, read_block, read_difference, read_symbol};
use super::tables::{Huffman, ZIGZAG};

/// Coefficients that libjpeg estimates where a progressive file lacks their bits: the first one and nine more.
const SMOOTHED: usize = 10;

/// Reads all scans of `file`, of which the next one is `first`; `None` if they are damaged, or lack coefficients that
/// libjpeg would estimate.
pub(super) fn read_into_blocks(file: &mut File<'_>, frame: &Frame, first: ScanHeader) -> Option<Blocks> {
    let mut blocks = Blocks::new(frame, frame.mcu_rows);
    let mut next = Some(first);
    while let Some(header) = next {
        file.at = read_scan(&mut blocks, file, frame, &header)?;
        next = file.next_scan()?;
    }
    let is_whole =
        |component: &ComponentBlocks| component.missing[..SMOOTHED].iter().all(|missing| *missing == Some(0));
    blocks.components.iter().all(is_whole).then_some(blocks)
}

/// Reads one scan. Returns where its data end.
fn read_scan(all: &mut Blocks, file: &File<'_>, frame: &Frame, header: &ScanHeader) -> Option<usize> {
    let (first, last) = header.band;
    let is_progressive = file.coding == Coding::Progressive;
    if is_progressive && (first == 0) != (last == 0) || first > 0 && header.components.len() > 1 {
        return None;
    }
    for component in &header.components {
        let blocks = &mut all.components[component.index];
        blocks.table = Some(blocks.table.or(file.quantisation[frame.components[component.index].table])?);
        for missing in &mut blocks.missing[first..=last] {
            // A scan of lower bits needs the higher ones, and no bit comes twice.
            let expected = if header.high == 0 { None } else { Some(header.high) };
            if *missing != expected || header.high != 0 && header.high != header.low + 1 {
                return None;
            }
            *missing = Some(if is_progressive { header.low } else { 0 });
        }
    }
    let mut reading = Reading {
        bits: Bits::new(file.bytes, file.at),
        predicted: [0; 3],
        ended_blocks: 0,
        restarts: Restarts::new(file.restart_interval),
    };
    if let [only] = &header.components[..] {
        let Component { block_columns, block_rows, .. } = frame.components[only.index];
        for y in 0..block_rows {
            for x in 0..block_columns {
                reading.before_mcu()?;
                let blocks = &mut all.components[only.index];
                reading.read_block(file, header, 0, &mut blocks.blocks[y * blocks.columns + x])?;
            }
        }
        return reading.bits.end();
    }
    for row in 0..frame.mcu_rows {
        for column in 0..frame.mcu_columns {
            reading.before_mcu()?;
            for (place, component) in header.components.iter().enumerate() {
                let Component { horizontal, vertical, .. } = frame.components[component.index];
                let blocks = &mut all.components[component.index];
                for y in row * vertical..(row + 1) * vertical {
                    for x in column * horizontal..(column + 1) * horizontal {
                        reading.read_block(file, header, place, &mut blocks.blocks[y * blocks.columns + x])?;
                    }
                }
            }
        }
    }
    reading.bits.end()
}

/// Where the reading of a scan stands.
struct Reading<'a> {
    bits: Bits<'a>,
    predicted: [i32; 3],
    /// Blocks of which the band has ended (`EOBRUN`).
    ended_blocks: u32,
    restarts: Restarts,
}

impl Reading<'_> {
    fn before_mcu(&mut self) -> Option<()> {
        if self.restarts.before_mcu(&mut self.bits)? {
            (self.predicted, self.ended_blocks) = ([0; 3], 0);
        }
        Some(())
    }

    /// Reads what the scan has of a block of the component at `place` in its header.
    fn read_block(&mut self, file: &File<'_>, header: &ScanHeader, place: usize, block: &mut Block) -> Option<()> {
        let component = &header.components[place];
        let (dc, ac) = (&file.dc_codes[component.dc], &file.ac_codes[component.ac]);
        if file.coding == Coding::Sequential {
            let predicted = self.predicted[place];
            let mut coded = Coded { index: component.index, dc: dc.as_ref()?, ac: ac.as_ref()?, predicted };
            read_block(&mut self.bits, &mut coded, block)?;
            self.predicted[place] = coded.predicted;
        } else if header.band.0 > 0 {
            match header.high {
                0 => self.read_band(ac.as_ref()?, header, block)?,
                _ => self.refine_band(ac.as_ref()?, header, block)?,
            }
        } else if header.high == 0 {
            let difference = read_difference(&mut self.bits, dc.as_ref()?)?;
            self.predicted[place] = self.predicted[place].wrapping_add(difference);
            block[0] = self.predicted[place].wrapping_shl(header.low) as i16;
        } else {
            self.bits.refill();
            block[0] |= (self.bits.take(1) << header.low) as i16;
        }
        (!self.bits.is_overrun()).then_some(())
    }

    /// The first bits of a band of coefficients (G.1.2.2).
    fn read_band(&mut self, code: &Huffman, header: &ScanHeader, block: &mut Block) -> Option<()> {
        if self.ended_blocks > 0 {
            self.ended_blocks -= 1;
            return Some(());
        }
        let (mut index, last) = header.band;
        while index <= last {
            let symbol = read_symbol(&mut self.bits, code)?;
            let (run, size) = (usize::from(symbol >> 4), u32::from(symbol & 0xF));
            if size == 0 {
                if run < 15 {
                    self.ended_blocks = self.read_run(run as u32) - 1;
                    return Some(());
                }
                index += 16;
                continue;
            }
            index += run;
            if index > last {
                return None;
            }
            block[usize::from(ZIGZAG[index])] = self.bits.take_signed(size).wrapping_shl(header.low) as i16;
            index += 1;
        }
        Some(())
    }

    /// One more bit of a band of coefficients (G.1.2.3).
    fn refine_band(&mut self, code: &Huffman, header: &ScanHeader, block: &mut Block) -> Option<()> {
        let (mut index, last) = header.band;
        let bit = 1_i16 << header.low;
        if self.ended_blocks == 0 {
            while index <= last {
                let symbol = read_symbol(&mut self.bits, code)?;
                let (mut run, size) = (usize::from(symbol >> 4), symbol & 0xF);
                let new = match size {
                    0 if run < 15 => {
                        self.ended_blocks = self.read_run(run as u32);
                        break;
                    }
                    0 => 0,
                    1 if self.bits.take(1) == 1 => bit,
                    1 => -bit,
                    _ => return None,
                };
                let mut is_placed = false;
                // `run` zeros are passed, with bits for the coefficients between them.
                while index <= last {
                    let value = &mut block[usize::from(ZIGZAG[index])];
                    if *value != 0 {
                        self.refine(value, bit);
                    } else if run == 0 {
                        *value = new;
                        index += 1;
                        is_placed = true;
                        break;
                    } else {
                        run -= 1;
                    }
                    index += 1;
                }
                // Fewer zeros than the run are damage: libjpeg puts the coefficient behind the band.
                if new != 0 && !is_placed {
                    return None;
                }
            }
        }
        if self.ended_blocks > 0 {
            for &position in ZIGZAG.get(index..=last).unwrap_or_default() {
                let value = &mut block[usize::from(position)];
                if *value != 0 {
                    self.refine(value, bit);
                }
            }
            self.ended_blocks -= 1;
        }
        Some(())
    }

    /// Adds the next bit to a coefficient other than 0.
    fn refine(&mut self, value: &mut i16, bit: i16) {
        self.bits.refill();
        if self.bits.take(1) == 1 && *value & bit == 0 {
            *value = value.wrapping_add(if *value > 0 { bit } else { -bit });
        }
    }

    /// Blocks that end together: 2^`size` and as many as the next `size` bits say.
    fn read_run(&mut self, size: u32) -> u32 {
        self.bits.refill();
        (1 << size) + self.bits.take(size) as u32
    }
}
