//! Child processes, each in a cgroup of its own where there are any.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::{Value, json};

use crate::options::Options;
use crate::sequences::Way;
use crate::{ROOT, Result, cache, worker};

/// A run that takes this many times its tokens' seconds is stopped.
const PATIENCE: u32 = 6;
/// Status of `timeout` when it had to stop its program.
const TIMED_OUT: i32 = 124;
const KILLED: i32 = 137;
const NO_GROUP: i32 = 77;
/// A group in which a program that does nothing has room.
const PROBE_BYTES: u64 = 64 << 20;

pub struct Runner<'a> {
    model: &'a Path,
    options: &'a Options,
    bench: PathBuf,
    groups: bool,
    /// What the peer says of itself; null: there is none.
    peer: Value,
}

impl<'a> Runner<'a> {
    pub fn new(model: &'a Path, options: &'a Options) -> Result<Runner<'a>> {
        let bench = std::env::current_exe().map_err(|e| e.to_string())?;
        let mut runner = Runner { model, options, bench, groups: false, peer: Value::Null };
        let probe = runner.spawn(Some(PROBE_BYTES), Path::new("true"), &[])?;
        runner.groups = probe.status.success();
        if !runner.groups {
            let reason = String::from_utf8_lossy(&probe.stderr);
            println!("no cgroups ({}): ours is held to its budget by itself alone", reason.trim());
        }
        if let Some(python) = &options.peer_python {
            let out = runner.spawn(None, python, &[peer_script(), "--describe".into()])?;
            match last_line(&out) {
                Some(description) if out.status.success() => runner.peer = description,
                _ => return Err(format!("{}: {}", python.display(), complaint(&out))),
            }
        }
        Ok(runner)
    }

    pub fn has_groups(&self) -> bool {
        self.groups
    }

    pub fn peer_description(&self) -> &Value {
        &self.peer
    }

    /// Bytes per second of each way of reading.
    pub fn storage(&self) -> Result<Value> {
        cache::forget(self.model)?;
        self.work(None, &["storage".into(), self.model_name()])
    }

    /// A decoding run of the library.
    pub fn ours(&self, budget: u64, limit: Option<u64>) -> Result<Value> {
        let o = self.options;
        self.library("decode", limit, [budget, o.threads.into(), o.context.into(), o.chunk.into(), o.tokens as u64])
    }

    /// Arithmetic and reads at once.
    pub fn together(&self, full: u64) -> Result<Value> {
        let o = self.options;
        self.library("together", None, [full, o.threads.into(), o.context.into(), o.chunk.into(), o.tokens as u64])
    }

    /// `count` sequences in the same sweeps.
    pub fn batch(&self, budget: u64, limit: Option<u64>, count: u32, way: Way) -> Result<Value> {
        let o = self.options;
        self.forget()?;
        let numbers = [budget, o.threads.into(), o.context.into(), o.chunk.into(), o.tokens as u64];
        let mut arguments = vec!["batch".into(), self.model_name()];
        arguments.extend(numbers.iter().map(u64::to_string));
        arguments.extend([o.before.to_string(), count.to_string(), way.name().into()]);
        self.work(limit, &arguments)
    }

    /// A prompt of `tokens` tokens, in chunks of `chunk`.
    pub fn prompt(&self, budget: u64, tokens: u32, chunk: u32) -> Result<Value> {
        let o = self.options;
        self.library("prompt", None, [budget, o.threads.into(), tokens.into(), chunk.into(), tokens.into()])
    }

    fn library(&self, what: &str, limit: Option<u64>, numbers: [u64; 5]) -> Result<Value> {
        let kept = self.forget()?;
        let mut arguments = vec![what.into(), self.model_name()];
        arguments.extend(numbers.iter().map(u64::to_string));
        arguments.extend([self.options.seconds.to_string(), self.options.before.to_string()]);
        let mut result = self.work(limit, &arguments)?;
        result["cached_bytes"] = json!(kept);
        Ok(result)
    }

    /// Decoding runs of the peer, with its weights where they are mapped and with its default of copying them. `before`
    /// is an earlier repeat: what was killed then is not tried again. Null where there is no peer, or no group to hold it.
    pub fn peers(&self, limit: Option<u64>, grouped: bool, before: Option<&Value>) -> Result<Value> {
        let Some(python) = self.options.peer_python.as_ref().filter(|_| !grouped || limit.is_some()) else {
            return Ok(Value::Null);
        };
        let mut results = json!({});
        for (name, flag) in [("mapped", &[][..]), ("repacked", &["--repack".to_string()])] {
            let earlier = before.map_or(&Value::Null, |run| &run["peer"][name]);
            results[name] = match earlier.get("ended") {
                Some(ended) => json!({ "ended": ended, "not_tried_again": true }),
                None => self.peer(python, limit, flag)?,
            };
        }
        Ok(results)
    }

    /// The peer's passes over a token of each of `count` sequences, with its weights where they are mapped; as
    /// [`Runner::peers`].
    #[allow(dead_code)] // One bench batches nothing.
    pub fn peer_batch(&self, limit: Option<u64>, grouped: bool, count: u32, before: Option<&Value>) -> Result<Value> {
        let Some(python) = self.options.peer_python.as_ref().filter(|_| !grouped || limit.is_some()) else {
            return Ok(Value::Null);
        };
        match before.and_then(|run| run.get("ended")) {
            Some(ended) => Ok(json!({ "ended": ended, "not_tried_again": true })),
            None => self.peer(python, limit, &["--sequences".into(), count.to_string()]),
        }
    }

    fn peer(&self, python: &Path, limit: Option<u64>, flags: &[String]) -> Result<Value> {
        let kept = self.forget()?;
        let o = self.options;
        let interpreter = self.peer["interpreter_bytes"].as_u64().unwrap_or(0);
        let mut arguments = vec![peer_script(), self.model_name()];
        for (name, value) in [
            ("--threads", o.threads as usize),
            ("--context", o.context as usize),
            ("--chunk", o.chunk as usize),
            ("--tokens", o.tokens),
            ("--seconds", o.seconds as usize),
            ("--before", o.before),
        ] {
            arguments.extend([name.into(), value.to_string()]);
        }
        arguments.extend_from_slice(flags);
        let out = self.spawn(limit.map(|l| l + interpreter), python, &arguments)?;
        let ended = match (out.status.code(), last_line(&out)) {
            (Some(0), Some(mut result)) => {
                result["cached_bytes"] = json!(kept);
                return Ok(result);
            }
            (Some(KILLED) | None, _) => "killed".into(),
            (Some(TIMED_OUT), _) => "too slow".into(),
            _ => complaint(&out),
        };
        Ok(json!({ "ended": ended }))
    }

    fn work(&self, limit: Option<u64>, arguments: &[String]) -> Result<Value> {
        let arguments: Vec<String> = std::iter::once(worker::FLAG.into()).chain(arguments.iter().cloned()).collect();
        let out = self.spawn(limit, &self.bench, &arguments)?;
        match last_line(&out) {
            Some(mut result) if out.status.success() => {
                if limit.is_some() {
                    result["max_bytes"] = max_used(&out).into();
                }
                Ok(result)
            }
            _ => Err(format!("{arguments:?}: {}", complaint(&out))),
        }
    }

    fn spawn(&self, limit: Option<u64>, program: &Path, arguments: &[String]) -> Result<Output> {
        let seconds = (PATIENCE * self.options.seconds).to_string();
        let mut command = match limit {
            Some(bytes) => {
                let mut command = Command::new(Path::new(ROOT).join("scripts/cgroup_budget.sh"));
                command.arg(bytes.to_string()).args(["timeout", &seconds]).arg(program);
                command
            }
            None => Command::new(program),
        };
        command.args(arguments).output().map_err(|e| format!("{}: {e}", program.display()))
    }

    /// How many of the model's bytes the page cache holds all the same, where it is to forget them.
    fn forget(&self) -> Result<Option<u64>> {
        self.options.forget.then(|| cache::forget(self.model)).transpose()
    }

    fn model_name(&self) -> String {
        self.model.display().to_string()
    }
}

fn peer_script() -> String {
    Path::new(ROOT).join("scripts/peer_decode.py").display().to_string()
}

fn last_line(out: &Output) -> Option<Value> {
    serde_json::from_str(String::from_utf8_lossy(&out.stdout).lines().last()?).ok()
}

/// The most the group held, of the line that the script ends with.
fn max_used(out: &Output) -> Option<u64> {
    let text = String::from_utf8_lossy(&out.stderr).into_owned();
    let line = text.lines().rev().find(|l| l.starts_with("cgroup: limit"))?;
    line.split("most used ").nth(1)?.split(',').next()?.parse().ok()
}

fn complaint(out: &Output) -> String {
    let text = String::from_utf8_lossy(&out.stderr);
    let line = text.lines().rfind(|l| !l.starts_with("cgroup: limit") && !l.trim().is_empty());
    match (out.status.code(), line) {
        (Some(KILLED), _) => "killed".into(),
        (Some(TIMED_OUT), _) => "too slow".into(),
        (Some(NO_GROUP), _) => "no cgroup could be made".into(),
        (_, line) => format!("{}: {}", out.status, line.unwrap_or("it said nothing")),
    }
}
