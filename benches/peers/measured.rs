//! Processes of other programs, and what each has used.

use std::fs::{self, File};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::Outcome;

/// How often a process is looked at.
pub(crate) const LOOK: Duration = Duration::from_millis(5);

/// For how long an owner must have been idle before a receiver starts, and what share of a
/// core it may use in that time.
const QUIET: Duration = Duration::from_secs(1);
const IDLE: f64 = 0.05;

/// How long a transfer may take.
const PATIENCE: Duration = Duration::from_secs(600);

/// `USER_HZ`, which is 100 on every Linux that Rust runs on.
const TICKS_PER_SECOND: f64 = 100.0;

/// What a process or both have used.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Used {
    /// Seconds.
    pub(crate) wall: f64,
    /// Seconds of CPU of both processes.
    pub(crate) cpu: f64,
    /// Those of the owner alone.
    pub(crate) owner_cpu: f64,
    /// The peak of the receiver's resident memory.
    pub(crate) peak_mib: f64,
}

impl Used {
    /// Seconds of CPU of the receiver.
    pub(crate) fn receiver_cpu(&self) -> f64 {
        self.cpu - self.owner_cpu
    }
}

/// A process with a log; it is ended when this is dropped.
#[derive(Debug)]
pub(crate) struct Measured {
    child: Child,
    begun: Instant,
}

impl Measured {
    /// Starts it, with its output in a file.
    pub(crate) fn start(command: &mut Command, log: &Path) -> Outcome<Self> {
        let out = File::create(log)?;
        let begun = Instant::now();
        let child = command
            .stdin(Stdio::null())
            .stdout(out.try_clone()?)
            .stderr(out)
            .spawn()?;
        Ok(Self { child, begun })
    }

    /// CPU seconds until now.
    pub(crate) fn cpu(&self) -> Outcome<f64> {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.child.id()))?;
        // The name of the program may contain anything, and ends at the last bracket.
        let fields = stat.rsplit_once(") ").ok_or("an unknown form of stat")?.1;
        let mut ticks = fields.split(' ').skip(11).map(str::parse::<f64>);
        match (ticks.next(), ticks.next()) {
            (Some(user), Some(system)) => Ok((user? + system?) / TICKS_PER_SECOND),
            _ => Err("an unknown form of stat".into()),
        }
    }

    /// Waits until the process has next to nothing to do.
    pub(crate) fn until_idle(&self) -> Outcome<()> {
        let begun = Instant::now();
        let mut before = self.cpu()?;
        while begun.elapsed() < PATIENCE {
            std::thread::park_timeout(QUIET);
            let now = self.cpu()?;
            if now - before < IDLE * QUIET.as_secs_f64() {
                return Ok(());
            }
            before = now;
        }
        Err("an owner does not come to rest".into())
    }

    /// The peak of its memory, until it has ended.
    fn peak_mib(&self) -> Outcome<Option<f64>> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let peak = peak.and_then(|peak| peak.trim().strip_suffix(" kB"));
        let kib: Option<f64> = peak.map(str::parse).transpose()?;
        Ok(kib.map(|kib| kib / 1024.0))
    }

    /// Waits until the process is done: until it has made its mark, or, of a program that
    /// makes none, until it has ended. Nobody has asked for its status before, so what it
    /// has used can still be read then.
    pub(crate) fn until_done(&mut self, mark: Option<&Path>) -> Outcome<Used> {
        let mut peak_mib = 0.0;
        loop {
            let peak = self.peak_mib()?;
            peak_mib = peak.unwrap_or(peak_mib);
            let has_ended = peak.is_none();
            if mark.map_or(has_ended, Path::exists) {
                break;
            }
            if has_ended {
                let status = self.child.wait()?;
                return Err(format!("a receiver has ended early: {status}").into());
            }
            if self.begun.elapsed() > PATIENCE {
                return Err("a receiver is not done in time".into());
            }
            std::thread::park_timeout(LOOK);
        }
        let wall = self.begun.elapsed().as_secs_f64();
        let cpu = self.cpu()?;
        if mark.is_none() && !self.child.wait()?.success() {
            return Err("a receiver has failed".into());
        }
        Ok(Used {
            wall,
            cpu,
            owner_cpu: 0.0,
            peak_mib,
        })
    }
}

impl Drop for Measured {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
