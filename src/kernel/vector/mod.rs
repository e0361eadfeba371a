//! What happens to rows of f32 between the matrices: norms, residuals, activations, softmax, half floats.
//!
//! Each function is one generic routine over eight lanes (`simd`), run as plain arrays, in AVX2 or in NEON registers; see
//! [`Isa`](crate::kernel::Isa). Results depend on the input, its length and the instruction set only. All functions
//! may be called from any thread and allocate nothing.

mod activation;
#[cfg(target_arch = "x86_64")]
mod avx2;
mod half;
mod linear;
mod map;
pub(crate) mod math;
#[cfg(target_arch = "aarch64")]
mod neon;
mod portable;
pub(crate) mod simd;
mod softmax;
#[cfg(test)]
mod tests;

pub use activation::{activate, gate_assign, multiply_assign, sigmoid_assign, softcap};
pub use half::{from_f16 as f16_to_f32, to_f16 as f32_to_f16};
pub use linear::{
    add_assign, add_scaled, dot_f32, layer_norm_in_place, rms_norm, rms_norm_in_place, rms_normalise, scale, sparsify,
};
pub(crate) use softmax::max_of;
pub use softmax::{argmax, softmax_in_place};
