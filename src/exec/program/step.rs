//! The steps of a program and the buffers that they work on.

use super::beside::Beside;
use crate::arch::{Convolution, Experts, Latent, Linear, Norm, Slopes, SpanNorm, Temperature, VectorId};
use crate::kernel::matmul::{Form, activation_bytes};
use crate::operations::{Activation, StateHeads};
use crate::weights::MatrixId;

/// A buffer of a program, by number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Buffer(pub u32);

/// What a buffer holds for a chunk of tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Contents {
    /// [tokens][width], f32.
    Rows { width: usize },
    /// [width], f32, whatever the number of tokens.
    Row { width: usize },
    /// `count` times the rows of `columns` elements of all tokens, in a form that products take.
    Activations { form: Form, columns: usize, count: usize },
}

/// Buffers begin at multiples of this many bytes, as the kernels want activations to.
pub const ALIGNMENT: usize = 64;

impl Contents {
    /// Elements of 4 bytes that it takes for `tokens` tokens.
    pub fn len(self, tokens: usize) -> usize {
        match self {
            Contents::Rows { width } => width.saturating_mul(tokens),
            Contents::Row { width } => width,
            Contents::Activations { count, .. } => self.activations_len(tokens).saturating_mul(count),
        }
    }

    /// Elements of 4 bytes that one of its forms takes.
    pub fn activations_len(self, tokens: usize) -> usize {
        match self {
            Contents::Rows { .. } | Contents::Row { .. } => 0,
            Contents::Activations { form, columns, .. } => {
                activation_bytes(form, columns, tokens).next_multiple_of(ALIGNMENT) / size_of::<f32>()
            }
        }
    }
}

/// An input of products, in every form that their matrices want.
#[derive(Clone, Copy, Debug)]
pub struct Input {
    pub forms: [Option<(Form, Buffer)>; Input::MAX_FORMS],
}

impl Input {
    /// No input has more products than this.
    pub const MAX_FORMS: usize = 3;

    /// The buffer that holds it in `form`.
    pub fn of(&self, form: Form) -> Buffer {
        let found = self.forms.iter().flatten().find(|(f, _)| *f == form);
        found.expect("an input is made in every form that its products want").1
    }

    pub fn buffers(&self) -> impl Iterator<Item = Buffer> {
        self.forms.iter().flatten().map(|(_, buffer)| *buffer)
    }
}

/// The matrix of a product.
#[derive(Clone, Copy, Debug)]
pub enum Weight {
    Fixed(Linear),
    /// Of the expert at hand: 0 the gate, 1 the up projection, 2 the down projection.
    OfExpert(usize),
}

/// What becomes of the products y of a step: `kernel::page::Epilogue` with buffers.
#[derive(Clone, Copy, Debug)]
pub enum Finish {
    Keep,
    /// x += factor · y.
    AddTo(Buffer, f32),
    /// y = f(gate) · y.
    Gate(Activation, Buffer),
    /// y = f(y).
    Activate(Activation),
}

/// Where the elements of heads lie in the rows of a buffer: those of head h from `first + h·stride`.
#[derive(Clone, Copy, Debug)]
pub struct Stretches {
    pub first: usize,
    pub stride: usize,
}

/// A rotation of heads by angles that [`Step::Angles`] made.
#[derive(Clone, Copy, Debug)]
pub struct Turn {
    /// Of the description's `ropes`.
    pub rope: usize,
    pub cos: Buffer,
    pub sin: Buffer,
}

/// The embeddings of a chunk's tokens.
#[derive(Clone, Copy, Debug)]
pub struct Embed {
    pub table: MatrixId,
    pub scale: f32,
    pub token_type: Option<VectorId>,
    /// A table of learned positions, and a row to read them to.
    pub positions: Option<(MatrixId, Buffer)>,
    pub norm: Option<Norm>,
    pub to: Buffer,
}

/// Attention of a layer's queries to the keys and values that the sequence has.
#[derive(Clone, Copy, Debug)]
pub struct Attend {
    /// Of the sequence's memory.
    pub layer: usize,
    pub heads: usize,
    /// [tokens][heads][key_dim]
    pub queries: Buffer,
    /// [tokens][heads][value_dim]
    pub to: Buffer,
    pub scale: f32,
    pub softcap: Option<f32>,
    pub sinks: Option<VectorId>,
    pub window: Option<usize>,
    pub section: Option<usize>,
    pub slopes: Option<Slopes>,
}

/// A causal convolution of columns in place.
#[derive(Clone, Copy, Debug)]
pub struct Convolve {
    /// Of the sequence's recurrent states, and where in it that of the convolution begins.
    pub layer: usize,
    pub state: usize,
    pub convolution: Convolution,
    pub silu: bool,
    pub rows: Buffer,
    /// Of the columns.
    pub first: usize,
}

/// Tokens into a state that is a matrix for each head: `kernel::recurrent::Recurrence` with buffers.
#[derive(Clone, Copy, Debug)]
pub struct Recur {
    /// Of the sequence's recurrent states, and where in it that of the heads begins.
    pub layer: usize,
    pub state: usize,
    pub heads: StateHeads,
    pub rule: RecurRule,
    /// What the decays are made of.
    pub decays: Buffer,
    pub bias: VectorId,
    pub factors: VectorId,
    /// Holds the queries, keys and values from these columns on.
    pub rows: Buffer,
    pub queries: usize,
    pub keys: usize,
    pub values: usize,
    /// [tokens][heads][value]
    pub to: Buffer,
}

#[derive(Clone, Copy, Debug)]
pub enum RecurRule {
    Delta { strengths: Buffer },
    Plain { skip: VectorId },
}

/// The function f of a gate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GateFunction {
    /// The number itself.
    Plain,
    Sigmoid,
    Silu,
}

/// The last step of passes that leave logits.
#[derive(Clone, Copy, Debug)]
pub struct Head {
    pub linear: Linear,
    /// [positions][embedding], of which the last are used.
    pub from: Buffer,
    pub input: Buffer,
    /// Holds products on the way to the results of several sequences.
    pub products: Buffer,
    pub scale: f32,
    /// Logits become cap·tanh(logit / cap).
    pub softcap: Option<f32>,
}

/// One step of a pass. Rows are those of the chunk's tokens, within [`Step::ForEachExpert`] those of the tokens that are
/// routed to the expert.
#[derive(Clone, Debug)]
pub enum Step {
    Embed(Embed),
    /// Cosines and sines of a rope's angles at the chunk's positions.
    Angles(Turn),
    Copy {
        from: Buffer,
        to: Buffer,
    },
    Clear {
        to: Buffer,
    },
    /// to = norm(from), row by row.
    Norm {
        norm: Norm,
        from: Buffer,
        to: Buffer,
    },
    NormInPlace {
        norm: Norm,
        rows: Buffer,
    },
    /// to += scale · from.
    Add {
        from: Buffer,
        to: Buffer,
        scale: f32,
    },
    /// Makes an input of products of rows.
    Quantize {
        from: Buffer,
        to: Input,
    },
    /// The same with stretches of rows, of each head on its own; `copy` holds those of one head.
    QuantizeHeads {
        from: Buffer,
        source: Stretches,
        copy: Buffer,
        to: Buffer,
    },
    Multiply {
        weight: Weight,
        input: Buffer,
        to: Buffer,
        finish: Finish,
    },
    /// Three products of one input, in one region of the threads where their matrices are at hand.
    MultiplyThree {
        linears: [Linear; 3],
        input: Input,
        to: [Buffer; 3],
    },
    /// to = f(W_gate·x + b) · (W_up·x + b), in one region where the matrices are at hand; `gates` holds the gate's products.
    MultiplyGated {
        activation: Activation,
        gate: Linear,
        up: Linear,
        input: Input,
        gates: Buffer,
        to: Buffer,
    },
    /// A matrix for each head, end to end, times what [`Step::QuantizeHeads`] made.
    MultiplyHeads {
        matrix: MatrixId,
        input: Buffer,
        to: Buffer,
        target: Stretches,
    },
    /// Norms and turns the heads of every token, which have `dim` elements each.
    PrepareHeads {
        heads: Buffer,
        dim: usize,
        norm: Option<SpanNorm>,
        turn: Option<Turn>,
    },
    /// rows ·= the temperature's factor of each token's position.
    ScaleByPosition {
        temperature: Temperature,
        rows: Buffer,
    },
    /// The part of the heads' queries that is rotated, at the beginning of each head.
    LatentQueries {
        latent: Latent,
        from: Buffer,
        queries: Buffer,
    },
    /// The one key and the one value of each token.
    LatentKeyValues {
        latent: Latent,
        from: Buffer,
        keys: Buffer,
        values: Buffer,
    },
    /// Appends the chunk's keys and values to the sequence's memory.
    WriteKeyValues {
        layer: usize,
        keys: Buffer,
        values: Buffer,
    },
    Attend(Attend),
    /// `count` stretches of `length` columns from one buffer's rows to another's.
    CopyStretches {
        from: Buffer,
        source: Stretches,
        to: Buffer,
        target: Stretches,
        length: usize,
        count: usize,
    },
    /// rows ·= f(from).
    GateRows {
        function: GateFunction,
        from: Buffer,
        rows: Buffer,
    },
    Convolve(Convolve),
    Recur(Recur),
    /// Chooses the experts of each token by its scores, which change, and announces them to the streaming engine.
    Route {
        experts: Experts,
        scores: Buffer,
    },
    /// Foresees which experts the layer after this one will choose, and announces them to the streaming engine, where some
    /// of them may be missing. `body` makes `input`, that of their router. Nothing depends on what comes of it.
    Foresee {
        experts: Experts,
        input: Buffer,
        scores: Buffer,
        body: Vec<Step>,
    },
    /// rows ·= scale.
    Scale {
        scale: f32,
        rows: Buffer,
    },
    /// rows ·= σ(gate·x).
    ScaleByGate {
        gate: VectorId,
        from: Buffer,
        rows: Buffer,
    },
    /// Runs `body` for each expert that a token is routed to, in ascending order: so a token's sum is taken in the same
    /// order whatever other tokens share the pass.
    ForEachExpert {
        experts: Experts,
        body: Vec<Step>,
    },
    /// The rows of the tokens that are routed to the expert, times their weights if `weighted`.
    Gather {
        from: Buffer,
        to: Buffer,
        weighted: bool,
    },
    /// Adds the expert's rows, times their weights if `weighted`, to those of its tokens.
    Scatter {
        from: Buffer,
        to: Buffer,
        weighted: bool,
    },
    /// The hidden states of the last positions, normed where there is a norm, and the embeddings that are wanted of them.
    Hidden {
        norm: Option<(Norm, Buffer)>,
        from: Buffer,
    },
    Head(Head),
    Beside(Beside),
    /// Runs `body` on a row for each sequence that a score is wanted of, where there are such.
    Classify {
        body: Vec<Step>,
    },
}

/// How a step uses a buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Usage {
    Read,
    /// All of it is written before any of it is read.
    Write,
    Update,
}

impl Step {
    /// The buffers that the step itself uses, without those of its body.
    pub fn buffers(&self) -> Vec<(Buffer, Usage)> {
        use Usage::{Read, Update, Write};
        match self {
            Step::Embed(e) => e.positions.map(|(_, row)| (row, Write)).into_iter().chain([(e.to, Write)]).collect(),
            Step::Angles(turn) => vec![(turn.cos, Write), (turn.sin, Write)],
            Step::Copy { from, to } | Step::Norm { from, to, .. } | Step::Gather { from, to, .. } => {
                vec![(*from, Read), (*to, Write)]
            }
            Step::Clear { to } => vec![(*to, Write)],
            Step::NormInPlace { rows, .. } | Step::Scale { rows, .. } | Step::ScaleByPosition { rows, .. } => {
                vec![(*rows, Update)]
            }
            Step::Add { from, to, .. } | Step::Scatter { from, to, .. } => vec![(*from, Read), (*to, Update)],
            Step::Quantize { from, to } => {
                [(*from, Read)].into_iter().chain(to.buffers().map(|buffer| (buffer, Write))).collect()
            }
            Step::QuantizeHeads { from, copy, to, .. } => vec![(*from, Read), (*copy, Write), (*to, Write)],
            Step::Multiply { input, to, finish, .. } => {
                let other = match finish {
                    Finish::Keep | Finish::Activate(_) => None,
                    Finish::AddTo(x, _) => Some((*x, Update)),
                    Finish::Gate(_, gates) => Some((*gates, Read)),
                };
                [(*input, Read), (*to, Write)].into_iter().chain(other).collect()
            }
            Step::MultiplyThree { input, to, .. } => {
                input.buffers().map(|b| (b, Read)).chain(to.iter().map(|b| (*b, Write))).collect()
            }
            Step::MultiplyGated { input, gates, to, .. } => {
                input.buffers().map(|b| (b, Read)).chain([(*gates, Write), (*to, Write)]).collect()
            }
            // Other steps write what lies between the stretches.
            Step::MultiplyHeads { input, to, target, .. } => {
                vec![(*input, Read), (*to, if target.first == 0 { Write } else { Update })]
            }
            Step::PrepareHeads { heads, turn, .. } => {
                let angles = turn.iter().flat_map(|turn| [(turn.cos, Read), (turn.sin, Read)]);
                [(*heads, Update)].into_iter().chain(angles).collect()
            }
            Step::LatentQueries { from, queries, .. } => vec![(*from, Read), (*queries, Write)],
            Step::LatentKeyValues { from, keys, values, .. } => vec![(*from, Read), (*keys, Write), (*values, Write)],
            Step::WriteKeyValues { keys, values, .. } => vec![(*keys, Read), (*values, Read)],
            // Queries are rotated where keys are.
            Step::Attend(a) => vec![(a.queries, Update), (a.to, Write)],
            Step::Route { scores, .. } => vec![(*scores, Update)],
            // Its body writes the input.
            Step::Foresee { input, scores, .. } => vec![(*input, Write), (*scores, Write)],
            // Other steps write what lies between the stretches.
            Step::CopyStretches { from, to, target, .. } => {
                vec![(*from, Read), (*to, if target.first == 0 { Write } else { Update })]
            }
            Step::Convolve(c) => vec![(c.rows, Update)],
            Step::Recur(r) => {
                let strengths = match r.rule {
                    RecurRule::Delta { strengths } => Some((strengths, Read)),
                    RecurRule::Plain { .. } => None,
                };
                [(r.decays, Read), (r.rows, Read), (r.to, Write)].into_iter().chain(strengths).collect()
            }
            Step::GateRows { from, rows, .. } | Step::ScaleByGate { from, rows, .. } => {
                vec![(*from, Read), (*rows, Update)]
            }
            Step::ForEachExpert { .. } | Step::Classify { .. } => Vec::new(),
            Step::Hidden { norm, from } => [(*from, Read)].into_iter().chain(norm.map(|(_, to)| (to, Write))).collect(),
            Step::Head(h) => vec![(h.from, Update), (h.input, Write), (h.products, Write)],
            Step::Beside(step) => step.buffers(),
        }
    }

    /// The matrices that every pass reads in this step, in the order of reading.
    pub fn matrices(&self) -> Vec<MatrixId> {
        match self {
            Step::Multiply { weight: Weight::Fixed(linear), .. } => vec![linear.weight],
            Step::MultiplyThree { linears, .. } => linears.iter().map(|linear| linear.weight).collect(),
            Step::MultiplyGated { gate, up, .. } => vec![gate.weight, up.weight],
            Step::MultiplyHeads { matrix, .. } => vec![*matrix],
            Step::Head(head) => vec![head.linear.weight],
            Step::Classify { body } => body.iter().flat_map(Step::matrices).collect(),
            _ => Vec::new(),
        }
    }

    /// The matrices that a pass may read in this step, each expert's in the order of reading.
    pub fn routed_matrices(&self) -> Vec<(MatrixId, u32)> {
        let Step::ForEachExpert { experts, body } = self else { return Vec::new() };
        let parts = body.iter().filter_map(|step| match step {
            Step::Multiply { weight: Weight::OfExpert(part), .. } => Some(*part),
            _ => None,
        });
        let of_expert = |e| parts.clone().map(move |part| (experts.matrices(e)[part], e as u32));
        (0..experts.count).flat_map(of_expert).collect()
    }

    /// Where the rows of an expert are added in this step, and whether times their weights.
    pub fn scattered(&self) -> Option<(Buffer, bool)> {
        match self {
            Step::Scatter { to, weighted, .. } => Some((*to, *weighted)),
            _ => None,
        }
    }

    /// The matrices that rows are taken from singly in this step.
    pub fn tables(&self) -> Vec<MatrixId> {
        match self {
            Step::Embed(e) => [e.table].into_iter().chain(e.positions.map(|(table, _)| table)).collect(),
            _ => Vec::new(),
        }
    }

    /// The tables that are never held: of which a row is read from the file whenever one is needed.
    pub fn unheld_tables(&self) -> Option<MatrixId> {
        match self {
            Step::Beside(Beside::AddTableRows { table, .. }) => Some(*table),
            _ => None,
        }
    }

    /// The steps that it runs itself.
    pub fn body(&self) -> &[Step] {
        match self {
            Step::ForEachExpert { body, .. } | Step::Foresee { body, .. } | Step::Classify { body } => body,
            _ => &[],
        }
    }
}
