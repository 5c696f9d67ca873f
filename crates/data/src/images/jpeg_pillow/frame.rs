//! The segments of a file up to a scan (ITU-T T.81, B.2), and what they say of the image.

use super::tables::{Huffman, Quantisation, ZIGZAG};

/// In which order a file has its coefficients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Coding {
    /// Block by block.
    Sequential,
    /// First the low frequencies and the high bits of all blocks.
    Progressive,
}

/// A file, read up to the data of a scan.
pub(super) struct File<'a> {
    pub(super) bytes: &'a [u8],
    /// The first byte that is not read yet.
    pub(super) at: usize,
    pub(super) coding: Coding,
    pub(super) quantisation: [Option<Quantisation>; 4],
    pub(super) dc_codes: [Option<Huffman>; 4],
    pub(super) ac_codes: [Option<Huffman>; 4],
    /// MCUs between restart markers; 0 for none.
    pub(super) restart_interval: usize,
    size: (usize, usize),
    components: Vec<FileComponent>,
    has_jfif: bool,
    /// The transform that Adobe's segment names.
    adobe: Option<u8>,
}

/// A component as the frame header has it.
#[derive(Clone, Copy)]
struct FileComponent {
    id: u8,
    horizontal: usize,
    vertical: usize,
    table: usize,
}

/// The header of a scan.
pub(super) struct ScanHeader {
    pub(super) components: Vec<ScanComponent>,
    /// The first and the last coefficient, in zigzag order.
    pub(super) band: (usize, usize),
    /// Bits below those of the scan before, and of this one (`Ah` and `Al`).
    pub(super) high: u32,
    pub(super) low: u32,
}

/// A component of a scan.
pub(super) struct ScanComponent {
    /// In the frame.
    pub(super) index: usize,
    pub(super) dc: usize,
    pub(super) ac: usize,
}

impl<'a> File<'a> {
    /// The file before its first segment; `None` if it does not start as a JPEG.
    pub(super) fn new(bytes: &'a [u8]) -> Option<Self> {
        bytes.starts_with(&[0xFF, 0xD8]).then(|| Self {
            bytes,
            at: 2,
            coding: Coding::Sequential,
            quantisation: [None; 4],
            dc_codes: [const { None }; 4],
            ac_codes: [const { None }; 4],
            restart_interval: 0,
            size: (0, 0),
            components: Vec::new(),
            has_jfif: false,
            adobe: None,
        })
    }

    /// Reads up to the data of the next scan. `Some(None)` is the end of the image; `None` means damage, or a kind of
    /// file for another decoder.
    pub(super) fn next_scan(&mut self) -> Option<Option<ScanHeader>> {
        loop {
            let marker = self.next_marker()?;
            match marker {
                0xD9 => return Some(None),
                // Restarts and TEM have no payload, and libjpeg skips them here.
                0xD0..=0xD7 | 0x01 => continue,
                _ => {}
            }
            let len = usize::from(u16::from_be_bytes(*self.bytes.get(self.at..)?.first_chunk()?));
            let payload = self.bytes.get(self.at + 2..self.at + len)?;
            self.at += len;
            match marker {
                0xC0 | 0xC1 => self.read_frame(payload, Coding::Sequential)?,
                0xC2 => self.read_frame(payload, Coding::Progressive)?,
                0xC4 => self.read_codes(payload)?,
                0xDA => return self.read_scan(payload).map(Some),
                0xDB => self.read_quantisation(payload)?,
                0xDD => self.restart_interval = usize::from(u16::from_be_bytes(payload.try_into().ok()?)),
                // APP0 and APP14: what they say of the colours.
                0xE0 => self.has_jfif |= payload.starts_with(b"JFIF\0") && payload.len() >= 14,
                0xEE if payload.starts_with(b"Adobe") && payload.len() >= 12 => self.adobe = Some(payload[11]),
                0xE1..=0xEF | 0xFE => {}
                // Arithmetic and lossless coding, hierarchies, a height that follows the data.
                _ => return None,
            }
        }
    }

    /// Skips to behind the next marker.
    fn next_marker(&mut self) -> Option<u8> {
        loop {
            let rest = self.bytes.get(self.at..)?;
            self.at += rest.iter().position(|&byte| byte == 0xFF)?;
            while *self.bytes.get(self.at)? == 0xFF {
                self.at += 1;
            }
            let marker = self.bytes[self.at];
            self.at += 1;
            if marker != 0 {
                return Some(marker);
            }
        }
    }

    fn read_frame(&mut self, payload: &[u8], coding: Coding) -> Option<()> {
        let (header, components) = payload.split_at_checked(6)?;
        let side = |at: usize| usize::from(u16::from_be_bytes([header[at], header[at + 1]]));
        let (height, width) = (side(1), side(3));
        let count = usize::from(header[5]);
        let is_known = header[0] == 8 && matches!(count, 1 | 3) && components.len() == 3 * count;
        if !is_known || width == 0 || height == 0 || !self.components.is_empty() {
            return None;
        }
        (self.size, self.coding) = ((width, height), coding);
        for &[id, sampling, table] in components.as_chunks().0 {
            let (horizontal, vertical) = (usize::from(sampling >> 4), usize::from(sampling & 0xF));
            let table = usize::from(table);
            if !(1..=4).contains(&horizontal) || !(1..=4).contains(&vertical) || table > 3 {
                return None;
            }
            self.components.push(FileComponent { id, horizontal, vertical, table });
        }
        Some(())
    }

    fn read_codes(&mut self, mut payload: &[u8]) -> Option<()> {
        while let Some((&selector, rest)) = payload.split_first() {
            let (counts, symbols) = rest.split_first_chunk::<16>()?;
            let codes = match selector >> 4 {
                0 => &mut self.dc_codes,
                1 => &mut self.ac_codes,
                _ => return None,
            };
            *codes.get_mut(usize::from(selector & 0xF))? = Some(Huffman::new(counts, symbols)?);
            let total: usize = counts.iter().map(|&count| usize::from(count)).sum();
            let (symbols, rest) = symbols.split_at_checked(total)?;
            // A first coefficient has at most 15 bits.
            if selector >> 4 == 0 && symbols.iter().any(|&size| size > 15) {
                return None;
            }
            payload = rest;
        }
        Some(())
    }

    fn read_quantisation(&mut self, mut payload: &[u8]) -> Option<()> {
        while let Some((&selector, rest)) = payload.split_first() {
            let is_wide = selector >> 4 != 0;
            let (values, rest) = rest.split_at_checked(if is_wide { 128 } else { 64 })?;
            let mut table = [0; 64];
            for (index, &position) in ZIGZAG[..64].iter().enumerate() {
                table[usize::from(position)] = match is_wide {
                    true => i16::try_from(u16::from_be_bytes([values[2 * index], values[2 * index + 1]])).ok()?,
                    false => i16::from(values[index]),
                };
            }
            *self.quantisation.get_mut(usize::from(selector & 0xF))? = Some(table);
            payload = rest;
        }
        Some(())
    }

    fn read_scan(&self, payload: &[u8]) -> Option<ScanHeader> {
        let (&count, rest) = payload.split_first()?;
        let (components, rest) = rest.split_at_checked(2 * usize::from(count))?;
        let &[first, last, bits] = rest else { return None };
        let mut found: Vec<ScanComponent> = Vec::new();
        for &[id, codes] in components.as_chunks().0 {
            let index = self.components.iter().position(|component| component.id == id)?;
            let (dc, ac) = (usize::from(codes >> 4), usize::from(codes & 0xF));
            if dc > 3 || ac > 3 || found.last().is_some_and(|before| before.index >= index) {
                return None;
            }
            found.push(ScanComponent { index, dc, ac });
        }
        let band = match self.coding {
            Coding::Sequential => (0, 63),
            Coding::Progressive => (usize::from(first), usize::from(last)),
        };
        let (high, low) = (u32::from(bits >> 4), u32::from(bits & 0xF));
        /// Blocks of an MCU, at most (B.2.3).
        const MOST_BLOCKS: usize = 10;
        let blocks: usize = found
            .iter()
            .map(|found| self.components[found.index].horizontal * self.components[found.index].vertical)
            .sum();
        if found.len() > 1 && blocks > MOST_BLOCKS {
            return None;
        }
        let is_valid = band.0 <= band.1 && band.1 <= 63 && low <= 13 && !found.is_empty();
        is_valid.then_some(ScanHeader { components: found, band, high, low })
    }
}

/// The image of a file, and the samples of each component.
pub(super) struct Frame {
    /// Columns of pixels.
    pub(super) width: usize,
    /// Rows of pixels.
    pub(super) height: usize,
    /// MCUs from left to right where a scan has all components.
    pub(super) mcu_columns: usize,
    /// MCUs from top to bottom.
    pub(super) mcu_rows: usize,
    /// Rows of pixels in an MCU.
    pub(super) mcu_height: usize,
    pub(super) components: Vec<Component>,
    /// Whether chroma is interpolated. At an eighth of the size it is not.
    pub(super) is_smooth: bool,
    /// Whether the samples of three components are YCbCr. Otherwise they are RGB.
    pub(super) is_ycc: bool,
}

/// The samples of one component.
pub(super) struct Component {
    /// Blocks in an MCU, from left to right and from top to bottom.
    pub(super) horizontal: usize,
    pub(super) vertical: usize,
    /// Blocks that cover the image, which are those of a scan of this component alone.
    pub(super) block_columns: usize,
    pub(super) block_rows: usize,
    /// Samples along a side of a block.
    pub(super) side: usize,
    /// Samples that cover the image.
    pub(super) width: usize,
    pub(super) height: usize,
    /// Pixels for each sample.
    pub(super) columns_per_sample: usize,
    pub(super) rows_per_sample: usize,
    /// Which quantisation table.
    pub(super) table: usize,
}

impl Frame {
    /// The frame of `file` with blocks of `side` x `side` samples; `None` without one, or if a component has no whole
    /// number of pixels for each sample.
    pub(super) fn of(file: &File<'_>, side: usize) -> Option<Self> {
        let mut listed = file.components.clone();
        if let [only] = &mut listed[..] {
            // A scan of one component has MCUs of one block, whatever its sampling.
            (only.horizontal, only.vertical) = (1, 1);
        }
        let most_horizontal = listed.iter().map(|component| component.horizontal).max()?;
        let most_vertical = listed.iter().map(|component| component.vertical).max()?;
        let (width, height) = file.size;
        let components = listed.iter().map(|&FileComponent { horizontal, vertical, table, .. }| {
            // Chroma is scaled by its transform rather than by interpolation (`jpeg_calc_output_dimensions`).
            let mut own = side;
            while own < 8
                && (most_horizontal * side).is_multiple_of(horizontal * own * 2)
                && (most_vertical * side).is_multiple_of(vertical * own * 2)
            {
                own *= 2;
            }
            let is_whole = (most_horizontal * side).is_multiple_of(horizontal * own)
                && (most_vertical * side).is_multiple_of(vertical * own);
            is_whole.then(|| Component {
                horizontal,
                vertical,
                block_columns: (width * horizontal).div_ceil(8 * most_horizontal),
                block_rows: (height * vertical).div_ceil(8 * most_vertical),
                side: own,
                width: (width * horizontal * own).div_ceil(8 * most_horizontal),
                height: (height * vertical * own).div_ceil(8 * most_vertical),
                columns_per_sample: most_horizontal * side / (horizontal * own),
                rows_per_sample: most_vertical * side / (vertical * own),
                table,
            })
        });
        Some(Self {
            width: (width * side).div_ceil(8),
            height: (height * side).div_ceil(8),
            mcu_columns: width.div_ceil(8 * most_horizontal),
            mcu_rows: height.div_ceil(8 * most_vertical),
            mcu_height: most_vertical * side,
            components: components.collect::<Option<_>>()?,
            is_smooth: side > 1,
            is_ycc: match (file.has_jfif, file.adobe) {
                (true, _) => true,
                (false, Some(transform)) => transform != 0,
                (false, None) => !listed.iter().map(|component| component.id).eq(*b"RGB"),
            },
        })
    }
}
