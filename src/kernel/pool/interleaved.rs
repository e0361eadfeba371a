//! The pool under a scheduler that tries orders of its threads, with stores that others may see late. The last thread that
//! sleeps for ever, or looks for ever for what never comes, fails the test.

use super::*;
use crate::sys::sync::orders::check;
use std::sync::atomic::AtomicUsize;

/// How often each element of 0..total was visited. The counts are no part of what the scheduler sees.
fn visits(pool: &Pool, total: usize) -> Vec<usize> {
    let counts: Vec<AtomicUsize> = (0..total).map(|_| AtomicUsize::new(0)).collect();
    pool.for_ranges(total, 1, &|range| {
        for count in &counts[range] {
            count.fetch_add(1, Ordering::Relaxed);
            thread::yield_now();
        }
    });
    counts.into_iter().map(AtomicUsize::into_inner).collect()
}

#[test]
fn every_unit_of_every_job_is_done_once_and_the_pool_ends_in_any_order() {
    check(|| {
        let pool = Pool::new(3).unwrap();
        for total in [5, 2, 3] {
            assert_eq!(visits(&pool, total), vec![1; total]);
        }
    });
}

/// Two units that wait for each other end on two threads only: a worker that misses the job, spinning or parked, is found.
#[test]
fn a_worker_takes_part_in_every_job_in_any_order() {
    check(|| {
        let pool = Pool::new(2).unwrap();
        for _ in 0..3 {
            let arrived = AtomicUsize::new(0);
            pool.for_ranges(2, 1, &|_| {
                arrived.fetch_add(1, Ordering::Relaxed);
                while arrived.load(Ordering::Relaxed) < 2 {
                    thread::yield_now();
                }
            });
        }
    });
}

#[test]
fn callers_take_turns_and_a_nested_job_runs_in_place_in_any_order() {
    check(|| {
        let pool = Pool::new(2).unwrap();
        thread::scope(|scope| {
            for total in [2, 3] {
                let pool = &pool;
                scope.spawn(move || {
                    assert_eq!(visits(pool, total), vec![1; total]);
                    pool.for_ranges(2, 1, &|_| assert_eq!(visits(pool, 2), [1, 1]));
                });
            }
        });
    });
}
