//! Tickets of the host's requests and the events that answer them.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use super::engine::Interrupt;
use crate::error::{Error, Result, Status};
use crate::weights::{Event, EventKind};

/// More events than this wait for nobody: a host that never polls is told so instead of memory growing for ever.
const MOST_WAITING: usize = 65_536;

/// Errors of failed requests that are kept to be asked for.
const MOST_FAILURES: usize = 256;

/// One layer of a prefetch.
pub struct LayerRequest {
    pub layer: u32,
    /// Pages not yet asked for, in schedule order.
    pub queued: VecDeque<u32>,
    /// Pages being read.
    pub loading: Vec<u32>,
    pub bytes: u64,
    pub failure: Option<Error>,
}

impl LayerRequest {
    pub fn finished(&self) -> bool {
        self.queued.is_empty() && self.loading.is_empty()
    }
}

/// A prefetch that is not finished yet.
pub struct Ticket {
    pub id: u64,
    pub since: Instant,
    pub layers: VecDeque<LayerRequest>,
    bytes: u64,
    failure: Option<Error>,
}

/// A submitted pass whose DONE is not posted yet.
struct Pass {
    id: u64,
    since: Instant,
    /// Ends it, as long as it can be ended.
    interrupt: Option<Arc<Interrupt>>,
}

/// Unfinished tickets, oldest first, and the events nobody has taken yet.
#[derive(Default)]
pub struct Tickets {
    pub open: VecDeque<Ticket>,
    passes: Vec<Pass>,
    pub events: VecDeque<Event>,
    last_id: u64,
    /// Events that open tickets will still post.
    promised: usize,
    /// Why requests failed, oldest first, and the highest ticket whose failure is no longer among them.
    failures: VecDeque<(u64, Error)>,
    forgotten: u64,
}

impl Tickets {
    pub fn open(&mut self, layers: VecDeque<LayerRequest>) -> Result<u64> {
        let id = self.issue(layers.len() + 1)?;
        self.open.push_back(Ticket { id, since: Instant::now(), layers, bytes: 0, failure: None });
        Ok(id)
    }

    /// A ticket for a pass that `interrupt` ends.
    pub fn open_pass(&mut self, interrupt: Arc<Interrupt>) -> Result<u64> {
        let id = self.issue(1)?;
        self.passes.push(Pass { id, since: Instant::now(), interrupt: Some(interrupt) });
        Ok(id)
    }

    /// What ends the pass of this ticket; `None` where it has ended, or is no pass.
    pub fn interrupt_of(&self, id: u64) -> Option<&Interrupt> {
        self.passes.iter().find(|p| p.id == id)?.interrupt.as_deref()
    }

    /// The pass has ended: what its interrupt ends from now on is another one.
    pub fn pass_ended(&mut self, id: u64) {
        if let Some(pass) = self.passes.iter_mut().find(|p| p.id == id) {
            pass.interrupt = None;
        }
    }

    /// Posts that the pass of this ticket is done.
    pub fn pass_done(&mut self, id: u64, failure: Option<Error>, bytes: u64) {
        if let Some(at) = self.passes.iter().position(|p| p.id == id) {
            let pass = self.passes.swap_remove(at);
            self.promised -= 1;
            let elapsed_ns = pass.since.elapsed().as_nanos() as u64;
            let status = failure.as_ref().map(Error::status);
            self.events.push_back(Event {
                ticket: id,
                kind: EventKind::Done,
                failure: status,
                layer: 0,
                bytes,
                elapsed_ns,
            });
            self.keep_failure(id, failure);
        }
    }

    /// The next ticket's number, with room for the `promise` events it will post.
    fn issue(&mut self, promise: usize) -> Result<u64> {
        if self.events.len() + self.promised + promise > MOST_WAITING {
            return Err(Error::new(
                Status::Busy,
                format!(
                    "{} events wait to be polled and {} more are on the way; at most {MOST_WAITING} may",
                    self.events.len(),
                    self.promised
                ),
            ));
        }
        self.promised += promise;
        self.last_id += 1;
        Ok(self.last_id)
    }

    fn keep_failure(&mut self, id: u64, failure: Option<Error>) {
        let Some(failure) = failure else { return };
        if self.failures.len() == MOST_FAILURES
            && let Some((oldest, _)) = self.failures.pop_front()
        {
            self.forgotten = self.forgotten.max(oldest);
        }
        self.failures.push_back((id, failure));
    }

    /// How a request failed; `Ok` where it is under way or has succeeded.
    ///
    /// # Errors
    /// The request's own; `NOT_FOUND`: no such ticket, or too many have failed since.
    pub fn outcome(&self, id: u64) -> Result<()> {
        if !self.was_issued(id) {
            return Err(Error::not_found(format!("there is no ticket {id}")));
        }
        if let Some((_, failure)) = self.failures.iter().find(|(ticket, _)| *ticket == id) {
            return Err(failure.clone());
        }
        let is_open = self.open.iter().any(|ticket| ticket.id == id) || self.passes.iter().any(|pass| pass.id == id);
        if id <= self.forgotten && !is_open {
            let text = format!("how ticket {id} ended is no longer known: errors of {MOST_FAILURES} requests are kept");
            return Err(Error::not_found(text));
        }
        Ok(())
    }

    pub fn was_issued(&self, id: u64) -> bool {
        (1..=self.last_id).contains(&id)
    }

    /// Posts what has been finished. Returns how many layers failed.
    pub fn settle(&mut self) -> u64 {
        let mut failures = 0;
        let mut failed = Vec::new();
        let (events, promised) = (&mut self.events, &mut self.promised);
        self.open.retain_mut(|ticket| {
            let elapsed_ns = ticket.since.elapsed().as_nanos() as u64;
            while let Some(at) = ticket.layers.iter().position(LayerRequest::finished) {
                let Some(layer) = ticket.layers.remove(at) else { break };
                failures += u64::from(layer.failure.is_some());
                ticket.bytes += layer.bytes;
                let status = layer.failure.as_ref().map(Error::status);
                ticket.failure = ticket.failure.take().or(layer.failure);
                *promised -= 1;
                events.push_back(Event {
                    ticket: ticket.id,
                    kind: EventKind::Layer,
                    failure: status,
                    layer: layer.layer,
                    bytes: layer.bytes,
                    elapsed_ns,
                });
            }
            if ticket.layers.is_empty() {
                *promised -= 1;
                events.push_back(done(ticket, ticket.failure.as_ref().map(Error::status), elapsed_ns));
                failed.extend(ticket.failure.take().map(|failure| (ticket.id, failure)));
            }
            !ticket.layers.is_empty()
        });
        for (id, failure) in failed {
            self.keep_failure(id, Some(failure));
        }
        failures
    }

    /// Ends a prefetch with CANCELLED; its unfinished layers post nothing.
    pub fn cancel(&mut self, id: u64) {
        if let Some(at) = self.open.iter().position(|t| t.id == id)
            && let Some(ticket) = self.open.remove(at)
        {
            self.promised -= ticket.layers.len() + 1;
            let elapsed_ns = ticket.since.elapsed().as_nanos() as u64;
            self.events.push_back(done(&ticket, Some(Status::Cancelled), elapsed_ns));
            self.keep_failure(id, Some(Error::cancelled()));
        }
    }

    /// Tells every request that waits for `page` how its reading ended.
    pub fn page_loaded(&mut self, page: u32, bytes: u64, failure: Option<&Error>) {
        for layer in self.open.iter_mut().flat_map(|t| t.layers.iter_mut()) {
            if let Some(at) = layer.loading.iter().position(|&p| p == page) {
                layer.loading.swap_remove(at);
                layer.bytes += bytes;
                layer.failure = layer.failure.take().or_else(|| failure.cloned());
            }
        }
    }
}

fn done(ticket: &Ticket, failure: Option<Status>, elapsed_ns: u64) -> Event {
    Event { ticket: ticket.id, kind: EventKind::Done, failure, layer: 0, bytes: ticket.bytes, elapsed_ns }
}
