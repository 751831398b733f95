//! An error of the operating system as a plain value.

use std::error::Error;
use std::fmt;
use std::io;
use std::ops::Deref;
use std::sync::Arc;

/// An [`io::Error`] that can be cloned and compared. Two of them are equal if
/// they have the same kind, number and text.
#[derive(Clone)]
pub struct IoError(Arc<io::Error>);

impl IoError {
    /// Why there are no random bytes.
    pub(crate) fn random(error: getrandom::Error) -> Self {
        let error = match error.raw_os_error() {
            Some(number) => io::Error::from_raw_os_error(number),
            None => io::Error::other(error.to_string()),
        };
        error.into()
    }
}

impl From<io::Error> for IoError {
    fn from(error: io::Error) -> Self {
        Self(Arc::new(error))
    }
}

impl From<io::ErrorKind> for IoError {
    fn from(kind: io::ErrorKind) -> Self {
        io::Error::from(kind).into()
    }
}

impl Deref for IoError {
    type Target = io::Error;

    fn deref(&self) -> &io::Error {
        &self.0
    }
}

impl PartialEq for IoError {
    fn eq(&self, other: &Self) -> bool {
        self.kind() == other.kind()
            && self.raw_os_error() == other.raw_os_error()
            && self.to_string() == other.to_string()
    }
}

impl Eq for IoError {}

impl fmt::Debug for IoError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for IoError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Error for IoError {
    /// The [`io::Error`] itself, for programs that look for it in a chain of sources.
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&*self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_compared_by_kind_number_and_text() {
        let error = |kind, text: &str| IoError::from(io::Error::new(kind, text));
        let reset = io::ErrorKind::ConnectionReset;
        assert_eq!(error(reset, "a"), error(reset, "a"));
        assert_ne!(error(reset, "a"), error(reset, "b"));
        assert_ne!(error(reset, "a"), error(io::ErrorKind::TimedOut, "a"));
        let number = |number| IoError::from(io::Error::from_raw_os_error(number));
        assert_eq!(number(2), number(2));
        assert_ne!(number(2), number(3));
        assert_eq!(number(2).clone().raw_os_error(), Some(2));
    }

    #[test]
    fn io_error_is_found_in_the_chain_of_sources() {
        let error = IoError::from(io::Error::from_raw_os_error(2));
        let source = error.source().and_then(|source| source.downcast_ref());
        assert_eq!(source.and_then(io::Error::raw_os_error), Some(2));
    }
}
