//! An event handle made of a connected pair of sockets.

use std::io::{self, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};

/// A connected pair: one byte is in it while events wait. (Sockets, because they exist on every Unix and need no
/// unsafe code; an eventfd would do the same on Linux alone.)
pub struct Notifier {
    host: UnixStream,
    ours: UnixStream,
    rung: AtomicBool,
}

impl Notifier {
    pub fn new() -> io::Result<Notifier> {
        let (host, ours) = UnixStream::pair()?;
        host.set_nonblocking(true)?;
        ours.set_nonblocking(true)?;
        Ok(Notifier { host, ours, rung: AtomicBool::new(false) })
    }

    /// Makes the descriptor readable. Calls of this and of [`Notifier::silence`] must not overlap.
    pub fn ring(&self) {
        if !self.rung.swap(true, Ordering::Relaxed) {
            let _ = (&self.ours).write(&[1]);
        }
    }

    pub fn silence(&self) {
        if self.rung.swap(false, Ordering::Relaxed) {
            let mut sink = [0; 8];
            while matches!((&self.host).read(&mut sink), Ok(n) if n > 0) {}
        }
    }

    pub fn handle(&self) -> Option<isize> {
        Some(self.host.as_raw_fd() as isize)
    }
}
