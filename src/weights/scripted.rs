//! A source for tests that delays, fails, shortens and blocks reads on command.

use std::io;
use std::ops::Range;
use std::sync::Arc;

use parking_lot::{Condvar, Mutex};

use super::source::Source;

#[derive(Default)]
struct Script {
    blocked: bool,
    /// Reads that may pass although the source is blocked.
    permits: usize,
    /// Reads that touch the range fail this many more times.
    failures: Vec<(Range<u64>, usize)>,
    /// Bytes a read delivers at most.
    most: Option<usize>,
    interruptions: usize,
    waiting: usize,
    reads: Vec<(u64, usize)>,
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

    /// Lets `n` of the blocked reads pass.
    pub fn permit(&self, n: usize) {
        self.script.0.lock().permits += n;
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

    pub fn blocked_reads(&self) -> usize {
        self.script.0.lock().waiting
    }

    /// Every read so far: offset and length.
    pub fn reads(&self) -> Vec<(u64, usize)> {
        self.script.0.lock().reads.clone()
    }

    pub fn forget_reads(&self) {
        self.script.0.lock().reads.clear();
    }
}

/// The byte at an offset of a scripted source without contents of its own.
pub fn byte_at(offset: u64) -> u8 {
    (offset.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 56) as u8
}

pub struct ScriptedSource {
    pub control: Control,
    contents: Option<Vec<u8>>,
    end: u64,
}

impl ScriptedSource {
    pub fn patterned(control: &Control, end: u64) -> ScriptedSource {
        ScriptedSource { control: control.clone(), contents: None, end }
    }

    pub fn of(control: &Control, contents: Vec<u8>) -> ScriptedSource {
        ScriptedSource { control: control.clone(), end: contents.len() as u64, contents: Some(contents) }
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
        script.reads.push((offset, buf.len()));
        script.waiting += 1;
        changed.notify_all();
        while script.blocked && script.permits == 0 {
            changed.wait(&mut script);
        }
        if script.blocked {
            script.permits -= 1;
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
            return Err(io::Error::from_raw_os_error(libc::EIO));
        }
        let len = (self.end.saturating_sub(offset) as usize).min(buf.len()).min(script.most.unwrap_or(usize::MAX));
        for (i, b) in buf[..len].iter_mut().enumerate() {
            let at = offset + i as u64;
            *b = self.contents.as_ref().map_or_else(|| byte_at(at), |c| c[at as usize]);
        }
        Ok(len)
    }
}
