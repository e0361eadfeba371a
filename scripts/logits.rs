//! Writes the logits of models, as little-endian floats, for a comparison of builds:
//!
//!     logits OUT MODEL...
//!
//! Each model takes in the same twelve tokens in one pass and four greedy ones after it, at its floor budget.

use std::io::Write;
use std::path::Path;

use layerline::model::{Logits, Model, Options};
use layerline::session::Session;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args_os().skip(1);
    let out = arguments.next().ok_or("usage: logits OUT MODEL...")?;
    let mut out = std::io::BufWriter::new(std::fs::File::create(out)?);
    for model in arguments {
        write_logits(model.as_ref(), &mut out)?;
    }
    Ok(out.flush()?)
}

fn write_logits(path: &Path, out: &mut impl Write) -> Result<(), Box<dyn std::error::Error>> {
    let mut options = Options { context_length: 64, chunk_length: 16, threads: 2, ..Options::default() };
    options.memory_budget = Model::plan(path, &options)?.floor_bytes;
    let model = Model::open(path, &options)?;
    let vocab = model.info().vocab_size as usize;
    let mut tokens: Vec<i32> = (0..12).map(|i| ((i * 7919 + 11) % vocab) as i32).collect();
    let mut session = Session::new(&model, 0)?;
    for _ in 0..5 {
        session.forward(&tokens, Logits::Last)?;
        let logits = session.logits(0)?;
        for x in logits {
            out.write_all(&x.to_le_bytes())?;
        }
        let best = (0..vocab).max_by(|&a, &b| logits[a].total_cmp(&logits[b])).unwrap_or(0);
        tokens = vec![best as i32];
    }
    Ok(())
}
