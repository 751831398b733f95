//! Locks and counters of modules in which several threads meet.
//!
//! They are those of the standard library. `tests/threads` builds this crate with those of
//! `shuttle`, which tries thousands of orders in which threads may come to them, and has a test
//! for each module that takes them from here. A module with a plain lock around a value needs
//! nothing of that.

#[cfg(all(not(shuttle), feature = "file-storage"))]
pub(crate) use std::sync::Condvar;
#[cfg(not(shuttle))]
pub(crate) use std::sync::{Mutex, MutexGuard, atomic};

#[cfg(all(shuttle, feature = "file-storage"))]
pub(crate) use shuttle::sync::Condvar;
#[cfg(shuttle)]
pub(crate) use shuttle::sync::{Mutex, MutexGuard, atomic};

/// How the tests of these modules are run.
#[cfg(all(test, shuttle))]
#[path = "../tests/threads/schedules.rs"]
pub(crate) mod schedules;
