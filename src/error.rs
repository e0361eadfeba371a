//! The one error type: a status whose number never changes, and what a person needs to act.

use std::fmt;

/// What kind of failure it was. The numbers are those of the C header and never change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(i32)]
pub enum Status {
    InvalidArgument = -1,
    /// Missing file, short read, device error.
    Io = -2,
    /// Not GGUF, truncated, contradictory, out of range.
    Format = -3,
    /// A valid file that needs what is not built in; the message names it.
    Unsupported = -4,
    /// The budget is below the floor; the message gives both figures.
    MemoryBudget = -5,
    OutOfMemory = -6,
    Cancelled = -7,
    ContextFull = -8,
    BufferTooSmall = -9,
    Busy = -10,
    Internal = -11,
    /// What was named is not there: a key, a ticket, a template.
    NotFound = -12,
}

/// A failure: its status and a message that names the file, the tensor and the figures concerned.
#[derive(Clone, Debug)]
pub struct Error {
    status: Status,
    message: String,
}

pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    pub fn new(status: Status, message: impl Into<String>) -> Self {
        Error { status, message: message.into() }
    }

    pub fn status(&self) -> Status {
        self.status
    }

    pub fn message(&self) -> &str {
        &self.message
    }

    /// The same failure, with where it happened put in front: `context: message`.
    pub fn context(self, context: impl fmt::Display) -> Self {
        Error { status: self.status, message: format!("{context}: {}", self.message) }
    }

    pub fn invalid(message: impl Into<String>) -> Self {
        Error::new(Status::InvalidArgument, message)
    }

    pub fn not_found(message: impl Into<String>) -> Self {
        Error::new(Status::NotFound, message)
    }

    pub fn io(message: impl Into<String>) -> Self {
        Error::new(Status::Io, message)
    }

    pub fn format(message: impl Into<String>) -> Self {
        Error::new(Status::Format, message)
    }

    pub fn unsupported(message: impl Into<String>) -> Self {
        Error::new(Status::Unsupported, message)
    }

    pub fn out_of_memory(message: impl Into<String>) -> Self {
        Error::new(Status::OutOfMemory, message)
    }

    pub fn cancelled() -> Self {
        Error::new(Status::Cancelled, "cancelled")
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Error {}
