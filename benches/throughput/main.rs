//! What it costs to move one large content, beside a plain pipeline that moves the same
//! bytes: the CPU time of all processes.
//!
//! ```text
//! cargo bench --bench throughput -- --size 1GiB --owners 1
//! cargo bench --bench throughput -- --size 1GiB --owners 8 --transport tcp --rounds 7
//! cargo bench --bench throughput -- --transport memory
//! cargo bench --bench throughput -- --transport tls
//! cargo bench --bench throughput -- --transport quic
//! ```
//! Each owner is a process, and so is the receiver, who verifies all and publishes the
//! file; over `memory` all of them are in one process, and nothing is in files. Files are in
//! memory, if `/dev/shm` is there. Hashing before an owner shares is not counted, nor is
//! the time before the receiver starts. Both run in turns, `--rounds` times (default 5), and
//! each is the first one in every other round. The bytes that arrive are compared.
//!
//! The baseline is always one sender and one receiver, whatever the number of owners. With
//! several owners over `tcp` or `tls`, as many plain senders of a part each are measured too,
//! to whom the receiver has a thread each: what of a ratio comes with the number of senders.
//! - `tcp`: one process reads the file in pieces (`--chunk`, default 1MiB) and writes them
//!   to a socket, another one reads and writes them to a file. Then one pass of BLAKE3 over
//!   the same bytes in memory, on one thread.
//! - `memory`: the pass of BLAKE3 alone.
//! - `tls`: what `tcp` has, and the cipher that a session here uses, over the same bytes in
//!   memory, in records of 16 KiB: each is sealed once and opened once.
//! - `quic`: quinn from file to file in two processes: one stream, the same windows, the
//!   same cryptography. Then the pass of BLAKE3, which is told apart: the ratio is to quinn
//!   alone, and the one to both is in the line above.
//!
//! `--threads` are those of each runtime (default: one for each core). The last line is the
//! median of what each round has as ratio of CPU times. A chunk of a content is as long as
//! its length demands, and so are blocks. Linux only.

#[cfg(target_os = "linux")]
mod bare_quinn;
#[cfg(target_os = "linux")]
mod cipher;
#[cfg(target_os = "linux")]
#[path = "../common/mod.rs"]
mod common;
#[cfg(target_os = "linux")]
mod memory;
#[cfg(target_os = "linux")]
mod ours;
#[cfg(target_os = "linux")]
mod plain;
#[cfg(target_os = "linux")]
mod role;
#[cfg(target_os = "linux")]
mod rounds;
#[cfg(target_os = "linux")]
mod usage;

use std::process::ExitCode;

#[cfg(target_os = "linux")]
use common::{Outcome, bytes::bytes, process::ROLE};

#[cfg(not(target_os = "linux"))]
fn main() -> ExitCode {
    println!("this benchmark reads /proc, so it runs on Linux only");
    ExitCode::SUCCESS
}

#[cfg(target_os = "linux")]
fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("throughput: {error}");
            ExitCode::FAILURE
        }
    }
}

/// What carries the content.
#[cfg(target_os = "linux")]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Carrier {
    Tcp,
    Memory,
    Tls,
    Quic,
}

#[cfg(target_os = "linux")]
impl Carrier {
    const ALL: [Self; 4] = [Self::Tcp, Self::Memory, Self::Tls, Self::Quic];

    fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Memory => "memory",
            Self::Tls => "tls",
            Self::Quic => "quic",
        }
    }

    fn named(name: &str) -> Outcome<Self> {
        let mut all = Self::ALL.into_iter();
        let found = all.find(|carrier| carrier.name() == name);
        found.ok_or_else(|| format!("unknown transport {name}").into())
    }
}

/// What to measure.
#[cfg(target_os = "linux")]
struct Setting {
    size: usize,
    owners: usize,
    carriers: Vec<Carrier>,
    rounds: usize,
    /// How many bytes the plain pipelines read and write at once.
    piece: usize,
    threads: usize,
}

#[cfg(target_os = "linux")]
impl Setting {
    fn from_args() -> Outcome<Self> {
        let mut setting = Self {
            size: 1 << 30,
            owners: 1,
            carriers: vec![Carrier::Tcp],
            rounds: 5,
            piece: 1 << 20,
            threads: std::thread::available_parallelism()?.get(),
        };
        let mut args = std::env::args().skip(1);
        while let Some(arg) = args.next() {
            let mut value = || args.next().ok_or(format!("{arg} needs a value"));
            match arg.as_str() {
                "--size" => setting.size = bytes(&value()?)?,
                "--owners" => setting.owners = value()?.parse()?,
                "--transport" => setting.carriers = vec![Carrier::named(&value()?)?],
                "--rounds" => setting.rounds = value()?.parse()?,
                "--chunk" => setting.piece = bytes(&value()?)?,
                "--threads" => setting.threads = value()?.parse()?,
                // Cargo passes these to every benchmark.
                "--bench" => {}
                "--test" => {
                    (setting.size, setting.owners, setting.rounds) = (1 << 20, 2, 1);
                    setting.carriers = Carrier::ALL.to_vec();
                }
                _ => return Err(format!("unknown option {arg}").into()),
            }
        }
        let numbers = [
            setting.size,
            setting.owners,
            setting.rounds,
            setting.piece,
            setting.threads,
        ];
        match numbers.contains(&0) {
            true => Err("no number may be 0".into()),
            false => Ok(setting),
        }
    }
}

#[cfg(target_os = "linux")]
fn run() -> Outcome<()> {
    let mut args = std::env::args().skip(1);
    if args.next().as_deref() == Some(ROLE) {
        return role::run(args);
    }
    let setting = Setting::from_args()?;
    for carrier in &setting.carriers {
        rounds::compare(&setting, *carrier)?;
    }
    Ok(())
}
