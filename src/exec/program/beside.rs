//! The steps of what some models have beside the blocks of their layers: see [`crate::arch::LayerInputs`] and
//! [`crate::arch::Streams`].

use super::step::{Buffer, Usage};
use crate::arch::{Labels, LayerStreams, VectorId};
use crate::operations::Activation;
use crate::weights::MatrixId;

/// A step of a part that only some models have.
#[derive(Clone, Copy, Debug)]
pub enum Beside {
    /// to = the hidden states that passes are given.
    TakeHidden { to: Buffer },
    /// to += scale · the chunk's tokens' rows of a table; `row` holds one.
    AddTableRows { table: MatrixId, scale: f32, row: Buffer, to: Buffer },
    /// to = f(gates) ⊙ a stretch of `from`'s rows, from element `first` on.
    GateStretch { activation: Activation, gates: Buffer, from: Buffer, first: usize, to: Buffer },
    /// Of each row what exceeds its mean by `factor` standard deviations is left, less that, and 0 of the rest.
    Sparsify { factor: f32, rows: Buffer },
    /// For each sequence that a score is wanted of, a row of `to` = the mean of its rows, or the first.
    Pool { from: Buffer, mean: bool, to: Buffer },
    /// rows = tanh(rows).
    Tanh { rows: Buffer },
    /// Leaves these rows as results.
    Score { from: Buffer },
    /// Leaves the probabilities of labels as the result of a pass that is to leave a score; `from`: hidden states.
    Labels { labels: Labels, from: Buffer },
    /// rows ·= a number of the model.
    ScaleByNumber { number: VectorId, rows: Buffer },
    /// streams = [from | others], each of the others brought to the length of `from`.
    Spread { from: Buffer, others: Buffer, to: Buffer },
    /// The layer's predictions of the streams.
    Predict { streams: LayerStreams, from: Buffer, to: Buffer },
    /// to = the first stream.
    First { from: Buffer, to: Buffer },
    /// Corrects the predictions by what the layer made of the first one.
    Correct { streams: LayerStreams, predictions: Buffer, computed: Buffer, to: Buffer },
    /// to = the first stream ⊙ weights.
    FirstWeighted { weights: VectorId, from: Buffer, to: Buffer },
    /// Adds rows to all streams but the first.
    AddToOthers { from: Buffer, streams: Buffer },
    /// to = the mean of the first stream and `others`, each of these brought to the first one's length.
    Merge { streams: Buffer, others: Buffer, to: Buffer },
}

impl Beside {
    pub fn buffers(&self) -> Vec<(Buffer, Usage)> {
        use Usage::{Read, Update, Write};
        match *self {
            Beside::TakeHidden { to } => vec![(to, Write)],
            Beside::AddTableRows { row, to, .. } => vec![(row, Write), (to, Update)],
            Beside::GateStretch { gates, from, to, .. } => vec![(gates, Read), (from, Read), (to, Write)],
            Beside::Pool { from, to, .. } => vec![(from, Read), (to, Write)],
            Beside::Score { from } | Beside::Labels { from, .. } => vec![(from, Read)],
            Beside::Tanh { rows } | Beside::Sparsify { rows, .. } | Beside::ScaleByNumber { rows, .. } => {
                vec![(rows, Update)]
            }
            Beside::Spread { from, others, to } => vec![(from, Read), (others, Read), (to, Write)],
            Beside::Predict { from, to, .. } | Beside::First { from, to } | Beside::FirstWeighted { from, to, .. } => {
                vec![(from, Read), (to, Write)]
            }
            Beside::Correct { predictions, computed, to, .. } => {
                vec![(predictions, Read), (computed, Read), (to, Write)]
            }
            Beside::AddToOthers { from, streams } => vec![(from, Read), (streams, Update)],
            Beside::Merge { streams, others, to } => vec![(streams, Read), (others, Read), (to, Write)],
        }
    }
}
