//! What a quiet run gives: one session, one thread, everything in memory.

use std::ops::ControlFlow;
use std::path::Path;

use layerline::Result;
use layerline::generate::{Sampler, Vocabulary, generate};
use layerline::model::{Io, Logits, Model, Options};
use layerline::session::Session;

/// Tokens of a sequence.
pub const LENGTH: usize = 24;
/// How many of them are the prompt of a generation, and how many that one adds.
pub const PROMPT: usize = 6;
pub const GENERATED: usize = 4;
const SEQUENCES: i32 = 5;

pub struct Sequence {
    pub tokens: Vec<i32>,
    /// Of each position.
    logits: Vec<Vec<f32>>,
    pub generated: Vec<i32>,
}

/// Tokens have no text and none ends it.
pub struct Mute;

impl Vocabulary for Mute {
    fn is_end(&self, _: i32) -> Result<bool> {
        Ok(false)
    }
    fn append_bytes(&self, _: i32, _: bool, _: &mut Vec<u8>) -> Result<()> {
        Ok(())
    }
}

pub fn sequences(path: &Path, options: &Options) -> Vec<Sequence> {
    let quiet = Options {
        memory_budget: 1 << 30,
        prefetch: false,
        threads: 1,
        chunk_length: 0,
        io: Io::Buffered,
        ..options.clone()
    };
    let model = Model::open(path, &quiet).unwrap();
    let vocab = model.info().vocab_size as i32;
    let run = |i: i32| {
        let tokens: Vec<i32> = (0..LENGTH as i32).map(|t| (i * 7919 + t * 104_729 + t * t * 31) % vocab).collect();
        let mut session = Session::new(&model, 0).unwrap();
        session.forward(&tokens, Logits::All).unwrap();
        let logits = (0..LENGTH).map(|row| session.logits(row).unwrap().to_vec()).collect();
        session.truncate(0).unwrap();
        let mut generated = Vec::new();
        let each = |token: i32, _: &str| {
            generated.push(token);
            ControlFlow::Continue(())
        };
        generate(&mut session, &Mute, &mut Sampler::new(), &tokens[..PROMPT], GENERATED, each).unwrap();
        Sequence { tokens, logits, generated }
    };
    (0..SEQUENCES).map(run).collect()
}

impl Sequence {
    /// Fails unless the session's row `row` is, bit for bit, what the quiet run had at `position`.
    pub fn assert_row(&self, session: &Session, row: usize, position: usize, name: &str) {
        let got = session.logits(row).unwrap();
        let want = &self.logits[position];
        let differ = got.iter().zip(want).filter(|(a, b)| a.to_bits() != b.to_bits()).count();
        assert!(got.len() == want.len() && differ == 0, "{name}: {differ} logits differ at position {position}");
    }
}
