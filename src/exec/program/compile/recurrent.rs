//! The steps of recurrent blocks.

use super::Compiler;
use crate::arch::{Convolution, Delta, DeltaRows, DeltaStrength, Linear, Mixer, Recurrent, SpanNorm, StateSpace};
use crate::exec::program::step::{Buffer, Convolve, Finish, GateFunction, Input, Recur, RecurRule, Step, Stretches};

impl Compiler<'_> {
    /// Adds what a recurrent block makes of its normed input.
    pub(super) fn recurrent(&mut self, r: &Recurrent, input: Buffer) {
        let mixed = match &r.mixer {
            Mixer::ShortConvolution { parts, convolution } => self.short_convolution(*parts, convolution, input),
            Mixer::Delta(delta) => self.delta(delta, input),
            Mixer::StateSpace(space) => self.state_space(space, input),
        };
        self.recurrent_layers += 1;
        let input = self.quantize(&[r.output.weight], mixed);
        self.add_block(r.output, input, [None, None]);
    }

    /// The product of a matrix with an input that was made.
    fn product(&mut self, linear: Linear, input: Input) -> Buffer {
        let to = self.products(linear);
        self.multiply(linear, input, to, Finish::Keep);
        to
    }

    fn low_rank(&mut self, [down, up]: [Linear; 2], input: Input) -> Buffer {
        let inner = self.product(down, input);
        let input = self.quantize(&[up.weight], inner);
        self.product(up, input)
    }

    fn three(&mut self, linears: [Linear; 3], input: Input) -> [Buffer; 3] {
        let to = linears.map(|linear| self.products(linear));
        self.steps.push(Step::MultiplyThree { linears, input, to });
        to
    }

    fn gate(&mut self, function: GateFunction, from: Buffer, rows: Buffer) {
        self.steps.push(Step::GateRows { function, from, rows });
    }

    /// The columns from `first` on, convolved; the state of the convolution begins at `state`.
    fn convolve(&mut self, convolution: &Convolution, silu: bool, rows: Buffer, [first, state]: [usize; 2]) {
        let layer = self.recurrent_layers;
        self.steps.push(Step::Convolve(Convolve { layer, state, convolution: *convolution, silu, rows, first }));
    }

    /// A stretch of each row of `from` for each of `count` heads.
    fn copy(&mut self, (from, source): (Buffer, Stretches), (to, first): (Buffer, usize), [length, count]: [usize; 2]) {
        let target = Stretches { first, stride: length };
        self.steps.push(Step::CopyStretches { from, source, to, target, length, count });
    }

    fn norm_spans(&mut self, norm: SpanNorm, heads: Buffer) {
        self.steps.push(Step::PrepareHeads { heads, dim: norm.span, norm: Some(norm), turn: None });
    }

    fn short_convolution(&mut self, parts: [Linear; 3], convolution: &Convolution, input: Buffer) -> Buffer {
        let input = self.quantize(&parts.map(|linear| linear.weight), input);
        let [before, after, rows] = self.three(parts, input);
        self.gate(GateFunction::Plain, before, rows);
        self.convolve(convolution, false, rows, [0, 0]);
        self.gate(GateFunction::Plain, after, rows);
        rows
    }

    fn delta(&mut self, d: &Delta, input: Buffer) -> Buffer {
        let h = d.heads;
        let (keys, values) = (h.key_heads * h.key, h.count * h.value);
        let input = self.quantize(&stage(d), input);
        let (rows, gate, function) = match d.rows {
            DeltaRows::Together { rows, gate } => {
                (self.product(rows, input), self.product(gate, input), GateFunction::Silu)
            }
            DeltaRows::Grouped(linear) => {
                let all = self.product(linear, input);
                let (rows, gate) = (self.rows(2 * keys + values), self.rows(values));
                let shared = h.count / h.key_heads * h.value;
                let stride = 2 * (h.key + shared);
                let places = [(rows, 0, h.key), (rows, keys, h.key), (rows, 2 * keys, shared), (gate, 0, shared)];
                let mut first = 0;
                for (to, target, length) in places {
                    self.copy((all, Stretches { first, stride }), (to, target), [length, h.key_heads]);
                    first += length;
                }
                (rows, gate, GateFunction::Silu)
            }
            DeltaRows::Apart { parts, gate } => {
                let from = self.three(parts, input);
                let rows = self.rows(2 * keys + values);
                for (part, (first, length)) in from.into_iter().zip([(0, keys), (keys, keys), (2 * keys, values)]) {
                    self.copy((part, Stretches { first: 0, stride: length }), (rows, first), [length, 1]);
                }
                (rows, self.low_rank(gate, input), GateFunction::Sigmoid)
            }
        };
        let (strengths, decays) = match d.strength {
            DeltaStrength::ByHead { strength, decay } => (self.product(strength, input), self.product(decay, input)),
            DeltaStrength::Grouped(linear) => {
                let both = self.product(linear, input);
                let [strengths, decays] = [(); 2].map(|()| self.rows(h.count));
                let shared = h.count / h.key_heads;
                for (first, to) in [(0, strengths), (shared, decays)] {
                    self.copy((both, Stretches { first, stride: 2 * shared }), (to, 0), [shared, h.key_heads]);
                }
                (strengths, decays)
            }
            DeltaStrength::ByElement { strength, decay } => {
                (self.product(strength, input), self.low_rank(decay, input))
            }
        };
        let (mut first, mut state) = (0, 0);
        for convolution in d.convolutions.iter().flatten() {
            self.convolve(convolution, true, rows, [first, state]);
            (first, state) = (first + convolution.channels, state + convolution.state_len());
        }
        let to = self.rows(values);
        self.steps.push(Step::Recur(Recur {
            layer: self.recurrent_layers,
            state,
            heads: h,
            rule: RecurRule::Delta { strengths },
            decays,
            bias: d.bias,
            factors: d.factors,
            rows,
            queries: 0,
            keys,
            values: 2 * keys,
            to,
        }));
        self.norm_spans(d.norm, to);
        self.gate(function, gate, to);
        to
    }

    fn state_space(&mut self, s: &StateSpace, input: Buffer) -> Buffer {
        let h = s.heads;
        let (keys, values) = (h.key_heads * h.key, h.count * h.value);
        let input = self.quantize(&s.parts.map(|linear| linear.weight), input);
        let [gate, rows, decays] = self.three(s.parts, input);
        self.convolve(&s.convolution, true, rows, [0, 0]);
        let to = self.rows(values);
        self.steps.push(Step::Recur(Recur {
            layer: self.recurrent_layers,
            state: s.convolution.state_len(),
            heads: h,
            rule: RecurRule::Plain { skip: s.skip },
            decays,
            bias: s.bias,
            factors: s.factors,
            rows,
            queries: values + keys,
            keys: values,
            values: 0,
            to,
        }));
        self.gate(GateFunction::Silu, gate, to);
        if let Some(norm) = s.norm {
            self.norm_spans(norm, to);
        }
        to
    }
}

/// The matrices that share the input of a delta rule.
fn stage(d: &Delta) -> Vec<crate::weights::MatrixId> {
    let mut linears = match d.rows {
        DeltaRows::Together { rows, gate } => vec![rows, gate],
        DeltaRows::Grouped(linear) => vec![linear],
        DeltaRows::Apart { parts, gate } => vec![parts[0], parts[1], parts[2], gate[0]],
    };
    match d.strength {
        DeltaStrength::ByHead { strength, decay } => linears.extend([strength, decay]),
        DeltaStrength::Grouped(linear) => linears.push(linear),
        DeltaStrength::ByElement { strength, decay } => linears.extend([strength, decay[0]]),
    }
    linears.iter().map(|linear| linear.weight).collect()
}
