//! Which downloads begin first.

/// Which of the downloads that wait begins first. It says nothing of those that are
/// active: all of them go on, also when one of a higher priority waits.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Priority {
    /// After all others.
    Low,
    /// The default.
    #[default]
    Normal,
    /// Before all others.
    High,
}
