//! A descriptor that is readable while events wait, for hosts with an event loop.

#[cfg(unix)]
mod imp {
    use std::io::{Read, Write};
    use std::os::fd::AsRawFd;
    use std::os::unix::net::UnixStream;
    use std::sync::atomic::{AtomicBool, Ordering};

    use crate::error::{Error, Result};

    /// A connected pair: one byte is in it while events wait. (Sockets, because they exist on every Unix and need no
    /// unsafe code; an eventfd would do the same on Linux alone.)
    pub struct Notifier {
        host: UnixStream,
        ours: UnixStream,
        rung: AtomicBool,
    }

    impl Notifier {
        pub fn new() -> Result<Notifier> {
            let make = || {
                let (host, ours) = UnixStream::pair()?;
                host.set_nonblocking(true)?;
                ours.set_nonblocking(true)?;
                Ok((host, ours))
            };
            let (host, ours) =
                make().map_err(|e: std::io::Error| Error::io(format!("making the event descriptor: {e}")))?;
            Ok(Notifier { host, ours, rung: AtomicBool::new(false) })
        }

        /// Makes the descriptor readable. Called under the engine's lock, like [`Notifier::silence`].
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

        pub fn descriptor(&self) -> Option<i32> {
            Some(self.host.as_raw_fd())
        }
    }
}

#[cfg(not(unix))]
mod imp {
    use crate::error::Result;

    pub struct Notifier;

    impl Notifier {
        pub fn new() -> Result<Notifier> {
            Ok(Notifier)
        }
        pub fn ring(&self) {}
        pub fn silence(&self) {}
        pub fn descriptor(&self) -> Option<i32> {
            None
        }
    }
}

pub use imp::Notifier;
