//! Decoding several sequences in the same sweeps, in a process of its own.

use std::path::Path;
use std::sync::Barrier;
use std::time::{Duration, Instant};

use layerline::model::{Logits, Model, Outputs};
use layerline::session::{BatchInput, Session, forward_batch};
use serde_json::{Value, json};

use crate::Result;

/// Steps that are not counted.
const WARM_UP: usize = 3;
/// A step stops the run after this long.
const LIMIT: Duration = Duration::from_secs(20);

/// How sequences come to share sweeps.
#[derive(Clone, Copy, PartialEq)]
pub enum Way {
    /// By one call.
    Batch,
    /// Each has a thread of its own.
    Threads,
}

impl Way {
    pub const ALL: [Way; 2] = [Way::Batch, Way::Threads];

    pub fn name(self) -> &'static str {
        match self {
            Way::Batch => "batch",
            Way::Threads => "threads",
        }
    }
}

/// Decodes `tokens` tokens of `count` sequences, each after a prompt of its own of `before` tokens.
pub fn decode(
    path: &Path,
    options: &layerline::model::Options,
    tokens: usize,
    before: usize,
    (count, way): (usize, &str),
) -> Result<Value> {
    let text = |e: layerline::Error| e.to_string();
    let model = Model::open(path, options).map_err(text)?;
    let vocabulary = model.info().vocab_size as usize;
    let token = |sequence: usize, i: usize| ((sequence * 31 + i) * 7919 % vocabulary) as i32;
    let mut sessions =
        (0..count).map(|_| Session::new(&model, 0)).collect::<layerline::Result<Vec<_>>>().map_err(text)?;
    let prompts: Vec<Vec<i32>> = (0..count).map(|s| (1..=before).map(|i| token(s, i)).collect()).collect();
    batch(&mut sessions, &prompts)?;
    let (seconds, steps, read) = if way == Way::Threads.name() {
        let barrier = Barrier::new(count + 1);
        let run = &|s: usize, session: &mut Session| -> Result<()> {
            for i in 0..WARM_UP {
                session.forward(&[token(s, before + i)], Logits::Last).map_err(text)?;
            }
            barrier.wait();
            for i in 0..tokens {
                session.forward(&[token(s, before + WARM_UP + i)], Logits::Last).map_err(text)?;
            }
            session.pause();
            Ok(())
        };
        std::thread::scope(|scope| -> Result<_> {
            let threads: Vec<_> =
                sessions.iter_mut().enumerate().map(|(s, session)| scope.spawn(move || run(s, session))).collect();
            barrier.wait();
            let (started, read) = (Instant::now(), model.stats().read_bytes);
            for thread in threads {
                thread.join().unwrap_or_else(|_| Err("a thread panicked".into()))?;
            }
            Ok((started.elapsed().as_secs_f64(), tokens, model.stats().read_bytes - read))
        })?
    } else {
        let step = |sessions: &mut [Session], i: usize| {
            batch(sessions, &(0..count).map(|s| vec![token(s, before + i)]).collect::<Vec<_>>())
        };
        for i in 0..WARM_UP {
            step(&mut sessions, i)?;
        }
        let (started, read) = (Instant::now(), model.stats().read_bytes);
        let mut done = 0;
        while done < tokens && (done == 0 || started.elapsed() < LIMIT) {
            step(&mut sessions, WARM_UP + done)?;
            done += 1;
        }
        (started.elapsed().as_secs_f64(), done, model.stats().read_bytes - read)
    };
    Ok(json!({
        "tokens_per_second": (steps * count) as f64 / seconds,
        "read_bytes_per_step": read as f64 / steps as f64,
        "peak_bytes": model.stats().peak_bytes,
    }))
}

fn batch(sessions: &mut [Session], tokens: &[Vec<i32>]) -> Result<()> {
    let outputs = Outputs::from(Logits::Last);
    let inputs = sessions.iter_mut().zip(tokens);
    let mut inputs: Vec<BatchInput> = inputs.map(|(session, tokens)| BatchInput { session, tokens, outputs }).collect();
    forward_batch(&mut inputs).into_iter().collect::<layerline::Result<()>>().map_err(|e| e.to_string())
}
