//! A block of sums over rows by AMX: as [`TileRegisters::sums`], with factors that are cut into chunks of rows.

use std::arch::asm;

use crate::cpu::bf16::amx::TileRegisters;
use crate::cpu::bf16::row_sums::panels::{PANEL_DEPTH, Panel};
use crate::cpu::bf16::tile::{BLOCK, Sums, TILE_ROWS, Tile};

// The offsets below.
const _: () = assert!(PANEL_DEPTH == 4 && size_of::<Tile>() == 1024 && BLOCK == 2 * TILE_ROWS && TILE_ROWS == 16);

impl TileRegisters {
    /// The sums of the products of the columns of both panels of each pair, over all pairs; 0 without any.
    #[expect(unsafe_code, reason = "instructions that the compiler does not know")]
    pub fn sum_panels(&self, pairs: &[[&Panel; 2]], sums: &mut Sums) {
        if pairs.is_empty() {
            *sums = Sums::ZERO;
            return;
        }
        // SAFETY: `self` says that the registers have their shapes. The loop runs once for each pair. It reads the two
        // references of the pair, which are addresses of eight tiles each, and these tiles. `sums` is 32 rows of 32
        // values, borrowed mutably, and is written as two times two tiles of 16 rows of 16 values.
        unsafe {
            asm!(
                "tilezero tmm0",
                "tilezero tmm1",
                "tilezero tmm2",
                "tilezero tmm3",
                "2:",
                "mov {a}, [{pairs}]",
                "mov {b}, [{pairs} + 8]",
                "tileloadd tmm4, [{a} + {row}*1]",
                "tileloadd tmm6, [{b} + {row}*1]",
                "tileloadd tmm5, [{a} + {row}*1 + 4096]",
                "tileloadd tmm7, [{b} + {row}*1 + 4096]",
                "tdpbf16ps tmm0, tmm4, tmm6",
                "tdpbf16ps tmm2, tmm5, tmm6",
                "tdpbf16ps tmm1, tmm4, tmm7",
                "tdpbf16ps tmm3, tmm5, tmm7",
                "tileloadd tmm4, [{a} + {row}*1 + 1024]",
                "tileloadd tmm6, [{b} + {row}*1 + 1024]",
                "tileloadd tmm5, [{a} + {row}*1 + 5120]",
                "tileloadd tmm7, [{b} + {row}*1 + 5120]",
                "tdpbf16ps tmm0, tmm4, tmm6",
                "tdpbf16ps tmm2, tmm5, tmm6",
                "tdpbf16ps tmm1, tmm4, tmm7",
                "tdpbf16ps tmm3, tmm5, tmm7",
                "tileloadd tmm4, [{a} + {row}*1 + 2048]",
                "tileloadd tmm6, [{b} + {row}*1 + 2048]",
                "tileloadd tmm5, [{a} + {row}*1 + 6144]",
                "tileloadd tmm7, [{b} + {row}*1 + 6144]",
                "tdpbf16ps tmm0, tmm4, tmm6",
                "tdpbf16ps tmm2, tmm5, tmm6",
                "tdpbf16ps tmm1, tmm4, tmm7",
                "tdpbf16ps tmm3, tmm5, tmm7",
                "tileloadd tmm4, [{a} + {row}*1 + 3072]",
                "tileloadd tmm6, [{b} + {row}*1 + 3072]",
                "tileloadd tmm5, [{a} + {row}*1 + 7168]",
                "tileloadd tmm7, [{b} + {row}*1 + 7168]",
                "tdpbf16ps tmm0, tmm4, tmm6",
                "tdpbf16ps tmm2, tmm5, tmm6",
                "tdpbf16ps tmm1, tmm4, tmm7",
                "tdpbf16ps tmm3, tmm5, tmm7",
                "add {pairs}, 16",
                "dec {count}",
                "jnz 2b",
                "tilestored [{sums} + {stride}*1], tmm0",
                "tilestored [{sums} + {stride}*1 + 64], tmm1",
                "tilestored [{sums} + {stride}*1 + 2048], tmm2",
                "tilestored [{sums} + {stride}*1 + 2112], tmm3",
                a = out(reg) _,
                b = out(reg) _,
                pairs = inout(reg) pairs.as_ptr() => _,
                count = inout(reg) pairs.len() => _,
                row = in(reg) 64usize,
                sums = in(reg) sums.0.as_mut_ptr(),
                stride = in(reg) BLOCK * size_of::<f32>(),
                out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
                out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
                options(nostack),
            );
        }
    }
}
