//! Which tickets are open and how the others ended. Another thread may see an event before the one that asked knows the
//! ticket.

use std::collections::{HashMap, HashSet};

use layerline::Status;
use layerline::model::{Event, EventKind};

/// What is allowed to end a ticket, besides success and being cancelled.
pub const PREFETCH: &[Status] = &[Status::Cancelled, Status::MemoryBudget];
pub const PASS: &[Status] = &[Status::Cancelled];

#[derive(Default)]
pub struct Book {
    open: HashMap<u64, &'static [Status]>,
    early: HashSet<u64>,
    done: HashMap<u64, Option<Status>>,
}

impl Book {
    pub fn issued(&mut self, ticket: u64, failures: &'static [Status]) {
        if self.early.remove(&ticket) {
            assert_ended(ticket, self.done[&ticket], failures);
        } else {
            assert!(self.open.insert(ticket, failures).is_none(), "ticket {ticket} was given out twice");
        }
    }

    pub fn take(&mut self, event: Event) {
        if event.kind != EventKind::Done {
            return;
        }
        let ticket = event.ticket;
        assert!(self.done.insert(ticket, event.failure).is_none(), "ticket {ticket} was done twice");
        match self.open.remove(&ticket) {
            Some(failures) => assert_ended(ticket, event.failure, failures),
            None => _ = self.early.insert(ticket),
        }
    }

    /// How the ticket ended, if its event has been taken.
    pub fn outcome(&self, ticket: u64) -> Option<Option<Status>> {
        self.done.get(&ticket).copied()
    }

    pub fn is_settled(&self) -> bool {
        self.open.is_empty()
    }

    pub fn assert_complete(&self) {
        assert!(self.open.is_empty(), "not done: {:?}", self.open.keys());
        assert!(self.early.is_empty(), "events of tickets that nobody has: {:?}", self.early);
    }

    pub fn count(&self) -> usize {
        self.open.len() + self.done.len()
    }
}

fn assert_ended(ticket: u64, failure: Option<Status>, allowed: &[Status]) {
    assert!(failure.is_none_or(|f| allowed.contains(&f)), "ticket {ticket} ended with {failure:?}");
}
