//! Elementary functions that give the same bits on every system. Those of a C library do not: their last bits differ from
//! one library to the next, and the fused operation of some is none. Only additions, multiplications, divisions and square
//! roots, which IEEE 754 fixes to the bit, come from the processor.

/// a·b + c, rounded once.
///
/// Where the target has no such instruction: the product of two f32 is exact in f64. The sum there is rounded "to odd": of
/// the two neighbours of a sum that is not exact, the one whose last bit is set (Boldo and Melquiond, "Emulation of FMA and
/// correctly rounded sums: proved algorithms using rounding to odd", 2008). As f64 has more than two bits beyond f32, the
/// second rounding then gives what a single one would.
#[inline(always)]
pub fn fused(a: f32, b: f32, c: f32) -> f32 {
    if cfg!(any(target_feature = "fma", target_arch = "aarch64")) { a.mul_add(b, c) } else { fused_by_f64(a, b, c) }
}

#[inline(always)]
fn fused_by_f64(a: f32, b: f32, c: f32) -> f32 {
    let product = f64::from(a) * f64::from(b);
    let c = f64::from(c);
    let sum = product + c;
    // What the sum lost, exactly (Knuth's two-sum); not a number where a part is not finite, which no comparison takes.
    let taken = sum - product;
    let lost = (product - (sum - taken)) + (c - taken);
    let inexact = (lost > 0.0) | (lost < 0.0);
    let even = sum.to_bits() & 1 == 0;
    // A larger magnitude has larger bits.
    let outward = (lost > 0.0) == (sum > 0.0);
    let step = if inexact & even { if outward { 1 } else { u64::MAX } } else { 0 };
    f64::from_bits(sum.to_bits().wrapping_add(step)) as f32
}

/// e^x.
pub fn exp(x: f32) -> f32 {
    libm::expf(x)
}

/// 2^x.
pub fn exp2(x: f32) -> f32 {
    libm::exp2f(x)
}

/// ln x.
pub fn ln(x: f32) -> f32 {
    libm::logf(x)
}

/// ln(1 + x).
pub fn ln_1p(x: f32) -> f32 {
    libm::log1pf(x)
}

/// tanh x.
pub fn tanh(x: f32) -> f32 {
    libm::tanhf(x)
}

/// x^n for whole n, by as many multiplications.
pub fn power(x: f32, n: u32) -> f32 {
    (0..n).fold(1.0, |product, _| product * x)
}

/// The same of f64, which angles are computed in.
pub mod wide {
    /// ln x.
    pub fn ln(x: f64) -> f64 {
        libm::log(x)
    }

    /// x^y.
    pub fn power(x: f64, y: f64) -> f64 {
        libm::pow(x, y)
    }

    /// sin x and cos x.
    pub fn sin_cos(x: f64) -> (f64, f64) {
        libm::sincos(x)
    }
}

/// The value of a half float (IEEE binary16), exact; a NaN is quieted. Without branches, so that compilers can vectorise it.
#[inline(always)]
pub fn f16_to_f32(bits: u16) -> f32 {
    let sign = u32::from(bits & 0x8000) << 16;
    let magnitude = u32::from(bits & 0x7fff) << 13;
    // The exponent's bias differs by 112. A multiplication by 2^112 is exact and makes denormals normal as well.
    let finite = (f32::from_bits(magnitude) * f32::from_bits((127 + 112) << 23)).to_bits();
    let quiet = if bits & 0x7fff > 0x7c00 { 0x0040_0000 } else { 0 };
    let rest = magnitude | 0x7f80_0000 | quiet;
    f32::from_bits(sign | if bits & 0x7c00 == 0x7c00 { rest } else { finite })
}

/// The half float nearest to `x`, by the same bits as the F16C instructions: ties to even, overflow to infinity, denormals
/// kept, NaN quieted with its upper payload. Without branches, too.
#[inline(always)]
pub fn f32_to_f16(x: f32) -> u16 {
    let bits = x.to_bits();
    let sign = (bits >> 16) & 0x8000;
    let magnitude = bits & 0x7fff_ffff;
    // Normal results: the lower 13 bits are rounded off; a carry into the exponent is right, up to infinity.
    let odd = (magnitude >> 13) & 1;
    let normal = magnitude.wrapping_sub(112 << 23).wrapping_add(0xfff + odd) >> 13;
    // Denormal results: the unit in the last place of 0.5 is the least half float, so the addition does the rounding.
    let small = (f32::from_bits(magnitude) + 0.5).to_bits().wrapping_sub(0.5f32.to_bits());
    let nan = 0x7e00 | ((magnitude >> 13) & 0x3ff);
    let half = if magnitude > 0x7f80_0000 {
        nan
    } else if magnitude >= 0x4780_0000 {
        0x7c00
    } else if magnitude < 0x3880_0000 {
        small
    } else {
        normal
    };
    (sign | half) as u16
}

/// The value of the upper half of a single float, exact; a NaN is quieted.
#[inline(always)]
pub fn bf16_to_f32(bits: u16) -> f32 {
    let quiet = if bits & 0x7fff > 0x7f80 { 0x40 } else { 0 };
    f32::from_bits(u32::from(bits | quiet) << 16)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 3·2^-149 and the like: results below the normal range, halfway cases, sums that cancel, and what is not finite.
    fn awkward() -> Vec<f32> {
        let special = [
            0.0,
            1.0,
            1.5,
            f32::MAX,
            f32::MIN_POSITIVE,
            1e-45,
            f32::EPSILON,
            0.1,
            3e19,
            3e-23,
            f32::INFINITY,
            f32::NAN,
        ];
        let mut state = 7u64;
        let random = (0..40).map(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            f32::from_bits((state >> 32) as u32 & 0x7fff_ffff)
        });
        // Of few bits: their sums fall halfway between neighbours.
        let round = (0..12).map(|i| (1.0 + 2f32.powi(-i)) * 2f32.powi(5 * i - 30));
        special.into_iter().chain(random).chain(round).flat_map(|x| [x, -x]).collect()
    }

    #[test]
    fn a_fused_operation_is_rounded_once() {
        let values = awkward();
        for &a in &values {
            for &b in &values {
                for &c in &values {
                    let (got, exact) = (fused_by_f64(a, b, c), exactly(a, b, c));
                    assert!(
                        got.to_bits() == exact.to_bits() || got.is_nan() && exact.is_nan(),
                        "{a:e}·{b:e} + {c:e}: {got:e}, not {exact:e}"
                    );
                }
            }
        }
        // The product is 1 + 2^-11 + 2^-24, halfway between two f32: what comes to it decides.
        let x = 1.0 + 2f32.powi(-12);
        assert_eq!(fused_by_f64(x, x, 0.0), 1.0 + 2f32.powi(-11));
        assert_eq!(fused_by_f64(x, x, 2f32.powi(-90)), 1.0 + 2f32.powi(-11) + f32::EPSILON);
        assert_eq!(fused_by_f64(x, x, -2f32.powi(-90)), 1.0 + 2f32.powi(-11));
    }

    /// Through whole numbers of any length: sign and magnitude at 2^-298, which every product and number is a multiple of.
    fn exactly(a: f32, b: f32, c: f32) -> f32 {
        if !(a.is_finite() && b.is_finite() && c.is_finite()) || a == 0.0 || b == 0.0 || c == 0.0 {
            // Exact in f64, or no finite number.
            return (f64::from(a) * f64::from(b) + f64::from(c)) as f32;
        }
        let parts = |x: f32| {
            let (bits, exponent) = (x.to_bits() & 0x7f_ffff, x.to_bits() >> 23 & 255);
            if exponent == 0 { (u64::from(bits), 0) } else { (u64::from(bits | 1 << 23), exponent - 1) }
        };
        let ((ma, ea), (mb, eb), (mc, ec)) = (parts(a), parts(b), parts(c));
        let product = Wide::shifted(ma * mb, ea + eb);
        let addend = Wide::shifted(mc, ec + 149);
        let negative_product = (a < 0.0) != (b < 0.0);
        let (sum, negative) = if negative_product == (c < 0.0) {
            (product.plus(&addend), negative_product)
        } else if product.0 == addend.0 {
            return 0.0;
        } else if product.above(&addend) {
            (product.minus(&addend), negative_product)
        } else {
            (addend.minus(&product), c < 0.0)
        };
        let magnitude = sum.rounded();
        if negative { -magnitude } else { magnitude }
    }

    /// A whole number in 32-bit digits, least first.
    #[derive(PartialEq)]
    struct Wide([u64; 20]);

    impl Wide {
        fn shifted(x: u64, by: u32) -> Wide {
            let mut digits = [0; 20];
            let value = u128::from(x) << (by % 32);
            (0..3).for_each(|i| digits[by as usize / 32 + i] = (value >> (32 * i)) as u64 & 0xffff_ffff);
            Wide(digits)
        }

        fn plus(&self, other: &Wide) -> Wide {
            let mut carry = 0;
            Wide(std::array::from_fn(|i| {
                let digit = self.0[i] + other.0[i] + carry;
                carry = digit >> 32;
                digit & 0xffff_ffff
            }))
        }

        fn minus(&self, other: &Wide) -> Wide {
            let mut borrowed = 0;
            Wide(std::array::from_fn(|i| {
                let digit = (1 << 32) + self.0[i] - other.0[i] - borrowed;
                borrowed = 1 - (digit >> 32);
                digit & 0xffff_ffff
            }))
        }

        fn above(&self, other: &Wide) -> bool {
            self.0.iter().rev().gt(other.0.iter().rev())
        }

        fn bit(&self, at: i64) -> u64 {
            if at < 0 { 0 } else { self.0[at as usize / 32] >> (at % 32) & 1 }
        }

        /// Times 2^-298, to the nearest f32, ties to even.
        fn rounded(&self) -> f32 {
            let top = (0..640).rev().find(|&at| self.bit(at) == 1).unwrap();
            // The place of the last bit kept: 24 bits, and none below 2^-149.
            let last = (top - 23).max(149);
            let kept = (0..24).fold(0u64, |kept, i| kept | self.bit(last + i) << i);
            let below = (0..last - 1).any(|at| self.bit(at) == 1);
            let up = self.bit(last - 1) == 1 && (below || kept & 1 == 1);
            // In f64 this is exact; what is too large becomes infinity by the conversion.
            ((kept + u64::from(up)) as f64 * 2f64.powi((last - 298) as i32)) as f32
        }
    }

    #[test]
    fn functions_are_within_two_units_of_the_exact_values() {
        let near = |got: f32, exact: f64| (f64::from(got) - exact).abs() <= 2.4e-7 * exact.abs() + 1e-44;
        for i in -800..=800 {
            let x = i as f32 / 10.0;
            let exact = f64::from(x);
            assert!(near(exp(x), exact.exp()), "exp({x})");
            assert!(near(exp2(x), exact.exp2()), "exp2({x})");
            assert!(near(tanh(x), exact.tanh()), "tanh({x})");
            if x > 0.0 {
                assert!(near(ln(x), exact.ln()), "ln({x})");
                assert!(near(ln_1p(x), exact.ln_1p()), "ln_1p({x})");
            }
            let (sin, cos) = wide::sin_cos(exact * 997.0);
            assert!((sin - (exact * 997.0).sin()).abs() < 1e-15 && (cos - (exact * 997.0).cos()).abs() < 1e-15);
        }
        assert_eq!(power(1.5, 3), 3.375);
        assert!((wide::power(10_000.0, -0.25) - 0.1).abs() < 1e-16 && wide::ln(std::f64::consts::E) == 1.0);
    }

    #[test]
    fn halves_of_floats_have_the_values_of_another_implementation() {
        for bits in 0..=u16::MAX {
            assert_eq!(f16_to_f32(bits).to_bits(), half::f16::from_bits(bits).to_f32_const().to_bits(), "{bits:x}");
            assert_eq!(bf16_to_f32(bits).to_bits(), half::bf16::from_bits(bits).to_f32_const().to_bits(), "{bits:x}");
        }
    }

    /// Fixed bits, so that a system whose results differ is found there.
    #[test]
    fn bits_are_those_of_every_other_system() {
        let bits = [exp(0.3), exp2(-0.7), ln(0.3), ln_1p(0.3), tanh(0.3), fused(0.1, 0.1, -0.01)].map(f32::to_bits);
        assert_eq!(bits, [1_068_288_044, 1_058_903_588, 3_214_547_912, 1_048_990_876, 1_049_962_222, 806_313_001]);
        let (sin, cos) = wide::sin_cos(12345.678);
        let bits = [wide::ln(0.3), wide::power(10_000.0, -0.3), sin, cos].map(f64::to_bits);
        let known = [
            13_831_473_067_500_349_217,
            4_589_210_947_481_545_210,
            13_827_889_057_084_568_741,
            4_604_571_406_103_880_888,
        ];
        assert_eq!(bits, known);
    }
}
