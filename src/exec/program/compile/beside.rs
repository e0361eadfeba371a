//! The steps of what some models have beside the blocks of their layers.

use super::super::beside::Beside;
use super::super::step::{Buffer, Contents, Finish, Step, Stretches};
use super::{Compiler, new_buffer};
use crate::arch::{Classifier, ClassifierActivation, Layer, LayerStreams, Linear, LowRank, Norm, SpanNorm};

impl Compiler<'_> {
    /// The inputs of all layers, of the embeddings.
    pub(super) fn make_layer_inputs(&mut self) {
        let Some(inputs) = self.d.layer_inputs else { return };
        let all = self.matrix(inputs.projection.weight).rows;
        let input = self.quantize(&[inputs.projection.weight], self.residual);
        let to = self.products(inputs.projection);
        self.multiply(inputs.projection, input, to, Finish::Keep);
        self.steps.push(Step::Scale { scale: inputs.projection_scale, rows: to });
        let norm = Some(SpanNorm { norm: Some(inputs.norm), span: inputs.width });
        self.steps.push(Step::PrepareHeads { heads: to, dim: inputs.width, norm, turn: None });
        let row = new_buffer(&mut self.buffers, Contents::Row { width: all });
        self.beside(Beside::AddTableRows { table: inputs.table, scale: inputs.table_scale, row, to });
        self.steps.push(Step::Scale { scale: std::f32::consts::FRAC_1_SQRT_2, rows: to });
        self.layer_inputs = Some(to);
    }

    /// Takes a layer's own input in: into the residual stream, or into all streams but the first.
    pub(super) fn take_layer_input(&mut self, i: usize, layer: &Layer) {
        let (Some(input), Some(all), Some(from)) = (layer.input, self.d.layer_inputs, self.layer_inputs) else {
            return;
        };
        let x = self.quantize(&[input.gate.weight], self.residual);
        let gates = self.products(input.gate);
        self.multiply(input.gate, x, gates, Finish::Keep);
        let to = self.rows(all.width);
        let (activation, first) = (input.activation, i * all.width);
        self.beside(Beside::GateStretch { activation, gates, from, first, to });
        let x = self.quantize(&[input.output.weight], to);
        let made = self.products(input.output);
        self.multiply(input.output, x, made, Finish::Keep);
        self.norm_in_place(Some(input.norm), made);
        match self.streams {
            None => self.steps.push(Step::Add { from: made, to: self.residual, scale: 1.0 }),
            Some(streams) => self.beside(Beside::AddToOthers { from: made, streams }),
        }
    }

    fn beside(&mut self, step: Beside) {
        self.steps.push(Step::Beside(step));
    }

    /// Makes the streams of the embeddings.
    pub(super) fn spread_streams(&mut self) {
        let Some(streams) = self.d.streams else { return };
        let linear = Linear::plain(streams.spread);
        let input = self.quantize(&[streams.spread], self.residual);
        let others = self.products(linear);
        self.multiply(linear, input, others, Finish::Keep);
        let to = self.rows(streams.count * self.shape().embedding);
        self.beside(Beside::Spread { from: self.residual, others, to });
        self.streams = Some(to);
    }

    /// Makes one stream of all.
    pub(super) fn merge_streams(&mut self) {
        let (Some(d), Some(streams)) = (self.d.streams, self.streams) else { return };
        let (width, count) = (self.shape().embedding, d.count - 1);
        let others = self.rows(count * width);
        let (source, target) = (Stretches { first: width, stride: width }, Stretches { first: 0, stride: width });
        self.multiply_heads((d.merge, count), (streams, source), (others, target));
        self.beside(Beside::Merge { streams, others, to: self.residual });
    }

    /// The predictions of the streams, of which the residual stream becomes the first.
    pub(super) fn predict_streams(&mut self, layer: LayerStreams) -> Option<Buffer> {
        let (d, from) = (self.d.streams?, self.streams?);
        let to = self.rows(d.count * self.shape().embedding);
        self.beside(Beside::Predict { streams: layer, from, to });
        self.beside(Beside::First { from: to, to: self.residual });
        Some(to)
    }

    /// Corrects the predictions by the residual stream, which becomes what the gate of the layer's input reads.
    pub(super) fn correct_streams(&mut self, layer: LayerStreams, predictions: Buffer) {
        let Some(to) = self.streams else { return };
        self.beside(Beside::Correct { streams: layer, predictions, computed: self.residual, to });
        self.beside(Beside::FirstWeighted { weights: layer.correct_scale, from: to, to: self.residual });
    }

    /// The normed hidden states of all positions, taken through matrices.
    pub(super) fn dense(&mut self, norm: Option<Norm>, matrices: [Linear; 2]) -> Buffer {
        matrices.into_iter().fold(self.normed(norm, self.residual), |rows, linear| {
            let input = self.quantize(&[linear.weight], rows);
            let to = self.products(linear);
            self.multiply(linear, input, to, Finish::Keep);
            to
        })
    }

    /// The outputs of a classifier, of hidden states.
    pub(super) fn classify(&mut self, c: Classifier, hidden: Buffer) {
        let outside = std::mem::take(&mut self.steps);
        let mut rows = self.rows(self.shape().embedding);
        self.beside(Beside::Pool { from: hidden, mean: c.mean, to: rows });
        if let Some((linear, activation)) = c.inner {
            let input = self.quantize(&[linear.weight], rows);
            rows = self.products(linear);
            match activation {
                ClassifierActivation::Tanh => {
                    self.multiply(linear, input, rows, Finish::Keep);
                    self.beside(Beside::Tanh { rows });
                }
                ClassifierActivation::Of(f) => self.multiply(linear, input, rows, Finish::Activate(f)),
            }
        }
        self.norm_in_place(c.norm, rows);
        if let Some(linear) = c.output {
            let input = self.quantize(&[linear.weight], rows);
            rows = self.products(linear);
            self.multiply(linear, input, rows, Finish::Keep);
        }
        self.beside(Beside::Score { from: rows });
        let body = std::mem::replace(&mut self.steps, outside);
        self.steps.push(Step::Classify { body });
    }

    /// norm(W_up·W_down·h) + h.
    pub(super) fn low_rank_block(&mut self, l: LowRank, h: Buffer) -> Buffer {
        let input = self.quantize(&[l.down.weight], h);
        let inner = self.products(l.down);
        self.multiply(l.down, input, inner, Finish::Keep);
        let input = self.quantize(&[l.up.weight], inner);
        let to = self.products(l.up);
        self.multiply(l.up, input, to, Finish::Keep);
        self.norm_in_place(Some(l.norm), to);
        self.steps.push(Step::Add { from: h, to, scale: 1.0 });
        to
    }
}
