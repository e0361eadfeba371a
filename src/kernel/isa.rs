//! Which instruction set the kernels use: found once, when a model is opened.

use std::fmt;

/// An instruction set that this processor has and the kernels are written for.
///
/// Only this module makes one, after asking the processor: a value is the proof that its instructions may be executed,
/// so functions that take one need no promise from their callers.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Isa(Instructions);

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
    /// AVX2, FMA and F16C with AVX-512 F, BW, VL, DQ, VNNI and VBMI (Ice Lake, Zen 4 and later).
    #[cfg(target_arch = "x86_64")]
    Avx512,
}

impl Isa {
    /// Plain code: the truth the others are tested against. Every processor has it.
    pub const SCALAR: Isa = Isa(Instructions::Scalar);

    /// The best one this processor has.
    ///
    /// The kernels above AVX2 are taken only where they give the bits of the scalar ones on this very processor: so far an
    /// interpreter has run them (`scripts/vnni-interpreted`), no hardware.
    pub fn detect() -> Isa {
        let usable = |isa: &Isa| !isa.is_checked_in_use() || super::matmul::agrees(*isa);
        Isa::available().into_iter().rev().find(usable).unwrap_or(Isa::SCALAR)
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
            {
                list.push(Isa(Instructions::Avx512));
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
            Instructions::AvxVnni | Instructions::Avx512 => true,
        }
    }
}

impl fmt::Debug for Isa {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(self.name())
    }
}
