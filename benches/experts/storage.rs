//! What storage gives for reads of experts: an expert's three matrices lie far apart in the file, and are read at once.

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Barrier, Mutex};
use std::time::Instant;

use layerline::weights::Io;
use layerline::weights::frames::Memory;
use layerline::weights::source::{DIRECT_ALIGNMENT, OpenedSource, in_mode, open_path};
use serde_json::{Value, json};

use crate::Result;

/// As many as the library has.
const READERS: usize = 4;
/// At this size storage is at its fastest.
const LARGE: usize = 2 << 20;
const LARGE_READS: usize = 16;
/// Experts that are read one after another, each waited for.
const EXPERTS: usize = 200;

/// What is to be read: offsets and lengths, which the readers share out.
type Batch = Vec<(u64, usize)>;

/// `matrix_bytes`: what one of an expert's three matrices takes.
pub fn measure(path: &Path, matrix_bytes: usize) -> Result<Value> {
    let text = |e: layerline::Error| e.to_string();
    let (sources, _) = in_mode(vec![OpenedSource::File(open_path(path).map_err(text)?)], Io::Direct).map_err(text)?;
    let source = &*sources[0];
    let part = matrix_bytes.next_multiple_of(DIRECT_ALIGNMENT as usize);
    let batches = batches(source.end(), part);
    let buffer = || Memory::new(LARGE.max(3 * part)).map_err(|e| e.to_string());
    let buffers = (0..READERS).map(|_| buffer()).collect::<Result<Vec<_>>>()?;
    // The readers are there before anything is timed: at a barrier they wait for a batch, at another all have ended it.
    let (begin, end) = (Barrier::new(READERS + 1), Barrier::new(READERS + 1));
    let next = AtomicUsize::new(0);
    let failure = Mutex::new(None);
    let mut seconds: [Vec<f64>; 3] = Default::default();
    std::thread::scope(|scope| {
        for mut buffer in buffers {
            let (batches, begin, end, next, failure) = (&batches, &begin, &end, &next, &failure);
            scope.spawn(move || {
                for (_, batch) in batches {
                    begin.wait();
                    while let Some(&(offset, length)) = batch.get(next.fetch_add(1, Ordering::Relaxed)) {
                        if let Err(e) = source.read_full(offset, &mut buffer.bytes_mut()[..length]) {
                            *failure.lock().unwrap_or_else(|poisoned| poisoned.into_inner()) = Some(e.to_string());
                        }
                    }
                    end.wait();
                }
            });
        }
        for (kind, batch) in &batches {
            next.store(0, Ordering::Relaxed);
            let started = Instant::now();
            begin.wait();
            end.wait();
            let pieces = if *kind == LARGE_READ { batch.len() } else { 1 };
            seconds[*kind].push(started.elapsed().as_secs_f64() / pieces as f64);
        }
    });
    if let Some(message) = failure.into_inner().unwrap_or_else(|poisoned| poisoned.into_inner()) {
        return Err(message);
    }
    let [large, one, three] = seconds.map(super::end_to_end::median);
    Ok(json!({
        "bytes_per_second": LARGE as f64 / large,
        "expert_bytes": 3 * part,
        "one_read_seconds": one,
        "three_reads_seconds": three,
    }))
}

/// Kinds of batches.
const LARGE_READ: usize = 0;
const ONE_READ: usize = 1;
const THREE_READS: usize = 2;

/// Batches of all kinds, which take turns: other programs disturb all of them alike. Their places are scattered, and others
/// each time, so that no cache of the storage has them.
fn batches(end: u64, part: usize) -> Vec<(usize, Batch)> {
    let mut seed = std::time::SystemTime::UNIX_EPOCH.elapsed().map_or(1, |d| d.as_nanos() as u64) | 1;
    let mut place = |bytes: usize| {
        seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        let offset = (seed >> 16) % (end - bytes as u64) / DIRECT_ALIGNMENT * DIRECT_ALIGNMENT;
        (offset, bytes)
    };
    let mut batches = Vec::new();
    for i in 0..EXPERTS {
        batches.push((THREE_READS, vec![place(part), place(part), place(part)]));
        batches.push((ONE_READ, vec![place(3 * part)]));
        if i % 10 == 0 {
            batches.push((LARGE_READ, (0..LARGE_READS).map(|_| place(LARGE)).collect()));
        }
    }
    batches
}
