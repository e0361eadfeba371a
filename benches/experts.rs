//! How often experts are found in memory, and what that is worth: `make bench-experts ARGS="trace ..."`, or
//! `cargo bench --bench experts -- trace ...`. Traces: scripts/make_model/trace.rs.
//!
//! Without options: what policies find in memory, of the uses of the second half of each trace. With `--end-to-end`: a model
//! whose routers follow the trace decodes its tokens in a memory cgroup: with the cache, with a fixed share of experts, and by
//! llama.cpp.

#[path = "streaming/cache.rs"]
mod cache;
#[path = "experts/chart.rs"]
mod chart;
#[path = "experts/end_to_end.rs"]
mod end_to_end;
#[path = "streaming/made.rs"]
mod made;
#[path = "experts/storage.rs"]
mod storage;
#[path = "../scripts/make_model/trace.rs"]
mod trace;

use std::collections::HashMap;
use std::time::Instant;

use layerline::weights::experts::{Cache, Decision};

use trace::Trace;

type Result<T> = std::result::Result<T, String>;

/// The source tree: scripts and models are found from here.
const ROOT: &str = env!("CARGO_MANIFEST_DIR");

const SHARES: [usize; 6] = [2, 5, 10, 25, 50, 75];

/// All uses in order; whether each is counted.
fn uses(trace: &Trace) -> impl Iterator<Item = (bool, (u32, u32))> {
    let half = trace.tokens.len() / 2;
    trace.tokens.iter().enumerate().flat_map(move |(t, layers)| {
        (0..).zip(layers).flat_map(move |(l, chosen)| chosen.iter().map(move |&e| (t >= half, (l, e))))
    })
}

fn capacity(trace: &Trace, percent: usize) -> usize {
    trace.layers as usize * trace.experts as usize * percent / 100
}

/// Per cent of the counted uses that are hits.
fn rate(hits: impl Iterator<Item = (bool, bool)>) -> f64 {
    let (mut found, mut all) = (0u32, 0u32);
    for (_, hit) in hits.filter(|&(counted, _)| counted) {
        all += 1;
        found += u32::from(hit);
    }
    100.0 * f64::from(found) / f64::from(all.max(1))
}

fn fixed_share(trace: &Trace, capacity: usize) -> f64 {
    let all = (trace.layers * trace.experts) as usize;
    // Spread evenly: every expert earns credit, and stays when the credit covers it.
    let stays = |i: usize| (i + 1) * capacity / all > i * capacity / all;
    rate(uses(trace).map(|(counted, (l, e))| (counted, stays((l * trace.experts + e) as usize))))
}

/// Evicts the one with the smallest worth among those that `among` allows.
fn by_worth(trace: &Trace, capacity: usize, per_layer: bool, worth: impl Fn(u64, u64) -> u64) -> f64 {
    let mut resident: HashMap<(u32, u32), ()> = HashMap::new();
    let mut seen: HashMap<(u32, u32), (u64, u64)> = HashMap::new();
    let mut now = 0;
    let room = if per_layer { capacity / trace.layers as usize } else { capacity };
    rate(uses(trace).map(|(counted, x)| {
        now += 1;
        let times = seen.get(&x).map_or(0, |s| s.1);
        seen.insert(x, (now, times + 1));
        if resident.contains_key(&x) {
            return (counted, true);
        }
        let rivals = || resident.keys().copied().filter(|r| !per_layer || r.0 == x.0);
        if room > 0 {
            if rivals().count() >= room {
                let worst = rivals().min_by_key(|r| (worth(seen[r].0, seen[r].1), *r));
                worst.map(|r| resident.remove(&r));
            }
            resident.insert(x, ());
        }
        (counted, false)
    }))
}

fn ours(trace: &Trace, capacity: usize) -> f64 {
    let mut cache = Cache::new(trace.layers, trace.experts, capacity);
    let half = trace.tokens.len() / 2;
    let mut hits = Vec::new();
    for (t, token) in trace.tokens.iter().enumerate() {
        cache.begin_token();
        for (layer, chosen) in (0..).zip(token) {
            cache.choose(layer, chosen);
            hits.extend(chosen.iter().map(|&e| (t >= half, cache.decide((layer, e)) == Decision::Hit)));
        }
    }
    rate(hits.into_iter())
}

/// What the policy's book-keeping takes for a token, in seconds: the least of several runs over the trace.
fn policy_seconds(trace: &Trace, capacity: usize) -> f64 {
    let run = |_| {
        let started = Instant::now();
        std::hint::black_box(ours(trace, capacity));
        started.elapsed().as_secs_f64() / trace.tokens.len() as f64
    };
    (0..9).map(run).fold(f64::INFINITY, f64::min)
}

/// Evicts what is used last, and does not admit what is used later than all that is there.
fn belady(trace: &Trace, capacity: usize) -> f64 {
    let uses: Vec<_> = uses(trace).collect();
    let mut next = vec![usize::MAX; uses.len()];
    let mut later: HashMap<(u32, u32), usize> = HashMap::new();
    for (i, &(_, x)) in uses.iter().enumerate().rev() {
        next[i] = later.insert(x, i).unwrap_or(usize::MAX);
    }
    let mut resident: HashMap<(u32, u32), usize> = HashMap::new();
    rate(uses.iter().zip(next).map(|(&(counted, x), next)| {
        let hit = resident.contains_key(&x);
        if hit || resident.len() < capacity {
            resident.insert(x, next);
        } else if let Some((&last, &at)) = resident.iter().max_by_key(|&(x, at)| (*at, *x))
            && at > next
        {
            resident.remove(&last);
            resident.insert(x, next);
        }
        (counted, hit)
    }))
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|a| a != "--bench").collect();
    if let [first, rest @ ..] = &arguments[..]
        && (first == "--end-to-end" || first == end_to_end::WORKER)
    {
        let ended = if first == end_to_end::WORKER { end_to_end::work(rest) } else { end_to_end::run(rest) };
        if let Err(message) = ended {
            eprintln!("experts: {message}");
            std::process::exit(1);
        }
        return;
    }
    if arguments.is_empty() {
        println!("usage: cargo bench --bench experts -- TRACE ...\n{}", end_to_end::USAGE);
    }
    for path in arguments {
        let trace = Trace::read(&path).unwrap_or_else(|e| panic!("{e}"));
        println!("{path}: {} layers of {} experts, {} tokens", trace.layers, trace.experts, trace.tokens.len());
        println!("{:<40}{}", "found in memory, per cent, at", SHARES.map(|s| format!("{s:>7} %")).concat());
        let row = |name: &str, policy: &dyn Fn(&Trace, usize) -> f64| {
            let cells = SHARES.map(|share| format!("{:>9.1}", policy(&trace, capacity(&trace, share))));
            println!("{name:<40}{}", cells.concat());
        };
        row("fixed share", &fixed_share);
        row("least recently used", &|t, c| by_worth(t, c, false, |last, _| last));
        row("least frequently used, per layer", &|t, c| by_worth(t, c, true, |_, times| times));
        row("expected next use", &ours);
        row("the best there can be (Belady, bypass)", &belady);
        row("expected next use: its time, µs per token", &|t, c| 1e6 * policy_seconds(t, c));
    }
}
