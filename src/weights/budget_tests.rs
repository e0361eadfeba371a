//! How the engine spends its budget: on frames, sessions and several models, while all of these change.

use super::budget::{Needs, SharedBudget};
use super::engine::{Config, Engine, Interrupt};
use super::testing::schedule::schedule_of;
use super::testing::scripted::{Control, ScriptedSource};
use super::tests::{Bench, READERS, config, open, uneven};
use crate::error::Status;

#[test]
fn the_budget_follows_up_and_down_during_passes_and_memory_is_given_back() {
    let s = uneven();
    let (floor, full) = (Engine::min_frames(&s), Engine::full_frames(&s));
    let b = open(s, full, true, |_| {});
    b.pass().unwrap();
    b.engine.settle();
    assert_eq!(b.stats().used_bytes, full);
    std::thread::scope(|scope| {
        let passes = scope.spawn(|| (0..30).for_each(|_| b.pass().unwrap()));
        for i in 0..60u64 {
            b.engine.set_budget(floor + (full - floor) * (i * 7 % 11) / 10).unwrap();
            std::thread::yield_now();
        }
        passes.join().unwrap();
    });
    b.engine.set_budget(floor).unwrap();
    b.engine.settle();
    assert!(b.stats().used_bytes <= floor, "{:?}", b.stats());
    let error = b.engine.set_budget(floor - 1).unwrap_err();
    assert_eq!(error.status(), Status::MemoryBudget);
    assert!(error.message().contains(&floor.to_string()) && error.message().contains(&(floor - 1).to_string()));
    b.engine.set_budget(full).unwrap();
    b.pass().unwrap();
    b.pass().unwrap();
    b.engine.settle();
    assert_eq!(b.stats().used_bytes, full);
}

#[test]
fn a_page_of_an_ended_sweep_is_evicted_where_the_plan_has_become_smaller() {
    let s = uneven();
    let (floor, full) = (Engine::min_frames(&s), Engine::full_frames(&s));
    // The page after the one the sweep ends with: an ordinary one, or a table, which no sweep takes.
    for next in [1, s.sweep_len] {
        let at = s.pages[next].offset + s.pages[next].bytes / 2;
        let b = open(uneven(), full, true, |c| c.block_within(at..at + 1));
        let mut sweep = b.engine.sweep(&b.interrupt, b.interrupt.count(), b.pages()).unwrap();
        let mut held = sweep.page(0).unwrap();
        for p in 1..next {
            drop(held);
            held = sweep.page(p).unwrap();
        }
        b.control.await_blocked(1);
        b.engine.set_budget(floor).unwrap();
        drop(held);
        b.control.unblock();
        while b.engine.shared().state.lock().is_loading(next) {
            std::thread::yield_now();
        }
        drop(sweep);
        b.engine.settle();
        assert!(b.stats().used_bytes <= floor, "{:?}", b.stats());
        assert!(b.stats().peak_bytes <= full, "{:?}", b.stats());
    }
}

#[test]
#[cfg(target_os = "linux")]
fn the_ring_gives_back_what_lies_beyond_it_whatever_the_figures_of_budgets() {
    let s = uneven();
    let frames = 2 * (Engine::min_frames(&s) + 2 * s.largest_layer_bytes() + s.largest_extent());
    let floor = Engine::min_frames(&s);
    for odd in [0, 1, 4095, 4096, 70_001] {
        let b = open(uneven(), frames, true, |_| {});
        for _ in 0..3 {
            b.engine.settle();
            let ticket = b.engine.prefetch(4, 4).unwrap();
            b.until_done(ticket);
            b.engine.set_budget(floor + odd).unwrap();
            b.engine.settle();
            let beyond = b.engine.shared().state.lock().bytes_beyond_ring();
            assert_eq!(beyond, 0, "a budget of the floor and {odd} bytes");
            b.engine.set_budget(frames - odd).unwrap();
        }
    }
}

#[test]
fn prefetched_layers_go_where_the_plan_has_become_smaller() {
    let s = uneven();
    // The ring may take half of the frames: room for whole layers above the passes' own part.
    let frames = 2 * (Engine::min_frames(&s) + 2 * s.largest_layer_bytes() + s.largest_extent());
    let floor = Engine::min_frames(&s);
    assert!(frames < Engine::full_frames(&s));
    let b = open(uneven(), frames, true, |_| {});
    b.engine.settle();
    // Two tickets keep the same pages.
    for _ in 0..2 {
        let ticket = b.engine.prefetch(6, 2).unwrap();
        b.until_done(ticket);
    }
    b.engine.set_budget(floor).unwrap();
    b.engine.settle();
    assert!(b.stats().used_bytes <= floor, "{:?}", b.stats());
    b.pass().unwrap();
    b.engine.set_budget(frames).unwrap();
    b.pass().unwrap();
}

#[test]
fn sessions_take_memory_from_frames_and_give_it_back() {
    let s = uneven();
    let (floor, full) = (Engine::min_frames(&s), Engine::full_frames(&s));
    let b = open(s, full, true, |_| {});
    b.engine.settle();
    b.engine.reserve(full - floor).unwrap();
    assert!(b.stats().used_bytes <= full);
    assert_eq!(b.engine.reserve(1).unwrap_err().status(), Status::MemoryBudget);
    b.pass().unwrap();
    b.engine.release(full - floor);
    b.engine.settle();
    assert_eq!(b.stats().pinned_bytes, full);
    assert!(b.stats().peak_bytes <= full);
}

#[test]
fn what_is_claimed_does_not_count_as_used_beside_frames_that_have_yet_to_go() {
    // Pages of one size, so that the reads under way take more than the least frames.
    let matrices: Vec<(u32, u64, u64)> = (0..16).map(|layer| (layer, 65536, 16)).collect();
    let s = schedule_of(&matrices);
    let (floor, full) = (Engine::min_frames(&s), Engine::full_frames(&s));
    let b = open(s, full, true, |c| c.block_within(0..u64::MAX));
    b.control.await_blocked(READERS);
    b.engine.claim(full - floor).unwrap();
    assert!(b.stats().used_bytes > full, "{:?}", b.stats());
    assert!(b.stats().peak_bytes <= full, "{:?}", b.stats());
    b.control.unblock();
    b.engine.await_room(&b.interrupt, b.interrupt.count()).unwrap();
    assert!(b.stats().used_bytes <= full && b.stats().peak_bytes <= full, "{:?}", b.stats());
}

#[test]
fn no_more_layers_are_held_than_the_host_allows() {
    let schedule = uneven();
    let end = schedule.pages.iter().map(|p| p.offset + p.bytes).max().unwrap();
    let frames = Engine::full_frames(&schedule);
    let limit = Engine::frames_limit(&schedule, 3);
    let control = Control::default();
    let source = ScriptedSource::patterned(&control, end);
    let engine = Engine::start(Config { cache_layers: 3, ..config(schedule, source, frames) }).unwrap();
    let b = Bench { interrupt: Interrupt::new(&engine), engine, control };
    b.pass().unwrap();
    b.engine.settle();
    assert!(b.stats().peak_bytes <= limit, "{} of {limit}", b.stats().peak_bytes);
}

#[test]
fn models_on_one_budget_share_it_and_never_exceed_it_together() {
    let s = uneven();
    let needs = Needs { least: Engine::min_frames(&s), full: Engine::full_frames(&s) };
    let total = needs.least + needs.full;
    let budget = SharedBudget::new(total);
    let enter = || {
        let (budget_share, share) = budget.admit(needs)?;
        let schedule = uneven();
        let end = schedule.pages.iter().map(|p| p.offset + p.bytes).max().unwrap();
        let control = Control::default();
        let source = ScriptedSource::patterned(&control, end);
        let engine = Engine::start(Config { budget_share: Some(budget_share), ..config(schedule, source, share) })?;
        crate::Result::Ok(Bench { interrupt: Interrupt::new(&engine), engine, control })
    };
    let a = enter().unwrap();
    a.pass().unwrap();
    a.engine.settle();
    assert_eq!(a.stats().used_bytes, needs.full);
    let b = enter().unwrap();
    assert!(a.stats().used_bytes + b.stats().used_bytes <= total);
    assert!(a.stats().budget_bytes.abs_diff(b.stats().budget_bytes) <= 1);
    std::thread::scope(|scope| {
        scope.spawn(|| (0..5).for_each(|_| a.pass().unwrap()));
        scope.spawn(|| (0..5).for_each(|_| b.pass().unwrap()));
        for _ in 0..20 {
            a.engine.reserve(1 << 20).unwrap();
            assert!(a.stats().used_bytes + b.stats().used_bytes <= total);
            a.engine.release(1 << 20);
        }
    });
    assert_eq!(a.engine.set_budget(total).unwrap_err().status(), Status::InvalidArgument);
    budget.set_total(2 * needs.least).unwrap();
    assert!(a.stats().used_bytes + b.stats().used_bytes <= 2 * needs.least);
    assert_eq!(budget.set_total(2 * needs.least - 1).unwrap_err().status(), Status::MemoryBudget);
    assert_eq!(enter().err().unwrap().status(), Status::MemoryBudget);
    assert_eq!(b.engine.reserve(1).unwrap_err().status(), Status::MemoryBudget);
    a.pass().unwrap();
    budget.set_total(total).unwrap();
    drop(b);
    a.pass().unwrap();
    a.engine.settle();
    assert_eq!(a.stats().used_bytes, needs.full);
}

#[test]
fn nothing_that_must_not_block_waits_while_memory_is_given_back() {
    let s = uneven();
    let (floor, full) = (Engine::min_frames(&s), Engine::full_frames(&s));
    let b = open(s, full, true, |_| {});
    b.engine.settle();
    let gate = &b.engine.shared().work_gate;
    gate.shut(true);
    std::thread::scope(|scope| {
        let change = scope.spawn(|| b.engine.set_budget(floor).unwrap());
        while gate.waiting() == 0 {
            std::thread::yield_now();
        }
        // All of these return: with the lock held over the work they would wait for a gate that opens after them.
        let mut events = Vec::new();
        b.engine.poll(&mut events, 10);
        b.engine.layer_state(3).unwrap();
        let ticket = b.engine.prefetch(2, 1).unwrap();
        b.engine.cancel(ticket).unwrap();
        b.engine.claim(0).unwrap();
        b.engine.release(0);
        b.interrupt.raise();
        // What the system does not have back counts.
        assert_eq!(b.stats().used_bytes, full);
        assert!(!change.is_finished());
        gate.shut(false);
    });
    assert!(b.stats().used_bytes <= floor, "{:?}", b.stats());
}

// Windows does not let anybody cut a file that is mapped.
#[test]
#[cfg(not(windows))]
fn a_mapped_file_that_was_cut_while_everything_is_resident_fails_the_next_pass() {
    let s = uneven();
    let end = s.pages.iter().map(|p| p.offset + p.bytes).max().unwrap();
    let path = std::env::temp_dir().join(format!("layerline-cut-{}", std::process::id()));
    let file = std::fs::File::options().read(true).write(true).create(true).truncate(true).open(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
    file.set_len(end).unwrap();
    let source = super::source::from_file(file.try_clone().unwrap(), 0, 0, "mapped.gguf".into()).unwrap();
    let source = super::source::OpenedSource::File(source);
    let source = super::source::in_mode(vec![source], crate::weights::Io::Mmap).unwrap().0.remove(0);
    let full = Engine::full_frames(&s);
    let other = ScriptedSource::patterned(&Control::default(), end);
    let engine = Engine::start(Config { sources: vec![source], ..config(s, other, full) }).unwrap();
    engine.settle();
    let interrupt = Interrupt::new(&engine);
    let pages = engine.schedule().sweep_len;
    assert!(engine.sweep(&interrupt, 0, pages).unwrap().acquire_pinned(0..pages).unwrap().is_some());
    file.set_len(end - 376).unwrap();
    let error = engine.sweep(&interrupt, 0, pages).err().expect("the file is shorter");
    assert_eq!(error.status(), Status::Io);
}
