//! What this processor multiplies numbers in bf16 with.

use std::sync::OnceLock;

#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
use crate::cpu::bf16::amx::{Permitted, TileRegisters};
#[cfg(target_arch = "x86_64")]
use crate::cpu::bf16::avx512::Supported;
use crate::cpu::bf16::portable;
use crate::cpu::bf16::tiles::{BLOCK, Tile};
use crate::cpu::uninit::Uninit;

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
    Amx(TileRegisters),
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

    pub fn on_this_thread(self) -> Ready {
        match self {
            #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
            Self::Amx(permitted) => Ready::Amx(TileRegisters::shape(permitted)),
            #[cfg(target_arch = "x86_64")]
            Self::Avx512(supported) => Ready::Avx512(supported),
            Self::Portable => Ready::Portable,
        }
    }
}

impl Ready {
    /// `a b + bias`, written to the 32 rows of `out`, `stride` values apart. `a`: 16 rows each. `b`: 16 columns each,
    /// of a packed weight. All have the same number of tiles. Every value of these rows and columns is written, and no
    /// other; none depends on another row.
    ///
    /// # Panics
    ///
    /// If a size does not fit.
    pub fn multiply(&self, a: [&[Tile]; 2], b: [&[Tile]; 2], bias: &[f32; BLOCK], out: &mut Uninit, stride: usize) {
        match *self {
            #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
            Self::Amx(ref registers) => registers.multiply(a, b, bias, out, stride),
            #[cfg(target_arch = "x86_64")]
            Self::Avx512(supported) => supported.multiply(a, b, bias, out, stride),
            Self::Portable => portable::multiply(a, b, bias, out, stride),
        }
    }
}
