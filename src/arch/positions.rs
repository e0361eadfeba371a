//! What attention makes of positions beside rotation.

use crate::elementary;

/// Queries at position p are multiplied by 1 + scale·ln(1 + ⌊(p + offset) / length⌋), after their rotation.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Temperature {
    pub scale: f32,
    pub offset: usize,
    /// Tokens; not 0.
    pub length: usize,
}

impl Temperature {
    /// The factor at a position.
    pub fn factor(&self, position: usize) -> f32 {
        1.0 + self.scale * elementary::ln(1.0 + ((position + self.offset) / self.length) as f32)
    }
}

/// Attention with linear biases (arXiv 2108.12409): a score is lessened by a slope, which is the head's, for each position
/// between key and query.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Slopes {
    /// Slopes fall from 2^(−bias / heads) to 2^(−bias).
    pub max_bias: f32,
}

impl Slopes {
    /// The slope of a head. Of heads whose number is no power of 2 those beyond the next lower one have slopes between.
    pub fn of(&self, head: usize, heads: usize) -> f32 {
        let whole = 1usize << heads.max(1).ilog2();
        let (bias, exponent) =
            if head < whole { (self.max_bias, head + 1) } else { (self.max_bias / 2.0, 2 * (head - whole) + 1) };
        elementary::power(elementary::exp2(-bias / whole as f32), exponent as u32)
    }
}
