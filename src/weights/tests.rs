//! What the engine promises, shown with a source that obeys commands instead of the clock.

use std::sync::Arc;
use std::time::Duration;

use super::engine::{Config, Engine, Interrupt};
use super::frames::Memory;
use super::schedule::{MatrixId, Page, Schedule};
use super::source::Source;
use super::state::{Accounting, State};
use super::testing::schedule::schedule_of;
use super::testing::scripted::{Control, ScriptedSource, byte_at};
use crate::error::Status;
use crate::weights::{Event, EventKind, LayerState, Stats};

pub const READERS: usize = 3;

/// Twelve layers of uneven matrices, some of several pages, a head, and a table beside them.
pub fn uneven() -> Schedule {
    let mut matrices = Vec::new();
    for layer in 0..12u32 {
        for rows in [32u64, 16, 16, 48, 400, 400, 300 + 16 * (layer as u64 % 3)] {
            matrices.push((layer, 8192, rows));
        }
    }
    matrices.push((Page::TABLE, 8192, 300));
    matrices.push((11, 8192, 700));
    schedule_of(&matrices)
}

pub struct Bench {
    pub engine: Engine,
    pub control: Control,
    pub interrupt: Arc<Interrupt>,
}

/// An engine over `source`, with `frames` bytes of frames and nothing else in its budget.
pub fn config(schedule: Schedule, source: impl Source + 'static, frames: u64) -> Config {
    Config {
        schedule,
        sources: vec![Box::new(source)],
        accounting: Accounting::new(frames, 0, 0),
        prefetch: true,
        readers: READERS,
        prefetch_distance: 0,
        cache_layers: 0,
        kept_experts: Default::default(),
        budget_share: None,
    }
}

pub fn open(schedule: Schedule, frames: u64, prefetch: bool, setup: impl FnOnce(&Control)) -> Bench {
    let control = Control::default();
    setup(&control);
    let end = schedule.pages.iter().map(|p| p.offset + p.bytes).max().unwrap();
    let source = ScriptedSource::patterned(&control, end);
    let engine = Engine::start(Config { prefetch, ..config(schedule, source, frames) }).unwrap();
    let interrupt = Interrupt::new(&engine);
    Bench { engine, control, interrupt }
}

impl Bench {
    pub fn pages(&self) -> usize {
        self.engine.schedule().sweep_len
    }

    /// One pass; every byte of every page is checked.
    pub fn pass(&self) -> crate::Result<()> {
        self.pass_with(|_| {})
    }

    fn pass_with(&self, mut each: impl FnMut(usize)) -> crate::Result<()> {
        let mut sweep = self.engine.sweep(&self.interrupt, self.interrupt.count(), self.pages())?;
        for p in 0..self.pages() {
            let held = sweep.page(p)?;
            each(p);
            let page = held.page();
            assert_eq!(held.bytes().len() as u64, page.bytes);
            let mut sample = held.bytes().iter().zip(page.offset..).step_by(509);
            assert!(sample.all(|(&b, at)| b == byte_at(at)), "page {p}");
        }
        Ok(())
    }

    pub fn stats(&self) -> Stats {
        self.engine.stats()
    }

    fn wait(&self) -> Vec<Event> {
        let mut events = Vec::new();
        self.engine.wait(Some(Duration::from_secs(60)), &mut events, 100);
        assert!(!events.is_empty(), "no event came");
        events
    }

    pub fn until_done(&self, ticket: u64) -> Vec<Event> {
        let mut all = Vec::new();
        while !all.iter().any(|e: &Event| e.ticket == ticket && e.kind == EventKind::Done) {
            all.extend(self.wait());
        }
        all
    }
}

fn budgets(schedule: &Schedule) -> Vec<u64> {
    let (floor, full) = (Engine::min_frames(schedule), Engine::full_frames(schedule));
    let mut list: Vec<u64> = (0..=4).map(|i| floor + (full - floor) * i / 4).collect();
    list.extend([floor + 4096, schedule.sweep_bytes() - 4096, schedule.sweep_bytes()]);
    list
}

#[test]
fn with_fast_storage_only_the_first_layer_of_the_first_pass_stalls() {
    for frames in budgets(&uneven()) {
        let b = open(uneven(), frames, true, |_| {});
        // While a page is in use, everything that can be read is: storage is faster than arithmetic.
        for _ in 0..4 {
            b.pass_with(|_| b.engine.settle()).unwrap();
        }
        let s = b.stats();
        assert!(s.layers_stalled <= 1, "{frames}: {s:?}");
        assert_eq!(s.layers_stalled + s.layers_prefetched + s.layers_resident, 4 * 12);
        assert!(s.peak_bytes <= frames, "{frames}: {s:?}");
    }
}

#[test]
fn with_storage_slower_than_arithmetic_reading_never_pauses_while_a_frame_is_free() {
    for frames in budgets(&uneven()) {
        let b = open(uneven(), frames, true, Control::block);
        let mut sweep = b.engine.sweep(&b.interrupt, b.interrupt.count(), b.pages()).unwrap();
        for p in 0..b.pages() {
            b.control.unblock();
            let held = sweep.page(p).unwrap();
            b.control.block();
            drop(held);
            // Storage stands still, so this can only come true by the loader's own doing: whatever can be read is asked for.
            let fixed = &b.engine.shared().fixed;
            let deadline = std::time::Instant::now() + Duration::from_secs(5);
            while b.engine.shared().state.lock().could_read(fixed) {
                assert!(
                    std::time::Instant::now() < deadline,
                    "page {p} at {frames}: a frame is free and nothing is read"
                );
                std::thread::yield_now();
            }
        }
        b.control.unblock();
    }
}

#[test]
fn each_pass_reads_what_the_plan_says() {
    for frames in budgets(&uneven()) {
        let b = open(uneven(), frames, true, |_| {});
        b.pass().unwrap();
        b.pass().unwrap();
        b.engine.settle();
        let before = b.stats().read_bytes;
        for _ in 0..5 {
            b.pass().unwrap();
            b.engine.settle();
        }
        let plan = b.engine.shared().state.lock().residency().clone();
        let read = b.stats().read_bytes - before;
        // The ring may hold a page more or less of the next pass than it did before.
        assert!(read.abs_diff(5 * plan.streamed_bytes) <= plan.ring_bytes, "{frames}: {read} for {plan:?}");
    }
}

#[test]
fn without_the_loader_the_same_bytes_arrive_and_no_thread_is_started() {
    for frames in budgets(&uneven()) {
        let b = open(uneven(), frames, false, |_| {});
        b.pass().unwrap();
        b.pass().unwrap();
        assert!(b.stats().peak_bytes <= frames);
        assert_eq!(b.engine.prefetch(0, 1).unwrap_err().status(), Status::Unsupported);
        assert!(b.stats().layers_stalled > 0);
    }
}

#[test]
fn prefetch_returns_while_storage_is_blocked_and_an_event_tells_of_the_layer() {
    let s = uneven();
    let frames = Engine::full_frames(&s);
    let b = open(s, frames, true, Control::block);
    let ticket = b.engine.prefetch(5, 2).unwrap();
    let mut events = Vec::new();
    b.engine.poll(&mut events, 10);
    b.engine.wait(Some(Duration::ZERO), &mut events, 10);
    assert!(events.is_empty());
    assert_ne!(b.engine.layer_state(5).unwrap(), LayerState::Pinned);
    b.control.unblock();
    let events = b.until_done(ticket);
    let layers: Vec<u32> = events.iter().filter(|e| e.kind == EventKind::Layer).map(|e| e.layer).collect();
    assert!(layers.contains(&5) && layers.contains(&6) && layers.len() == 2, "{events:?}");
    assert!(events.iter().all(|e| e.failure.is_none()));
    assert_eq!(b.engine.layer_state(5).unwrap(), LayerState::Pinned);
}

#[test]
fn a_prefetch_beyond_the_frames_says_so_and_never_starves_a_pass() {
    let s = uneven();
    let frames = Engine::min_frames(&s) + s.largest_extent() * 2;
    let b = open(s, frames, true, |_| {});
    let tickets: Vec<u64> = (0..12).map(|l| b.engine.prefetch(l, 1).unwrap()).collect();
    let mut refused = 0;
    let mut done = 0;
    while done < tickets.len() {
        for e in b.wait() {
            done += usize::from(e.kind == EventKind::Done);
            refused += usize::from(e.failure == Some(Status::MemoryBudget) && e.kind == EventKind::Layer);
        }
    }
    assert!(refused > 0);
    b.pass().unwrap();
    b.pass().unwrap();
    assert!(b.stats().peak_bytes <= frames);
}

#[test]
fn a_prefetched_layer_is_kept_until_a_pass_uses_it_or_it_is_cancelled() {
    let s = uneven();
    // The ring may take half of the frames: room for a whole layer above the passes' own part.
    let frames = 2 * (Engine::min_frames(&s) + s.largest_layer_bytes() + s.largest_extent());
    assert!(frames < Engine::full_frames(&s));
    for cancelled in [false, true] {
        let b = open(uneven(), frames, true, |_| {});
        b.engine.settle();
        let ticket = b.engine.prefetch(7, 1).unwrap();
        let events = b.until_done(ticket);
        assert!(events.iter().all(|e| e.failure.is_none()), "{events:?}");
        let ready = |b: &Bench| matches!(b.engine.layer_state(7).unwrap(), LayerState::Ready | LayerState::Pinned);
        assert!(ready(&b));
        let mut sweep = b.engine.sweep(&b.interrupt, b.interrupt.count(), b.pages()).unwrap();
        let until = b.engine.schedule().layer_pages(5).start;
        if cancelled {
            b.engine.cancel(ticket).unwrap();
        }
        for p in 0..until {
            let held = sweep.page(p).unwrap();
            b.engine.settle();
            drop(held);
            assert!(cancelled || ready(&b), "evicted at page {p}");
        }
    }
}

/// What prefetches keep may leave room for a page that is in pieces: reading ahead must not fill them again and again.
#[test]
fn every_prefetch_ends_whatever_earlier_ones_keep_and_reading_comes_to_rest() {
    let s = uneven();
    let least = Engine::min_frames(&s) + s.largest_layer_bytes();
    let most = Engine::full_frames(&s);
    for step in 0..24 {
        let b = open(uneven(), least + (most - least) * step / 24, true, |_| {});
        b.pass().unwrap();
        b.engine.settle();
        for first in [11, 5, 0, 8, 3] {
            let ticket = b.engine.prefetch(first, 12 - first).unwrap();
            b.until_done(ticket);
        }
        b.engine.settle();
        let read = b.stats().read_bytes;
        assert!(read < 12 * s.sweep_bytes(), "{read} bytes read of {}", s.sweep_bytes());
        b.pass().unwrap();
    }
}

#[test]
fn a_cancelled_prefetch_ends_at_once_with_one_event() {
    let s = uneven();
    let frames = Engine::full_frames(&s);
    let b = open(s, frames, true, Control::block);
    let ticket = b.engine.prefetch(3, 4).unwrap();
    b.engine.cancel(ticket).unwrap();
    let mut events = Vec::new();
    b.engine.poll(&mut events, 10);
    assert_eq!(events.len(), 1);
    assert_eq!((events[0].kind, events[0].failure), (EventKind::Done, Some(Status::Cancelled)));
    b.engine.cancel(ticket).unwrap();
    b.engine.poll(&mut events, 10);
    assert_eq!(events.len(), 1);
    assert_eq!(b.engine.cancel(ticket + 1).unwrap_err().status(), Status::NotFound);
    b.control.unblock();
}

#[test]
fn a_failing_read_is_retried_fails_its_pass_alone_and_is_an_event() {
    let s = uneven();
    let page = s.pages[s.layer_pages(2).start + 1].clone();
    // Not at its ends, which share blocks with the neighbours.
    let middle = page.offset + page.bytes / 2;
    let range = middle..middle + 1;
    let frames = Engine::full_frames(&s);
    let b = open(s, frames, true, |c| c.fail(range, usize::MAX));
    let ticket = b.engine.prefetch(2, 1).unwrap();
    let events = b.until_done(ticket);
    assert!(events.iter().any(|e| e.kind == EventKind::Layer && e.failure == Some(Status::Io)), "{events:?}");
    assert_eq!(b.stats().prefetch_failures, 1);
    let tries = b.control.failed_reads();
    let error = b.pass().unwrap_err();
    assert_eq!(error.status(), Status::Io);
    assert!(error.message().contains("m15") && error.message().contains("scripted.gguf"), "{}", error.message());
    assert!(b.control.failed_reads() > tries, "the pass tried again before it failed");
    b.control.heal();
    b.pass().unwrap();
}

#[test]
fn a_background_failure_that_passes_is_not_noticed_by_the_pass() {
    let s = uneven();
    let page = s.pages[30].clone();
    let floor = Engine::min_frames(&s);
    let b = open(s, floor, true, |c| c.fail(page.offset..page.offset + 1, 1));
    b.pass().unwrap();
    b.pass().unwrap();
}

#[test]
fn short_and_interrupted_reads_are_completed() {
    let s = uneven();
    let floor = Engine::min_frames(&s);
    let b = open(s, floor, true, |c| {
        c.shorten(3 * 4096);
        c.interrupt(50);
    });
    b.pass().unwrap();
}

#[test]
fn a_file_cut_short_while_open_is_an_error_that_gives_the_figures() {
    let s = uneven();
    let floor = Engine::min_frames(&s);
    let end = s.pages.iter().map(|p| p.offset + p.bytes).max().unwrap();
    struct Cut(ScriptedSource, u64);
    impl Source for Cut {
        fn name(&self) -> &str {
            self.0.name()
        }
        fn start(&self) -> u64 {
            0
        }
        fn end(&self) -> u64 {
            self.0.end()
        }
        fn alignment(&self) -> u64 {
            4096
        }
        fn read_at(&self, offset: u64, buf: &mut [u8]) -> std::io::Result<usize> {
            let n = (self.1.saturating_sub(offset) as usize).min(buf.len());
            self.0.read_at(offset, &mut buf[..n])
        }
    }
    let source = Cut(ScriptedSource::patterned(&Control::default(), end), end / 2 + 1000);
    let engine = Engine::start(config(s, source, floor)).unwrap();
    let b = Bench { interrupt: Interrupt::new(&engine), engine, control: Control::default() };
    let error = b.pass().unwrap_err();
    assert_eq!(error.status(), Status::Io);
    assert!(error.message().contains(&format!("had {end} bytes")), "{}", error.message());
}

#[test]
fn an_interrupt_ends_a_pass_that_waits_for_blocked_storage() {
    let s = uneven();
    let floor = Engine::min_frames(&s);
    let b = open(s, floor, true, Control::block);
    let since = b.interrupt.count();
    std::thread::scope(|scope| {
        let pass = scope.spawn(|| b.engine.sweep(&b.interrupt, since, b.pages())?.page(0).map(|_| ()));
        b.control.await_blocked(1);
        b.interrupt.raise();
        assert_eq!(pass.join().unwrap().unwrap_err().status(), Status::Cancelled);
    });
    b.control.unblock();
    b.pass().unwrap();
}

#[test]
fn sweeps_of_several_threads_take_turns_and_all_end() {
    let s = uneven();
    let frames = Engine::min_frames(&s) * 2;
    let b = open(s, frames, true, |_| {});
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| (0..10).for_each(|_| b.pass().unwrap()));
        }
        scope.spawn(|| {
            for i in 0..200 {
                let ticket = b.engine.prefetch(i % 12, 1).unwrap();
                if i % 3 == 0 {
                    b.engine.cancel(ticket).unwrap();
                }
            }
        });
    });
    assert!(b.stats().peak_bytes <= frames);
}

#[test]
fn sweeps_begin_in_the_order_of_asking_and_a_cancelled_one_leaves_the_queue() {
    let s = uneven();
    let floor = Engine::min_frames(&s);
    let b = open(s, floor, true, Control::block);
    let interrupts: Vec<_> = (0..5).map(|_| Interrupt::new(&b.engine)).collect();
    let order = parking_lot::Mutex::new(Vec::new());
    let await_state = |reached: &dyn Fn(&State) -> bool| {
        while !reached(&b.engine.shared().state.lock()) {
            std::thread::yield_now();
        }
    };
    std::thread::scope(|scope| {
        for (i, interrupt) in interrupts.iter().enumerate() {
            let (order, engine) = (&order, &b.engine);
            scope.spawn(move || {
                let mut sweep = engine.sweep(interrupt, 0, engine.schedule().sweep_len)?;
                order.lock().push(i);
                sweep.page(0).map(|_| ())
            });
            await_state(&|state| state.cursor().sweeping() && state.cursor().waiting_sweeps() == i);
        }
        interrupts[2].raise();
        await_state(&|state| state.cursor().waiting_sweeps() == 3);
        b.control.unblock();
    });
    assert_eq!(*order.lock(), [0, 1, 3, 4]);
}

#[test]
fn rows_are_the_same_from_memory_and_from_storage() {
    let table = MatrixId(84);
    for frames in [Engine::min_frames(&uneven()), Engine::full_frames(&uneven())] {
        let b = open(uneven(), frames, true, |_| {});
        b.engine.settle();
        let m = b.engine.schedule().matrix(table).clone();
        assert_eq!(m.rows, 300);
        let mut buffer = Memory::new(Engine::row_buffer_bytes(m.row_bytes)).unwrap();
        for row in [0, 1, 127, 128, 299] {
            let (_, offset) = m.row_place(row);
            let right = |bytes: &[u8]| {
                bytes.len() == m.row_bytes && bytes.iter().zip(offset..).all(|(&x, at)| x == byte_at(at))
            };
            assert!(b.engine.with_row(table, row, &mut buffer, right).unwrap(), "row {row}");
            // Storage that fails once is asked once more.
            b.control.fail(offset..offset + 1, 1);
            assert!(b.engine.with_row(table, row, &mut buffer, right).unwrap(), "row {row}");
        }
    }
}

#[test]
fn a_page_is_released_when_the_use_of_its_row_panics() {
    let table = MatrixId(84);
    let b = open(uneven(), Engine::full_frames(&uneven()), true, |_| {});
    b.engine.settle();
    let m = b.engine.schedule().matrix(table).clone();
    let mut buffer = Memory::new(Engine::row_buffer_bytes(m.row_bytes)).unwrap();
    let panicking = std::panic::AssertUnwindSafe(|| b.engine.with_row(table, 0, &mut buffer, |_| panic!("a test")));
    assert!(std::panic::catch_unwind(panicking).is_err());
    // A page that is still held would keep its frame.
    let floor = Engine::min_frames(&uneven());
    b.engine.set_budget(floor).unwrap();
    b.engine.settle();
    assert!(b.engine.stats().used_bytes <= floor);
}

#[test]
fn closing_with_work_under_way_is_safe() {
    for blocked in [false, true] {
        let s = uneven();
        let frames = Engine::full_frames(&s);
        let b = open(s, frames, true, |c| {
            if blocked {
                c.block();
            }
        });
        b.engine.prefetch(0, 12).unwrap();
        let control = b.control.clone();
        if blocked {
            control.await_blocked(1);
        }
        // A read that hangs is left behind after a while; here it is released while closing waits for it.
        let release = std::thread::spawn(move || control.unblock());
        drop(b);
        release.join().unwrap();
    }
}

#[test]
fn the_prefetch_distance_limits_how_far_ahead_is_read() {
    let schedule = uneven();
    let end = schedule.pages.iter().map(|p| p.offset + p.bytes).max().unwrap();
    let frames = Engine::full_frames(&schedule);
    let control = Control::default();
    let source = ScriptedSource::patterned(&control, end);
    let engine = Engine::start(Config { prefetch_distance: 2, ..config(schedule, source, frames) }).unwrap();
    engine.settle();
    assert_eq!(engine.layer_state(2).unwrap(), LayerState::Pinned);
    assert_eq!(engine.layer_state(3).unwrap(), LayerState::Absent);
}
