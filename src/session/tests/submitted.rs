use std::sync::Weak;
use std::time::Duration;

use super::*;
use crate::model::{Event, EventKind};

/// A session whose submitted pass stands before a read that does not come back.
fn blocked() -> (Arc<Model>, Control, SharedSession, u64) {
    let b = Bench::new();
    b.control.block_within(b.needed.clone());
    let shared = SharedSession::new(b.session);
    let ticket = shared.submit(&SECOND, Logits::All).unwrap();
    b.control.await_blocked(1);
    (b.model, b.control, shared, ticket)
}

fn wait_for_done(model: &Model) -> Event {
    let mut events = Vec::new();
    model.wait(Some(Duration::from_secs(60)), &mut events, 100);
    assert_eq!(events.len(), 1, "{events:?}");
    assert_eq!(events[0].kind, EventKind::Done);
    events[0]
}

fn failure_of_next(model: &Model, ticket: u64) -> Option<Status> {
    let done = wait_for_done(model);
    assert_eq!(done.ticket, ticket);
    done.failure
}

/// What sessions have taken from the budget.
fn session_bytes_of(model: &Model) -> u64 {
    model.engine().shared().state.lock().session_bytes()
}

fn no_events(model: &Model) {
    let mut events = Vec::new();
    model.poll(&mut events, 100);
    assert!(events.is_empty(), "{events:?}");
}

#[test]
fn submitting_returns_while_storage_is_blocked_and_no_query_waits() {
    let (model, control, shared, ticket) = blocked();
    no_events(&model);
    assert_eq!(shared.read().err().unwrap().status(), Status::Busy);
    assert_eq!(shared.write().err().unwrap().status(), Status::Busy);
    assert_eq!(shared.submit(&SECOND, Logits::Last).unwrap_err().status(), Status::Busy);
    model.stats();
    model.layer_state(0).unwrap();
    let prefetch = model.prefetch(0, 1).unwrap();
    assert!(prefetch > ticket, "tickets of both kinds are counted together");
    model.cancel(prefetch).unwrap();
    let mut events = Vec::new();
    model.poll(&mut events, 100);
    assert!(events.iter().all(|e| e.ticket == prefetch), "{events:?}");

    control.unblock();
    let mut events = Vec::new();
    model.wait(None, &mut events, 100);
    assert_eq!(events.len(), 1, "{events:?}");
    assert_eq!((events[0].ticket, events[0].failure), (ticket, None));
    assert!(events[0].bytes > 0 && events[0].elapsed_ns > 0);
    let session = shared.read().unwrap();
    assert_eq!(session.position(), FIRST.len() + SECOND.len());
    assert_eq!(rows(&session), undisturbed().1);
}

#[test]
fn what_cannot_begin_is_refused_at_once_and_the_session_stays() {
    let b = Bench::new();
    let shared = SharedSession::new(b.session);
    let status = |tokens: &[i32]| shared.submit(tokens, Logits::Last).unwrap_err().status();
    assert_eq!(status(&[]), Status::InvalidArgument);
    assert_eq!(status(&[1, -1]), Status::InvalidArgument);
    assert_eq!(status(&[i32::MAX]), Status::InvalidArgument);
    assert_eq!(status(&[1; CONTEXT as usize]), Status::ContextFull);
    no_events(&b.model);
    // Logits of many positions do not fit beside two sessions.
    let _second = Session::new(&b.model, CONTEXT).unwrap();
    let taken = session_bytes_of(&b.model);
    let error = shared.submit(&[1; 50], Logits::All).unwrap_err();
    assert_eq!(error.status(), Status::MemoryBudget);
    assert_eq!(session_bytes_of(&b.model), taken);
    assert_unharmed(&mut shared.write().unwrap());
}

#[test]
fn a_cancelled_pass_ends_while_storage_is_blocked_with_one_event() {
    let (model, control, shared, ticket) = blocked();
    model.cancel(ticket).unwrap();
    assert_eq!(failure_of_next(&model, ticket), Some(Status::Cancelled));
    assert_eq!(shared.read().unwrap().position(), FIRST.len());
    model.cancel(ticket).unwrap();
    no_events(&model);
    control.unblock();
    assert_unharmed(&mut shared.write().unwrap());
    no_events(&model);
}

#[test]
fn an_interrupted_pass_ends_while_storage_is_blocked_with_one_event() {
    let (model, control, shared, ticket) = blocked();
    shared.interrupt();
    assert_eq!(failure_of_next(&model, ticket), Some(Status::Cancelled));
    control.unblock();
    assert_unharmed(&mut shared.write().unwrap());
    no_events(&model);
}

#[test]
fn cancelling_a_pass_that_has_ended_leaves_the_next_one_alone() {
    let b = Bench::new();
    let shared = SharedSession::new(b.session);
    let before = shared.submit(&SECOND, Logits::Last).unwrap();
    assert_eq!(failure_of_next(&b.model, before), None);
    shared.write().unwrap().truncate(FIRST.len()).unwrap();
    b.model.engine().settle();
    b.control.block_within(last_absent(&b.model));
    let next = shared.submit(&SECOND, Logits::Last).unwrap();
    b.control.await_blocked(1);
    b.model.cancel(before).unwrap();
    b.control.unblock();
    assert_eq!(failure_of_next(&b.model, next), None);
}

#[test]
fn a_failing_read_is_told_by_the_event_and_the_session_goes_on_after_it() {
    let b = Bench::new();
    b.control.fail(b.needed.clone(), usize::MAX);
    let shared = SharedSession::new(b.session);
    let ticket = shared.submit(&SECOND, Logits::All).unwrap();
    assert_eq!(failure_of_next(&b.model, ticket), Some(Status::Io));
    b.control.heal();
    assert_unharmed(&mut shared.write().unwrap());
}

#[test]
fn a_pass_that_waits_for_its_turn_is_ended_at_once_by_cancel_interrupt_and_drop() {
    let (model, control, first, running) = blocked();
    type End = fn(&Model, SharedSession, u64) -> Option<SharedSession>;
    let ways: [End; 3] = [
        |model, waiting, ticket| {
            model.cancel(ticket).unwrap();
            Some(waiting)
        },
        |_, waiting, _| {
            waiting.interrupt();
            Some(waiting)
        },
        |_, waiting, _| {
            drop(waiting);
            None
        },
    ];
    for end in ways {
        let taken = session_bytes_of(&model);
        let waiting = SharedSession::new(Session::new(&model, CONTEXT).unwrap());
        let ticket = waiting.submit(&FIRST, Logits::Last).unwrap();
        no_events(&model);
        let waiting = end(&model, waiting, ticket);
        let mut events = Vec::new();
        model.poll(&mut events, 100);
        assert_eq!(events.len(), 1, "{events:?}");
        assert_eq!((events[0].ticket, events[0].failure), (ticket, Some(Status::Cancelled)));
        if let Some(waiting) = &waiting {
            assert_eq!(waiting.read().unwrap().position(), 0);
        }
        drop(waiting);
        assert_eq!(session_bytes_of(&model), taken);
    }
    no_events(&model);
    control.unblock();
    assert_eq!(failure_of_next(&model, running), None);
    assert_eq!(rows(&first.read().unwrap()), undisturbed().1);
}

#[test]
fn submitted_passes_run_in_their_order() {
    let (model, control, first, running) = blocked();
    let second = SharedSession::new(Session::new(&model, CONTEXT).unwrap());
    let waiting = second.submit(&FIRST, Logits::All).unwrap();
    control.unblock();
    let mut events = Vec::new();
    while events.len() < 2 {
        model.wait(None, &mut events, 1);
    }
    assert_eq!([events[0].ticket, events[1].ticket], [running, waiting]);
    let (a, b) = undisturbed();
    assert_eq!(rows(&first.read().unwrap()), b);
    assert_eq!(rows(&second.read().unwrap()), a);
}

#[test]
fn dropping_a_session_ends_its_pass_and_frees_its_memory_before_the_event() {
    let (model, control, shared, ticket) = blocked();
    assert!(session_bytes_of(&model) > 0);
    drop(shared);
    assert_eq!(failure_of_next(&model, ticket), Some(Status::Cancelled));
    assert_eq!(session_bytes_of(&model), 0);
    no_events(&model);
    control.unblock();
}

fn await_none<T>(weak: &Weak<T>) {
    while weak.strong_count() > 0 {
        std::thread::yield_now();
    }
}

#[test]
fn the_pass_thread_may_be_the_last_to_use_the_model_and_ends_with_it() {
    let (model, control, shared, _) = blocked();
    let (weak, thread) = (Arc::downgrade(&model), model.passes().watch_thread());
    drop(model);
    control.unblock();
    drop(shared);
    await_none(&weak);
    await_none(&thread);
}

#[test]
fn a_session_keeps_its_model_alive_through_a_pass() {
    let (model, control, shared, _) = blocked();
    drop(model);
    control.unblock();
    while shared.read().is_err() {
        std::thread::yield_now();
    }
    assert_eq!(rows(&shared.read().unwrap()), undisturbed().1);
    let (weak, thread) = (Arc::downgrade(shared.model()), shared.model().passes().watch_thread());
    drop(shared);
    await_none(&weak);
    await_none(&thread);
}

#[test]
fn a_fault_in_a_pass_ends_its_session_and_no_other() {
    let b = Bench::new();
    let d = b.model.description();
    let (_, row) = b.model.engine().schedule().matrix(d.embedding).row_place(SECOND[0] as usize);
    b.control.panic_within(row..row + 1);
    let broken = SharedSession::new(b.session);
    let ticket = broken.submit(&SECOND, Logits::All).unwrap();
    assert_eq!(failure_of_next(&b.model, ticket), Some(Status::Internal));
    assert_eq!(broken.read().err().unwrap().status(), Status::Internal);
    assert_eq!(broken.submit(&SECOND, Logits::All).unwrap_err().status(), Status::Internal);
    b.control.heal();
    let other = SharedSession::new(Session::new(&b.model, CONTEXT).unwrap());
    let ticket = other.submit(&FIRST, Logits::All).unwrap();
    assert_eq!(failure_of_next(&b.model, ticket), None);
    assert_eq!(rows(&other.read().unwrap()), undisturbed().0);
}
