//! What this processor multiplies numbers in bf16 with.

use std::sync::OnceLock;

#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
use crate::cpu::bf16::amx::{Permitted, TileRegisters};
#[cfg(target_arch = "x86_64")]
use crate::cpu::bf16::avx512::Supported;
use crate::cpu::bf16::packing::round_rows;
use crate::cpu::bf16::portable;
use crate::cpu::bf16::tile::{BLOCK, LeftBlock, Sums, TILE_DEPTH, TILE_ROWS, Tile};

/// A set of instructions for products in bf16. A value says that the processor has them.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Unit {
    #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
    Amx(Permitted),
    #[cfg(target_arch = "x86_64")]
    Avx512(Supported),
    /// No instructions: for tests.
    #[cfg_attr(not(test), expect(dead_code, reason = "slower than in `f32`; and no processor is without a form"))]
    Portable,
}

/// A [`Unit`] that is ready to multiply on this thread. A thread has one at a time.
pub(crate) enum Ready {
    #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
    Amx(TileRegisters, Option<Supported>),
    #[cfg(target_arch = "x86_64")]
    Avx512(Supported),
    Portable,
}

impl Unit {
    /// The fastest of this processor; the same throughout a process.
    pub fn fastest() -> Option<Self> {
        static FASTEST: OnceLock<Option<Unit>> = OnceLock::new();
        *FASTEST.get_or_init(|| Self::all().into_iter().next())
    }

    /// Those of this processor, the fastest first.
    pub fn all() -> Vec<Self> {
        let all: [Option<Self>; 2] = [
            #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
            Permitted::ask().map(Self::Amx),
            #[cfg(not(all(target_arch = "x86_64", target_os = "linux")))]
            None,
            #[cfg(target_arch = "x86_64")]
            Supported::ask().map(Self::Avx512),
            #[cfg(not(target_arch = "x86_64"))]
            None,
        ];
        all.into_iter().flatten().collect()
    }

    /// Those of this processor, after the form in plain Rust, which every processor has.
    #[cfg(test)]
    #[expect(clippy::print_stderr, reason = "says what is not tested")]
    pub fn all_tested() -> Vec<Self> {
        let own = Self::all();
        if own.is_empty() {
            eprintln!("skipped: this processor has neither AMX nor AVX512_BF16; only plain Rust is tested");
        }
        [vec![Self::Portable], own].concat()
    }

    pub fn name(self) -> &'static str {
        match self {
            #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
            Self::Amx(_) => "AMX",
            #[cfg(target_arch = "x86_64")]
            Self::Avx512(_) => "AVX512_BF16",
            Self::Portable => "plain Rust",
        }
    }

    /// Whether its products are faster than those in `f32`, where they were measured.
    pub fn is_faster(self) -> bool {
        match self {
            #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
            Self::Amx(_) => true,
            #[cfg(target_arch = "x86_64")]
            Self::Avx512(supported) => supported.is_faster(),
            Self::Portable => false,
        }
    }

    pub fn on_this_thread(self) -> Ready {
        match self {
            #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
            Self::Amx(permitted) => Ready::Amx(TileRegisters::shape(permitted), Supported::ask()),
            #[cfg(target_arch = "x86_64")]
            Self::Avx512(supported) => Ready::Avx512(supported),
            Self::Portable => Ready::Portable,
        }
    }
}

impl Ready {
    /// Replaces `sums` by `a b + bias`, or without a bias adds `a b`. `b`: 16 columns each, of a packed weight. All
    /// have the same number of tiles. No sum depends on another row. Two products in turn have the bits of one over the
    /// depth of both.
    ///
    /// # Panics
    ///
    /// If a size does not fit.
    pub fn sums(&self, a: LeftBlock<'_>, b: [&[Tile]; 2], bias: Option<&[f32; BLOCK]>, sums: &mut Sums) {
        match *self {
            #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
            Self::Amx(ref registers, _) => registers.sums(a.tiles, b, bias, sums),
            #[cfg(target_arch = "x86_64")]
            Self::Avx512(supported) => supported.sums(a, b, bias, sums),
            Self::Portable => portable::sums(a.tiles, b, bias, sums),
        }
    }

    /// Packs rows of 32 values, from row `first` of a left factor on, as its columns of tile `at` of `depth`. A number
    /// below the normal ones may become 0, which it is to the products of both instruction sets.
    pub fn round(&self, values: &[f32], first: usize, [at, depth]: [usize; 2], tiles: &mut [Tile]) {
        assert!(values.len().is_multiple_of(TILE_DEPTH), "values of rows of a tile");
        let mut rest = values;
        let mut row = first;
        while !rest.is_empty() {
            let tile = &mut tiles[row / TILE_ROWS * depth + at];
            let count = (TILE_ROWS - row % TILE_ROWS).min(rest.len() / TILE_DEPTH);
            let (now, later) = rest.split_at(count * TILE_DEPTH);
            let rows = &mut tile.0[row % TILE_ROWS..][..count];
            match self.rounding() {
                #[cfg(target_arch = "x86_64")]
                Some(supported) => supported.round(now, rows.iter_mut()),
                _ => round_rows(now, rows),
            }
            (rest, row) = (later, row + count);
        }
    }

    /// Packs a row of a left factor, of `depth` times 32 values.
    pub fn round_row(&self, values: &[f32], row: usize, depth: usize, tiles: &mut [Tile]) {
        assert_eq!(values.len(), depth * TILE_DEPTH, "values of a row of tiles");
        let tiles = &mut tiles[row / TILE_ROWS * depth..][..depth];
        let mut rows = tiles.iter_mut().map(|tile| &mut tile.0[row % TILE_ROWS]);
        match self.rounding() {
            #[cfg(target_arch = "x86_64")]
            Some(supported) => supported.round(values, rows),
            _ => values.chunks_exact(TILE_DEPTH).zip(&mut rows).for_each(|(values, row)| {
                round_rows(values, std::slice::from_mut(row));
            }),
        }
    }

    #[cfg(target_arch = "x86_64")]
    fn rounding(&self) -> Option<Supported> {
        match *self {
            #[cfg(target_os = "linux")]
            Self::Amx(_, supported) => supported,
            Self::Avx512(supported) => Some(supported),
            Self::Portable => None,
        }
    }

    #[cfg(not(target_arch = "x86_64"))]
    fn rounding(&self) -> Option<std::convert::Infallible> {
        None
    }
}
