//! An event handle made of an event that stays signalled until it is reset.

use std::io;
use std::os::windows::io::{AsRawHandle, FromRawHandle, OwnedHandle};
use std::ptr::null;

use windows_sys::Win32::System::Threading::{CreateEventW, ResetEvent, SetEvent};

/// A new event, reset by hand, without a name, not signalled. A child process does not inherit it.
pub fn create() -> io::Result<OwnedHandle> {
    // SAFETY: no attributes and no name are what NULL means.
    let handle = unsafe { CreateEventW(null(), 1, 0, null()) };
    if handle.is_null() {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: a new handle that nothing else owns.
    Ok(unsafe { OwnedHandle::from_raw_handle(handle) })
}

/// Signalled while events wait. What the event loop of a host waits for (`WaitForMultipleObjects`,
/// `RegisterWaitForSingleObject`) need not be read, so nothing but the state itself says whether it is signalled.
pub struct Notifier(OwnedHandle);

impl Notifier {
    pub fn new() -> io::Result<Notifier> {
        create().map(Notifier)
    }

    /// Signals the event. Calls of this and of [`Notifier::silence`] must not overlap.
    pub fn ring(&self) {
        // SAFETY: an event of our own.
        unsafe { SetEvent(self.0.as_raw_handle()) };
    }

    pub fn silence(&self) {
        // SAFETY: an event of our own.
        unsafe { ResetEvent(self.0.as_raw_handle()) };
    }

    pub fn handle(&self) -> Option<isize> {
        Some(self.0.as_raw_handle() as isize)
    }
}

#[cfg(test)]
mod tests {
    use windows_sys::Win32::Foundation::{WAIT_OBJECT_0, WAIT_TIMEOUT};
    use windows_sys::Win32::System::Threading::WaitForSingleObject;

    use super::*;

    #[test]
    fn a_host_that_waits_is_woken_and_finds_the_event_signalled_until_it_is_silenced() {
        let notifier = Notifier::new().unwrap();
        let handle = notifier.handle().unwrap();
        // SAFETY: the event lives as long as its notifier.
        let wait = move |milliseconds| unsafe { WaitForSingleObject(handle as _, milliseconds) };
        assert_eq!(wait(0), WAIT_TIMEOUT);
        let host = std::thread::spawn(move || wait(60_000));
        notifier.ring();
        assert_eq!(host.join().unwrap(), WAIT_OBJECT_0);
        notifier.ring();
        assert_eq!([wait(0), wait(0)], [WAIT_OBJECT_0; 2]);
        notifier.silence();
        assert_eq!(wait(0), WAIT_TIMEOUT);
    }
}
