//! Products of blocks by AMX (Intel, Architecture Instruction Set Extensions Programming Reference, chapter 3): eight
//! tile registers, and an instruction that multiplies two of them and adds to a third.

use std::arch::asm;
use std::arch::x86_64::__cpuid_count;
use std::marker::PhantomData;

use crate::cpu::bf16::tile::{BLOCK, Sums, TILE_ROWS, Tile};

/// That the processor has the instructions, and that the system lets this process use them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Permitted(());

/// Tile registers of this thread, shaped for [`Tile`]s.
///
/// A thread has one set: another value on the same thread ends what this one set up.
pub(crate) struct TileRegisters(PhantomData<*const ()>);

/// Shapes of the tile registers: palette 1, and for all eight 16 rows of 64 bytes.
#[repr(C, align(64))]
struct Shapes {
    palette: u8,
    start_row: u8,
    reserved: [u8; 14],
    row_bytes: [u16; 16],
    rows: [u8; 16],
}

static SHAPES: Shapes = Shapes {
    palette: 1,
    start_row: 0,
    reserved: [0; 14],
    row_bytes: [64, 64, 64, 64, 64, 64, 64, 64, 0, 0, 0, 0, 0, 0, 0, 0],
    rows: [16, 16, 16, 16, 16, 16, 16, 16, 0, 0, 0, 0, 0, 0, 0, 0],
};

impl Permitted {
    /// `None`: the processor lacks AMX-BF16, or the system refuses it.
    pub fn ask() -> Option<Self> {
        /// AMX-BF16 and AMX-TILE in EDX.
        const BITS: u32 = 1 << 22 | 1 << 24;
        let is_there = __cpuid_count(0, 0).eax >= 7 && __cpuid_count(7, 0).edx & BITS == BITS;
        (is_there && ask_system()).then_some(Self(()))
    }
}

/// Asks Linux for the state of tile registers, which it saves only for processes that ask; it holds for every thread.
#[expect(unsafe_code, reason = "a system call that changes no memory")]
fn ask_system() -> bool {
    /// `arch_prctl`, `ARCH_REQ_XCOMP_PERM` and the number of the state (Linux, Documentation/arch/x86/xstate.rst).
    const CALL: (i64, u64, u64) = (158, 0x1023, 18);
    let mut result = CALL.0;
    // SAFETY: the call takes numbers only; a system that does not know it returns an error.
    unsafe {
        asm!("syscall", inout("rax") result, in("rdi") CALL.1, in("rsi") CALL.2, out("rcx") _, out("r11") _,
             options(nostack));
    }
    result == 0
}

impl TileRegisters {
    #[expect(unsafe_code, reason = "instructions that the compiler does not know")]
    pub fn shape(_: Permitted) -> Self {
        // SAFETY: `Permitted` says that the instruction is there; it reads the 64 bytes of a valid configuration.
        unsafe { asm!("ldtilecfg [{}]", in(reg) &raw const SHAPES, options(nostack, readonly)) };
        Self(PhantomData)
    }

    /// Replaces `sums` by `a b + bias`, or without a bias adds `a b`.
    #[expect(unsafe_code, reason = "instructions that the compiler does not know")]
    pub fn sums(&self, a: [&[Tile]; 2], b: [&[Tile]; 2], bias: Option<&[f32; BLOCK]>, sums: &mut Sums) {
        let out = (sums.0.as_mut_ptr(), BLOCK);
        let start = bias.map_or((out.0.cast_const(), BLOCK), |bias| (bias.as_ptr(), 0));
        // SAFETY: `sums` are 32 rows of 32 values, borrowed mutably, and are read before they are written; a stride of
        // 0 reads `bias` once for each row.
        unsafe { self.add_products(a, b, start, out) };
    }

    /// # Safety
    ///
    /// 32 rows of 32 values, as many values apart as the number beside the pointer, must be readable from `start` and
    /// writable from `out`.
    #[expect(unsafe_code, reason = "instructions that the compiler does not know")]
    unsafe fn add_products(
        &self,
        a: [&[Tile]; 2],
        b: [&[Tile]; 2],
        (start, start_stride): (*const f32, usize),
        (out, stride): (*mut f32, usize),
    ) {
        let depth = a[0].len();
        assert!(depth > 0 && [a[1], b[0], b[1]].iter().all(|tiles| tiles.len() == depth), "depth of a block");
        // SAFETY: `self` says that the registers have their shapes. The loop reads `depth` tiles of each factor; the
        // caller answers for `start` and `out`.
        unsafe {
            asm!(
                "tileloadd tmm0, [{start} + {start_stride}*1]",
                "tileloadd tmm1, [{start} + {start_stride}*1 + 64]",
                "tileloadd tmm2, [{start_lower} + {start_stride}*1]",
                "tileloadd tmm3, [{start_lower} + {start_stride}*1 + 64]",
                "2:",
                "tileloadd tmm4, [{a0} + {row}*1]",
                "tileloadd tmm6, [{b0} + {row}*1]",
                "tileloadd tmm5, [{a1} + {row}*1]",
                "tileloadd tmm7, [{b1} + {row}*1]",
                "tdpbf16ps tmm0, tmm4, tmm6",
                "tdpbf16ps tmm2, tmm5, tmm6",
                "tdpbf16ps tmm1, tmm4, tmm7",
                "tdpbf16ps tmm3, tmm5, tmm7",
                "add {a0}, 1024",
                "add {a1}, 1024",
                "add {b0}, 1024",
                "add {b1}, 1024",
                "dec {depth}",
                "jnz 2b",
                "tilestored [{upper} + {stride}*1], tmm0",
                "tilestored [{upper} + {stride}*1 + 64], tmm1",
                "tilestored [{lower} + {stride}*1], tmm2",
                "tilestored [{lower} + {stride}*1 + 64], tmm3",
                a0 = inout(reg) a[0].as_ptr() => _,
                a1 = inout(reg) a[1].as_ptr() => _,
                b0 = inout(reg) b[0].as_ptr() => _,
                b1 = inout(reg) b[1].as_ptr() => _,
                depth = inout(reg) depth => _,
                start = in(reg) start,
                start_lower = in(reg) start.add(TILE_ROWS * start_stride),
                start_stride = in(reg) start_stride * size_of::<f32>(),
                row = in(reg) 64usize,
                upper = in(reg) out,
                lower = in(reg) out.add(TILE_ROWS * stride),
                stride = in(reg) stride * size_of::<f32>(),
                out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
                out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
                options(nostack),
            );
        }
    }
}

impl Drop for TileRegisters {
    /// So that the system saves nothing for this thread any longer.
    #[expect(unsafe_code, reason = "an instruction that the compiler does not know")]
    fn drop(&mut self) {
        // SAFETY: the instruction is there, since `shape` ran; it changes tile registers only, which nothing else uses.
        unsafe { asm!("tilerelease", options(nostack, nomem)) };
    }
}
