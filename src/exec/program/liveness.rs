//! When buffers are in use, and where each lies so that those in use at the same time do not overlap.
//!
//! A buffer lives from the step that first writes it to the last one that uses it. Buffers whose lives do not overlap may
//! share memory.

use super::{ALIGNMENT, Buffer, Program, Step};
use crate::order;

/// When a buffer is in use, and what it takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Life {
    /// The first and the last step that use it, bodies counted too. A buffer that no step uses has `first > last`.
    pub first: u32,
    pub last: u32,
    pub bytes: usize,
}

impl Life {
    pub fn overlaps(&self, other: &Life) -> bool {
        self.first <= other.last && other.first <= self.last
    }
}

/// Where each buffer begins, in bytes, and what they take together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placement {
    pub offsets: Vec<usize>,
    pub bytes: usize,
}

/// When the buffers of a program are in use, in chunks of `tokens` tokens.
pub fn lives(program: &Program, tokens: usize) -> Vec<Life> {
    let bytes = |b: usize| program.buffers[b].len(tokens).saturating_mul(size_of::<f32>());
    let none = |b| Life { first: u32::MAX, last: 0, bytes: bytes(b) };
    let mut lives: Vec<Life> = (0..program.buffers.len()).map(none).collect();
    walk(&program.steps, &mut 0, &mut lives);
    lives
}

fn walk(steps: &[Step], at: &mut u32, lives: &mut [Life]) {
    for step in steps {
        for (Buffer(buffer), _) in step.buffers() {
            let life = &mut lives[buffer as usize];
            life.first = life.first.min(*at);
            life.last = life.last.max(*at);
        }
        let start = *at;
        *at += 1;
        walk(step.body(), at, lives);
        // A body runs several times: what was there before it is still needed when it runs again.
        let end = *at - 1;
        for life in lives.iter_mut().filter(|life| end > start && life.first <= start && life.last > start) {
            life.last = life.last.max(end);
        }
    }
}

/// Places buffers, the largest first, each in the lowest gap that those alive with it leave.
pub fn place(lives: &[Life]) -> Placement {
    let size = |life: &Life| life.bytes.next_multiple_of(ALIGNMENT);
    let mut order: Vec<usize> = (0..lives.len()).filter(|&i| lives[i].first <= lives[i].last).collect();
    order::sort_indices(&mut order, &mut |a, b| {
        lives[b].bytes.cmp(&lives[a].bytes).then(lives[a].first.cmp(&lives[b].first))
    });
    let mut placement = Placement { offsets: vec![0; lives.len()], bytes: 0 };
    let mut placed: Vec<usize> = Vec::with_capacity(order.len());
    let mut taken: Vec<(usize, usize)> = Vec::new();
    for i in order {
        taken.clear();
        let others = placed.iter().filter(|&&other| lives[other].overlaps(&lives[i]));
        taken.extend(others.map(|&other| (placement.offsets[other], size(&lives[other]))));
        taken.sort_unstable();
        let mut offset = 0;
        for &(start, bytes) in &taken {
            if offset + size(&lives[i]) <= start {
                break;
            }
            offset = offset.max(start + bytes);
        }
        placement.offsets[i] = offset;
        placement.bytes = placement.bytes.max(offset + size(&lives[i]));
        placed.push(i);
    }
    placement
}
