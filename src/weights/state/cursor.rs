//! Where the sweep is: the page it uses, the pages of experts it was routed to, and the order of what follows.

use std::collections::{HashMap, VecDeque};
use std::ops::Range;

use crate::weights::schedule::Schedule;

/// The sweep's position in the cyclic schedule, and the sweeps that wait for their turn.
pub struct Cursor {
    /// The page of the cyclic schedule that the sweep uses or needs next.
    position: usize,
    /// Where the running sweep ends.
    end: usize,
    sweeping: bool,
    /// Pages of experts that the sweep was routed to and has not released, in the order in which it takes them.
    routed: VecDeque<usize>,
    /// For each routed page its place: places ascend in the order of `routed`.
    places: HashMap<usize, i64>,
    /// The place of the first routed page.
    first_place: i64,
    /// The page of the cyclic schedule before which the routed pages are taken.
    route_point: usize,
    /// Sweeps waiting for their turn, first come first served.
    turns: VecDeque<u64>,
    last_turn: u64,
}

/// A run of pages that the sweep uses one after the other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Segment {
    /// Pages of the cyclic schedule, by number.
    Cyclic(Range<usize>),
    /// The pages of experts that the sweep was routed to.
    Routed,
}

impl Cursor {
    pub fn new(end: usize) -> Cursor {
        Cursor {
            position: 0,
            end,
            sweeping: false,
            routed: VecDeque::new(),
            places: HashMap::new(),
            first_place: 0,
            route_point: 0,
            turns: VecDeque::new(),
            last_turn: 0,
        }
    }

    // --- turns ------------------------------------------------------------------------------------------------------

    /// Takes a place in the queue of sweeps.
    pub fn queue_turn(&mut self) -> u64 {
        self.last_turn += 1;
        self.turns.push_back(self.last_turn);
        self.last_turn
    }

    pub fn leave_queue(&mut self, turn: u64) {
        self.turns.retain(|&t| t != turn);
    }

    /// Whether the sweep of this turn can begin.
    pub fn is_first(&self, turn: u64) -> bool {
        !self.sweeping && self.turns.front() == Some(&turn)
    }

    #[cfg(test)]
    pub fn waiting_sweeps(&self) -> usize {
        self.turns.len()
    }

    // --- the sweep --------------------------------------------------------------------------------------------------
    // Functions that change places return the pages whose place has changed.

    pub fn begin(&mut self, end: usize) -> Vec<usize> {
        self.sweeping = true;
        self.start_over(end)
    }

    pub fn finish(&mut self, end: usize) -> Vec<usize> {
        self.sweeping = false;
        self.start_over(end)
    }

    fn start_over(&mut self, end: usize) -> Vec<usize> {
        self.position = 0;
        self.end = end;
        self.route_point = 0;
        self.clear_routed()
    }

    fn clear_routed(&mut self) -> Vec<usize> {
        self.places.clear();
        std::mem::take(&mut self.routed).into()
    }

    /// The sweep takes these pages at the next route point, in this order.
    pub fn route(&mut self, schedule: &Schedule, pages: impl Iterator<Item = usize>) -> Vec<usize> {
        let next = schedule.route_points.partition_point(|&point| (point as usize) < self.position);
        self.route_point = schedule.route_points.get(next).map_or(self.position, |&point| point as usize);
        let mut changed = self.clear_routed();
        self.routed.extend(pages);
        self.first_place = 0;
        for (place, &p) in (0..).zip(&self.routed) {
            self.places.entry(p).or_insert(place);
        }
        changed.extend(&self.routed);
        changed
    }

    /// The sweep takes page `p` now.
    pub fn move_to(&mut self, schedule: &Schedule, p: usize) -> Vec<usize> {
        if p < schedule.sweep_len {
            self.position = p;
            return if p >= self.route_point { self.clear_routed() } else { Vec::new() };
        }
        self.route_point = self.position;
        if !self.places.contains_key(&p) {
            self.first_place -= 1;
            self.routed.push_front(p);
            self.places.insert(p, self.first_place);
            return vec![p];
        }
        let mut changed = Vec::new();
        while self.routed.front() != Some(&p) {
            changed.extend(self.pop_routed());
        }
        changed
    }

    fn pop_routed(&mut self) -> Option<usize> {
        let p = self.routed.pop_front()?;
        if self.places.get(&p) == Some(&self.first_place) {
            self.places.remove(&p);
        }
        self.first_place += 1;
        Some(p)
    }

    /// The sweep is done with page `p`.
    pub fn pass_by(&mut self, p: usize) {
        if self.routed.front() == Some(&p) {
            self.pop_routed();
        } else if self.position == p {
            self.position = p + 1;
        }
    }

    pub fn sweeping(&self) -> bool {
        self.sweeping
    }

    pub fn has_routed(&self) -> bool {
        !self.routed.is_empty()
    }

    /// The page whose layer counts as the present one; `None`: the sweep is at its end.
    pub fn present(&self) -> Option<usize> {
        (self.position < self.end).then_some(self.position)
    }

    /// The page that the running sweep uses or needs next.
    pub fn needed(&self) -> Option<usize> {
        let here = if self.position < self.route_point { None } else { self.routed.front().copied() };
        here.or(self.present()).filter(|_| self.sweeping)
    }

    /// The place of a routed page among the others.
    pub fn place_of(&self, p: usize) -> Option<i64> {
        if self.places.is_empty() { None } else { self.places.get(&p).copied() }
    }

    /// How many pages the sweep uses before this one; the next sweep starts at the top. Experts that nobody is routed to
    /// come last.
    pub fn distance(&self, sweep_len: usize, p: usize) -> usize {
        let before_route_point = self.route_point.saturating_sub(self.position);
        if p >= sweep_len {
            let place = self.place_of(p);
            return place.map_or(usize::MAX, |place| before_route_point + (place - self.first_place) as usize);
        }
        let ahead = if (self.position..self.end).contains(&p) {
            p - self.position
        } else {
            self.end.max(self.position) - self.position + p
        };
        if ahead < before_route_point { ahead } else { ahead + self.routed.len() }
    }

    /// All pages of the cyclic schedule and the routed ones, in the order in which the sweep and the next one use them;
    /// pages beyond the end of the sweep come last.
    pub fn order(&self, sweep_len: usize) -> [Segment; 5] {
        let end = self.end.max(self.position);
        let split = self.route_point.clamp(self.position, end);
        [
            Segment::Cyclic(self.position..split),
            Segment::Routed,
            Segment::Cyclic(split..end),
            Segment::Cyclic(0..self.position),
            Segment::Cyclic(end..sweep_len),
        ]
    }

    /// Whether the sweep takes pages before `p` of which it is not known yet which they are.
    pub fn is_beyond_route_point(&self, schedule: &Schedule, p: usize) -> bool {
        let points = &schedule.route_points;
        let here = self.position.max(self.route_point);
        match points.get(points.partition_point(|&point| point as usize <= here)) {
            Some(&next) => p >= next as usize || p < self.position,
            // The next sweep comes to the first route point again.
            None => p < self.position && points.first().is_some_and(|&first| p >= first as usize),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::weights::testing::schedule::{ROUTED, schedule_of};

    #[test]
    fn distances_ascend_in_the_order_of_use_at_every_position() {
        let s = schedule_of(&[(0, 4096, 16), (ROUTED, 4096, 16), (0, 4096, 16), (1, 4096, 16), (1 | ROUTED, 4096, 16)]);
        let experts: Vec<usize> = (s.sweep_len..s.routed_end).rev().collect();
        for (end, at) in (1..=s.sweep_len).flat_map(|end| (0..end).map(move |at| (end, at))) {
            let mut cursor = Cursor::new(s.sweep_len);
            cursor.begin(end);
            cursor.move_to(&s, at);
            cursor.route(&s, experts.iter().copied());
            let mut pages = Vec::new();
            for segment in cursor.order(s.sweep_len) {
                match segment {
                    Segment::Cyclic(range) => pages.extend(range),
                    Segment::Routed => pages.extend(&experts),
                }
            }
            assert_eq!(pages.len(), s.routed_end);
            let distances = |p: &usize| cursor.distance(s.sweep_len, *p);
            assert!(pages.iter().map(distances).is_sorted(), "end {end}, at {at}: {pages:?}");
        }
    }
}
