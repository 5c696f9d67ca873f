//! Decodes JPEGs byte for byte as Pillow does, which is as libjpeg-turbo does with its defaults: the accurate integer
//! transform, chroma interpolated by a triangle, colours in 16-bit fixed point.
//!
//! [`decode`] takes what nearly all files are: 8 bits per sample, Huffman codes, baseline or progressive, grey or three
//! components. It gives `None` for everything else and for damaged files: the `image` crate reads these or says what is
//! wrong with them.
//!
//! From bytes to pixels, a file for each step:
//! - `tables`: quantisation tables and Huffman codes
//! - `frame`: the segments before a scan
//! - `bits`: the bits of a scan
//! - `scan`: Huffman codes to coefficients
//! - `several_scans`: the same of files that have them in parts
//! - `blocks`: coefficients of a row or of a whole image
//! - `inverse_dct`: coefficients to samples, at full, half, quarter or eighth size
//! - `unit`, with `unit_x86`: what the transform and the colours need of a vector unit
//! - `planes`: samples of a few rows of blocks
//! - `colours`, with `ycc`: samples to rows of pixels

mod bits;
mod blocks;
mod colours;
mod frame;
mod inverse_dct;
mod planes;
mod scan;
mod several_scans;
mod tables;
mod unit;
#[cfg(target_arch = "x86_64")]
mod unit_x86;
mod ycc;

use pulp::{Arch, Simd, WithSimd};

use self::blocks::Blocks;
use self::colours::{SLACK, write_rows};
use self::frame::{Coding, Component, File, Frame};
use self::inverse_dct::transform_all;
use self::planes::Planes;
use self::scan::Scan;
use self::several_scans::read_into_blocks;
use self::unit::{Portable, Unit};

/// How much smaller an image becomes while it is decoded: libjpeg's `scale_denom`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reduction {
    /// The whole image.
    None,
    /// Half of its width and height.
    Half,
    /// A quarter.
    Quarter,
    /// An eighth.
    Eighth,
}

impl Reduction {
    /// Those that make an image smaller.
    pub(crate) const SMALLEST_FIRST: [Self; 3] = [Self::Eighth, Self::Quarter, Self::Half];

    /// How many pixels, in width and in height, become one.
    pub(crate) fn per_pixel(self) -> u32 {
        match self {
            Self::None => 1,
            Self::Half => 2,
            Self::Quarter => 4,
            Self::Eighth => 8,
        }
    }

    /// Width and height of an image of `(width, height)` after it.
    pub(crate) fn of(self, (width, height): (u32, u32)) -> (u32, u32) {
        (width.div_ceil(self.per_pixel()), height.div_ceil(self.per_pixel()))
    }

    /// Samples along a side of a block of 8 x 8.
    fn block_side(self) -> usize {
        8 / self.per_pixel() as usize
    }
}

/// Rows of samples from top to bottom, in 1 (grey) or 3 (RGB) bytes per pixel.
pub(crate) struct Decoded {
    pub(crate) width: u32,
    pub(crate) height: u32,
    pub(crate) is_grey: bool,
    pub(crate) data: Vec<u8>,
}

/// Decodes the JPEG `bytes`; `None` for a file that is damaged, or of a kind that this decoder leaves to others.
pub(crate) fn decode(bytes: &[u8], reduction: Reduction) -> Option<Decoded> {
    decode_on(Arch::new(), bytes, reduction)
}

/// [`decode`] on the vector unit `arch`.
fn decode_on(arch: Arch, bytes: &[u8], reduction: Reduction) -> Option<Decoded> {
    let mut file = File::new(bytes)?;
    let first = file.next_scan()??;
    let frame = Frame::of(&file, reduction.block_side())?;
    let mut output = Output::new(&frame);
    if file.coding == Coding::Sequential && first.components.len() == frame.components.len() {
        let mut scan = Scan::new(&file, &first)?;
        let mut blocks = Blocks::of_row(&file, &frame)?;
        for row in 0..frame.mcu_rows {
            output.write_mcus(arch, &frame, Mcus { scan: Some(&mut scan), blocks: &mut blocks, from: 0, row })?;
        }
        file.at = scan.end()?;
        // Another scan of the same coefficients is damage.
        if file.next_scan()?.is_some() {
            return None;
        }
    } else {
        let mut blocks = read_into_blocks(&mut file, &frame, first)?;
        for row in 0..frame.mcu_rows {
            output.write_mcus(arch, &frame, Mcus { scan: None, blocks: &mut blocks, from: row, row })?;
        }
    }
    Some(output.finish(&frame))
}

/// A row of MCUs.
struct Mcus<'a, 'b> {
    /// Reads them into `blocks`, if they are not there yet.
    scan: Option<&'a mut Scan<'b>>,
    blocks: &'a mut Blocks,
    /// Their row in `blocks`.
    from: usize,
    /// Their row in the image.
    row: usize,
}

/// The pixels so far, and the samples that the next rows need.
struct Output {
    planes: Planes,
    /// One row.
    pixels: Vec<u8>,
    data: Vec<u8>,
}

impl Output {
    fn new(frame: &Frame) -> Self {
        Self {
            planes: Planes::new(frame),
            pixels: vec![0; 3 * frame.width + SLACK],
            data: Vec::with_capacity(3 * frame.width * frame.height),
        }
    }

    /// Turns `mcus` into samples, and writes the pixels that have all their samples: the last row waits for the samples
    /// below. `None` if the data are damaged.
    fn write_mcus(&mut self, arch: Arch, frame: &Frame, mcus: Mcus<'_, '_>) -> Option<()> {
        let writing = Writing { frame, mcus, output: self, unit: Portable };
        match arch {
            #[cfg(target_arch = "x86_64")]
            Arch::V4(unit) => Simd::vectorize(unit, writing.on(*unit)),
            #[cfg(target_arch = "x86_64")]
            Arch::V3(unit) => Simd::vectorize(unit, writing.on(unit)),
            arch => arch.dispatch(writing),
        }
    }

    fn finish(self, frame: &Frame) -> Decoded {
        let [width, height] = [frame.width, frame.height].map(|side| u32::try_from(side).unwrap_or(u32::MAX));
        Decoded { width, height, is_grey: frame.components.len() == 1, data: self.data }
    }
}

struct Writing<'a, 'b, U> {
    frame: &'a Frame,
    mcus: Mcus<'a, 'b>,
    output: &'a mut Output,
    unit: U,
}

impl<'a, 'b, U> Writing<'a, 'b, U> {
    /// The same work on `unit`.
    #[cfg(target_arch = "x86_64")]
    fn on<V>(self, unit: V) -> Writing<'a, 'b, V> {
        let Self { frame, mcus, output, unit: _ } = self;
        Writing { frame, mcus, output, unit }
    }
}

impl<U: Unit> WithSimd for Writing<'_, '_, U> {
    type Output = Option<()>;

    // Code that should use the vector unit must be inlined from here on.
    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) -> Option<()> {
        let Self { frame, mcus: Mcus { scan, blocks, from, row }, output, unit } = self;
        if let Some(scan) = scan {
            scan.read_row(frame, blocks)?;
        }
        for (index, &Component { vertical, side, .. }) in frame.components.iter().enumerate() {
            let table = blocks.table(index)?;
            let (blocks, columns) = blocks.of(index, vertical, from);
            for (line, blocks) in blocks.chunks_exact_mut(columns).enumerate() {
                let out = output.planes.rows_from(index, (row * vertical + line) * side);
                transform_all(unit, blocks, &table, side, out);
            }
        }
        let start = (row * frame.mcu_height).saturating_sub(1);
        let end = if row + 1 == frame.mcu_rows { frame.height } else { (row + 1) * frame.mcu_height - 1 };
        let Output { planes, pixels, data } = output;
        write_rows(unit, frame, planes, start..end.min(frame.height), (pixels, data));
        Some(())
    }
}

#[cfg(test)]
mod tests;
