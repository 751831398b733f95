//! The handle to a member.

/// A peer of a [`Simulation`](super::Simulation), numbered in the order of
/// joining.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Member(pub usize);
