//! What the command line says.

use std::path::PathBuf;

use layerline::model::Plan;

use crate::{Result, worker};

pub const USAGE: &str = "\
usage: cargo bench --bench streaming -- [OPTIONS]      (or make bench-streaming ARGS='OPTIONS')
  --model FILE         measure this model; default: a synthetic tinyllama-1.1b q4_k_m, made in models/
  --budgets LIST       full, floor, and percentages of the file; default full,100,95,75,50,25,floor
  --tokens N           tokens decoded in each run, after the warm-up; default 24
  --repeats N          default 3
  --threads N          default: the CPUs this process may use
  --context N          tokens of the session; default 512
  --peer-python PATH   a Python that has llama_cpp; default: the environment's LAYERLINE_PEER_PYTHON, else none
  --skip-peer
  --batch LIST         instead: so many sequences in the same sweeps, by one call and by a thread each, as in 1,2,4,8;
                       default budgets full,50,25,floor
  --draft              instead: real texts with and without drafts from the text, in turns; default the small model that
                       scripts/fetch_model.py fetches, budgets full,50,33
  --draft-model FILE   instead: the same with drafts of this model, which is all in memory
  --task WORDS         with drafts: only the tasks whose name has these words
  --chunks LIST        instead: a prompt of 512 tokens at a quarter of the file, in chunks of these lengths
  --json FILE          figures; default target/bench/streaming.json
  --svg FILE           chart; default target/bench/streaming.svg
  --render FILE        table and chart of figures written before, without measuring
  --quick              a tiny model, few tokens: shows that it runs, and nothing else";

#[derive(Clone, Copy)]
pub enum Budget {
    /// Nothing is streamed, and no cgroup holds anybody.
    Full,
    /// Of the file.
    Percent(f64),
    /// The least that works.
    Floor,
}

impl Budget {
    /// Its name, its bytes for a model of this plan, and whether a cgroup holds to it. None, with a word about it, where it
    /// is below the floor.
    pub fn of(self, least: &Plan) -> Option<(String, u64, bool)> {
        let (name, bytes, grouped) = match self {
            Budget::Full => ("all in memory".to_string(), least.full_bytes, false),
            Budget::Percent(p) => (format!("{p} %"), (least.file_bytes as f64 * p / 100.0) as u64, true),
            Budget::Floor => ("floor".to_string(), least.floor_bytes, true),
        };
        if bytes < least.floor_bytes {
            println!("{name} of the file is below the floor of {} bytes: left out", least.floor_bytes);
            return None;
        }
        Some((name, bytes, grouped))
    }
}

pub struct Options {
    pub model: Option<PathBuf>,
    pub budgets: Vec<Budget>,
    pub tokens: usize,
    pub repeats: usize,
    pub threads: u32,
    pub context: u32,
    /// Tokens that a prompt's sweep takes at most: sizes the activations, for the peer too.
    pub chunk: u32,
    /// Whether the page cache forgets the model before each run.
    pub forget: bool,
    /// Tokens of the prompt before those that are decoded.
    pub before: usize,
    pub peer_python: Option<PathBuf>,
    /// Numbers of sequences to be compared; empty: that is not what is asked.
    pub batches: Vec<u32>,
    /// Whether drafts are compared with none.
    pub draft: bool,
    /// The model that drafts; None: the text.
    pub draft_model: Option<PathBuf>,
    /// Only tasks whose name has this in it are measured.
    pub task: String,
    /// Chunk lengths to be compared; empty: that is not what is asked.
    pub chunks: Vec<u32>,
    pub json: Option<PathBuf>,
    pub svg: Option<PathBuf>,
    pub render: Option<PathBuf>,
    pub quick: bool,
    /// What a cgroup grants beside the budget: the program itself.
    pub program_bytes: u64,
    /// A run that has not decoded all tokens after this many seconds is content with fewer.
    pub seconds: u32,
}

impl Options {
    /// The library's options at this budget.
    pub fn of_library(&self, budget: u64) -> layerline::model::Options {
        layerline::model::Options {
            memory_budget: budget,
            context_length: self.context,
            chunk_length: self.chunk,
            threads: self.threads,
            ..Default::default()
        }
    }
}

/// `None`: help was asked for.
pub fn parse(arguments: impl Iterator<Item = String>) -> Result<Option<Options>> {
    let mut options = Options {
        model: None,
        budgets: Vec::new(),
        tokens: 0,
        repeats: 0,
        threads: std::thread::available_parallelism().map_or(1, |n| n.get() as u32),
        context: 512,
        chunk: 32,
        forget: true,
        before: worker::SHORT,
        peer_python: std::env::var_os("LAYERLINE_PEER_PYTHON").filter(|p| !p.is_empty()).map(PathBuf::from),
        batches: Vec::new(),
        draft: false,
        draft_model: None,
        task: String::new(),
        chunks: Vec::new(),
        json: None,
        svg: None,
        render: None,
        quick: false,
        program_bytes: 24 << 20,
        seconds: 20,
    };
    let mut arguments = arguments;
    let mut skip_peer = false;
    while let Some(flag) = arguments.next() {
        let mut value = || arguments.next().ok_or_else(|| format!("{flag} needs a value"));
        let count = |text: String| match text.parse::<u32>() {
            Ok(n) if n > 0 => Ok(n),
            _ => Err(format!("{flag}: {text:?} is not a count")),
        };
        match flag.as_str() {
            "--model" => options.model = Some(value()?.into()),
            "--budgets" => options.budgets = value()?.split(',').map(budget).collect::<Result<_>>()?,
            "--tokens" => options.tokens = count(value()?)? as usize,
            "--repeats" => options.repeats = count(value()?)? as usize,
            "--threads" => options.threads = count(value()?)?,
            "--context" => options.context = count(value()?)?,
            "--peer-python" => options.peer_python = Some(value()?.into()),
            "--skip-peer" => skip_peer = true,
            "--batch" => {
                options.batches = value()?.split(',').map(|n| count(n.trim().into())).collect::<Result<_>>()?
            }
            "--draft" => options.draft = true,
            "--draft-model" => (options.draft, options.draft_model) = (true, Some(value()?.into())),
            "--task" => options.task = value()?,
            "--chunks" => {
                options.chunks = value()?.split(',').map(|n| count(n.trim().into())).collect::<Result<_>>()?
            }
            "--json" => options.json = Some(value()?.into()),
            "--svg" => options.svg = Some(value()?.into()),
            "--render" => options.render = Some(value()?.into()),
            "--quick" => options.quick = true,
            "--help" | "-h" => return Ok(None),
            _ => return Err(format!("{flag:?} is not an option")),
        }
    }
    if skip_peer {
        options.peer_python = None;
    }
    if options.budgets.is_empty() {
        let list = match (options.quick, options.batches.is_empty()) {
            _ if options.draft => "full,50,33",
            (true, _) => "full,floor",
            (false, true) => "full,100,95,75,50,25,floor",
            (false, false) => "full,50,25,floor",
        };
        options.budgets = list.split(',').map(budget).collect::<Result<_>>()?;
    }
    let or = |given: usize, quick: usize, full: usize| match given {
        0 if options.quick => quick,
        0 => full,
        n => n,
    };
    options.tokens = or(options.tokens, 4, 24);
    options.repeats = or(options.repeats, 1, 3);
    if (options.tokens + 16) as u64 > u64::from(options.context) {
        return Err(format!("--tokens {} do not fit in a context of {}", options.tokens, options.context));
    }
    Ok(Some(options))
}

fn budget(text: &str) -> Result<Budget> {
    match text.trim() {
        "full" => Ok(Budget::Full),
        "floor" => Ok(Budget::Floor),
        percent => match percent.trim_end_matches('%').parse::<f64>() {
            Ok(p) if p > 0.0 && p <= 1000.0 => Ok(Budget::Percent(p)),
            _ => Err(format!("--budgets: {text:?} is neither full, floor nor a percentage")),
        },
    }
}
