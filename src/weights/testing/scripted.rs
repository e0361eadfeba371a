//! A source for tests that fails, shortens and blocks reads on command: of a pattern, or of a real source.

use std::io;
use std::ops::Range;
use std::sync::Arc;

use parking_lot::{Condvar, Mutex};

use crate::weights::source::Source;

#[derive(Default)]
struct Script {
    /// Reads that touch the range wait.
    blocked: Option<Range<u64>>,
    /// Of these so many pass.
    passing: usize,
    /// Reads that touch the range fail this many more times.
    failures: Vec<(Range<u64>, usize)>,
    /// Bytes a read delivers at most.
    most: Option<usize>,
    interruptions: usize,
    /// Reads that touch the range panic.
    fault: Option<Range<u64>>,
    waiting: usize,
    failed: usize,
    /// What was read, as it was asked for.
    reads: Vec<Range<u64>>,
}

/// The commands of a [`ScriptedSource`]; clones share one script.
#[derive(Clone, Default)]
pub struct Control {
    script: Arc<(Mutex<Script>, Condvar)>,
}

impl Control {
    pub fn block(&self) {
        self.block_within(0..u64::MAX);
    }

    /// Only reads that touch the range wait.
    pub fn block_within(&self, range: Range<u64>) {
        self.script.0.lock().blocked = Some(range);
    }

    /// Of the reads that wait, or will, `n` pass.
    pub fn let_pass(&self, n: usize) {
        self.script.0.lock().passing += n;
        self.script.1.notify_all();
    }

    pub fn unblock(&self) {
        self.script.0.lock().blocked = None;
        self.script.1.notify_all();
    }

    pub fn fail(&self, range: Range<u64>, times: usize) {
        self.script.0.lock().failures.push((range, times));
    }

    /// Reads that touch the range panic.
    pub fn panic_within(&self, range: Range<u64>) {
        self.script.0.lock().fault = Some(range);
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

    /// What was read since this was asked last.
    pub fn take_reads(&self) -> Vec<Range<u64>> {
        std::mem::take(&mut self.script.0.lock().reads)
    }

    /// From now on no read fails.
    pub fn heal(&self) {
        let mut script = self.script.0.lock();
        script.failures.clear();
        script.fault = None;
    }
}

/// The byte at an offset of a scripted source.
pub fn byte_at(offset: u64) -> u8 {
    (offset.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 56) as u8
}

fn touches(range: &Range<u64>, read: &Range<u64>) -> bool {
    range.start < read.end && read.start < range.end
}

/// A source that obeys a [`Control`].
pub struct ScriptedSource {
    control: Control,
    content: Box<dyn Source>,
}

impl ScriptedSource {
    /// Up to `end`, each byte is [`byte_at`] its offset.
    pub fn patterned(control: &Control, end: u64) -> ScriptedSource {
        ScriptedSource::over(control, Box::new(Pattern { end }))
    }

    /// What `content` holds.
    pub fn over(control: &Control, content: Box<dyn Source>) -> ScriptedSource {
        ScriptedSource { control: control.clone(), content }
    }
}

/// Up to `end`, each byte is [`byte_at`] its offset.
pub struct Pattern {
    pub end: u64,
}

impl Source for Pattern {
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
        crate::weights::source::DIRECT_ALIGNMENT
    }
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        let len = (self.end.saturating_sub(offset) as usize).min(buf.len());
        for (b, at) in buf[..len].iter_mut().zip(offset..) {
            *b = byte_at(at);
        }
        Ok(len)
    }
}

impl Source for ScriptedSource {
    fn name(&self) -> &str {
        self.content.name()
    }
    fn start(&self) -> u64 {
        self.content.start()
    }
    fn end(&self) -> u64 {
        self.content.end()
    }
    fn alignment(&self) -> u64 {
        self.content.alignment()
    }
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        let (lock, changed) = &*self.control.script;
        let read = offset..offset + buf.len() as u64;
        let mut script = lock.lock();
        let stands = |script: &Script| script.blocked.as_ref().is_some_and(|r| touches(r, &read));
        if stands(&script) {
            script.waiting += 1;
            changed.notify_all();
            while stands(&script) && script.passing == 0 {
                changed.wait(&mut script);
            }
            script.passing = script.passing.saturating_sub(1);
            script.waiting -= 1;
        }
        assert!(!script.fault.as_ref().is_some_and(|r| touches(r, &read)), "a fault on command");
        if script.interruptions > 0 {
            script.interruptions -= 1;
            return Err(io::Error::from(io::ErrorKind::Interrupted));
        }
        if let Some((_, times)) = script.failures.iter_mut().find(|(r, t)| *t > 0 && touches(r, &read)) {
            *times -= 1;
            script.failed += 1;
            return Err(io::Error::from_raw_os_error(libc::EIO));
        }
        script.reads.push(read);
        let most = script.most.unwrap_or(usize::MAX);
        drop(script);
        let len = buf.len().min(most);
        self.content.read_at(offset, &mut buf[..len])
    }
}
