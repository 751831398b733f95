//! Code that the examples share: how a program ends, waiting for Ctrl-C, a progress
//! bar, who takes part.

#![allow(dead_code, reason = "no example uses all of it")]

pub(crate) mod members;

use std::error::Error;
use std::fmt::Display;
use std::io::{self, Write};
use std::process::ExitCode;

use bt_lite::{Download, DownloadEvent, FolderDownload, FolderEvent, FolderProgress, Progress};
use futures::StreamExt;
use indicatif::{HumanBytes, ProgressBar, ProgressStyle};

pub(crate) type Outcome<T> = Result<T, Box<dyn Error>>;

/// Nobody reads stdout any more.
#[derive(Debug, thiserror::Error)]
#[error("nobody reads the output")]
struct StdoutClosed;

/// The exit status of a program that SIGPIPE ends, such as `cat`.
const ENDED_BY_SIGPIPE: u8 = 128 + 13;

/// Prints one line at once. Fails if nobody reads it, which [`exit`] ends in silence.
pub(crate) fn print_line(line: impl Display) -> Outcome<()> {
    let mut stdout = io::stdout().lock();
    let printed = writeln!(stdout, "{line}").and_then(|()| stdout.flush());
    printed.map_err(|error| match error.kind() {
        io::ErrorKind::BrokenPipe => StdoutClosed.into(),
        _ => error.into(),
    })
}

/// Ends `main`. Prints an error as one line on stderr.
pub(crate) fn exit(name: &str, outcome: Outcome<()>) -> ExitCode {
    let Err(error) = outcome else {
        return ExitCode::SUCCESS;
    };
    if error.is::<StdoutClosed>() {
        return ExitCode::from(ENDED_BY_SIGPIPE);
    }
    // If stderr is closed as well, there is nobody to tell.
    let _ = writeln!(io::stderr(), "{name}: {error}");
    ExitCode::FAILURE
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

fn bar() -> ProgressBar {
    let style = ProgressStyle::with_template("{wide_bar} {percent:>3} %  {bytes}  {msg}");
    ProgressBar::no_length().with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}

/// Shows the progress of the download of a folder as [`follow`] does.
pub(crate) async fn follow_folder(
    download: &FolderDownload,
    mut seen: impl FnMut(&FolderProgress) -> Outcome<()>,
) -> Outcome<()> {
    let bar = bar();
    let mut events = download.events();
    while let Some(event) = events.next().await {
        match event {
            FolderEvent::Found(folder) => bar.set_length(folder.length),
            FolderEvent::Progress(progress) => {
                bar.set_length(progress.length);
                bar.set_position(progress.verified_bytes);
                let (done, files) = (progress.files_done, progress.files);
                bar.set_message(format!("{done} of {files} files"));
                seen(&progress)?;
            }
            FolderEvent::Stalled(reason) => bar.suspend(|| eprintln!("stalled: {reason}")),
            FolderEvent::Resumed => bar.suspend(|| eprintln!("resumed")),
            // The download has ended. Awaiting it tells the result.
            _ => {}
        }
    }
    bar.finish_and_clear();
    Ok(())
}

/// Shows the progress of a download until it ends, as a bar on stderr if that is a
/// terminal, and says why nothing arrives if nothing does. Calls `seen` with every
/// progress, until it fails.
pub(crate) async fn follow(
    download: &Download,
    mut seen: impl FnMut(&Progress) -> Outcome<()>,
) -> Outcome<()> {
    let bar = bar();
    let mut events = download.events();
    while let Some(event) = events.next().await {
        match event {
            DownloadEvent::Found(content) => bar.set_length(content.length),
            DownloadEvent::Progress(progress) => {
                bar.set_position(progress.verified_bytes);
                let rate = HumanBytes(progress.rate as u64);
                bar.set_message(format!("{rate}/s from {} owners", progress.owners));
                seen(&progress)?;
            }
            DownloadEvent::Stalled(reason) => bar.suspend(|| eprintln!("stalled: {reason}")),
            DownloadEvent::Resumed => bar.suspend(|| eprintln!("resumed")),
            // The download has ended. Awaiting it tells the result.
            _ => {}
        }
    }
    bar.finish_and_clear();
    Ok(())
}
