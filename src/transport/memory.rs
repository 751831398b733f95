//! A network inside the process.

/// A network inside the process.
#[derive(Debug, Clone)]
pub struct MemoryNetwork {}

/// One endpoint of a network inside the process.
#[derive(Debug, Clone)]
pub struct MemoryTransport {}
