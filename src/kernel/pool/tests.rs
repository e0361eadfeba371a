use super::*;
use std::sync::atomic::AtomicUsize;

/// How often each element of 0..total was visited, and that all ranges keep to the grain.
fn runs(pool: &Pool, total: usize, grain: usize) -> Vec<usize> {
    let counts: Vec<AtomicUsize> = (0..total).map(|_| AtomicUsize::new(0)).collect();
    pool.for_ranges(total, grain, &|range| {
        assert!(!range.is_empty() && range.start % grain == 0);
        assert!(range.end % grain == 0 || range.end == total);
        for count in &counts[range] {
            count.fetch_add(1, Ordering::Relaxed);
        }
    });
    counts.into_iter().map(AtomicUsize::into_inner).collect()
}

#[test]
fn every_element_is_visited_once_whatever_the_total_grain_and_threads() {
    for threads in 1..=4 {
        let pool = Pool::new(threads).unwrap();
        for total in (0..40).chain([63, 64, 65, 127, 1000, 4097]) {
            for grain in [1, 2, 3, 7, 16, 64, 5000] {
                assert_eq!(runs(&pool, total, grain), vec![1; total], "{threads} threads, {total} by {grain}");
            }
        }
    }
}

#[test]
fn what_the_workers_wrote_is_seen_by_the_caller() {
    let pool = Pool::new(3).unwrap();
    let mut sums = vec![0u64; 300];
    for round in 1..=2000u64 {
        let cells: Vec<AtomicU64> = sums.iter().map(|&s| AtomicU64::new(s)).collect();
        pool.for_ranges(cells.len(), 4, &|range| {
            for cell in &cells[range] {
                cell.store(cell.load(Ordering::Relaxed) + round, Ordering::Relaxed);
            }
        });
        sums = cells.into_iter().map(AtomicU64::into_inner).collect();
    }
    assert_eq!(sums, vec![2000 * 2001 / 2; 300]);
}

#[cfg(feature = "prefetch")]
#[test]
fn workers_take_part() {
    let pool = Pool::new(2).unwrap();
    // Two units that wait for each other can only end on two threads.
    let arrived = AtomicUsize::new(0);
    pool.for_ranges(2, 1, &|range| {
        assert_eq!(range.len(), 1);
        arrived.fetch_add(1, Ordering::SeqCst);
        while arrived.load(Ordering::SeqCst) < 2 {
            std::thread::yield_now();
        }
    });
}

#[test]
fn calls_from_several_threads_take_turns_and_nested_ones_run_in_place() {
    let pool = Pool::new(3).unwrap();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for total in 0..200 {
                    assert_eq!(runs(&pool, total, 3), vec![1; total]);
                }
                let inner = AtomicUsize::new(0);
                pool.for_ranges(20, 1, &|outer| {
                    for _ in outer {
                        pool.for_ranges(10, 1, &|range| {
                            inner.fetch_add(range.len(), Ordering::Relaxed);
                        });
                    }
                });
                assert_eq!(inner.into_inner(), 200);
            });
        }
    });
}

#[test]
fn a_panic_reaches_the_caller_after_all_other_ranges_and_the_pool_stays_usable() {
    for threads in 1..=4 {
        let pool = Pool::new(threads).unwrap();
        for bad in [0, 1, 31, 62, 63] {
            let done = AtomicUsize::new(0);
            let caught = catch_unwind(AssertUnwindSafe(|| {
                pool.for_ranges(64, 1, &|range| {
                    for i in range {
                        if i == bad {
                            // Not `panic!`: nothing is to be printed.
                            resume_unwind(Box::new(bad));
                        }
                        done.fetch_add(1, Ordering::Relaxed);
                    }
                });
            }));
            assert_eq!(caught.unwrap_err().downcast_ref(), Some(&bad));
            // All but those that shared a range with the bad one: at most half a part.
            let lost = if pool.threads() == 1 { 64 } else { 32 };
            assert!(done.into_inner() >= 64 - lost);
            assert_eq!(runs(&pool, 100, 1), vec![1; 100]);
        }
    }
}

#[cfg(feature = "prefetch")]
#[test]
fn workers_without_work_park_and_stay_parked() {
    let pool = Pool::new(3).unwrap();
    for round in 1..=3 {
        // Each of the two workers stops spinning; nothing wakes it but the next job.
        while pool.parks() < 2 * round || pool.shared.parked.load(Ordering::SeqCst) < 2 {
            std::thread::yield_now();
        }
        let parks = pool.parks();
        std::thread::sleep(Duration::from_millis(20));
        assert_eq!(pool.parks(), parks);
        assert_eq!(runs(&pool, 50, 1), vec![1; 50]);
    }
}

#[test]
fn impossible_numbers_of_threads_are_refused() {
    assert_eq!(Pool::new(0).err().unwrap().status(), Status::InvalidArgument);
    assert_eq!(Pool::new(1025).err().unwrap().status(), Status::InvalidArgument);
}

#[test]
fn memory_is_that_of_the_started_threads() {
    let (one, three) = (Pool::new(1).unwrap(), Pool::new(3).unwrap());
    assert!(Pool::memory_needed(1) < 4096);
    if cfg!(feature = "prefetch") {
        assert_eq!((one.threads(), three.threads()), (1, 3));
        assert!(Pool::memory_needed(3) >= 2 * STACK_BYTES);
    } else {
        assert_eq!(three.threads(), 1);
    }
}

/// Not a test: `cargo test --release pool_latency -- --ignored --nocapture` measures an empty job.
#[test]
#[ignore = "a measurement"]
fn pool_latency() {
    let pool = Pool::new(2).unwrap();
    let mut times: Vec<_> = (0..200_000)
        .map(|_| {
            let start = Instant::now();
            pool.for_ranges(64, 1, &|_| {});
            start.elapsed()
        })
        .collect();
    times.sort();
    println!("empty job, 2 threads: median {:?}, 90 % {:?}, 99 % {:?}", times[100_000], times[180_000], times[198_000]);
    let joined = AtomicUsize::new(0);
    for (what, rounds, pause) in [("spinning", 20_000, Duration::ZERO), ("parked", 1000, Duration::from_millis(1))] {
        let mut times: Vec<_> = (0..rounds)
            .map(|_| {
                if !pause.is_zero() {
                    std::thread::sleep(pause);
                }
                joined.store(0, Ordering::Relaxed);
                let start = Instant::now();
                pool.for_ranges(2, 1, &|_| {
                    joined.fetch_add(1, Ordering::Relaxed);
                    while joined.load(Ordering::Relaxed) < 2 {
                        std::hint::spin_loop();
                    }
                });
                start.elapsed()
            })
            .collect();
        times.sort();
        let at = |percent: usize| times[rounds * percent / 100];
        println!("both threads meet, {what}: median {:?}, 90 % {:?}, 99 % {:?}", at(50), at(90), at(99));
    }
}
