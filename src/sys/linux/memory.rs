//! Free memory from /proc, and limits from cgroups (v2 and v1).

use std::fs;

pub fn free_bytes() -> Option<u64> {
    meminfo("MemAvailable:")
}

/// Gives freed memory of the heap back to the system.
#[cfg(target_env = "gnu")]
pub fn trim_heap() {
    // SAFETY: it only looks at memory that is free.
    unsafe { libc::malloc_trim(0) };
}

fn meminfo(key: &str) -> Option<u64> {
    let text = fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|l| l.strip_prefix(key))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

/// The tightest limit among this process's memory cgroup and those above it, without what cannot be reclaimed there.
pub fn group_room() -> Option<u64> {
    let groups = fs::read_to_string("/proc/self/cgroup").ok()?;
    let mounts = fs::read_to_string("/proc/self/mounts").ok()?;
    let mut least: Option<u64> = None;
    for line in groups.lines() {
        let mut fields = line.splitn(3, ':');
        let (Some(_), Some(controllers), Some(path)) = (fields.next(), fields.next(), fields.next()) else { continue };
        let v2 = controllers.is_empty();
        if !v2 && !controllers.split(',').any(|c| c == "memory") {
            continue;
        }
        let Some(root) = mount_of(&mounts, v2) else { continue };
        // Beyond `memory.high` a group is slowed down until it is below again.
        let (limits, usage) = if v2 {
            (["memory.max", "memory.high"].as_slice(), "memory.current")
        } else {
            (["memory.limit_in_bytes"].as_slice(), "memory.usage_in_bytes")
        };
        let mut dir = std::path::PathBuf::from(format!("{root}{path}"));
        loop {
            if let Some(limit) = limits.iter().filter_map(|name| number(&dir.join(name))).min() {
                let used = number(&dir.join(usage)).unwrap_or(0);
                let cache = reclaimable(&dir.join("memory.stat"));
                let room = limit.saturating_sub(used.saturating_sub(cache));
                least = Some(least.map_or(room, |l| l.min(room)));
            }
            if dir.as_os_str().len() <= root.len() || !dir.pop() {
                break;
            }
        }
    }
    least
}

/// Where the memory controller's hierarchy is mounted.
fn mount_of(mounts: &str, v2: bool) -> Option<&str> {
    mounts.lines().find_map(|line| {
        let mut fields = line.split(' ');
        let (place, kind, options) = (fields.nth(1)?, fields.next()?, fields.next()?);
        let found = if v2 { kind == "cgroup2" } else { kind == "cgroup" && options.split(',').any(|o| o == "memory") };
        found.then_some(place)
    })
}

fn number(path: &std::path::Path) -> Option<u64> {
    // "max" in v2; v1 writes a number near 2^63.
    fs::read_to_string(path).ok()?.trim().parse::<u64>().ok().filter(|&n| n < 1 << 60)
}

/// Page cache that the group releases before a process in it is killed.
fn reclaimable(stat: &std::path::Path) -> u64 {
    let Ok(text) = fs::read_to_string(stat) else { return 0 };
    let value = |key: &str| text.lines().find_map(|l| l.strip_prefix(key)?.trim().parse::<u64>().ok());
    let both = |a: &str, b: &str| Some(value(a)? + value(b)?);
    both("total_inactive_file ", "total_active_file ").or_else(|| both("inactive_file ", "active_file ")).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    #[test]
    fn free_memory_is_something_and_not_more_than_the_machine_has() {
        let free = super::free_bytes().unwrap();
        assert!(free > 0 && free < super::meminfo("MemTotal:").unwrap());
    }
}
