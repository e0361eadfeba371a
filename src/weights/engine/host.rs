//! What a host asks of the engine: layers, tickets and events, and the profile of use. None of it blocks but
//! [`Engine::wait`].

use super::*;
use crate::sys::thread::THREADS;
use crate::weights::experts::Rarity;

impl Engine {
    /// Asks for layers `first` to `first + count`; returns at once.
    pub fn prefetch(&self, first: u32, count: u32) -> Result<u64> {
        let shared = &*self.shared;
        let layers = shared.fixed.schedule.layer_count;
        if count == 0 || first.checked_add(count).is_none_or(|end| end > layers) {
            return Err(Error::invalid(format!("layers {first} to {first} + {count} of a model with {layers} layers")));
        }
        shared.check_process()?;
        if shared.queue.is_none() {
            return Err(Error::unsupported("this model was opened without prefetching: every load is on demand"));
        }
        let ticket = shared.state.lock().prefetch(&shared.fixed, first, count)?;
        shared.wake_loader();
        Ok(ticket)
    }

    /// Begins with a profile of use, which has as many entries as the schedule has experts: the loader reads the likeliest
    /// ones into free frames of the cache while nothing else is to be read. To be called before the first sweep.
    pub fn expect_experts(&self, profile: &[Rarity]) -> Result<()> {
        self.shared.state.lock().expect_experts(profile)?;
        self.shared.wake_loader();
        Ok(())
    }

    /// How likely each expert is to be used, in the order of the schedule.
    pub fn expert_profile(&self) -> Result<Vec<Rarity>> {
        self.shared.state.lock().expert_profile()
    }

    /// A ticket for a submitted pass, which `interrupt` ends.
    pub fn open_pass(&self, interrupt: &Arc<Interrupt>) -> Result<u64> {
        self.shared.check_process()?;
        self.shared.state.lock().tickets_mut().open_pass(interrupt.clone())
    }

    /// A submitted pass has ended: cancelling its ticket does nothing from now on.
    pub fn pass_ended(&self, ticket: u64) {
        self.shared.state.lock().tickets_mut().pass_ended(ticket);
    }

    /// Posts the DONE of a submitted pass that has ended.
    pub fn pass_done(&self, ticket: u64, failure: Option<Error>, bytes: u64) {
        let mut state = self.shared.state.lock();
        state.tickets_mut().pass_done(ticket, failure, bytes);
        self.shared.signal_events(&state);
    }

    /// Ends a prefetch: what is not read yet is not read for it, what is ready is no longer kept for it. Of a submitted
    /// pass it raises the interrupt.
    pub fn cancel(&self, ticket: u64) -> Result<()> {
        let mut state = self.shared.state.lock();
        if !state.tickets().was_issued(ticket) {
            return Err(Error::not_found(format!("there is no ticket {ticket}")));
        }
        if let Some(interrupt) = state.tickets().interrupt_of(ticket) {
            // Under the lock, under which passes end too: the pass that this ends is the ticket's own.
            interrupt.raised.fetch_add(1, Ordering::SeqCst);
            self.shared.changed.notify_all();
        }
        state.tickets_mut().cancel(ticket);
        state.unprotect(&self.shared.fixed, ticket);
        self.shared.signal_events(&state);
        drop(state);
        self.shared.gate.ring();
        self.shared.wake_loader();
        Ok(())
    }

    /// How the request of this ticket failed; `Ok` where it has not.
    ///
    /// # Errors
    /// The request's own; `NOT_FOUND`: there is no such ticket, or it is too old to tell.
    pub fn ticket_error(&self, ticket: u64) -> Result<()> {
        self.shared.state.lock().tickets().outcome(ticket)
    }

    /// Takes up to `cap` waiting events.
    pub fn poll(&self, events: &mut Vec<Event>, cap: usize) {
        self.take_events(&mut self.shared.state.lock(), events, cap);
    }

    /// Waits for an event, then takes up to `cap`. `None`: without limit.
    pub fn wait(&self, timeout: Option<Duration>, events: &mut Vec<Event>, cap: usize) {
        if self.shared.check_process().is_err() {
            // No event can come here.
            return;
        }
        let deadline = timeout.and_then(|t| Instant::now().checked_add(t));
        let mut state = self.shared.state.lock();
        // Without threads none comes while this waits.
        while THREADS && state.tickets().events.is_empty() {
            match deadline {
                None => self.shared.events.wait(&mut state),
                Some(at) if self.shared.events.wait_until(&mut state, at).timed_out() => break,
                Some(_) => {}
            }
        }
        self.take_events(&mut state, events, cap);
    }

    fn take_events(&self, state: &mut MutexGuard<'_, State>, events: &mut Vec<Event>, cap: usize) {
        let count = cap.min(state.tickets().events.len());
        events.extend(state.tickets_mut().events.drain(..count));
        if state.tickets().events.is_empty() {
            self.shared.notifier.silence();
        }
    }

    /// Ready while events wait: a descriptor, or on Windows a HANDLE.
    pub fn event_handle(&self) -> Option<isize> {
        self.shared.notifier.handle()
    }

    pub fn layer_state(&self, layer: u32) -> Result<LayerState> {
        let layers = self.schedule().layer_count;
        if layer >= layers {
            return Err(Error::invalid(format!("layer {layer} of a model with {layers} layers")));
        }
        Ok(self.shared.state.lock().layer_state(layer))
    }
}
