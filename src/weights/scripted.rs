//! A source for tests that delays, fails, shortens and blocks reads on command.

use std::io;
use std::ops::Range;
use std::sync::Arc;

use parking_lot::{Condvar, Mutex};

use super::source::Source;

#[derive(Default)]
struct Script {
    blocked: bool,
    /// Reads that touch the range fail this many more times.
    failures: Vec<(Range<u64>, usize)>,
    /// Bytes a read delivers at most.
    most: Option<usize>,
    interruptions: usize,
    waiting: usize,
    failed: usize,
}

/// The commands of a [`ScriptedSource`]; clones share one script.
#[derive(Clone, Default)]
pub struct Control {
    script: Arc<(Mutex<Script>, Condvar)>,
}

impl Control {
    pub fn block(&self) {
        self.script.0.lock().blocked = true;
    }

    pub fn unblock(&self) {
        self.script.0.lock().blocked = false;
        self.script.1.notify_all();
    }

    pub fn fail(&self, range: Range<u64>, times: usize) {
        self.script.0.lock().failures.push((range, times));
    }

    pub fn shorten(&self, most: usize) {
        self.script.0.lock().most = Some(most);
    }

    pub fn interrupt(&self, times: usize) {
        self.script.0.lock().interruptions = times;
    }

    /// Waits until `n` reads stand blocked.
    pub fn await_blocked(&self, n: usize) {
        let mut script = self.script.0.lock();
        while script.waiting < n {
            self.script.1.wait(&mut script);
        }
    }

    /// Reads that were made to fail so far.
    pub fn failed_reads(&self) -> usize {
        self.script.0.lock().failed
    }

    /// From now on no read fails.
    pub fn heal(&self) {
        self.script.0.lock().failures.clear();
    }
}

/// The byte at an offset of a scripted source.
pub fn byte_at(offset: u64) -> u8 {
    (offset.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 56) as u8
}

pub struct ScriptedSource {
    pub control: Control,
    end: u64,
}

impl ScriptedSource {
    pub fn patterned(control: &Control, end: u64) -> ScriptedSource {
        ScriptedSource { control: control.clone(), end }
    }
}

impl Source for ScriptedSource {
    fn name(&self) -> &str {
        "scripted.gguf"
    }
    fn start(&self) -> u64 {
        0
    }
    fn end(&self) -> u64 {
        self.end
    }
    fn alignment(&self) -> u64 {
        super::source::DIRECT_ALIGNMENT
    }
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        let (lock, changed) = &*self.control.script;
        let mut script = lock.lock();
        script.waiting += 1;
        changed.notify_all();
        while script.blocked {
            changed.wait(&mut script);
        }
        script.waiting -= 1;
        if script.interruptions > 0 {
            script.interruptions -= 1;
            return Err(io::Error::from(io::ErrorKind::Interrupted));
        }
        let touched = offset..offset + buf.len() as u64;
        if let Some((_, times)) =
            script.failures.iter_mut().find(|(r, t)| *t > 0 && r.start < touched.end && touched.start < r.end)
        {
            *times -= 1;
            script.failed += 1;
            return Err(io::Error::from_raw_os_error(libc::EIO));
        }
        let len = (self.end.saturating_sub(offset) as usize).min(buf.len()).min(script.most.unwrap_or(usize::MAX));
        for (b, at) in buf[..len].iter_mut().zip(offset..) {
            *b = byte_at(at);
        }
        Ok(len)
    }
}
