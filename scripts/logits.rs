//! Writes the logits of models, as little-endian floats, for a comparison of builds or of programs:
//!
//!     logits [--instructions NAME] [--tokens N,N,...] OUT MODEL...
//!     logits --instructions        the names that this processor has, slowest first
//!
//! Each model takes in the same twelve tokens in one pass and four greedy ones after it, at its floor budget; with --tokens
//! these, of which the logits of every position are written.

use std::io::Write;
use std::path::Path;

use layerline::kernel::Isa;
use layerline::model::{Logits, Model, Options};
use layerline::session::Session;

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

fn main() -> Result<()> {
    let mut arguments = std::env::args_os().skip(1).peekable();
    if arguments.next_if(|argument| argument == "--instructions").is_some() {
        let Some(name) = arguments.next() else {
            Isa::available().iter().for_each(|isa| println!("{}", isa.name()));
            return Ok(());
        };
        let isa = Isa::available().into_iter().find(|isa| name == isa.name());
        isa.ok_or("the processor has no such instructions")?.choose();
    }
    let given = match arguments.next_if(|argument| argument == "--tokens") {
        Some(_) => {
            let list = arguments.next().and_then(|list| list.into_string().ok()).ok_or("--tokens needs numbers")?;
            Some(list.split(',').map(str::parse).collect::<std::result::Result<Vec<i32>, _>>()?)
        }
        None => None,
    };
    let out = arguments.next().ok_or("usage: logits [--tokens N,N,...] OUT MODEL...")?;
    let mut out = std::io::BufWriter::new(std::fs::File::create(out)?);
    for model in arguments {
        write_logits(model.as_ref(), given.as_deref(), &mut out)?;
    }
    Ok(out.flush()?)
}

fn write_logits(path: &Path, given: Option<&[i32]>, out: &mut impl Write) -> Result<()> {
    let context_length = given.map_or(64, |tokens| tokens.len() as u32);
    let mut options = Options { context_length, chunk_length: 16, threads: 2, ..Options::default() };
    options.memory_budget = Model::plan(path, &options)?.floor_bytes;
    let model = Model::open(path, &options)?;
    let vocab = model.info().vocab_size as usize;
    let mut session = Session::new(&model, 0)?;
    let mut pass = |tokens: &[i32]| -> Result<i32> {
        session.forward(tokens, Logits::Last)?;
        let logits = session.logits(0)?;
        for x in logits {
            out.write_all(&x.to_le_bytes())?;
        }
        Ok((0..vocab).max_by(|&a, &b| logits[a].total_cmp(&logits[b])).unwrap_or(0) as i32)
    };
    if let Some(tokens) = given {
        return tokens.iter().try_for_each(|token| pass(&[*token]).map(drop));
    }
    let mut tokens: Vec<i32> = (0..12).map(|i| ((i * 7919 + 11) % vocab) as i32).collect();
    for _ in 0..5 {
        tokens = vec![pass(&tokens)?];
    }
    Ok(())
}
