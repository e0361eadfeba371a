//! A test under a scheduler that chooses which thread runs next at every lock, wait, wake-up and atomic operation, and that
//! finds it out when all of them sleep. Run by scripts/shuttle.sh.

use shuttle::rand::{Rng, thread_rng};
use shuttle::scheduler::{PctScheduler, RandomScheduler, Scheduler};
use shuttle::{Config as Settings, MaxSteps, Runner};

/// Far more than any run takes: a thread that looks again and again for what never comes ends there.
const MOST_STEPS: usize = 200_000;

fn runs() -> usize {
    std::env::var("LAYERLINE_SHUTTLE_RUNS").map_or(2000, |text| text.parse().expect("a number of runs"))
}

/// Runs `scenario` many times, in other orders each time.
///
/// Half of the runs choose each next thread at random, half keep to priorities that change a few times in a run, which
/// finds what needs a thread to stand still for long.
pub fn check(scenario: impl Fn() + Send + Sync + Copy + 'static) {
    let mut settings = Settings::new();
    // Threads here are as deep as those of a test, whatever they ask for.
    settings.stack_size = 256 << 10;
    settings.max_steps = MaxSteps::FailAfter(MOST_STEPS);
    run(RandomScheduler::new_from_seed(1, runs() / 2), settings.clone(), scenario);
    run(PctScheduler::new_from_seed(2, 4, runs() / 2), settings, scenario);
}

fn run(scheduler: impl Scheduler + 'static, settings: Settings, scenario: impl Fn() + Send + Sync + 'static) {
    Runner::new(scheduler, settings).run(scenario);
}

pub fn chance(one_in: u32) -> bool {
    thread_rng().gen_ratio(1, one_in)
}
