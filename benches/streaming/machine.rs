//! What the figures were measured on.

use std::fs;
use std::process::Command;

use serde_json::{Value, json};

pub fn describe() -> Value {
    json!({
        "processor": field("/proc/cpuinfo", "model name"),
        "cores": std::thread::available_parallelism().map_or(1, |n| n.get()),
        "memory_bytes": field("/proc/meminfo", "MemTotal")
            .and_then(|text| text.trim_end_matches("kB").trim().parse::<u64>().ok())
            .map(|kib| kib << 10),
        "system": format!("{} {}", std::env::consts::OS, std::env::consts::ARCH),
        "instructions": layerline::kernel::Isa::detect().name(),
        "load": load(),
    })
}

/// The load average of the last minute: what else the machine does.
pub fn load() -> Option<f64> {
    fs::read_to_string("/proc/loadavg").ok()?.split(' ').next()?.parse().ok()
}

/// Year, month and day.
pub fn today() -> Option<String> {
    let out = Command::new("date").args(["-u", "+%Y-%m-%d"]).output().ok()?;
    Some(String::from_utf8_lossy(&out.stdout).trim().to_string())
}

/// The value of the first line `name : value` of a file.
fn field(path: &str, name: &str) -> Option<String> {
    let text = fs::read_to_string(path).ok()?;
    let line = text.lines().find_map(|l| l.strip_prefix(name))?;
    Some(line.trim_start_matches([' ', '\t', ':']).trim().to_string())
}
