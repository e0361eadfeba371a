//! What the host asked for: its tickets, the pages they protect, and the reads under way.

use std::collections::BTreeSet;

use super::*;

pub struct Requests {
    pub(super) tickets: Tickets,
    /// Reads under way or waiting for a reader.
    pub(super) outstanding: usize,
    /// Ring bytes for layers that the host prefetches. 0 until it asks for one: a deeper ring keeps fewer pages, and every
    /// pass of a host that never prefetches would pay for it.
    pub(super) host_depth: u64,
    /// Takes turns between the host's requests and reading ahead, so that neither starves.
    pub(super) host_next: bool,
    /// Tickets and the pages they keep until these are used or the ticket is cancelled.
    protected: BTreeSet<(u64, u32)>,
}

impl Requests {
    pub(super) fn new() -> Requests {
        Requests {
            tickets: Tickets::default(),
            outstanding: 0,
            host_depth: 0,
            host_next: false,
            protected: BTreeSet::new(),
        }
    }

    /// Pages that tickets keep; one for each ticket that does.
    pub(super) fn protected_pages(&self) -> impl Iterator<Item = usize> {
        self.protected.iter().map(|&(_, p)| p as usize)
    }
}

impl State {
    pub fn prefetch(&mut self, fixed: &Fixed, first: u32, count: u32) -> Result<u64> {
        let layers = (first..first + count)
            .map(|layer| LayerRequest {
                layer,
                queued: fixed.schedule.layer_pages(layer).map(|p| p as u32).collect(),
                loading: Vec::new(),
                bytes: 0,
                failure: None,
            })
            .collect();
        let id = self.requests.tickets.open(layers)?;
        // The plan that follows from it is made by the next thread that looks for reads.
        self.requests.host_depth = self.requests.host_depth.max(self.sizes.host_bytes);
        self.stats.prefetch_requests += 1;
        Ok(id)
    }

    pub fn tickets(&self) -> &Tickets {
        &self.requests.tickets
    }

    pub fn tickets_mut(&mut self) -> &mut Tickets {
        &mut self.requests.tickets
    }

    /// Reads under way or waiting for a reader.
    pub fn outstanding(&self) -> usize {
        self.requests.outstanding
    }

    /// Keeps a page for a ticket, unless that would take room that passes need to get on.
    pub(super) fn protect(&mut self, fixed: &Fixed, p: usize, ticket: u64) {
        let slot = &mut self.pages.slots[p];
        if let Some(Place::Ring(frame)) = &slot.place
            && frame.offset() >= self.sizes.min_ring
            && self.requests.protected.insert((ticket, p as u32))
        {
            slot.protectors.push(ticket);
            self.reindex(fixed, p);
        }
    }

    /// Ends what protects a page. The caller brings its index up to date.
    pub(super) fn clear_protectors(&mut self, p: usize) {
        for ticket in self.pages.slots[p].protectors.drain(..) {
            self.requests.protected.remove(&(ticket, p as u32));
        }
    }

    /// Ends a ticket's protection of its pages.
    pub fn unprotect(&mut self, fixed: &Fixed, ticket: u64) {
        while let Some(&(t, page)) = self.requests.protected.range((ticket, 0)..).next()
            && t == ticket
        {
            self.requests.protected.remove(&(t, page));
            self.pages.slots[page as usize].protectors.retain(|&t| t != ticket);
            self.reindex(fixed, page as usize);
        }
    }
}
