//! Which page of the ring makes room for another. Everything that decides it stands behind [`Evictable`].

use std::collections::BTreeSet;

use super::cursor::{Cursor, Segment};

/// Pages in ascending order: those of the cyclic schedule and experts that nobody is routed to by number, routed ones by
/// their place.
#[derive(Default)]
pub struct OrderedPages {
    plain: BTreeSet<u32>,
    routed: BTreeSet<(i64, u32)>,
}

impl OrderedPages {
    pub fn insert(&mut self, p: usize, place: Option<i64>) {
        match place {
            Some(place) => self.routed.insert((place, p as u32)),
            None => self.plain.insert(p as u32),
        };
    }

    pub fn remove(&mut self, p: usize, place: Option<i64>) {
        match place {
            Some(place) => self.routed.remove(&(place, p as u32)),
            None => self.plain.remove(&(p as u32)),
        };
    }

    /// The first page at or after `from` among those before `to`, by number.
    pub fn first_of(&self, from: usize, to: usize) -> Option<usize> {
        if from >= to { None } else { self.plain.range(from as u32..to as u32).next().map(|&p| p as usize) }
    }

    /// The first routed page with a place of at least `from`, and its place.
    pub fn first_routed(&self, from: i64) -> Option<(i64, usize)> {
        self.routed.range((from, 0)..).next().map(|&(place, p)| (place, p as usize))
    }

    fn last_in(&self, segment: &Segment) -> Option<usize> {
        match segment {
            Segment::Cyclic(range) if range.is_empty() => None,
            Segment::Cyclic(range) => {
                self.plain.range(range.start as u32..range.end as u32).next_back().map(|&p| p as usize)
            }
            Segment::Routed => self.routed.last().map(|&(_, p)| p as usize),
        }
    }

    /// The page that the sweep uses last.
    fn last(&self, cursor: &Cursor, sweep_len: usize) -> Option<usize> {
        let other = self.plain.range(sweep_len as u32..).next_back().map(|&p| p as usize);
        other.or_else(|| cursor.order(sweep_len).iter().rev().find_map(|segment| self.last_in(segment)))
    }

    pub fn iter(&self) -> impl Iterator<Item = usize> {
        self.plain.iter().copied().chain(self.routed.iter().map(|&(_, p)| p)).map(|p| p as usize)
    }
}

/// The pages that may be evicted from the ring: ready, in nobody's use, protected for nobody.
#[derive(Default)]
pub struct Evictable {
    all: OrderedPages,
    /// Those that end above the part of the ring that belongs to passes alone.
    above: OrderedPages,
}

impl Evictable {
    pub fn insert(&mut self, p: usize, place: Option<i64>, above: bool) {
        self.all.insert(p, place);
        if above {
            self.above.insert(p, place);
        }
    }

    pub fn remove(&mut self, p: usize, place: Option<i64>, above: bool) {
        self.all.remove(p, place);
        if above {
            self.above.remove(p, place);
        }
    }

    /// Those that end above the part of the ring that belongs to passes alone.
    pub fn above(&self) -> impl Iterator<Item = usize> {
        self.above.iter()
    }

    /// The page that is needed last, if it is needed after more than `near` others. `above`: only among those that end
    /// above the passes' own part of the ring. O(log n).
    pub fn victim(&self, cursor: &Cursor, sweep_len: usize, near: Option<usize>, above: bool) -> Option<usize> {
        let pages = if above { &self.above } else { &self.all };
        let last = pages.last(cursor, sweep_len)?;
        near.is_none_or(|near| cursor.distance(sweep_len, last) > near).then_some(last)
    }

    pub fn iter(&self) -> impl Iterator<Item = usize> {
        self.all.iter()
    }
}
