//! The memory of a running pass: the buffers of one chunk, laid out by when they are in use.

use std::ops::Range;
use std::sync::Arc;

use super::Wanted;
use super::adapter::AdapterSet;
use super::program::{Buffer, Contents, Program, Step, liveness};
use crate::error::Result;
use crate::sys::heap;
use crate::weights::engine::Engine;
use crate::weights::frames::Memory;
use crate::weights::{RoutedExpert, Schedule};

/// A token's way to one of its experts.
#[derive(Clone, Copy, Debug)]
pub struct Route {
    pub expert: u32,
    pub token: u32,
    pub weight: f32,
}

/// Of chunks of up to so many tokens, experts that are in memory come before those that are being read: the results of all
/// are kept apart, and added in their order in the end.
pub(super) const APART_TOKENS: usize = 4;

/// Where the buffers of a program lie, for chunks of so many tokens, and what else a pass needs.
#[derive(Clone, Debug)]
pub struct Layout {
    tokens: usize,
    /// In bytes, by [`Buffer`].
    offsets: Vec<usize>,
    bytes: usize,
    /// A row of a table, with unaligned ends.
    row: usize,
    /// Most ways of tokens to experts, and the experts of a layer.
    routes: usize,
    experts: usize,
    /// Bytes of results of experts that are kept apart.
    apart: usize,
}

impl Layout {
    /// `schedule`: what the program's matrices are in.
    pub fn new(program: &Program, schedule: &Schedule, tokens: usize) -> Layout {
        let placement = liveness::place(&program.lives(tokens));
        let steps = program.steps.iter();
        let tables = steps.clone().flat_map(Step::tables).chain(steps.filter_map(Step::unheld_tables));
        let row_bytes = tables.map(|m| schedule.matrix(m).row_bytes).max().unwrap_or(0);
        Layout {
            tokens,
            offsets: placement.offsets,
            bytes: placement.bytes,
            row: Engine::row_buffer_bytes(row_bytes),
            routes: program.experts().map(|e| e.used.saturating_mul(tokens)).max().unwrap_or(0),
            experts: program.experts().map(|e| e.count).max().unwrap_or(0),
            apart: program.experts().map(|e| e.used).max().unwrap_or(0)
                * APART_TOKENS.min(tokens)
                * program.shape.embedding
                * size_of::<f32>(),
        }
    }

    /// Most ways of tokens to experts that are foreseen.
    fn foreseen(&self) -> usize {
        self.routes / self.tokens.max(1) * APART_TOKENS.min(self.tokens)
    }

    /// Bytes that [`Scratch::new`] takes, with the layout itself.
    pub fn memory_bytes(&self) -> u64 {
        let batch = self.tokens.saturating_mul(size_of::<u32>() + size_of::<i32>() + size_of::<Place>());
        let foreseen = self.foreseen();
        let routes = self.routes.saturating_add(foreseen).saturating_mul(size_of::<Route>());
        let experts = self.experts.max(foreseen) * (size_of::<u32>() + size_of::<RoutedExpert>());
        let lists = [batch, routes, experts, self.offsets.len() * size_of::<usize>()];
        let mappings = [self.bytes, self.row, self.apart].map(|n| Memory::taken_by(n as u64));
        lists.iter().map(|&n| n as u64).chain(mappings).fold(0, u64::saturating_add)
    }
}

/// The memory of a running pass; a model has one, which the pass whose turn it is uses.
pub struct Scratch {
    layout: Layout,
    memory: Memory,
    lists: Lists,
    batch: Batch,
}

/// The sequences of a sweep.
#[derive(Default)]
pub(super) struct Batch {
    /// Of all sequences, one after the other.
    pub tokens: Vec<i32>,
    /// Of each token in its sequence.
    pub positions: Vec<u32>,
    pub places: Vec<Place>,
}

/// What of a sweep is one sequence's.
#[derive(Clone, Debug)]
pub(super) struct Place {
    /// Of the buffers.
    pub rows: Range<usize>,
    /// Of its first token.
    pub position: usize,
    /// Tokens that its session has room for.
    pub context: usize,
    pub adapters: Option<Arc<AdapterSet>>,
    pub wanted: Wanted,
}

impl Place {
    /// Its rows of a buffer.
    pub fn of<'a>(&self, buffer: &'a [f32], width: usize) -> &'a [f32] {
        &buffer[self.rows.start * width..self.rows.end * width]
    }

    pub fn of_mut<'a>(&self, buffer: &'a mut [f32], width: usize) -> &'a mut [f32] {
        &mut buffer[self.rows.start * width..self.rows.end * width]
    }

    /// The rows that its results are made of.
    pub fn result_rows(&self) -> Range<usize> {
        self.rows.end - self.wanted.positions(self.rows.len())..self.rows.end
    }
}

/// What grows and shrinks during a pass, within its capacity.
pub(super) struct Lists {
    /// A row of a table.
    pub row: Memory,
    /// By expert, then by token.
    pub routes: Vec<Route>,
    /// What is foreseen of the next layer, the greatest weight first.
    pub foreseen: Vec<Route>,
    /// Experts in the order of a token's scores, or of what is foreseen.
    pub ranking: Vec<u32>,
    /// Experts in the order in which they are taken, each with its first route.
    pub order: Vec<RoutedExpert>,
    /// Rows of experts by route, of chunks of few tokens.
    pub apart: Memory,
}

impl Scratch {
    /// # Errors
    /// `OUT_OF_MEMORY`
    pub fn new(layout: Layout) -> Result<Scratch> {
        let map = |bytes| Memory::of(bytes as u64, "scratch");
        let (mut batch, mut routes) = (Batch::default(), Vec::new());
        heap::reserve(&mut batch.tokens, layout.tokens, "tokens")?;
        heap::reserve(&mut batch.positions, layout.tokens, "positions")?;
        heap::reserve(&mut batch.places, layout.tokens, "sequences of a sweep")?;
        heap::reserve(&mut routes, layout.routes, "ways to experts")?;
        let (mut ranking, mut order, mut foreseen) = (Vec::new(), Vec::new(), Vec::new());
        heap::reserve(&mut foreseen, layout.foreseen(), "ways to experts")?;
        heap::reserve(&mut ranking, layout.experts.max(layout.foreseen()), "experts")?;
        heap::reserve(&mut order, layout.experts, "experts")?;
        let (row, apart) = (map(layout.row)?, map(layout.apart)?);
        let lists = Lists { row, routes, foreseen, ranking, order, apart };
        Ok(Scratch { memory: map(layout.bytes)?, layout, lists, batch })
    }

    /// The buffers of a program, the lists, and the sequences of the sweep.
    pub(super) fn parts<'a>(&'a mut self, program: &'a Program) -> (Arena<'a>, &'a mut Lists, &'a mut Batch) {
        let arena = Arena {
            memory: self.memory.as_slice_mut::<f32>(),
            offsets: &self.layout.offsets,
            contents: &program.buffers,
            tokens: self.layout.tokens,
        };
        (arena, &mut self.lists, &mut self.batch)
    }
}

/// The buffers of a running pass.
pub(super) struct Arena<'a> {
    memory: &'a mut [f32],
    offsets: &'a [usize],
    contents: &'a [Contents],
    /// For how many tokens the buffers are laid out.
    tokens: usize,
}

impl Arena<'_> {
    pub fn contents(&self, buffer: Buffer) -> Contents {
        self.contents[buffer.0 as usize]
    }

    /// Elements in a row of a buffer of rows.
    pub fn width(&self, buffer: Buffer) -> usize {
        match self.contents(buffer) {
            Contents::Rows { width } | Contents::Row { width } => width,
            Contents::Activations { columns, .. } => columns,
        }
    }

    fn range(&self, buffer: Option<Buffer>, tokens: usize) -> Range<usize> {
        let Some(buffer) = buffer else { return 0..0 };
        let start = self.offsets[buffer.0 as usize] / size_of::<f32>();
        start..start + self.contents(buffer).len(tokens)
    }

    /// The contents of buffers for `tokens` tokens; of `None`, nothing.
    ///
    /// # Panics
    /// If two of them overlap: the layout then let them share memory while both are in use. If they have no room for as
    /// many tokens.
    pub fn slices_of<const N: usize>(&mut self, tokens: usize, buffers: [Option<Buffer>; N]) -> [&mut [f32]; N] {
        assert!(tokens <= self.tokens, "{tokens} tokens in buffers of {}", self.tokens);
        let ranges = buffers.map(|buffer| self.range(buffer, tokens));
        self.memory.get_disjoint_mut(ranges).expect("buffers in use at the same time lie apart")
    }

    /// As [`Arena::slices_of`] where all are there.
    pub fn slices<const N: usize>(&mut self, tokens: usize, buffers: [Buffer; N]) -> [&mut [f32]; N] {
        self.slices_of(tokens, buffers.map(Some))
    }
}
