//! Architectures as data: a description of what each layer computes and of which tensors, which `exec::program` compiles
//! into steps. `table` says what sets each architecture apart, `hybrids` what does those with recurrent layers;
//! `transformer` makes a description of that, the metadata and the tensor directory.

mod build;
mod hybrids;
mod metadata;
mod per_layer;
mod positions;
mod recurrent;
mod table;
mod transformer;

use crate::error::{Error, Result};
use crate::gguf::Directory;
use crate::operations::{Activation, Pairing, Scaling};
use crate::weights::{Builder, MatrixId};

pub use build::VectorSource;
pub use per_layer::{LayerInput, LayerInputs, LayerStreams, MAX_STREAMS, Streams};
pub use positions::{Slopes, Temperature};
pub use recurrent::{Convolution, Delta, DeltaRows, DeltaStrength, Mixer, Recurrent, StateSpace};
pub use table::{ARCHITECTURES, Architecture};

/// A small tensor that is read at open and stays, by number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VectorId(pub u32);

/// y = s·W·x + b.
#[derive(Clone, Copy, Debug)]
pub struct Linear {
    pub weight: MatrixId,
    /// One number: weights whose blocks have scales of a small range have another for the whole matrix.
    pub scale: Option<VectorId>,
    pub bias: Option<VectorId>,
}

impl Linear {
    /// y = W·x.
    pub fn plain(weight: MatrixId) -> Linear {
        Linear { weight, scale: None, bias: None }
    }
}

/// What all norms of a model compute; the weights and biases are each norm's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NormKind {
    /// x / √(mean(x²) + eps) · w.
    Rms,
    /// (x − mean(x)) / √(variance(x) + eps) · w + b.
    Layer,
}

#[derive(Clone, Copy, Debug)]
pub struct Norm {
    pub weight: VectorId,
    pub bias: Option<VectorId>,
}

/// A norm of each run of `span` elements of a row. Its weights go on through the runs and begin again where
/// they end: one set for all heads, a set for each, or one for the row as a whole.
#[derive(Clone, Copy, Debug)]
pub struct SpanNorm {
    /// None: all weights are 1.
    pub norm: Option<Norm>,
    pub span: usize,
}

/// Sizes of the heads of a layer's attention.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heads {
    pub count: usize,
    pub kv_count: usize,
    pub key_dim: usize,
    pub value_dim: usize,
}

/// Sizes and constants of a model.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    pub embedding: usize,
    /// This and the next three are as the keys say for the first layer, windows aside; see [`Attention::heads`].
    pub heads: usize,
    pub kv_heads: usize,
    pub key_dim: usize,
    pub value_dim: usize,
    pub vocab: usize,
    /// Tokens the model was trained for.
    pub context: u32,
    pub norm: NormKind,
    pub norm_eps: f32,
}

/// A rotary embedding of queries and keys.
#[derive(Clone, Copy, Debug)]
pub struct Rope {
    pub pairing: Pairing,
    /// Rotated elements of each head, from its first.
    pub dims: usize,
    pub base: f64,
    pub scaling: Scaling,
    /// One divisor per pair.
    pub divisors: Option<VectorId>,
    /// Other divisors for sessions with room for more tokens than this.
    pub beyond: Option<(u32, VectorId)>,
    pub interleaved: Option<Interleaved>,
}

/// Which pairs of a rotation follow which coordinate of a picture: time, height and width in turn, each as often as it says.
/// A text's coordinates are all its position. Pairs beyond what the coordinates say are not rotated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Interleaved(pub [usize; 3]);

impl Interleaved {
    /// Whether a pair is rotated.
    pub fn rotates(&self, pair: usize) -> bool {
        let pair = pair % self.0.iter().sum::<usize>().max(1);
        pair < 3usize.saturating_mul(self.0[pair % 3])
    }
}

/// What makes queries, keys and values of h.
#[derive(Clone, Copy, Debug)]
pub enum Projection {
    Direct {
        query: Linear,
        key: Linear,
        value: Linear,
    },
    /// Values are the keys before their norm and rotation.
    Tied {
        query: Linear,
        key: Linear,
    },
    /// Queries alone: the keys and values are those of an earlier layer, by its number among all layers, and this one has
    /// no memory of its own.
    Shared {
        query: Linear,
        layer: usize,
    },
    Latent(Latent),
    Expanded(Expanded),
}

/// Multi-head latent attention (arXiv 2405.04434), with keys and values left compressed: all heads share the latent c, and
/// each head's query is taken into its space. [c | k] = W_kv·h and for each head [q | r] = W_q·h; then its query is
/// [r | W_k·q], the key [k | norm(c)], the value norm(c), and W_v takes what it sees back.
#[derive(Clone, Copy, Debug)]
pub struct Latent {
    /// What h is compressed by before W_q.
    pub query_down: Option<(Linear, Norm)>,
    pub query: Linear,
    pub key_value: Linear,
    pub norm: Norm,
    /// W_k of all heads, end to end, each [latent][plain].
    pub key: MatrixId,
    /// W_v of all heads, end to end, each [value][latent].
    pub value: MatrixId,
    /// Elements of q, of which none are rotated.
    pub plain: usize,
    /// Elements of r and k.
    pub rotated: usize,
    /// Elements of a head's result.
    pub head_value: usize,
}

/// The same attention with keys and values taken out of the latent: [c | k] = W_kv·h; for each head [q | r] = W_q·h and
/// [p | v] = W·norm(c), and its query is [r | q], the key [k | p], the value v.
#[derive(Clone, Copy, Debug)]
pub struct Expanded {
    pub query_down: Option<(Linear, Norm)>,
    pub query: Linear,
    pub key_value: Linear,
    pub norm: Norm,
    /// W of all heads, end to end.
    pub expand: Linear,
    /// Elements of c.
    pub latent: usize,
    /// Elements of q and p, of which none are rotated.
    pub plain: usize,
    /// Elements of r and k.
    pub rotated: usize,
}

/// A residual block of low rank on h, beside attention: (x + h + norm(W_up·W_down·h)) / √2, x with the attention added.
#[derive(Clone, Copy, Debug)]
pub struct LowRank {
    pub down: Linear,
    pub up: Linear,
    pub norm: Norm,
}

/// attention(rope(norm(query)), rope(norm(key)), norm(value)) of h = norm(x); what is `None` is left out.
#[derive(Clone, Copy, Debug)]
pub struct Attention {
    pub norm: Option<Norm>,
    pub heads: Heads,
    pub projection: Projection,
    pub query_norm: Option<SpanNorm>,
    pub key_norm: Option<SpanNorm>,
    pub value_norm: Option<SpanNorm>,
    /// Whether those of queries and keys come after the rotation, not before it.
    pub norm_after_rotation: bool,
    /// Of the description's.
    pub rope: Option<usize>,
    /// Multiplies q·k.
    pub scale: f32,
    /// Scores become cap·tanh(score / cap).
    pub softcap: Option<f32>,
    pub temperature: Option<Temperature>,
    /// One extra logit per head, in the softmax's denominator only.
    pub sinks: Option<VectorId>,
    /// Each head's query is followed by as many numbers, whose sigmoid multiplies its result.
    pub gated: bool,
    /// A token sees itself and the `window - 1` before it, in an encoder those of half a window before and after it;
    /// `None`: all.
    pub window: Option<usize>,
    /// A token sees itself and those before it from the last multiple of this position on. Not with a window.
    pub section: Option<usize>,
    pub slopes: Option<Slopes>,
    pub output: Linear,
    pub post_norm: Option<Norm>,
    pub sum_norm: Option<Norm>,
    pub low_rank: Option<LowRank>,
}

/// W_down·(f(W_gate·h) ⊙ W_up·h), or W_down·f(W_up·h) without a gate.
#[derive(Clone, Copy, Debug)]
pub struct Mlp {
    pub gate: Option<Linear>,
    pub up: Linear,
    pub down: Linear,
    pub activation: Activation,
    /// Of W_gate·h what exceeds the mean by so many standard deviations is left, less that, and 0 of the rest.
    pub sparsity: Option<f32>,
}

impl Mlp {
    /// The matrices that share its input.
    pub fn up_projections(&self) -> [Linear; 2] {
        [self.gate.unwrap_or(self.up), self.up]
    }
}

/// Blocks of which each token uses the few that its router chooses: Σ weight·expert(h), plus the shared one's.
#[derive(Clone, Copy, Debug)]
pub struct Experts {
    pub router: Linear,
    pub router_config: RouterConfig,
    pub count: usize,
    pub used: usize,
    /// The gate of expert 0; its up and down projections follow, then those of the other experts.
    pub first: MatrixId,
    /// Whether experts have a gate; else the first is the up projection of expert 0.
    pub gated: bool,
    /// What the experts' input is compressed by, and what takes the sum of their results back.
    pub latent: Option<[Linear; 2]>,
    /// One number for each expert's gate, up and down projection: see [`Linear::scale`].
    pub scales: [Option<VectorId>; 3],
    /// Of all experts' gates, up projections and down projections, end to end.
    pub biases: [Option<VectorId>; 3],
    pub activation: Activation,
    pub shared: Option<Shared>,
    pub router_input: RouterInput,
    pub apart: Option<Apart>,
    /// Multiplies the sum of the experts and the shared block.
    pub output_scale: f32,
}

/// What the router's scores are made of.
#[derive(Clone, Copy, Debug)]
pub enum RouterInput {
    /// What the experts read.
    Same,
    /// scale·norm(x), x being what the block begins with.
    Normed { norm: Norm, scale: f32 },
    /// What the layer begins with.
    Layer,
}

/// Norms of experts that have their own input: post(Σ experts(input(x))) + shared_post(shared(h)), h being the block's.
#[derive(Clone, Copy, Debug)]
pub struct Apart {
    pub input: Norm,
    pub post: Norm,
    pub shared_post: Norm,
}

impl Experts {
    /// The gate, up projection and down projection of an expert; without a gate the up projection stands for it.
    pub fn matrices(&self, expert: usize) -> [MatrixId; 3] {
        let count = if self.gated { 3 } else { 2 };
        let first = self.first.0 + count * expert as u32;
        [first, first + count - 2, first + count - 1].map(MatrixId)
    }

    /// The matrices of an expert in their order, each once.
    pub fn parts(&self, expert: usize) -> impl Iterator<Item = MatrixId> + use<> {
        self.matrices(expert).into_iter().skip(if self.gated { 0 } else { 1 })
    }
}

/// A block that all tokens use beside their experts; times σ(gate·h) where it has a gate.
#[derive(Clone, Copy, Debug)]
pub struct Shared {
    pub mlp: Mlp,
    pub gate: Option<VectorId>,
}

/// How a router's scores become experts and their weights.
#[derive(Clone, Copy, Debug)]
pub struct RouterConfig {
    pub gating: Gating,
    /// The weights of the chosen are divided by their sum.
    pub renormalised: bool,
    /// Multiplies the weights.
    pub scale: f32,
    /// Whether weights multiply the experts' inputs, not their results.
    pub weighs_inputs: bool,
    /// Experts in groups of which only the best are looked at.
    pub groups: Option<Groups>,
    /// Added to the scores of experts for the choice alone.
    pub bias: Option<VectorId>,
}

/// Experts are in `count` groups of equal size, those that follow each other. The `used` groups with the greatest sums of
/// their two best scores are left to choose from, biases included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Groups {
    pub count: usize,
    pub used: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gating {
    /// Softmax over all experts, of which the greatest are chosen.
    Softmax,
    /// Softmax over the greatest scores.
    SoftmaxOfChosen,
    /// σ of each score.
    Sigmoid,
    /// σ of the greatest scores.
    SigmoidOfChosen,
}

#[allow(clippy::large_enum_variant)] // A model has some tens of them.
#[derive(Clone, Copy, Debug)]
pub enum Block {
    Dense(Mlp),
    Experts(Experts),
}

#[derive(Clone, Copy, Debug)]
pub struct FeedForward {
    pub norm: Option<Norm>,
    pub block: Block,
    pub post_norm: Option<Norm>,
    pub sum_norm: Option<Norm>,
}

/// x = sum_norm(x + s·post_norm(attention(x))), then the same with feed_forward, s the description's `residual_scale`. A
/// recurrent block stands in place of the attention, or beside it and reads the same. A layer has one block at least.
#[derive(Clone, Copy, Debug)]
pub struct Layer {
    pub attention: Option<Attention>,
    pub recurrent: Option<Recurrent>,
    pub feed_forward: Option<FeedForward>,
    pub input: Option<LayerInput>,
    pub streams: Option<LayerStreams>,
    /// One number, which multiplies x in the end.
    pub output_scale: Option<VectorId>,
    /// Both blocks read the x that the layer began with.
    pub parallel: bool,
}

/// A head that makes a few numbers of a whole sequence, as rerankers have: W_out·norm(f(W·p + b)) + b_out, p being pooled
/// hidden states; what is `None` is left out.
#[derive(Clone, Copy, Debug)]
pub struct Classifier {
    /// Whether p is the mean of all hidden states, not the first.
    pub mean: bool,
    pub inner: Option<(Linear, ClassifierActivation)>,
    pub norm: Option<Norm>,
    pub output: Option<Linear>,
    pub outputs: usize,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum ClassifierActivation {
    Tanh,
    Of(Activation),
}

/// Probabilities of a few answers, as rerankers made of decoders have: softmax(W·h), h being the last hidden state.
#[derive(Clone, Copy, Debug)]
pub struct Labels {
    /// \[count\]\[width\]
    pub weights: VectorId,
    pub count: usize,
}

/// What the layer of a file that predicts further tokens makes its input of: W·[norm(e) | norm(h)], e the embedding of a
/// token and h the hidden state of the position before it, after the final norm: the model's own, or the one that this layer
/// made of the token before. Its logits are for the token after.
#[derive(Clone, Copy, Debug)]
pub struct Predictor {
    pub embedding_norm: Norm,
    pub hidden_norm: Norm,
    pub projection: Linear,
}

/// What of a file is opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Part {
    /// The model, without the layers that predict further tokens.
    #[default]
    Model,
    /// The first of these layers, with an embedding and a head: see [`Predictor`].
    Predictor,
}

/// What a model computes.
#[derive(Debug)]
pub struct Description {
    pub shape: Shape,
    pub ropes: Vec<Rope>,
    /// Rows of it are the tokens' embeddings; may be the head's matrix.
    pub embedding: MatrixId,
    pub embedding_scale: f32,
    /// Added to the embedding of every token: that of the first type of tokens, the only one that passes have.
    pub token_type: Option<VectorId>,
    /// Where this is the one layer that predicts further tokens.
    pub predictor: Option<Predictor>,
    /// Rows of it are added to the embeddings, by position.
    pub positions: Option<MatrixId>,
    /// Of the sum of all these.
    pub embedding_norm: Option<Norm>,
    pub layer_inputs: Option<LayerInputs>,
    pub streams: Option<Streams>,
    pub layers: Vec<Layer>,
    pub residual_scale: f32,
    /// Whether a token sees those before it and itself alone. Else it sees all tokens of its pass, which is then a sequence
    /// of its own.
    pub causal: bool,
    pub output_norm: Option<Norm>,
    /// Matrices that embeddings go through, one after the other. Not in a model with a head.
    pub dense: Option<[Linear; 2]>,
    /// Of encoders alone.
    pub classifier: Option<Classifier>,
    /// Of decoders alone.
    pub labels: Option<Labels>,
    /// Encoders have none.
    pub head: Option<Linear>,
    pub logit_scale: f32,
    /// Logits become cap·tanh(logit / cap).
    pub logit_softcap: Option<f32>,
}

impl Description {
    /// Layers whose attention has a memory: those before the first that reads another layer's. Where passes are sequences of
    /// their own, one is enough for all.
    pub fn cached_layers(&self) -> usize {
        let own = |a: &&Attention| !matches!(a.projection, Projection::Shared { .. });
        if self.causal { self.attention().take_while(own).count() } else { 1 }
    }

    /// Numbers of the score that passes can leave.
    pub fn score_len(&self) -> Option<usize> {
        self.classifier.map(|c| c.outputs).or(self.labels.map(|labels| labels.count))
    }

    /// The attention of each layer that has some.
    pub fn attention(&self) -> impl Iterator<Item = &Attention> {
        self.layers.iter().filter_map(|l| l.attention.as_ref())
    }

    /// The experts of the first layer that has some.
    pub fn experts(&self) -> Option<&Experts> {
        self.layers.iter().find_map(|l| match &l.feed_forward.as_ref()?.block {
            Block::Dense(_) => None,
            Block::Experts(experts) => Some(experts),
        })
    }
}

/// A described model: what it computes, its matrices, and the small tensors to read at open.
pub struct Described {
    pub description: Description,
    pub matrices: Builder,
    pub vectors: Vec<VectorSource>,
    /// Tensors of parts that a pass over text does not run, and their bytes: they are never read.
    pub unread_tensors: u32,
    pub unread_bytes: u64,
}

/// Describes the model of a directory, or a part of it. `starts` says where the model begins in each of its files.
///
/// # Errors
/// `UNSUPPORTED` names an architecture, or a feature of it, that is not built in; `FORMAT` a key or tensor that is
/// missing or does not fit.
pub fn describe(directory: &Directory, starts: Vec<u64>, part: Part) -> Result<Described> {
    if directory.metadata.get_str("general.type").is_ok_and(|kind| kind == Some("adapter")) {
        return Err(Error::unsupported("this is a LoRA adapter (general.type \"adapter\"), not a model"));
    }
    let name = directory.metadata.require_str("general.architecture")?;
    match ARCHITECTURES.iter().find(|a| a.name == name) {
        Some(architecture) => transformer::describe(architecture, directory, starts, part),
        None => {
            let known: Vec<&str> = ARCHITECTURES.iter().map(|a| a.name).collect();
            let known = known.join(", ");
            Err(Error::unsupported(format!("architecture {name:?} is not built in (built in: {known})")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The README's table, with the line after it.
    fn table() -> String {
        let rows: String = ARCHITECTURES.iter().map(|a| format!("| `{}` | {} |\n", a.name, a.models)).collect();
        format!("| architecture | models |\n|---|---|\n{rows}\n")
    }

    #[test]
    fn the_readme_lists_what_is_built_in() {
        let readme = include_str!("../../README.md");
        assert!(readme.contains(&table()), "the table of architectures in README.md should be:\n{}", table());
    }

    #[test]
    fn pairs_that_no_coordinate_of_a_picture_has_are_not_rotated() {
        // Of Qwen 3 VL and of Qwen 3.5.
        let still = |sections, pairs| (0..pairs).filter(|&p| !Interleaved(sections).rotates(p)).collect::<Vec<_>>();
        assert_eq!(still([24, 20, 20], 64), [61, 62]);
        assert_eq!(still([11, 11, 10], 32), [0usize; 0]);
    }

    #[test]
    fn every_architecture_has_a_model_with_results_that_another_program_computed() {
        let root: std::path::PathBuf = [env!("CARGO_MANIFEST_DIR"), "tests/data/golden"].iter().collect();
        let mut proved = std::collections::BTreeSet::new();
        for folder in ["arch", "arch2", "peer", "family", "encoder"] {
            for entry in std::fs::read_dir(root.join(folder)).unwrap() {
                let path = entry.unwrap().path();
                // Of a model that is drawn the header is all that is needed here.
                let bytes = match path.extension().and_then(|e| e.to_str()) {
                    Some("gguf") => std::fs::read(&path).unwrap(),
                    Some("gz") => {
                        let mut bytes = Vec::new();
                        let packed = flate2::read::GzDecoder::new(std::fs::File::open(&path).unwrap());
                        std::io::Read::read_to_end(&mut { packed }, &mut bytes).unwrap();
                        bytes
                    }
                    _ => continue,
                };
                let model = path.to_str().unwrap().trim_end_matches(".gz");
                if std::path::Path::new(model).with_extension("npz").is_file() {
                    let file = crate::gguf::read_file(&bytes, "golden").unwrap();
                    proved.insert(file.metadata.require_str("general.architecture").unwrap().to_string());
                }
            }
        }
        let built_in = ARCHITECTURES.iter().map(|a| a.name.to_string()).collect();
        assert_eq!(proved, built_in);
    }
}
