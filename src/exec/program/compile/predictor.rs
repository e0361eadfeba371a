//! The input of a layer that predicts further tokens.

use super::*;
use crate::arch::Predictor;

impl Compiler<'_> {
    /// residual = W·[norm(embeddings) | norm(hidden states)].
    pub(super) fn join_hidden(&mut self, p: Predictor, embeddings: Buffer) {
        let width = self.shape().embedding;
        let hidden = self.rows(width);
        self.steps.push(Step::Beside(Beside::TakeHidden { to: hidden }));
        let both = self.rows(2 * width);
        for (i, (norm, rows)) in [(p.embedding_norm, embeddings), (p.hidden_norm, hidden)].into_iter().enumerate() {
            self.norm_in_place(Some(norm), rows);
            let source = Stretches { first: 0, stride: width };
            let target = Stretches { first: i * width, stride: width };
            self.steps.push(Step::CopyStretches { from: rows, source, to: both, target, length: width, count: 1 });
        }
        let input = self.quantize(&[p.projection.weight], both);
        self.multiply(p.projection, input, self.residual, Finish::Keep);
    }
}
