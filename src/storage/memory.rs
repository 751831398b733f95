//! Contents in memory.

/// Contents in memory.
#[derive(Debug, Clone, Default)]
pub struct MemoryStorage {}
