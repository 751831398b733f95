//! Contents as files in a directory.

/// Contents as files in a directory.
#[derive(Debug, Clone)]
pub struct FileStorage {}
