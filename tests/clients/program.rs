//! A process of another program.

use std::fs::{self, File};
use std::io;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process_group};

/// How many of its last lines are shown when a cell fails.
const SHOWN_LINES: usize = 60;

/// A process with its children. It is killed when it is dropped, and what it has said is
/// shown if that is because of a panic.
pub(crate) struct Program {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Program {
    /// Starts it. What it says comes into a file in its home.
    pub(crate) fn start(name: &str, mut command: Command, home: &Path) -> io::Result<Self> {
        let log = home.join("log");
        let file = File::create(&log)?;
        command.current_dir(home).process_group(0);
        command.stdin(Stdio::null()).stdout(file.try_clone()?);
        let child = command.stderr(file).spawn()?;
        Ok(Self {
            name: name.to_owned(),
            child,
            log,
        })
    }

    /// # Panics
    /// If it has ended, which none does by itself.
    pub(crate) fn check_runs(&mut self) {
        if let Some(status) = self.child.try_wait().unwrap() {
            panic!("{} has ended: {status}", self.name);
        }
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let group = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        if let Some(group) = group {
            // It fails if all have ended.
            let _ = kill_process_group(group, Signal::KILL);
        }
        let _ = self.child.wait();
        if std::thread::panicking() {
            let log = fs::read(&self.log).unwrap_or_default();
            let log = String::from_utf8_lossy(&log);
            let lines: Vec<_> = log.lines().collect();
            let last = &lines[lines.len().saturating_sub(SHOWN_LINES)..];
            eprintln!("-- {} said:\n{}", self.name, last.join("\n"));
        }
    }
}
