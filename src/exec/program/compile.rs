//! From a description to the steps of a pass.

mod beside;
mod foresee;
mod latent;
mod recurrent;

use super::Program;
use super::beside::Beside;
use super::step::{Attend, Buffer, Contents, Embed, Finish, GateFunction, Head, Input, Step, Stretches, Turn, Weight};
use crate::arch::{
    Attention, Block, Description, Experts, FeedForward, Heads, Latent, Layer, Linear, Mlp, Norm, Projection,
    RouterInput, Shape, Shared, SpanNorm,
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
        layer_inputs: None,
        streams: None,
        buffers,
        steps: Vec::new(),
        turns: Vec::new(),
        layer: 0,
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
    /// The inputs of all layers, [tokens][layers][width].
    layer_inputs: Option<Buffer>,
    /// All streams, [tokens][streams][embedding], where `residual` is what the layer at hand makes of the first.
    streams: Option<Buffer>,
    buffers: Vec<Contents>,
    steps: Vec<Step>,
    /// By the description's `ropes`.
    turns: Vec<Turn>,
    /// The layer at hand.
    layer: usize,
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
        self.make_layer_inputs();
        self.spread_streams();
        for (rope, r) in self.d.ropes.iter().enumerate() {
            let [cos, sin] = [(); 2].map(|()| self.rows(r.dims / 2));
            let turn = Turn { rope, cos, sin };
            self.turns.push(turn);
            self.steps.push(Step::Angles(turn));
        }
        let mut layer_ends = Vec::with_capacity(self.d.layers.len());
        for (i, layer) in self.d.layers.iter().enumerate() {
            self.layer = i;
            self.layer(i, layer);
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

    fn layer(&mut self, i: usize, layer: &Layer) {
        let predictions = layer.streams.and_then(|streams| self.predict_streams(streams));
        let scores = layer.feed_forward.and_then(|f| self.early_scores(&f.block));
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
            self.feed_forward(feed_forward, from, scores);
        }
        if let (Some(streams), Some(predictions)) = (layer.streams, predictions) {
            self.correct_streams(streams, predictions);
        }
        self.take_layer_input(i, layer);
        let rows = self.streams.unwrap_or(self.residual);
        self.steps.extend(layer.output_scale.map(|number| Step::Beside(Beside::ScaleByNumber { number, rows })));
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
        let Heads { count, key_dim, value_dim, .. } = a.heads;
        let low_rank = a.low_rank.map(|low_rank| self.low_rank_block(low_rank, input));
        let own = self.attention_layers.min(self.d.cached_layers() - 1);
        self.attention_layers += 1;
        let (mut queries, key_values, layer) = match &a.projection {
            Projection::Direct { query, key, value } => {
                let linears = [*query, *key, *value];
                let input = self.quantize(&linears.map(|linear| linear.weight), input);
                let to = linears.map(|linear| self.products(linear));
                self.steps.push(Step::MultiplyThree { linears, input, to });
                (to[0], Some([to[1], to[2]]), own)
            }
            Projection::Tied { query, key } => {
                let input = self.quantize(&[query.weight, key.weight], input);
                let [queries, keys, values] = [*query, *key, *key].map(|linear| self.products(linear));
                self.multiply(*query, input, queries, Finish::Keep);
                self.multiply(*key, input, keys, Finish::Keep);
                self.steps.push(Step::Copy { from: keys, to: values });
                (queries, Some([keys, values]), own)
            }
            Projection::Shared { query, layer } => {
                let input = self.quantize(&[query.weight], input);
                let queries = self.products(*query);
                self.multiply(*query, input, queries, Finish::Keep);
                let before = &self.d.layers[..*layer];
                (queries, None, before.iter().filter(|l| l.attention.is_some()).count())
            }
            Projection::Expanded(expanded) => {
                let [queries, keys, values] = self.expanded_heads(expanded, a.heads, input);
                (queries, Some([keys, values]), own)
            }
            Projection::Latent(latent) => {
                let [queries, keys, values] = self.latent_heads(latent, input);
                (queries, Some([keys, values]), own)
            }
        };
        let gates = a.gated.then(|| self.rows(count * key_dim));
        if let Some(gates) = gates {
            let both = queries;
            queries = self.rows(count * key_dim);
            for (first, to) in [(0, queries), (key_dim, gates)] {
                let source = Stretches { first, stride: 2 * key_dim };
                let target = Stretches { first: 0, stride: key_dim };
                self.steps.push(Step::CopyStretches { from: both, source, to, target, length: key_dim, count });
            }
        }
        self.prepare_heads(a, queries, a.query_norm);
        if let Some([keys, values]) = key_values {
            self.prepare_heads(a, keys, a.key_norm);
            if a.value_norm.is_some() {
                let (heads, norm, turn) = (values, a.value_norm, None);
                self.steps.push(Step::PrepareHeads { heads, dim: value_dim, norm, turn });
            }
        }
        self.steps.extend(a.temperature.map(|temperature| Step::ScaleByPosition { temperature, rows: queries }));
        self.steps.extend(key_values.map(|[keys, values]| Step::WriteKeyValues { layer, keys, values }));
        let mut seen = self.rows(count * value_dim);
        self.steps.push(Step::Attend(Attend {
            layer,
            heads: count,
            queries,
            to: seen,
            scale: a.scale,
            softcap: a.softcap,
            sinks: a.sinks,
            window: a.window,
            section: a.section,
            slopes: a.slopes,
        }));
        if let Projection::Latent(latent) = &a.projection {
            seen = self.latent_result(latent, seen);
        }
        self.steps.extend(gates.map(|from| Step::GateRows { function: GateFunction::Sigmoid, from, rows: seen }));
        let input = self.quantize(&[a.output.weight], seen);
        self.add_block(a.output, input, [a.post_norm, a.sum_norm]);
        if let Some(from) = low_rank {
            let to = self.residual;
            self.steps.push(Step::Add { from, to, scale: 1.0 });
            self.steps.push(Step::Scale { scale: std::f32::consts::FRAC_1_SQRT_2, rows: to });
        }
    }

    /// Norms and turns queries or keys.
    fn prepare_heads(&mut self, a: &Attention, heads: Buffer, norm: Option<SpanNorm>) {
        let (turn, dim) = (a.rope.map(|rope| self.turns[rope]), a.heads.key_dim);
        let stages = if a.norm_after_rotation { [(None, turn), (norm, None)] } else { [(norm, turn), (None, None)] };
        for (norm, turn) in stages {
            if norm.is_some() || turn.is_some() {
                self.steps.push(Step::PrepareHeads { heads, dim, norm, turn });
            }
        }
    }

    /// Queries, keys and values of latent attention: the queries in the space of the latents, one key and one value.
    fn latent_heads(&mut self, l: &Latent, input: Buffer) -> [Buffer; 3] {
        let s = self.shape();
        let [made, shared] = self.latent_first_stage(l.query_down, l.query, l.key_value, input);
        let (keys, values) = (self.rows(s.key_dim), self.rows(s.value_dim));
        self.steps.push(Step::LatentKeyValues { latent: *l, from: shared, keys, values });
        let queries = self.rows(s.heads * s.key_dim);
        self.steps.push(Step::LatentQueries { latent: *l, from: made, queries });
        let source = Stretches { first: 0, stride: l.plain + l.rotated };
        let target = Stretches { first: l.rotated, stride: s.key_dim };
        self.multiply_heads((l.key, s.heads), (made, source), (queries, target));
        [queries, keys, values]
    }

    /// The heads' results of what they see, which is in the space of the latents.
    fn latent_result(&mut self, l: &Latent, seen: Buffer) -> Buffer {
        let s = self.shape();
        let results = self.rows(s.heads * l.head_value);
        let target = Stretches { first: 0, stride: l.head_value };
        self.multiply_heads((l.value, s.heads), (seen, Stretches { first: 0, stride: s.value_dim }), (results, target));
        results
    }

    /// A matrix for each of `count` stretches, end to end.
    fn multiply_heads(
        &mut self,
        (matrix, count): (MatrixId, usize),
        (from, source): (Buffer, Stretches),
        (to, target): (Buffer, Stretches),
    ) {
        let Matrix { format, columns, .. } = *self.matrix(matrix);
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

    fn feed_forward(&mut self, f: &FeedForward, from: Buffer, scores: Option<Buffer>) {
        let input = self.normed(f.norm, from);
        let norms = [f.post_norm, f.sum_norm];
        let residual = from;
        match &f.block {
            Block::Dense(mlp) => {
                let input = self.quantize(&mlp.up_projections().map(|linear| linear.weight), input);
                let inner = self.inner(mlp, input);
                let input = self.quantize(&[mlp.down.weight], inner);
                self.add_block(mlp.down, input, norms);
            }
            Block::Experts(experts) => {
                let mixed = self.experts(experts, residual, input, scores);
                self.add_normed(mixed, norms);
            }
        }
    }

    /// f(W_gate·h) ⊙ W_up·h, or f(W_up·h).
    fn inner(&mut self, mlp: &Mlp, input: Input) -> Buffer {
        let to = self.products(mlp.up);
        match mlp.gate {
            Some(gate) if mlp.sparsity.is_some() => {
                let gates = self.products(gate);
                self.multiply(gate, input, gates, Finish::Keep);
                let sparse = mlp.sparsity.map(|factor| Step::Beside(Beside::Sparsify { factor, rows: gates }));
                self.steps.extend(sparse);
                self.multiply(mlp.up, input, to, Finish::Gate(mlp.activation, gates));
            }
            Some(gate) => {
                let (gates, up, activation) = (self.products(gate), mlp.up, mlp.activation);
                self.steps.push(Step::MultiplyGated { activation, gate, up, input, gates, to });
            }
            None => self.multiply(mlp.up, input, to, Finish::Activate(mlp.activation)),
        }
        to
    }

    /// The scores of experts that are chosen by what the layer begins with.
    fn early_scores(&mut self, block: &Block) -> Option<Buffer> {
        let Block::Experts(e) = block else { return None };
        matches!(e.router_input, RouterInput::Layer).then(|| {
            let input = self.quantize(&[e.router.weight], self.residual);
            self.scores(e, input)
        })
    }

    fn scores(&mut self, e: &Experts, input: Input) -> Buffer {
        let scores = self.products(e.router);
        self.multiply(e.router, input, scores, Finish::Keep);
        scores
    }

    /// The sum of what the experts of each token make of it, and of the block that all tokens share. `from` is the normed
    /// `residual`; `scores` are the router's where they are there already.
    fn experts(&mut self, e: &Experts, residual: Buffer, from: Buffer, scores: Option<Buffer>) -> Buffer {
        let shared = e.shared.into_iter().flat_map(|shared| shared.mlp.up_projections());
        let shared = e.latent.map(|[down, _]| down).into_iter().chain(shared).map(|linear| linear.weight);
        let shared = shared.collect::<Vec<_>>();
        let (scores, input) = match (scores, e.router_input) {
            (None, RouterInput::Normed { norm, scale }) => {
                let rows = self.normed(Some(norm), residual);
                self.steps.push(Step::Scale { scale, rows });
                let input = self.quantize(&[e.router.weight], rows);
                (self.scores(e, input), self.quantize(&shared, from))
            }
            (None, _) => {
                let input = self.quantize(&[&[e.router.weight], &shared[..]].concat(), from);
                (self.scores(e, input), input)
            }
            (Some(scores), _) => (scores, self.quantize(&shared, from)),
        };
        self.steps.push(Step::Route { experts: *e, scores });
        self.foresee(residual);
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
        let Some(apart) = e.apart else {
            self.for_each_expert(e, compressed, from, mixed);
            return mixed;
        };
        self.norm_in_place(Some(apart.shared_post), mixed);
        let from = self.normed(Some(apart.input), residual);
        let sum = self.rows(self.shape().embedding);
        self.steps.push(Step::Clear { to: sum });
        self.for_each_expert(e, compressed, from, sum);
        self.norm_in_place(Some(apart.post), sum);
        self.steps.push(Step::Add { from: sum, to: mixed, scale: 1.0 });
        mixed
    }

    /// Adds what the experts of each token make of it to `mixed`. `compressed`: their input and the sum of their results,
    /// where these are latent.
    fn for_each_expert(&mut self, e: &Experts, compressed: Option<(Buffer, Buffer)>, from: Buffer, mixed: Buffer) {
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
    }

    /// What is done for each expert that a token is routed to.
    fn expert(&mut self, e: &Experts, from: Buffer, mixed: Buffer) {
        let [gate, up, down] = e.matrices(0);
        let [length, width] = [up, down].map(|m| self.matrix(m).rows);
        let gathered = self.rows(width);
        let weighted = e.router_config.weighs_inputs;
        self.steps.push(Step::Gather { from, to: gathered, weighted });
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
        self.steps.push(Step::Scatter { from: results, to: mixed, weighted: !weighted });
    }

    /// `part` of all experts, which are in one format.
    fn multiply_expert(&mut self, (part, matrix): (usize, MatrixId), input: Input, to: Buffer, finish: Finish) {
        let input = input.of(Form::of(self.matrix(matrix).format));
        self.steps.push(Step::Multiply { weight: Weight::OfExpert(part), input, to, finish });
    }

    fn finish(&mut self) {
        let d = self.d;
        self.merge_streams();
        let mut hidden = self.residual;
        if let Some(dense) = d.dense {
            let from = self.dense(d.output_norm, dense);
            self.steps.push(Step::Hidden { norm: None, from });
            return;
        }
        let norm = d.output_norm.map(|norm| (norm, self.rows(d.shape.embedding)));
        self.steps.push(Step::Hidden { norm, from: self.residual });
        if let Some((_, to)) = norm {
            hidden = to;
        }
        if let Some(classifier) = d.classifier {
            self.classify(classifier, hidden);
        }
        if let Some(labels) = d.labels {
            self.steps.push(Step::Beside(Beside::Labels { labels, from: hidden }));
        }
        if let Some(linear) = d.head {
            let Matrix { format, columns, .. } = *self.matrix(linear.weight);
            let contents = Contents::Activations { form: Form::of(format), columns, count: 1 };
            let input = new_buffer(&mut self.buffers, contents);
            let products = self.rows(d.shape.embedding);
            let (scale, softcap) = (d.logit_scale, d.logit_softcap);
            self.steps.push(Step::Head(Head { linear, from: hidden, input, products, scale, softcap }));
        }
    }
}
