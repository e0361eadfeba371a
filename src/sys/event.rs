//! An event handle: readable while events wait, for hosts with an event loop.

#[cfg(unix)]
pub use super::unix::event::Notifier;

/// Systems without one: hosts poll or wait.
#[cfg(not(unix))]
pub struct Notifier;

#[cfg(not(unix))]
impl Notifier {
    pub fn new() -> std::io::Result<Notifier> {
        Ok(Notifier)
    }
    pub fn ring(&self) {}
    pub fn silence(&self) {}
    pub fn descriptor(&self) -> Option<i32> {
        None
    }
}
