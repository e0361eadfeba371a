//! Prefetch, completion and statistics.

use std::ffi::c_int;
use std::mem::offset_of;
use std::time::Duration;

use super::boundary::{self, Out, OutArray, OutStruct, Versioned, enter};
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
/// Ready, and stays.
pub const LAYERLINE_LAYER_PINNED: i32 = 3;

/// A completion. Each is given out once, to whichever thread polls or waits first.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct layerline_event {
    /// What the request returned.
    pub ticket: u64,
    /// LAYERLINE_EVENT_LAYER or LAYERLINE_EVENT_DONE.
    pub kind: u32,
    /// LAYERLINE_OK, or why it failed.
    pub status: layerline_status,
    /// For LAYERLINE_EVENT_LAYER.
    pub layer: u32,
    /// 0.
    pub reserved: u32,
    /// Read from storage for it; for a pass: while it ran, which includes what was read ahead for the next one.
    pub bytes: u64,
    /// Since the request.
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
/// is there, then the ticket a LAYERLINE_EVENT_DONE. What was loaded is kept until a pass has used it or the ticket is
/// cancelled, as far as memory allows; it never delays a pass for long. A failed prefetch is an event, and no pass fails
/// because of it: LAYERLINE_ERROR_MEMORY_BUDGET says that the budget has no frames for the layer beside those that passes
/// need, or that earlier prefetches keep them all. Of a layer with experts it is what every pass uses: which experts a pass
/// needs, its router tells.
///
/// `first_layer`, `count`: which layers, counted from 0.
/// `ticket`: set to a number that events and `layerline_cancel` use; never 0.
///
/// Errors: LAYERLINE_ERROR_INVALID_ARGUMENT when the model has no such layers; LAYERLINE_ERROR_BUSY when too many events
/// wait to be taken. Any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn layerline_prefetch(
    model: *mut layerline_model,
    first_layer: u32,
    count: u32,
    ticket: *mut u64,
    err: *mut *mut layerline_error,
) -> layerline_status {
    // SAFETY: each pointer is NULL or what the header asks for.
    unsafe {
        boundary::with_error(err, || {
            let (model, ticket) = (enter(model)?, Out::new(ticket, "ticket")?);
            ticket.set(model.model.prefetch(first_layer, count)?);
            Ok(())
        })
    }
}

/// Cancels a request: what it still asks for is given up, and its LAYERLINE_EVENT_DONE comes with
/// LAYERLINE_ERROR_CANCELLED. For a prefetch, and for a submitted pass that waits for its turn, it has come when this
/// returns; a pass that runs ends within the time of one page. A ticket that is finished already is not an error.
///
/// Errors: LAYERLINE_ERROR_INVALID_ARGUMENT when there never was such a ticket. Any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn layerline_cancel(model: *mut layerline_model, ticket: u64) -> layerline_status {
    // SAFETY: NULL, or a model of ours.
    boundary::status(|| unsafe { enter(model)?.model.cancel(ticket) })
}

/// Takes events that are waiting, at most `cap` of them, oldest first, without waiting for more.
///
/// `events`, `cap`: where they go; there must be room for at least one.
/// `count`: set to how many there were, perhaps 0.
///
/// Errors: LAYERLINE_ERROR_INVALID_ARGUMENT. Any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn layerline_poll(
    model: *mut layerline_model,
    events: *mut layerline_event,
    cap: usize,
    count: *mut usize,
) -> layerline_status {
    // SAFETY: each pointer is NULL or what the header asks for.
    boundary::status(|| unsafe { take(model, events, cap, count, |model, list| model.poll(list, cap)) })
}

/// As `layerline_poll`, but waits for the first event.
///
/// `timeout_ms`: how long at most; -1: no limit. When it passes without an event, the call succeeds with *count 0.
///
/// Errors: LAYERLINE_ERROR_INVALID_ARGUMENT. Any thread; the one function of this section that waits.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn layerline_wait(
    model: *mut layerline_model,
    timeout_ms: i32,
    events: *mut layerline_event,
    cap: usize,
    count: *mut usize,
) -> layerline_status {
    boundary::status(|| {
        let timeout = match timeout_ms {
            -1 => None,
            _ => Some(Duration::from_millis(
                u64::try_from(timeout_ms)
                    .map_err(|_| Error::invalid(format!("timeout_ms is {timeout_ms}; it must be -1 or more")))?,
            )),
        };
        // SAFETY: each pointer is NULL or what the header asks for.
        unsafe { take(model, events, cap, count, |model, list| model.wait(timeout, list, cap)) }
    })
}

/// Takes up to `cap` events from the model by `get`.
///
/// # Safety
/// Each pointer is NULL or what the header asks for.
unsafe fn take(
    model: *const layerline_model,
    events: *mut layerline_event,
    cap: usize,
    count: *mut usize,
    get: impl FnOnce(&Model, &mut Vec<Event>),
) -> Result<()> {
    // SAFETY: the caller vouches for it.
    let (model, events, count) =
        unsafe { (enter(model)?, OutArray::new(events, cap, "events")?, Out::new(count, "count")?) };
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

/// A file descriptor that is readable while events wait, for event loops; -1 where the system has none or on a fault.
/// It is the model's: do not read, write or close it. Any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn layerline_event_fd(model: *const layerline_model) -> c_int {
    // SAFETY: NULL, or a model of ours.
    boundary::or(-1, || unsafe { Ok(enter(model)?.model.event_fd().unwrap_or(-1)) })
}

/// Where a layer is: sets `state` to one of LAYERLINE_LAYER_.
///
/// Errors: LAYERLINE_ERROR_INVALID_ARGUMENT when the model has no such layer. Any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn layerline_layer_state(
    model: *const layerline_model,
    layer: u32,
    state: *mut i32,
) -> layerline_status {
    // SAFETY: each pointer is NULL or what the header asks for.
    boundary::status(|| unsafe {
        let (model, state) = (enter(model)?, Out::new(state, "state")?);
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
    /// Layer visits that found every page pinned and there.
    pub layers_resident: u64,
    /// Layer visits with streamed pages, all there in time.
    pub layers_prefetched: u64,
    /// Layer visits that had to wait.
    pub layers_stalled: u64,
    /// Time that passes waited for pages.
    pub stall_ns: u64,
    /// Time that passes computed.
    pub compute_ns: u64,
    /// Summed over all reads; reads overlap.
    pub read_ns: u64,
    /// Read from storage, for passes and prefetches.
    pub read_bytes: u64,
    /// Calls of `layerline_prefetch` that returned a ticket.
    pub prefetch_requests: u64,
    /// Layers of them that failed.
    pub prefetch_failures: u64,
    /// Pages given up to make room for others.
    pub evictions: u64,
}

// SAFETY: repr(C), `struct_size` first.
unsafe impl Versioned for layerline_stats {
    const NAME: &'static str = "stats";
    const FIRST_SIZE: usize = offset_of!(layerline_stats, evictions) + size_of::<u64>();
}

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
) -> layerline_status {
    // SAFETY: each pointer is NULL or what the header asks for.
    boundary::status(|| unsafe {
        let (model, stats) = (enter(model)?, OutStruct::new(stats)?);
        stats.set(model.model.stats().into());
        Ok(())
    })
}
