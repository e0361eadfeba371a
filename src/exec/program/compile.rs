//! From a description to the steps of a pass.

mod recurrent;

use super::Program;
use super::step::{Attend, Buffer, Contents, Embed, Finish, GateFunction, Head, Input, Step, Stretches, Turn, Weight};
use crate::arch::{
    Attention, Block, Description, Experts, FeedForward, Latent, Layer, Linear, Mlp, Norm, Projection, Shape, Shared,
};
use crate::kernel::matmul::Form;
use crate::weights::{Builder, Matrix, MatrixId};

pub fn compile(description: &Description, matrices: &Builder) -> Program {
    let mut buffers = Vec::new();
    let residual = new_buffer(&mut buffers, Contents::Rows { width: description.shape.embedding });
    let compiler = Compiler {
        d: description,
        matrices,
        residual,
        buffers,
        steps: Vec::new(),
        turns: Vec::new(),
        attention_layers: 0,
        recurrent_layers: 0,
    };
    compiler.compile()
}

struct Compiler<'a> {
    d: &'a Description,
    matrices: &'a Builder,
    /// The residual stream, [tokens][embedding].
    residual: Buffer,
    buffers: Vec<Contents>,
    steps: Vec<Step>,
    /// By the description's `ropes`.
    turns: Vec<Turn>,
    /// Layers so far that have keys and values, and a recurrent state.
    attention_layers: usize,
    recurrent_layers: usize,
}

fn new_buffer(buffers: &mut Vec<Contents>, contents: Contents) -> Buffer {
    buffers.push(contents);
    Buffer(buffers.len() as u32 - 1)
}

impl Compiler<'_> {
    fn compile(mut self) -> Program {
        self.embed();
        for (rope, r) in self.d.ropes.iter().enumerate() {
            let [cos, sin] = [(); 2].map(|()| self.rows(r.dims / 2));
            let turn = Turn { rope, cos, sin };
            self.turns.push(turn);
            self.steps.push(Step::Angles(turn));
        }
        let mut layer_ends = Vec::with_capacity(self.d.layers.len());
        for layer in &self.d.layers {
            self.layer(layer);
            layer_ends.push(self.steps.len() as u32);
        }
        self.finish();
        let Compiler { d, mut buffers, mut steps, .. } = self;
        buffers.shrink_to_fit();
        steps.shrink_to_fit();
        Program { shape: d.shape, causal: d.causal, memory_layers: d.cached_layers(), steps, buffers, layer_ends }
    }

    fn shape(&self) -> Shape {
        self.d.shape
    }

    fn matrix(&self, id: MatrixId) -> &Matrix {
        self.matrices.matrix(id)
    }

    fn rows(&mut self, width: usize) -> Buffer {
        new_buffer(&mut self.buffers, Contents::Rows { width })
    }

    /// Rows that hold the products of a matrix.
    fn products(&mut self, linear: Linear) -> Buffer {
        let width = self.matrix(linear.weight).rows;
        self.rows(width)
    }

    fn embed(&mut self) {
        let d = self.d;
        let row = Contents::Row { width: d.shape.embedding };
        let positions = d.positions.map(|table| (table, new_buffer(&mut self.buffers, row)));
        self.steps.push(Step::Embed(Embed {
            table: d.embedding,
            scale: d.embedding_scale,
            token_type: d.token_type,
            positions,
            norm: d.embedding_norm,
            to: self.residual,
        }));
    }

    fn layer(&mut self, layer: &Layer) {
        let mut from = self.residual;
        if layer.parallel {
            from = self.rows(self.shape().embedding);
            self.steps.push(Step::Copy { from: self.residual, to: from });
        }
        let norms = (layer.attention.and_then(|a| a.norm), layer.recurrent.and_then(|r| r.norm));
        if layer.attention.is_some() || layer.recurrent.is_some() {
            // Where both are there, they read the same.
            let input = self.normed(norms.0.or(norms.1), self.residual);
            if let Some(attention) = &layer.attention {
                self.attention(attention, input);
            }
            if let Some(recurrent) = &layer.recurrent {
                self.recurrent(recurrent, input);
            }
        }
        if let Some(feed_forward) = &layer.feed_forward {
            self.feed_forward(feed_forward, from);
        }
    }

    /// The normed rows of `from`; without a norm, `from` itself.
    fn normed(&mut self, norm: Option<Norm>, from: Buffer) -> Buffer {
        let Some(norm) = norm else { return from };
        let to = self.rows(self.shape().embedding);
        self.steps.push(Step::Norm { norm, from, to });
        to
    }

    fn norm_in_place(&mut self, norm: Option<Norm>, rows: Buffer) {
        self.steps.extend(norm.map(|norm| Step::NormInPlace { norm, rows }));
    }

    /// The common input of matrices, in every form that they want.
    fn quantize(&mut self, matrices: &[MatrixId], from: Buffer) -> Input {
        let mut to = Input { forms: [None; Input::MAX_FORMS] };
        let mut count = 0;
        for &m in matrices {
            let Matrix { format, columns, .. } = *self.matrix(m);
            let form = Form::of(format);
            if to.forms.iter().flatten().all(|(made, _)| *made != form) {
                let contents = Contents::Activations { form, columns, count: 1 };
                to.forms[count] = Some((form, new_buffer(&mut self.buffers, contents)));
                count += 1;
            }
        }
        self.steps.push(Step::Quantize { from, to });
        to
    }

    fn multiply(&mut self, linear: Linear, input: Input, to: Buffer, finish: Finish) {
        let input = input.of(Form::of(self.matrix(linear.weight).format));
        self.steps.push(Step::Multiply { weight: Weight::Fixed(linear), input, to, finish });
    }

    fn attention(&mut self, a: &Attention, input: Buffer) {
        let s = self.shape();
        let [mut queries, keys, values] = match &a.projection {
            Projection::Direct { query, key, value } => {
                let linears = [*query, *key, *value];
                let input = self.quantize(&linears.map(|linear| linear.weight), input);
                let to = linears.map(|linear| self.products(linear));
                self.steps.push(Step::MultiplyThree { linears, input, to });
                to
            }
            Projection::Latent(latent) => self.latent_heads(latent, input),
        };
        let gates = a.gated.then(|| self.rows(s.heads * s.key_dim));
        if let Some(gates) = gates {
            let both = queries;
            queries = self.rows(s.heads * s.key_dim);
            for (first, to) in [(0, queries), (s.key_dim, gates)] {
                let source = Stretches { first, stride: 2 * s.key_dim };
                let target = Stretches { first: 0, stride: s.key_dim };
                let (length, count) = (s.key_dim, s.heads);
                self.steps.push(Step::CopyStretches { from: both, source, to, target, length, count });
            }
        }
        let turn = a.rope.map(|rope| self.turns[rope]);
        for (heads, norm) in [(queries, a.query_norm), (keys, a.key_norm)] {
            let stages =
                if a.norm_after_rotation { [(None, turn), (norm, None)] } else { [(norm, turn), (None, None)] };
            for (norm, turn) in stages {
                if norm.is_some() || turn.is_some() {
                    self.steps.push(Step::PrepareHeads { heads, norm, turn });
                }
            }
        }
        self.steps.extend(a.temperature.map(|temperature| Step::ScaleByPosition { temperature, rows: queries }));
        let layer = self.attention_layers.min(self.d.cached_layers() - 1);
        self.attention_layers += 1;
        self.steps.push(Step::WriteKeyValues { layer, keys, values });
        let mut seen = self.rows(s.heads * s.value_dim);
        self.steps.push(Step::Attend(Attend {
            layer,
            queries,
            to: seen,
            scale: a.scale,
            softcap: a.softcap,
            sinks: a.sinks,
            window: a.window,
        }));
        if let Projection::Latent(latent) = &a.projection {
            seen = self.latent_result(latent, seen);
        }
        self.steps.extend(gates.map(|from| Step::GateRows { function: GateFunction::Sigmoid, from, rows: seen }));
        let input = self.quantize(&[a.output.weight], seen);
        self.add_block(a.output, input, [a.post_norm, a.sum_norm]);
    }

    /// Queries, keys and values of latent attention: the queries in the space of the latents, one key and one value.
    fn latent_heads(&mut self, l: &Latent, input: Buffer) -> [Buffer; 3] {
        let s = self.shape();
        let input = self.quantize(&l.first_stage().map(|linear| linear.weight), input);
        let mut made = self.products(l.first_stage()[0]);
        self.multiply(l.first_stage()[0], input, made, Finish::Keep);
        let shared = self.products(l.key_value);
        self.multiply(l.key_value, input, shared, Finish::Keep);
        if let Some((_, norm)) = l.query_down {
            self.norm_in_place(Some(norm), made);
            let input = self.quantize(&[l.query.weight], made);
            made = self.products(l.query);
            self.multiply(l.query, input, made, Finish::Keep);
        }
        let (keys, values) = (self.rows(s.key_dim), self.rows(s.value_dim));
        self.steps.push(Step::LatentKeyValues { latent: *l, from: shared, keys, values });
        let queries = self.rows(s.heads * s.key_dim);
        self.steps.push(Step::LatentQueries { latent: *l, from: made, queries });
        let source = Stretches { first: 0, stride: l.plain + l.rotated };
        self.multiply_heads(l.key, (made, source), (queries, Stretches { first: l.rotated, stride: s.key_dim }));
        [queries, keys, values]
    }

    /// The heads' results of what they see, which is in the space of the latents.
    fn latent_result(&mut self, l: &Latent, seen: Buffer) -> Buffer {
        let s = self.shape();
        let results = self.rows(s.heads * l.head_value);
        let target = Stretches { first: 0, stride: l.head_value };
        self.multiply_heads(l.value, (seen, Stretches { first: 0, stride: s.value_dim }), (results, target));
        results
    }

    fn multiply_heads(
        &mut self,
        matrix: MatrixId,
        (from, source): (Buffer, Stretches),
        (to, target): (Buffer, Stretches),
    ) {
        let Matrix { format, columns, .. } = *self.matrix(matrix);
        let count = self.shape().heads;
        let copy = self.rows(columns);
        let contents = Contents::Activations { form: Form::of(format), columns, count };
        let input = new_buffer(&mut self.buffers, contents);
        self.steps.push(Step::QuantizeHeads { from, source, copy, to: input });
        self.steps.push(Step::MultiplyHeads { matrix, input, to, target });
    }

    /// x = norms[1](x + s·norms[0](W·input + b)), the end of a block.
    fn add_block(&mut self, linear: Linear, input: Input, norms: [Option<Norm>; 2]) {
        let projected = self.products(linear);
        if norms[0].is_some() {
            self.multiply(linear, input, projected, Finish::Keep);
            return self.add_normed(projected, norms);
        }
        self.multiply(linear, input, projected, Finish::AddTo(self.residual, self.d.residual_scale));
        self.norm_in_place(norms[1], self.residual);
    }

    /// x = norms[1](x + s·norms[0](y)).
    fn add_normed(&mut self, y: Buffer, norms: [Option<Norm>; 2]) {
        self.norm_in_place(norms[0], y);
        self.steps.push(Step::Add { from: y, to: self.residual, scale: self.d.residual_scale });
        self.norm_in_place(norms[1], self.residual);
    }

    fn feed_forward(&mut self, f: &FeedForward, from: Buffer) {
        let input = self.normed(f.norm, from);
        let norms = [f.post_norm, f.sum_norm];
        match &f.block {
            Block::Dense(mlp) => {
                let input = self.quantize(&mlp.up_projections().map(|linear| linear.weight), input);
                let inner = self.inner(mlp, input);
                let input = self.quantize(&[mlp.down.weight], inner);
                self.add_block(mlp.down, input, norms);
            }
            Block::Experts(experts) => {
                let mixed = self.experts(experts, input);
                self.add_normed(mixed, norms);
            }
        }
    }

    /// f(W_gate·h) ⊙ W_up·h, or f(W_up·h).
    fn inner(&mut self, mlp: &Mlp, input: Input) -> Buffer {
        let to = self.products(mlp.up);
        match mlp.gate {
            Some(gate) => {
                let (gates, up, activation) = (self.products(gate), mlp.up, mlp.activation);
                self.steps.push(Step::MultiplyGated { activation, gate, up, input, gates, to });
            }
            None => self.multiply(mlp.up, input, to, Finish::Activate(mlp.activation)),
        }
        to
    }

    /// The sum of what the experts of each token make of it, and of the block that all tokens share.
    fn experts(&mut self, e: &Experts, from: Buffer) -> Buffer {
        let stage: Vec<MatrixId> = e.first_stage().iter().map(|linear| linear.weight).collect();
        let input = self.quantize(&stage, from);
        let scores = self.products(e.router);
        self.multiply(e.router, input, scores, Finish::Keep);
        self.steps.push(Step::Route { experts: *e, scores });
        let mixed = self.rows(self.shape().embedding);
        // Of experts that are latent what comes back is added in the end.
        let compressed = e.latent.map(|[down, _]| {
            let [from, sum] = [(); 2].map(|()| self.products(down));
            self.multiply(down, input, from, Finish::Keep);
            self.steps.push(Step::Clear { to: sum });
            (from, sum)
        });
        // Before the experts, so that these are read while it is computed.
        match &e.shared {
            None => self.steps.push(Step::Clear { to: mixed }),
            Some(Shared { mlp, gate }) => {
                let inner = self.inner(mlp, input);
                let input = self.quantize(&[mlp.down.weight], inner);
                self.multiply(mlp.down, input, mixed, Finish::Keep);
                self.steps.extend(gate.map(|gate| Step::ScaleByGate { gate, from, rows: mixed }));
            }
        }
        let outside = std::mem::take(&mut self.steps);
        let (read, sum) = compressed.unwrap_or((from, mixed));
        self.expert(e, read, sum);
        let body = std::mem::replace(&mut self.steps, outside);
        self.steps.push(Step::ForEachExpert { experts: *e, body });
        if let Some([_, up]) = e.latent {
            let input = self.quantize(&[up.weight], sum);
            let results = self.products(up);
            self.multiply(up, input, results, Finish::AddTo(mixed, 1.0));
        }
        if e.output_scale != 1.0 {
            self.steps.push(Step::Scale { scale: e.output_scale, rows: mixed });
        }
        mixed
    }

    /// What is done for each expert that a token is routed to.
    fn expert(&mut self, e: &Experts, from: Buffer, mixed: Buffer) {
        let [gate, up, down] = e.matrices(0);
        let [length, width] = [up, down].map(|m| self.matrix(m).rows);
        let gathered = self.rows(width);
        self.steps.push(Step::Gather { from, to: gathered });
        let input = self.quantize(&[gate, up], gathered);
        let (ups, results) = (self.rows(length), self.rows(width));
        let finish = match e.gated {
            true => {
                let gates = self.rows(length);
                self.multiply_expert((0, gate), input, gates, Finish::Keep);
                Finish::Gate(e.activation, gates)
            }
            false => Finish::Activate(e.activation),
        };
        self.multiply_expert((1, up), input, ups, finish);
        let input = self.quantize(&[down], ups);
        self.multiply_expert((2, down), input, results, Finish::Keep);
        self.steps.push(Step::Scatter { from: results, to: mixed });
    }

    /// `part` of all experts, which are in one format.
    fn multiply_expert(&mut self, (part, matrix): (usize, MatrixId), input: Input, to: Buffer, finish: Finish) {
        let input = input.of(Form::of(self.matrix(matrix).format));
        self.steps.push(Step::Multiply { weight: Weight::OfExpert(part), input, to, finish });
    }

    fn finish(&mut self) {
        let d = self.d;
        let mut hidden = self.residual;
        let norm = d.output_norm.map(|norm| (norm, self.rows(d.shape.embedding)));
        self.steps.push(Step::Hidden { norm, from: self.residual });
        if let Some((_, to)) = norm {
            hidden = to;
        }
        if let Some(linear) = d.head {
            let Matrix { format, columns, .. } = *self.matrix(linear.weight);
            let contents = Contents::Activations { form: Form::of(format), columns, count: 1 };
            let input = new_buffer(&mut self.buffers, contents);
            let (scale, softcap) = (d.logit_scale, d.logit_softcap);
            self.steps.push(Step::Head(Head { linear, from: hidden, input, scale, softcap }));
        }
    }
}
