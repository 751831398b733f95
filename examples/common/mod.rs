//! Code that the examples share: the command line, waiting for Ctrl-C, a progress
//! bar.

#![allow(dead_code, reason = "no example uses all of it")]

use std::collections::HashMap;
use std::error::Error;
use std::io;
use std::process::ExitCode;

use bt_lite::{Download, DownloadEvent, Progress};
use futures::StreamExt;
use indicatif::{HumanBytes, ProgressBar, ProgressStyle};

pub(crate) type Outcome<T> = Result<T, Box<dyn Error>>;

/// Ends `main`. Prints an error as one line on stderr.
pub(crate) fn exit(name: &str, outcome: Outcome<()>) -> ExitCode {
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{name}: {error}");
            ExitCode::FAILURE
        }
    }
}

/// The command line: options with a value, flags without one, and the rest.
pub(crate) struct Args {
    usage: &'static str,
    options: HashMap<String, String>,
    pub(crate) rest: Vec<String>,
}

impl Args {
    /// Reads the command line. `options` take a value, `flags` do not.
    pub(crate) fn read(usage: &'static str, options: &[&str], flags: &[&str]) -> Outcome<Self> {
        let mut args = Self {
            usage,
            options: HashMap::new(),
            rest: Vec::new(),
        };
        let mut words = std::env::args().skip(1);
        while let Some(word) = words.next() {
            if options.contains(&word.as_str()) {
                let value = words.next().ok_or(format!("{word} needs a value"))?;
                args.options.insert(word, value);
            } else if flags.contains(&word.as_str()) {
                args.options.insert(word, String::new());
            } else if word.starts_with("--") {
                return Err(format!("unknown option {word}; usage: {usage}").into());
            } else {
                args.rest.push(word);
            }
        }
        Ok(args)
    }

    pub(crate) fn option(&self, name: &str) -> Option<&str> {
        self.options.get(name).map(String::as_str)
    }

    pub(crate) fn required(&self, name: &str) -> Outcome<&str> {
        let value = self.option(name);
        value.ok_or_else(|| format!("{name} is missing; usage: {}", self.usage).into())
    }

    pub(crate) fn flag(&self, name: &str) -> bool {
        self.options.contains_key(name)
    }

    /// All arguments that are not options; at least one.
    pub(crate) fn some_rest(&self) -> Outcome<&[String]> {
        match self.rest.as_slice() {
            [] => Err(format!("usage: {}", self.usage).into()),
            rest => Ok(rest),
        }
    }

    /// The only argument that is not an option.
    pub(crate) fn one_rest(&self) -> Outcome<&str> {
        match self.rest.as_slice() {
            [one] => Ok(one),
            _ => Err(format!("usage: {}", self.usage).into()),
        }
    }
}

/// Returns a future that ends on Ctrl-C or SIGTERM. Signals after this call are not
/// missed.
#[cfg(unix)]
pub(crate) fn interrupt() -> io::Result<impl Future<Output = ()>> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    })
}

/// Returns a future that ends on Ctrl-C. A Ctrl-C after this call is not missed.
#[cfg(windows)]
pub(crate) fn interrupt() -> io::Result<impl Future<Output = ()>> {
    let mut interrupt = tokio::signal::windows::ctrl_c()?;
    Ok(async move {
        interrupt.recv().await;
    })
}

/// Shows the progress of a download until it ends, as a bar on stderr if that is a
/// terminal, and says why nothing arrives if nothing does. Calls `seen` with every
/// progress.
pub(crate) async fn follow(download: &Download, mut seen: impl FnMut(&Progress)) {
    let style = ProgressStyle::with_template("{wide_bar} {percent:>3} %  {bytes}  {msg}");
    let bar =
        ProgressBar::no_length().with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    let mut events = download.events();
    while let Some(event) = events.next().await {
        match event {
            DownloadEvent::Found(content) => bar.set_length(content.length),
            DownloadEvent::Progress(progress) => {
                bar.set_position(progress.verified_bytes);
                let rate = HumanBytes(progress.rate as u64);
                bar.set_message(format!("{rate}/s from {} owners", progress.owners));
                seen(&progress);
            }
            DownloadEvent::Stalled(reason) => bar.suspend(|| eprintln!("stalled: {reason}")),
            DownloadEvent::Resumed => bar.suspend(|| eprintln!("resumed")),
            // The download has ended. Awaiting it tells the result.
            _ => {}
        }
    }
    bar.finish_and_clear();
}
