//! Free memory, and the limits of the job object that the process belongs to.

use std::ptr::null_mut;

use windows_sys::Win32::System::JobObjects::{
    JOB_OBJECT_LIMIT_JOB_MEMORY, JOB_OBJECT_LIMIT_PROCESS_MEMORY, JOBOBJECT_EXTENDED_LIMIT_INFORMATION,
    JOBOBJECT_LIMIT_VIOLATION_INFORMATION, JOBOBJECTINFOCLASS, JobObjectExtendedLimitInformation,
    JobObjectLimitViolationInformation, QueryInformationJobObject,
};
use windows_sys::Win32::System::ProcessStatus::{
    K32GetProcessMemoryInfo, PROCESS_MEMORY_COUNTERS, PROCESS_MEMORY_COUNTERS_EX,
};
use windows_sys::Win32::System::SystemInformation::{GlobalMemoryStatusEx, MEMORYSTATUSEX};
use windows_sys::Win32::System::Threading::GetCurrentProcess;

/// Physical memory that is free, or what may still be committed, the lesser: memory that nothing backs is refused.
pub fn free_bytes() -> Option<u64> {
    let mut status = MEMORYSTATUSEX { dwLength: size_of::<MEMORYSTATUSEX>() as u32, ..Default::default() };
    // SAFETY: the structure says its size.
    let known = unsafe { GlobalMemoryStatusEx(&mut status) } != 0;
    known.then(|| status.ullAvailPhys.min(status.ullAvailPageFile))
}

/// What the limits of the job object leave this process. Of nested jobs the innermost one alone tells its limits.
pub fn job_room() -> Option<u64> {
    let limits = job_information::<JOBOBJECT_EXTENDED_LIMIT_INFORMATION>(JobObjectExtendedLimitInformation)?;
    let usage = job_information::<JOBOBJECT_LIMIT_VIOLATION_INFORMATION>(JobObjectLimitViolationInformation);
    room(&limits, committed_bytes(), usage.map_or(0, |usage| usage.JobMemory))
}

/// What the system says about this process's own job.
fn job_information<T: Default>(class: JOBOBJECTINFOCLASS) -> Option<T> {
    let mut info = T::default();
    let size = size_of::<T>() as u32;
    // SAFETY: no handle is this process's own job; both callers name the structure that belongs to the class.
    let known = unsafe { QueryInformationJobObject(null_mut(), class, (&raw mut info).cast(), size, null_mut()) } != 0;
    known.then_some(info)
}

/// Memory that this process has committed.
fn committed_bytes() -> u64 {
    let mut counters = PROCESS_MEMORY_COUNTERS_EX::default();
    let size = size_of::<PROCESS_MEMORY_COUNTERS_EX>() as u32;
    // SAFETY: the longer structure begins with the shorter one, and its size says which it is.
    let known = unsafe {
        let place = (&raw mut counters).cast::<PROCESS_MEMORY_COUNTERS>();
        K32GetProcessMemoryInfo(GetCurrentProcess(), place, size)
    } != 0;
    if known { counters.PrivateUsage as u64 } else { 0 }
}

/// What limits leave a process that has committed `own` bytes, in a job whose processes have committed `all`, as far as the
/// system counts that.
fn room(limits: &JOBOBJECT_EXTENDED_LIMIT_INFORMATION, own: u64, all: u64) -> Option<u64> {
    let left = |flag, limit: usize, used| {
        let is_set = limits.BasicLimitInformation.LimitFlags & flag != 0;
        is_set.then(|| (limit as u64).saturating_sub(used))
    };
    let process = left(JOB_OBJECT_LIMIT_PROCESS_MEMORY, limits.ProcessMemoryLimit, own);
    let job = left(JOB_OBJECT_LIMIT_JOB_MEMORY, limits.JobMemoryLimit, all.max(own));
    process.into_iter().chain(job).min()
}

#[cfg(test)]
mod tests {
    use windows_sys::Win32::System::JobObjects::{AssignProcessToJobObject, CreateJobObjectW, SetInformationJobObject};

    use super::*;

    #[test]
    fn free_memory_is_something_and_not_more_than_the_machine_has() {
        let mut status = MEMORYSTATUSEX { dwLength: size_of::<MEMORYSTATUSEX>() as u32, ..Default::default() };
        // SAFETY: the structure says its size.
        assert_ne!(unsafe { GlobalMemoryStatusEx(&mut status) }, 0);
        let free = free_bytes().unwrap();
        assert!(free > 0 && free <= status.ullTotalPhys);
    }

    #[test]
    fn the_tighter_of_a_job_s_limits_counts_and_only_those_that_are_set() {
        let mut limits =
            JOBOBJECT_EXTENDED_LIMIT_INFORMATION { ProcessMemoryLimit: 500, JobMemoryLimit: 300, ..Default::default() };
        let mut room_with = |flags| {
            limits.BasicLimitInformation.LimitFlags = flags;
            [room(&limits, 100, 0), room(&limits, 100, 250), room(&limits, 1000, 0)]
        };
        assert_eq!(room_with(0), [None; 3]);
        assert_eq!(room_with(JOB_OBJECT_LIMIT_PROCESS_MEMORY), [Some(400), Some(400), Some(0)]);
        assert_eq!(room_with(JOB_OBJECT_LIMIT_JOB_MEMORY), [Some(200), Some(50), Some(0)]);
        let both = JOB_OBJECT_LIMIT_JOB_MEMORY | JOB_OBJECT_LIMIT_PROCESS_MEMORY;
        assert_eq!(room_with(both), [Some(200), Some(50), Some(0)]);
    }

    /// The job is this test process's until it ends, with a limit that no test reaches.
    #[test]
    fn the_limit_of_the_job_that_the_process_is_in_is_found() {
        const LIMIT: usize = 1 << 40;
        let mut limits = JOBOBJECT_EXTENDED_LIMIT_INFORMATION { ProcessMemoryLimit: LIMIT, ..Default::default() };
        limits.BasicLimitInformation.LimitFlags = JOB_OBJECT_LIMIT_PROCESS_MEMORY;
        // SAFETY: a new job without a name; the structure belongs to the class.
        let is_set = unsafe {
            let job = CreateJobObjectW(std::ptr::null(), std::ptr::null());
            let size = size_of::<JOBOBJECT_EXTENDED_LIMIT_INFORMATION>() as u32;
            SetInformationJobObject(job, JobObjectExtendedLimitInformation, (&raw const limits).cast(), size) != 0
                && AssignProcessToJobObject(job, GetCurrentProcess()) != 0
        };
        match job_room() {
            Some(room) => assert!(is_set && room < LIMIT as u64),
            // Wine takes limits on memory and forgets them.
            None => println!("skipped: a job's limit on memory does not come back here"),
        }
    }
}
