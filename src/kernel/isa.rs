//! Which instruction set the kernels use: found once, when a model is opened.

/// An instruction set the kernels are written for. The scalar one is the truth the others are tested against.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Isa {
    Scalar,
    /// x86-64 with AVX2, FMA and F16C.
    Avx2,
    /// The same with AVX-VNNI (Alder Lake and later, client processors of Zen 5 and later).
    AvxVnni,
    /// x86-64 with AVX-512 F, BW, VL, DQ, VNNI and VBMI (Ice Lake, Zen 4 and later).
    Avx512,
}

impl Isa {
    /// The best one this processor has.
    ///
    /// The kernels above AVX2 are taken only where they give the bits of the scalar ones on this very processor: so far an
    /// interpreter has run them (`scripts/vnni-interpreted`), no hardware.
    pub fn detect() -> Isa {
        let mut list = Isa::available();
        while let Some(isa) = list.pop() {
            if isa <= Isa::Avx2 || super::matmul::agrees(isa) {
                return isa;
            }
        }
        Isa::Scalar
    }

    /// All that this processor has, slowest first.
    pub fn available() -> Vec<Isa> {
        #[allow(unused_mut)]
        let mut list = vec![Isa::Scalar];
        #[cfg(target_arch = "x86_64")]
        {
            if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") && is_x86_feature_detected!("f16c") {
                list.push(Isa::Avx2);
                if is_x86_feature_detected!("avxvnni") {
                    list.push(Isa::AvxVnni);
                }
                if is_x86_feature_detected!("avx512f")
                    && is_x86_feature_detected!("avx512bw")
                    && is_x86_feature_detected!("avx512vl")
                    && is_x86_feature_detected!("avx512dq")
                    && is_x86_feature_detected!("avx512vnni")
                    && is_x86_feature_detected!("avx512vbmi")
                {
                    list.push(Isa::Avx512);
                }
            }
        }
        list
    }

    pub fn name(self) -> &'static str {
        match self {
            Isa::Scalar => "scalar",
            Isa::Avx2 => "avx2",
            Isa::AvxVnni => "avx-vnni",
            Isa::Avx512 => "avx512-vnni",
        }
    }
}
