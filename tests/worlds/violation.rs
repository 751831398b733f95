//! A promise that was not kept.

use std::fmt;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Violation {
    pub(crate) promise: &'static str,
    pub(crate) what: String,
}

impl Violation {
    pub(crate) fn new(promise: &'static str, what: impl Into<String>) -> Self {
        let what = what.into();
        Self { promise, what }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.promise, self.what)
    }
}
