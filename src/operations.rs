//! The operations that models are made of, as data: what an architecture's description says of them, and what kernels
//! take as parameters. Neither has to know the other for it.

/// The function f of a feed-forward block.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Activation {
    /// x·σ(x), within 10⁻⁶ relative (below −87 the result may round to −0).
    Silu,
    /// ½x(1 + erf(x/√2)), within 10⁻⁶ relative plus 10⁻⁸.
    Gelu,
    /// max(x, 0).
    Relu,
    /// ½x(1 + tanh(√(2/π)(x + 0.044715·x³))), within 10⁻⁶ relative plus 10⁻⁸.
    GeluTanh,
    /// x·σ(slope·x) of x held below `limit`; as a gate it multiplies up + 1, with up held within ±`limit`: gpt-oss, whose
    /// slope is 1.702 and limit 7.
    ClampedSwiglu { slope: f32, limit: f32 },
    /// max(x, 0)².
    SquaredRelu,
}

/// Which elements form a pair, of n rotated ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pairing {
    /// 2i and 2i + 1.
    Norm,
    /// i and i + n/2.
    Neox,
}

/// How the angles are stretched beyond the context a model was trained for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Scaling {
    None,
    /// All angles divided by `factor`, cosines and sines multiplied by `magnitude`.
    Linear {
        factor: f64,
        magnitude: f64,
    },
    /// Slow pairs divided by `factor`, fast ones left, those between blended (YaRN, arXiv 2309.00071).
    Yarn {
        factor: f64,
        /// The context the model was trained for, in tokens.
        original_context: u32,
        /// A pair that turns more often than this over the original context is left as it is; usually 32.
        beta_fast: f64,
        /// One that turns less often is divided by `factor`; usually 1.
        beta_slow: f64,
        /// Weight of the unscaled angles in the blend; usually 1. At 0 all is linear, and so is the magnitude 1.
        ext_factor: f64,
        /// Multiplies cosines and sines; usually 1.
        attn_factor: f64,
        /// Cosines and sines are multiplied by 1 + 0.1 · log_multiplier · ln(factor) as well; usually 1.
        log_multiplier: f64,
    },
}

impl Scaling {
    /// YaRN with the usual parameters.
    pub fn yarn(factor: f64, original_context: u32) -> Scaling {
        Scaling::Yarn {
            factor,
            original_context,
            beta_fast: 32.0,
            beta_slow: 1.0,
            ext_factor: 1.0,
            attn_factor: 1.0,
            log_multiplier: 1.0,
        }
    }
}

/// Longest key or value vector: sizes the scratch on the stack (about 27 KiB in all). The longest known are those of
/// latent attention.
pub const MAX_HEAD_DIM: usize = 576;

/// Weights that a channel of a short convolution may have.
pub const MAX_KERNEL: usize = 8;

/// Elements that a key of a matrix state may have.
pub const MAX_KEY: usize = 256;

/// The heads of a layer. Query and key heads may be fewer than value heads.
#[derive(Clone, Copy, Debug)]
pub struct StateHeads {
    pub count: usize,
    pub key_heads: usize,
    /// Elements of a key, at most [`MAX_KEY`].
    pub key: usize,
    /// Elements of a value.
    pub value: usize,
    /// Whether the heads that share a key head lie `key_heads` apart; else they follow each other.
    pub tiled: bool,
}

/// Values of a head's state are padded to a multiple of this: the kernels' vectors.
pub const STATE_PADDING: usize = 8;

impl StateHeads {
    /// The key head that a head belongs to.
    pub fn key_head(&self, head: usize) -> usize {
        if self.tiled { head % self.key_heads } else { head / (self.count / self.key_heads) }
    }

    /// Elements of the state of a head.
    pub fn head_state_len(&self) -> usize {
        self.key * self.value.next_multiple_of(STATE_PADDING)
    }

    /// Elements of the state of all heads.
    pub fn state_len(&self) -> usize {
        self.head_state_len().saturating_mul(self.count)
    }
}
