//! Which experts the next layer will choose, before it does.

use super::*;

impl Compiler<'_> {
    /// When a layer's experts are chosen: the next layer's router on what there is of its input by now.
    pub(super) fn foresee(&mut self, residual: Buffer) {
        let next = self.d.layers.get(self.layer + 1).and_then(|layer| layer.feed_forward.as_ref());
        let Some(FeedForward { norm, block: Block::Experts(e), .. }) = next else { return };
        let outside = std::mem::take(&mut self.steps);
        let from = match e.router_input {
            RouterInput::Same => self.normed(*norm, residual),
            RouterInput::Layer => residual,
            RouterInput::Normed { norm, scale } => {
                let rows = self.normed(Some(norm), residual);
                self.steps.push(Step::Scale { scale, rows });
                rows
            }
        };
        let input = self.quantize(&[e.router.weight], from);
        let input = input.of(Form::of(self.matrix(e.router.weight).format));
        let scores = self.products(e.router);
        let body = std::mem::replace(&mut self.steps, outside);
        self.steps.push(Step::Foresee { experts: *e, input, scores, body });
    }
}
