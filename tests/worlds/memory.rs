//! How much memory the process has, counted by its allocator.

use std::alloc::System;
use std::cell::Cell;
use std::convert::Infallible;
use std::time::Duration;

use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};
use tokio::time::sleep;

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// The bytes that are allocated now.
pub(crate) fn held() -> usize {
    let stats = ALLOCATOR.stats();
    stats
        .bytes_allocated
        .saturating_sub(stats.bytes_deallocated)
}

/// Notes the most that it sees, once a second and for ever.
pub(crate) async fn watch(peak: &Cell<usize>) -> Infallible {
    loop {
        peak.set(peak.get().max(held()));
        sleep(Duration::from_secs(1)).await;
    }
}
