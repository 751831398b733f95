//! Hostile peers against real ones, over real sockets: what they are told, what they get, and
//! what it costs the others. How fast that is, is measured by `cargo bench --bench hostile`.
//!
//! The tests run one after the other, as they count the memory and the descriptors of the
//! process.
#![cfg(target_os = "linux")]
// Helpers of tests are tests.
#![allow(clippy::unwrap_used)]

mod attacks;
mod claims;
mod floods;
mod idle;
mod liars;
mod memory;
#[path = "../world/mod.rs"]
mod world;

use std::sync::{Mutex, PoisonError};

use tokio::runtime::Builder;

/// Runs a test while no other one runs.
fn alone(test: impl Future<Output = ()>) {
    static ONE: Mutex<()> = Mutex::new(());
    let _one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(world::soon(test));
}

/// A figure from the environment.
fn number(name: &str, default: usize) -> usize {
    let text = std::env::var(name).ok();
    text.map_or(default, |text| text.parse().expect("a number"))
}
