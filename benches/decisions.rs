//! What the engine's own decisions cost: `make bench-decisions`.
//!
//! Sweeps over models of 1,000 to 100,000 pages at half of their size, from a source that delivers at once, so that all
//! that is timed is deciding what is read, what is evicted and who is woken. The time per page must not grow with the
//! number of pages: that is what indexes in place of searches are for.

use layerline::gguf::Tensor;
use layerline::quant::Format;
use layerline::weights::source::Source;
use layerline::weights::{Accounting, Builder, Config, Engine, Interrupt, Schedule, Use};
use std::io;
use std::time::Instant;

/// Bytes of a page: the least that direct reads allow, so that many of them fit into memory.
const PAGE: u64 = 4096;
const PAGES_PER_LAYER: u64 = 50;
const SIZES: [u64; 5] = [1_000, 3_000, 10_000, 30_000, 100_000];
const SWEEPS: usize = 7;

/// A file whose bytes are there already: whatever the buffer holds.
struct Memory {
    end: u64,
}

impl Source for Memory {
    fn name(&self) -> &str {
        "nothing"
    }

    fn start(&self) -> u64 {
        0
    }

    fn end(&self) -> u64 {
        self.end
    }

    fn alignment(&self) -> u64 {
        PAGE
    }

    fn read_at(&self, _offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        Ok(buf.len())
    }
}

/// `pages` matrices of one page each.
fn schedule(pages: u64) -> layerline::Result<Schedule> {
    let mut builder = Builder::new(vec![0]);
    let mut uses = Vec::new();
    for i in 0..pages {
        let tensor = Tensor {
            name: format!("m{i}"),
            format: Format::F32,
            dims: [PAGE / 4, 1, 1, 1],
            dim_count: 2,
            file: 0,
            offset: i * PAGE,
            bytes: PAGE,
        };
        let id = builder.add(&tensor.name.as_str().into(), &tensor, 0, 1)?;
        uses.push((id, Use::Always { layer: (i / PAGES_PER_LAYER) as u32 }));
    }
    let head = uses.last().map(|&(id, _)| id);
    builder.finish(&uses, pages.div_ceil(PAGES_PER_LAYER) as u32, head, PAGE)
}

/// Microseconds per page of a sweep: the median of some.
fn measure(pages: u64, prefetch: bool) -> layerline::Result<f64> {
    let engine = Engine::start(Config {
        schedule: schedule(pages)?,
        sources: vec![Box::new(Memory { end: pages * PAGE })],
        accounting: Accounting::new(pages * PAGE / 2, 0, 0),
        prefetch,
        readers: 4,
        prefetch_distance: 0,
        cache_layers: 0,
        kept_experts: Default::default(),
        budget_share: None,
    })?;
    let interrupt = Interrupt::new(&engine);
    let pages = engine.schedule().sweep_len;
    let sweep = || -> layerline::Result<f64> {
        let began = Instant::now();
        let mut sweep = engine.sweep(&interrupt, interrupt.count(), pages)?;
        for p in 0..pages {
            drop(sweep.page(p)?);
        }
        drop(sweep);
        Ok(began.elapsed().as_secs_f64() * 1e6 / pages as f64)
    };
    // The first two fill what stays.
    sweep()?;
    sweep()?;
    let mut times = (0..SWEEPS).map(|_| sweep()).collect::<layerline::Result<Vec<f64>>>()?;
    times.sort_by(f64::total_cmp);
    Ok(times[SWEEPS / 2])
}

fn main() -> layerline::Result<()> {
    println!("microseconds per page of a sweep at half of the size, median of {SWEEPS} sweeps");
    println!("{:>8}  {:>12}  {:>12}", "pages", "read ahead", "on demand");
    for pages in SIZES {
        println!("{pages:>8}  {:>12.2}  {:>12.2}", measure(pages, true)?, measure(pages, false)?);
    }
    Ok(())
}
