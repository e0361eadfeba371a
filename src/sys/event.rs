//! An event handle: ready while events wait, for hosts with an event loop.

#[cfg(unix)]
pub use super::unix::event::Notifier;
#[cfg(windows)]
pub use super::windows::event::Notifier;

/// Systems without one: hosts poll or wait.
#[cfg(not(any(unix, windows)))]
pub struct Notifier;

#[cfg(not(any(unix, windows)))]
impl Notifier {
    pub fn new() -> std::io::Result<Notifier> {
        Ok(Notifier)
    }
    pub fn ring(&self) {}
    pub fn silence(&self) {}
    pub fn handle(&self) -> Option<isize> {
        None
    }
}
