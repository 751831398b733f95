//! What benchmarks of several processes have in common.

pub(crate) mod bytes;
pub(crate) mod process;
pub(crate) mod usage;

/// What can fail here fails the benchmark.
pub(crate) type Outcome<T> = Result<T, Box<dyn std::error::Error>>;
