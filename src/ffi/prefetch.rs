//! Prefetch, completion and statistics.

use std::time::Duration;

use super::boundary::{Caller, caller, versioned};
use super::error::{LAYERLINE_OK, layerline_error, layerline_status};
use super::model::layerline_model;
use super::options::io_number;
use crate::error::{Error, Result};
use crate::model::{Event, EventKind, LayerState, Model, Stats};

/// One layer of a prefetch is ready, or failed.
pub const LAYERLINE_EVENT_LAYER: u32 = 1;
/// A ticket is finished: all its layers, or its forward pass.
pub const LAYERLINE_EVENT_DONE: u32 = 2;

/// The layer is not in memory.
pub const LAYERLINE_LAYER_ABSENT: i32 = 0;
/// Reads of it are queued or in flight.
pub const LAYERLINE_LAYER_LOADING: i32 = 1;
/// All of it is in memory.
pub const LAYERLINE_LAYER_READY: i32 = 2;
/// All of it is in memory, and it stays there.
pub const LAYERLINE_LAYER_PINNED: i32 = 3;

/// A completion. Each is given out once, to the thread that polls or waits first.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct layerline_event {
    /// The ticket that the request gave.
    pub ticket: u64,
    /// LAYERLINE_EVENT_LAYER or LAYERLINE_EVENT_DONE.
    pub kind: u32,
    /// LAYERLINE_OK, or why it failed; `layerline_model_ticket_error` gives the sentence.
    pub status: layerline_status,
    /// Which layer, for LAYERLINE_EVENT_LAYER.
    pub layer: u32,
    /// Always 0.
    pub reserved: u32,
    /// Bytes read from storage for it. For a pass: while it ran, which includes what was read ahead for the next one.
    pub bytes: u64,
    /// Nanoseconds since the request.
    pub elapsed_ns: u64,
}

impl From<Event> for layerline_event {
    fn from(event: Event) -> layerline_event {
        layerline_event {
            ticket: event.ticket,
            kind: match event.kind {
                EventKind::Layer => LAYERLINE_EVENT_LAYER,
                EventKind::Done => LAYERLINE_EVENT_DONE,
            },
            status: event.failure.map_or(LAYERLINE_OK, |status| status as layerline_status),
            layer: event.layer,
            reserved: 0,
            bytes: event.bytes,
            elapsed_ns: event.elapsed_ns,
        }
    }
}

/// Asks for layers to be loaded ahead of their use, and returns at once. Each layer gives a LAYERLINE_EVENT_LAYER when it
/// is loaded, then the ticket a LAYERLINE_EVENT_DONE. What was loaded is kept until a pass has used it or the ticket is
/// cancelled, as far as memory allows: passes come first. A failed prefetch is an event, and no pass fails
/// because of it: LAYERLINE_ERROR_MEMORY_BUDGET says that the budget has no frames for the layer beside those that passes
/// need, or that earlier prefetches keep them all. Of a layer with experts it loads what every pass uses: which experts a
/// pass needs is known only when it runs.
///
/// `first_layer`, `count`: which layers, counted from 0.
/// `ticket`: set to a number that events and `layerline_model_cancel` use; never 0.
///
/// Errors: LAYERLINE_ERROR_INVALID_ARGUMENT when the model has no such layers; LAYERLINE_ERROR_UNSUPPORTED when it was
/// opened without prefetching; LAYERLINE_ERROR_BUSY when too many events wait to be taken. Any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn layerline_model_prefetch(
    model: *mut layerline_model,
    first_layer: u32,
    count: u32,
    ticket: *mut u64,
    err: *mut *mut layerline_error,
) -> layerline_status {
    caller!().run(err, |c| {
        let (model, ticket) = (c.handle(model)?, c.out(ticket, "ticket")?);
        ticket.set(model.model.prefetch(first_layer, count)?);
        Ok(())
    })
}

/// Cancels a request: what is left of it is abandoned, and its LAYERLINE_EVENT_DONE has the status
/// LAYERLINE_ERROR_CANCELLED. For a prefetch, and for a submitted pass that waits for its turn, the event is posted before
/// this returns; a pass that runs ends within the time of one page. A ticket that is finished already is not an error.
///
/// Errors: LAYERLINE_ERROR_NOT_FOUND when there never was such a ticket; LAYERLINE_ERROR_INVALID_ARGUMENT. Any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn layerline_model_cancel(
    model: *mut layerline_model,
    ticket: u64,
    err: *mut *mut layerline_error,
) -> layerline_status {
    caller!().run(err, |c| c.handle(model)?.model.cancel(ticket))
}

/// Tells why a background request failed. Returns the status of its LAYERLINE_EVENT_DONE and sets `err`, as the request
/// would have done had it been a call that waits. LAYERLINE_OK: the request has succeeded or is under way. The errors of
/// the last 256 failed requests are kept, and may be asked for any number of times.
///
/// Errors: the request's own; LAYERLINE_ERROR_NOT_FOUND when there never was such a ticket or it is too old to tell;
/// LAYERLINE_ERROR_INVALID_ARGUMENT for a NULL model. Any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn layerline_model_ticket_error(
    model: *const layerline_model,
    ticket: u64,
    err: *mut *mut layerline_error,
) -> layerline_status {
    caller!().run(err, |c| c.handle(model)?.model.ticket_error(ticket))
}

/// Takes events that are waiting, at most `cap` of them, oldest first, without waiting for more.
///
/// `events`, `cap`: where they are written; there must be room for at least one.
/// `count`: set to how many there were, perhaps 0.
///
/// Errors: LAYERLINE_ERROR_INVALID_ARGUMENT. Any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn layerline_model_poll(
    model: *mut layerline_model,
    events: *mut layerline_event,
    cap: usize,
    count: *mut usize,
    err: *mut *mut layerline_error,
) -> layerline_status {
    caller!().run(err, |c| take(c, model, events, cap, count, |model, list| model.poll(list, cap)))
}

/// Waits for the first event, then takes events as `layerline_model_poll` does.
///
/// `timeout_ms`: how long at most; -1: no limit. When it passes without an event, the call succeeds with *count 0.
///
/// Errors: LAYERLINE_ERROR_INVALID_ARGUMENT. Any thread; the only function of this section that waits.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn layerline_model_wait(
    model: *mut layerline_model,
    timeout_ms: i32,
    events: *mut layerline_event,
    cap: usize,
    count: *mut usize,
    err: *mut *mut layerline_error,
) -> layerline_status {
    caller!().run(err, |c| {
        let timeout = match timeout_ms {
            -1 => None,
            _ => Some(Duration::from_millis(
                u64::try_from(timeout_ms)
                    .map_err(|_| Error::invalid(format!("timeout_ms is {timeout_ms}; it must be -1 or more")))?,
            )),
        };
        take(c, model, events, cap, count, |model, list| model.wait(timeout, list, cap))
    })
}

/// Takes up to `cap` events from the model by `get`.
fn take(
    c: &Caller,
    model: *const layerline_model,
    events: *mut layerline_event,
    cap: usize,
    count: *mut usize,
    get: impl FnOnce(&Model, &mut Vec<Event>),
) -> Result<()> {
    let (model, events, count) = (c.handle(model)?, c.out_array(events, cap, "events")?, c.out(count, "count")?);
    if cap == 0 {
        return Err(Error::invalid("there is no room for an event: cap is 0"));
    }
    let mut list = Vec::new();
    get(&model.model, &mut list);
    let list: Vec<layerline_event> = list.into_iter().map(layerline_event::from).collect();
    events.set(&list)?;
    count.set(list.len());
    Ok(())
}

/// Returns a handle for event loops that is ready while events wait: on Unix a file descriptor, which is readable then, on
/// Windows the HANDLE of an event that is reset by hand, which is signalled then; -1 where the system has none or on a
/// fault. It is the model's: do not read, write, set, reset or close it. Any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn layerline_model_event_handle(model: *const layerline_model) -> isize {
    caller!().or(-1, |c| Ok(c.handle(model)?.model.event_handle().unwrap_or(-1)))
}

/// Tells where a layer is: sets `state` to one of LAYERLINE_LAYER_.
///
/// Errors: LAYERLINE_ERROR_INVALID_ARGUMENT when the model has no such layer. Any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn layerline_model_layer_state(
    model: *const layerline_model,
    layer: u32,
    state: *mut i32,
    err: *mut *mut layerline_error,
) -> layerline_status {
    caller!().run(err, |c| {
        let (model, state) = (c.handle(model)?, c.out(state, "state")?);
        state.set(match model.model.layer_state(layer)? {
            LayerState::Absent => LAYERLINE_LAYER_ABSENT,
            LayerState::Loading => LAYERLINE_LAYER_LOADING,
            LayerState::Ready => LAYERLINE_LAYER_READY,
            LayerState::Pinned => LAYERLINE_LAYER_PINNED,
        });
        Ok(())
    })
}

/// Counters since the model was opened.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct layerline_stats {
    /// Set by the caller to sizeof(layerline_stats) before the call.
    pub struct_size: u32,
    /// The LAYERLINE_IO_ mode in use.
    pub io: i32,
    /// The budget now: the model's own, or its share.
    pub budget_bytes: u64,
    /// What is allocated of it now.
    pub used_bytes: u64,
    /// The most that was ever allocated.
    pub peak_bytes: u64,
    /// Weights that stay, as planned now.
    pub pinned_bytes: u64,
    /// Passes that ended well.
    pub passes: u64,
    /// Tokens of those passes.
    pub tokens: u64,
    /// Layer accesses that found every page pinned and there.
    pub layers_resident: u64,
    /// Layer accesses with streamed pages, all there in time.
    pub layers_prefetched: u64,
    /// Layer accesses that had to wait.
    pub layers_stalled: u64,
    /// Time that passes waited for pages.
    pub stall_ns: u64,
    /// Time that passes computed.
    pub compute_ns: u64,
    /// Time of reads, summed over all of them; they overlap.
    pub read_ns: u64,
    /// Bytes read from storage, for passes and prefetches.
    pub read_bytes: u64,
    /// Calls of `layerline_model_prefetch` that returned a ticket.
    pub prefetch_requests: u64,
    /// Layers of them that failed.
    pub prefetch_failures: u64,
    /// Pages evicted to make room for others.
    pub evictions: u64,
    /// Experts that passes were routed to and found in memory. One that several tokens of a chunk use counts once.
    pub expert_hits: u64,
    /// Experts that passes were routed to and had to read.
    pub expert_misses: u64,
    /// What had to be read of those.
    pub expert_missed_bytes: u64,
    /// Experts evicted to make room for others, or because the budget fell.
    pub expert_evictions: u64,
    /// What the experts that one token uses take.
    pub expert_working_set_bytes: u64,
}

versioned!(layerline_stats as "stats", up to evictions: u64);

impl From<Stats> for layerline_stats {
    fn from(stats: Stats) -> layerline_stats {
        layerline_stats {
            struct_size: size_of::<layerline_stats>() as u32,
            io: io_number(stats.io),
            budget_bytes: stats.budget_bytes,
            used_bytes: stats.used_bytes,
            peak_bytes: stats.peak_bytes,
            pinned_bytes: stats.pinned_bytes,
            passes: stats.passes,
            tokens: stats.tokens,
            layers_resident: stats.layers_resident,
            layers_prefetched: stats.layers_prefetched,
            layers_stalled: stats.layers_stalled,
            stall_ns: stats.stall_ns,
            compute_ns: stats.compute_ns,
            read_ns: stats.read_ns,
            read_bytes: stats.read_bytes,
            prefetch_requests: stats.prefetch_requests,
            prefetch_failures: stats.prefetch_failures,
            evictions: stats.evictions,
            expert_hits: stats.expert_hits,
            expert_misses: stats.expert_misses,
            expert_missed_bytes: stats.expert_missed_bytes,
            expert_evictions: stats.expert_evictions,
            expert_working_set_bytes: stats.expert_working_set_bytes,
        }
    }
}

/// Fills `stats` with the model's counters; set `stats->struct_size` before the call.
///
/// Errors: LAYERLINE_ERROR_INVALID_ARGUMENT. Any thread, also while passes run.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn layerline_model_get_stats(
    model: *const layerline_model,
    stats: *mut layerline_stats,
    err: *mut *mut layerline_error,
) -> layerline_status {
    caller!().run(err, |c| {
        let (model, stats) = (c.handle(model)?, c.out_struct(stats)?);
        stats.set(model.model.stats().into());
        Ok(())
    })
}
