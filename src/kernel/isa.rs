//! Which instruction set the kernels use: found once, when a model is opened.

use std::fmt;
use std::sync::OnceLock;

/// An instruction set that this processor has and the kernels are written for.
///
/// Only this module makes one, after asking the processor: a value is the proof that its instructions may be executed,
/// so functions that take one need no promise from their callers.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Isa(Instructions);

/// What [`Isa::detect`] found, or was told.
static FOUND: OnceLock<Isa> = OnceLock::new();

/// Which instruction set an [`Isa`] is. By itself it proves nothing about the processor.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Instructions {
    Scalar,
    /// x86-64 with AVX2, FMA and F16C.
    #[cfg(target_arch = "x86_64")]
    Avx2,
    /// The same with AVX-VNNI (Alder Lake and later, client processors of Zen 5 and later).
    #[cfg(target_arch = "x86_64")]
    AvxVnni,
    /// AVX2, FMA and F16C with AVX-512 F, BW, VL, DQ, VNNI and VBMI, and GFNI (Ice Lake, Zen 4 and later).
    #[cfg(target_arch = "x86_64")]
    Avx512,
    /// The same with AMX for 8-bit numbers (Sapphire Rapids and later), where the system lets this process use it.
    #[cfg(target_arch = "x86_64")]
    Amx,
}

impl Isa {
    /// Plain code: the truth the others are tested against. Every processor has it.
    pub const SCALAR: Isa = Isa(Instructions::Scalar);

    /// The best one this processor has.
    ///
    /// The kernels above AVX2 are taken only where they give the bits of the scalar ones on this very processor: few
    /// machines that run the tests have them. An interpreter runs all but those for AMX (`scripts/vnni-interpreted`).
    pub fn detect() -> Isa {
        // Comparing takes as long as opening a small model does.
        if let Some(isa) = FOUND.get() {
            return *isa;
        }
        let usable = |isa: &Isa| !isa.is_checked_in_use() || super::matmul::agrees(*isa);
        let available = Isa::available();
        let best = available.iter().copied().rev().find(usable).unwrap_or(Isa::SCALAR);
        // One that was passed over may have been so because there was no memory to compare it.
        if available.last() == Some(&best) {
            let _ = FOUND.set(best);
        }
        best
    }

    /// Makes this one what [`Isa::detect`] gives, for all models of the process opened later: to compare instruction sets.
    /// False: a model has been opened before.
    pub fn choose(self) -> bool {
        FOUND.set(self).is_ok()
    }

    /// All that this processor has, slowest first.
    pub fn available() -> Vec<Isa> {
        #[allow(unused_mut)]
        let mut list = vec![Isa::SCALAR];
        #[cfg(target_arch = "x86_64")]
        if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") && is_x86_feature_detected!("f16c") {
            list.push(Isa(Instructions::Avx2));
            if is_x86_feature_detected!("avxvnni") {
                list.push(Isa(Instructions::AvxVnni));
            }
            if is_x86_feature_detected!("avx512f")
                && is_x86_feature_detected!("avx512bw")
                && is_x86_feature_detected!("avx512vl")
                && is_x86_feature_detected!("avx512dq")
                && is_x86_feature_detected!("avx512vnni")
                && is_x86_feature_detected!("avx512vbmi")
                && is_x86_feature_detected!("gfni")
            {
                list.push(Isa(Instructions::Avx512));
                if has_tiles() && crate::sys::tiles::allow() {
                    list.push(Isa(Instructions::Amx));
                }
            }
        }
        list
    }

    pub fn name(self) -> &'static str {
        match self.0 {
            Instructions::Scalar => "scalar",
            #[cfg(target_arch = "x86_64")]
            Instructions::Avx2 => "avx2",
            #[cfg(target_arch = "x86_64")]
            Instructions::AvxVnni => "avx-vnni",
            #[cfg(target_arch = "x86_64")]
            Instructions::Avx512 => "avx512-vnni",
            #[cfg(target_arch = "x86_64")]
            Instructions::Amx => "amx-int8",
        }
    }

    /// What to dispatch on. The processor has what is returned.
    #[inline]
    pub(super) fn instructions(self) -> Instructions {
        self.0
    }

    /// Whether [`Isa::detect`] compares its kernels with the scalar ones before it chooses them.
    fn is_checked_in_use(self) -> bool {
        match self.0 {
            Instructions::Scalar => false,
            #[cfg(target_arch = "x86_64")]
            Instructions::Avx2 => false,
            #[cfg(target_arch = "x86_64")]
            Instructions::AvxVnni | Instructions::Avx512 | Instructions::Amx => true,
        }
    }
}

/// Whether the processor has AMX for 8-bit numbers, and the system keeps its registers. The standard library does not tell
/// yet.
#[cfg(target_arch = "x86_64")]
fn has_tiles() -> bool {
    use std::arch::x86_64::{__cpuid, __cpuid_count, _xgetbv};
    /// Reads which registers the system keeps.
    ///
    /// # Safety
    /// The processor has XGETBV.
    #[target_feature(enable = "xsave")]
    unsafe fn kept() -> u64 {
        // SAFETY: the caller's promise; register 0 is the one there always is.
        unsafe { _xgetbv(0) }
    }
    const TILE: u32 = 1 << 24;
    const INT8: u32 = 1 << 25;
    const KEEPS_REGISTERS: u32 = 1 << 27;
    const CONFIGURATION_AND_DATA: u64 = 0b11 << 17;
    // An interpreter has no such instructions.
    !cfg!(miri)
        && __cpuid(0).eax >= 7
        && __cpuid(1).ecx & KEEPS_REGISTERS != 0
        && __cpuid_count(7, 0).edx & (TILE | INT8) == TILE | INT8
        // SAFETY: the bit above says that the system uses XSAVE, and with it that XGETBV is there.
        && unsafe { kept() } & CONFIGURATION_AND_DATA == CONFIGURATION_AND_DATA
}

impl fmt::Debug for Isa {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(self.name())
    }
}
