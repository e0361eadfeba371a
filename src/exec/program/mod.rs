//! A program: what a pass does, as a list of steps over buffers. A description is compiled into one at open. The order of
//! the weights' pages and the layout of the scratch memory follow from the same steps that are executed.

mod beside;
mod compile;
pub mod liveness;
mod step;

use crate::arch::{Description, Experts, Shape};
use crate::error::Result;
use crate::weights::{Builder, MatrixId, Schedule, Use};

pub use beside::Beside;
pub use liveness::{Life, Placement};
pub use step::{
    ALIGNMENT, Attend, Buffer, Contents, Convolve, Embed, Finish, GateFunction, Head, Input, Recur, RecurRule, Step,
    Stretches, Turn, Usage, Weight,
};

/// What a pass over a chunk of tokens does.
#[derive(Debug)]
pub struct Program {
    pub shape: Shape,
    /// Whether a token sees those before it and itself alone.
    pub causal: bool,
    /// Layers of a sequence's memory.
    pub memory_layers: usize,
    pub steps: Vec<Step>,
    /// By [`Buffer`].
    pub buffers: Vec<Contents>,
    /// The step after the last one of each layer.
    layer_ends: Vec<u32>,
}

impl Program {
    /// The program of a description whose matrices are `matrices`.
    pub fn new(description: &Description, matrices: &Builder) -> Program {
        compile::compile(description, matrices)
    }

    pub fn contents(&self, buffer: Buffer) -> Contents {
        self.buffers[buffer.0 as usize]
    }

    /// The schedule of pages: the matrices in the order in which the steps read them. `alignment` is that of the sources.
    ///
    /// # Errors
    /// `UNSUPPORTED`: a row of a matrix is too large.
    pub fn schedule(&self, matrices: Builder, alignment: u64) -> Result<Schedule> {
        let mut uses: Vec<(MatrixId, Use)> = Vec::new();
        let last = self.layer_ends.len().saturating_sub(1);
        for (i, step) in self.steps.iter().enumerate() {
            let layer = self.layer_ends.partition_point(|&end| end as usize <= i).min(last) as u32;
            uses.extend(step.matrices().into_iter().map(|m| (m, Use::Always { layer })));
            uses.extend(step.routed_matrices().into_iter().map(|(m, expert)| (m, Use::Routed { layer, expert })));
        }
        // A table that is multiplied with as well is among these pages already.
        let tables: Vec<MatrixId> = self.steps.iter().flat_map(Step::tables).collect();
        for table in tables {
            if !uses.iter().rev().any(|(m, _)| *m == table) {
                uses.push((table, Use::Table));
            }
        }
        uses.extend(self.steps.iter().filter_map(Step::unheld_tables).map(|m| (m, Use::Rows)));
        let head = self.steps.iter().find_map(|step| match step {
            Step::Head(head) => Some(head.linear.weight),
            Step::Classify { .. } => step.matrices().first().copied(),
            _ => None,
        });
        let mut schedule = matrices.finish(&uses, self.layer_ends.len() as u32, head, alignment)?;
        if let Some(experts) = self.experts().next() {
            schedule.routed_share = (experts.used as u64, experts.count as u64);
        }
        Ok(schedule)
    }

    /// The experts of each layer that has some.
    pub fn experts(&self) -> impl Iterator<Item = &Experts> {
        self.steps.iter().filter_map(|step| match step {
            Step::ForEachExpert { experts, .. } => Some(experts),
            _ => None,
        })
    }

    /// When each buffer is in use, in chunks of `tokens` tokens.
    pub fn lives(&self, tokens: usize) -> Vec<Life> {
        liveness::lives(self, tokens)
    }

    pub fn memory_bytes(&self) -> usize {
        let bodies: usize = self.steps.iter().map(|step| size_of_val(step.body())).sum();
        self.steps.capacity() * size_of::<Step>()
            + bodies
            + self.buffers.capacity() * size_of::<Contents>()
            + self.layer_ends.capacity() * size_of::<u32>()
    }
}
