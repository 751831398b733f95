//! What a process has used.

use std::fmt;
use std::fs;
use std::str::FromStr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use stats_alloc::INSTRUMENTED_SYSTEM;

use super::common::Outcome;

/// The descriptors that are open now.
pub(crate) fn descriptors() -> u64 {
    fs::read_dir("/proc/self/fd").map_or(0, |fds| fds.count() as u64 - 1)
}

/// Looks at the descriptors again and again, and keeps the highest number.
pub(crate) struct DescriptorWatch {
    most: Arc<AtomicU64>,
    /// Dropped, it ends the thread that looks.
    _stop: mpsc::Sender<()>,
}

/// How often the descriptors are looked at.
const LOOK: Duration = Duration::from_millis(20);

impl DescriptorWatch {
    pub(crate) fn start() -> Self {
        let most = Arc::new(AtomicU64::new(descriptors()));
        let seen = Arc::clone(&most);
        let (stop, stopped) = mpsc::channel();
        thread::spawn(move || {
            while stopped.recv_timeout(LOOK) == Err(mpsc::RecvTimeoutError::Timeout) {
                seen.fetch_max(descriptors(), Ordering::Relaxed);
            }
        });
        Self { most, _stop: stop }
    }

    pub(crate) fn most(&self) -> u64 {
        self.most.load(Ordering::Relaxed)
    }
}

/// What one process reports.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Usage {
    pub(crate) wall: f64,
    pub(crate) cpu: f64,
    pub(crate) peak_mib: f64,
    pub(crate) descriptors: f64,
}

impl fmt::Display for Usage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            wall,
            cpu,
            peak_mib,
            descriptors,
        } = self;
        write!(f, "{wall} {cpu} {peak_mib} {descriptors}")
    }
}

impl FromStr for Usage {
    type Err = Box<dyn std::error::Error>;

    fn from_str(text: &str) -> Outcome<Self> {
        let fields: Result<Vec<f64>, _> = text.split(' ').map(str::parse).collect();
        match fields?[..] {
            [wall, cpu, peak_mib, descriptors] => Ok(Self {
                wall,
                cpu,
                peak_mib,
                descriptors,
            }),
            _ => Err(format!("not a report: {text}").into()),
        }
    }
}

/// Bytes that are allocated now.
pub(crate) fn allocated() -> isize {
    let stats = INSTRUMENTED_SYSTEM.stats();
    // What a block grows or shrinks by is in these two as well.
    stats.bytes_allocated as isize - stats.bytes_deallocated as isize
}
