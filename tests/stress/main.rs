//! Eight threads do whatever a host may do, to four models at once, two of them on one budget. Every pass that succeeds
//! has the bits of a quiet run, every ticket ends with one DONE, memory stays within the budgets, and nothing hangs.
//!
//!   LAYERLINE_STRESS_SECONDS   how long, 4 unless told
//!   LAYERLINE_STRESS_SEED      what the threads choose; the order in which they run stays the system's

mod book;
#[allow(dead_code)]
#[path = "../data/drawn.rs"]
mod drawn;
mod reference;
mod subject;
mod watchdog;
mod worker;

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use layerline::model::{Io, Options};

use subject::{Purse, Subject};
use watchdog::Watchdog;
use worker::Worker;

const WORKERS: usize = 8;

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{name} is a number")))
}

fn subjects() -> Vec<Subject> {
    let options = Options { context_length: subject::CONTEXT, threads: 2, ..Options::default() };
    let own = |name, options: Options| Subject::open(name, &options, None);
    let mut subjects = vec![
        own("arch/llama", Options { chunk_length: 3, ..options.clone() }),
        own("quant/Q4_K_M", Options { io: Io::Buffered, ..options.clone() }),
    ];
    let pair = ["arch/llama-yarn", "arch/llama-mha-tied"];
    let pair = pair.map(|name| (name, Options { io: Io::Mmap, ..options.clone() }));
    let (floor, full) =
        pair.iter().map(|(name, options)| Subject::bounds(name, options)).fold((0, 0), |sum, bounds| {
            let (floor, full) = bounds;
            (sum.0 + floor, sum.1 + full)
        });
    let purse = Purse::shared(floor, full);
    subjects.extend(pair.map(|(name, options)| Subject::open(name, &options, Some(purse.clone()))));
    subjects
}

#[test]
fn eight_threads_get_the_same_bits_and_nothing_hangs_or_is_lost() {
    let time = Duration::from_secs(setting("LAYERLINE_STRESS_SECONDS", 4));
    let seed = setting("LAYERLINE_STRESS_SEED", 1);
    println!("{} s from seed {seed}", time.as_secs());
    let subjects = subjects();
    let watchdog = Watchdog::start(WORKERS + 1);
    let end = Instant::now() + time;
    std::thread::scope(|scope| {
        for index in 0..WORKERS {
            let mut worker = Worker::new(seed, index, &subjects, watchdog.post(index));
            scope.spawn(move || worker.run(end));
        }
    });
    let post = watchdog.post(WORKERS);
    for subject in &subjects {
        post.begins("ending what is open", subject.name);
        subject.settle(|| post.lives());
        let count = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
        let (right, ended) = (count(&subject.right), count(&subject.cancelled));
        println!("{}: {right} passes with the right bits, {ended} ended early, {}", subject.name, subject.tickets());
        assert!(right > 0, "{}: no pass succeeded", subject.name);
    }
    for subject in &subjects {
        post.begins("emptying", subject.name);
        subject.assert_shrinks_to_floor(|| post.lives());
    }
    let gone: Vec<_> = subjects.into_iter().map(Subject::close).collect();
    post.begins("closing", "all models");
    while gone.iter().any(|model| model.strong_count() > 0) {
        std::thread::yield_now();
    }
}
