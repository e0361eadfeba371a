//! Blocks of 256 with signed codes, by vectors of 256 bits: the compiler makes one instruction of a product and the
//! addition of its result, as it does for AVX-VNNI.

use super::decode::{pair32, sixteens, sums32};
use crate::kernel::matmul::activations::Codes256;
use crate::kernel::matmul::avx2::block256::Block256;
use crate::kernel::matmul::avx2::decode::{EACH_OF_EIGHT, Sums256, opaque, separate, six_bits, sums_of_256};
use crate::kernel::matmul::avx2::{
    AHEAD, fold, halves_together, load, load128, prefetch, products, products_of_negatable, sum_halves,
};
use std::arch::x86_64::*;

#[allow(dead_code)] // Of the loops only the one over blocks of 256 is used.
pub(super) mod kernels {
    crate::kernel::matmul::avx2::decode::decode_kernels!(
        "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512vbmi,gfni"
    );
}

sums_of_256!("avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512vbmi,gfni");
