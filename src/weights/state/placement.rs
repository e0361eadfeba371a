//! Where each page is, and indexes that are kept up to date with every change, so that no decision looks at all pages.

use super::eviction::{Evictable, OrderedPages};
use super::*;
use crate::sys::heap;

pub(super) enum Place {
    /// A frame of its own; without memory where the file is mapped and only the accounting is needed.
    Own(Option<Frame>),
    /// A part of a frame of the cache of experts, and that frame's number; without memory as above.
    Cached { frame: u32, part: Option<Frame> },
    /// A frame of the ring.
    Ring(Frame),
}

impl Place {
    pub fn frame(&mut self) -> Option<&mut Frame> {
        match self {
            Place::Own(frame) | Place::Cached { part: frame, .. } => frame.as_mut(),
            Place::Ring(frame) => Some(frame),
        }
    }
}

pub(super) enum Presence {
    Absent,
    Loading { left: usize, failure: Option<Error> },
    Ready,
}

pub(super) struct Slot {
    pub presence: Presence,
    pub place: Option<Place>,
    /// A frame of its own that waits for the page to be read.
    pub reserved: Option<Frame>,
    /// Its expert has a frame of the cache.
    pub cached: bool,
    /// Sweeps and row readers that use the page now.
    pub users: u32,
    /// Tickets that keep the page until it is used or they are cancelled.
    pub protectors: Vec<u64>,
    /// Why the last reading failed; cleared when it is tried again.
    pub failure: Option<Error>,
    indexed: Indexed,
}

/// How a page stands in the indexes.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
struct Indexed {
    /// Absent, and read sooner or later whatever passes are routed to.
    expected: bool,
    /// Absent, and not known to fail.
    wanted: bool,
    pinned: bool,
    evictable: bool,
    /// Ends above the passes' own part of the ring.
    above: bool,
    /// Above it, protected for nobody, and in use or on its way: its frame becomes free by itself.
    busy: bool,
    place: Option<i64>,
    standing: Standing,
}

/// What a page adds to its layer's state.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Standing {
    #[default]
    Pinned,
    Ready,
    Absent,
    Loading,
}

/// Pages of a layer that every pass uses, by their standing.
#[derive(Clone, Copy, Default)]
struct LayerCounts {
    counts: [u32; 4],
}

/// Which pages are meant.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Kinds {
    Both,
    /// Pages that stay.
    Pinned,
    /// Pages that pass through the ring.
    Passing,
}

/// All pages, and the indexes over them.
pub(super) struct Placement {
    pub slots: Vec<Slot>,
    pub residency: Arc<Residency>,
    /// Pages to be read that stay.
    pub wanted_pinned: OrderedPages,
    /// Pages to be read that pass through the ring.
    pub wanted_passing: OrderedPages,
    pub evictable: Evictable,
    /// Pages above the passes' own part of the ring whose frames become free by themselves.
    pub busy: usize,
    /// Pages of the cyclic schedule, or to be kept, that are neither there nor on their way.
    pub absent: usize,
    layers: Vec<LayerCounts>,
}

impl Placement {
    pub fn new(schedule: &Schedule) -> Result<Placement> {
        let slot = || Slot {
            presence: Presence::Absent,
            place: None,
            reserved: None,
            cached: false,
            users: 0,
            protectors: Vec::new(),
            failure: None,
            indexed: Indexed::default(),
        };
        let count = schedule.pages.len();
        let mut layers = heap::filled(LayerCounts::default(), schedule.layer_count as usize, "the state of layers")?;
        for layer in 0..schedule.layer_count {
            layers[layer as usize].counts[Standing::default() as usize] = schedule.layer_pages(layer).len() as u32;
        }
        Ok(Placement {
            slots: heap::collected(std::iter::repeat_with(slot).take(count), "the state of pages")?,
            residency: Arc::new(Residency {
                pinned: heap::filled(false, count, "the plan of pages")?,
                pinned_bytes: 0,
                cached: heap::filled(0, schedule.expert_groups.len(), "the plan of experts")?,
                passing: heap::filled(0, schedule.expert_groups.len(), "the plan of experts")?,
                ring_bytes: 0,
                streamed_bytes: 0,
            }),
            wanted_pinned: OrderedPages::default(),
            wanted_passing: OrderedPages::default(),
            evictable: Evictable::default(),
            busy: 0,
            absent: 0,
            layers,
        })
    }

    /// Bytes of book-keeping per page, for the budget: its slot, its frame, its place in the plan, and entries of the
    /// indexes.
    pub const fn bytes_per_page() -> usize {
        size_of::<Slot>() + Frame::overhead_bytes() + 2 + 2 * 8
    }

    /// Brings the indexes up to date after a change of a page. `place`: among routed pages; `above`: whether it ends above
    /// the passes' own part of the ring.
    pub fn reindex(&mut self, schedule: &Schedule, p: usize, place: Option<i64>, above: bool) {
        let slot = &self.slots[p];
        let swept = p < schedule.sweep_len;
        let pinned = self.stays(p);
        let ready = matches!(slot.presence, Presence::Ready);
        let absent = matches!(slot.presence, Presence::Absent);
        let in_ring = matches!(slot.place, Some(Place::Ring(_)));
        let idle = ready && slot.users == 0;
        let unprotected = in_ring && slot.protectors.is_empty();
        let now = Indexed {
            expected: absent && (swept || pinned),
            wanted: absent && slot.failure.is_none() && (swept || pinned || place.is_some()),
            pinned,
            evictable: unprotected && idle,
            above: in_ring && above,
            busy: unprotected && above && !idle,
            place,
            standing: match slot.presence {
                Presence::Loading { .. } => Standing::Loading,
                Presence::Absent => Standing::Absent,
                Presence::Ready if pinned => Standing::Pinned,
                Presence::Ready => Standing::Ready,
            },
        };
        let before = std::mem::replace(&mut self.slots[p].indexed, now);
        if before == now {
            return;
        }
        if before.wanted {
            self.wanted(before.pinned).remove(p, before.place);
        }
        if now.wanted {
            self.wanted(now.pinned).insert(p, now.place);
        }
        if before.evictable {
            self.evictable.remove(p, before.place, before.above);
        }
        if now.evictable {
            self.evictable.insert(p, now.place, now.above);
        }
        self.busy = self.busy + usize::from(now.busy) - usize::from(before.busy);
        self.absent = self.absent + usize::from(now.expected) - usize::from(before.expected);
        if swept {
            let counts = &mut self.layers[schedule.pages[p].layer as usize].counts;
            counts[before.standing as usize] -= 1;
            counts[now.standing as usize] += 1;
        }
    }

    /// Whether the page stays: by the plan, or with its expert.
    pub fn stays(&self, p: usize) -> bool {
        self.residency.pinned[p] || self.slots[p].cached
    }

    fn wanted(&mut self, pinned: bool) -> &mut OrderedPages {
        if pinned { &mut self.wanted_pinned } else { &mut self.wanted_passing }
    }

    /// The page to be read that the sweep uses first in a part of its order, from `from` on: a page's number, or the
    /// place of a routed one. Gives what to go on from. `kinds`: which are looked at.
    pub fn first_wanted(&self, part: &Segment, from: i64, kinds: Kinds) -> Option<(i64, usize)> {
        let first = |pages: &OrderedPages| match part {
            Segment::Cyclic(range) => {
                pages.first_of(range.start.max(from.max(0) as usize), range.end).map(|p| (p as i64, p))
            }
            Segment::Routed => pages.first_routed(from),
        };
        let pinned = if kinds == Kinds::Passing { None } else { first(&self.wanted_pinned) };
        let passing = if kinds == Kinds::Pinned { None } else { first(&self.wanted_passing) };
        [pinned, passing].into_iter().flatten().min()
    }

    pub fn layer_state(&self, layer: u32) -> LayerState {
        let counts = &self.layers[layer as usize].counts;
        let any = |standing: Standing| counts[standing as usize] > 0;
        if any(Standing::Loading) {
            LayerState::Loading
        } else if any(Standing::Absent) {
            LayerState::Absent
        } else if any(Standing::Ready) {
            LayerState::Ready
        } else {
            LayerState::Pinned
        }
    }
}
