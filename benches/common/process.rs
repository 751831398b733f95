//! Processes of the same program in other roles. They speak in lines, and end when their
//! input does.

use std::ffi::OsStr;
use std::fmt::Display;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdout, Command, Stdio};

use super::Outcome;

/// The first argument of a process in another role.
pub(crate) const ROLE: &str = "--role";

/// A process of this program in another role.
pub(crate) struct Process {
    child: Child,
    lines: BufReader<ChildStdout>,
}

impl Process {
    /// Starts one with these arguments behind [`ROLE`].
    pub(crate) fn start(args: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Outcome<Self> {
        let mut child = Command::new(std::env::current_exe()?)
            .arg(ROLE)
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let lines = BufReader::new(child.stdout.take().ok_or("no output")?);
        Ok(Self { child, lines })
    }

    /// The next line that it says.
    pub(crate) fn line(&mut self) -> Outcome<String> {
        let mut line = String::new();
        self.lines.read_line(&mut line)?;
        match line.trim_end() {
            "" => Err("a process has failed".into()),
            line => Ok(line.to_owned()),
        }
    }

    /// Ends it, and returns its last line.
    pub(crate) fn stop(&mut self) -> Outcome<String> {
        drop(self.child.stdin.take());
        let last = self.line();
        match self.child.wait()?.success() {
            true => last,
            false => Err("a process has failed".into()),
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Says a line to the process that has started this one.
pub(crate) fn say(line: impl Display) {
    println!("{line}");
    let _ = std::io::stdout().flush();
}

/// Waits until the process that has started this one closes the input.
pub(crate) fn until_end() {
    let _ = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
}
