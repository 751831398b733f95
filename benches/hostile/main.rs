//! What hostile peers cost a peer over TCP, beside what honest ones cost it.
//!
//! ```text
//! cargo bench --bench hostile -- floods
//! cargo bench --bench hostile -- idle --idle 16000
//! cargo bench --bench hostile -- liars
//! ```
//! Without a name all three run. Those who are attacked are in a process of their own, whose
//! CPU time is counted; the attack comes from this one, from other addresses of loopback.
//! - `floods`: one peer says the same again and again (`--messages`, default 300000), of each
//!   kind in `tests/hostile/attacks.rs`; and it connects again and again (`--connections`,
//!   default 2000), each time with the same identity, or for a content that nobody has. Told is
//!   the CPU time for each message and for each byte that it sends. Beside it an honest leecher
//!   takes a content of `--mib` MiB (default 256), whose bytes are its requests. The ratio is
//!   that of a hostile byte to one of these.
//! - `idle`: `--idle` connections (default 16000, or as many as descriptors allow) say nothing,
//!   or send a byte a second. They come `--rate` a second (default 2000). A peer fetches `--mib`
//!   MiB from the one that is attacked, in turns without them, while they come, and when all are
//!   there, `--rounds` times (default 5); the medians are compared, by the CPU time of both.
//! - `liars`: 63 owners send other bytes than they are asked for, and one is honest and sends
//!   16 MiB/s. Compared is how long 32 MiB take, with the liars and without.
//!
//! Linux only.

#![allow(clippy::unwrap_used)]

#[cfg(target_os = "linux")]
mod attacked;
#[cfg(target_os = "linux")]
mod attackers;
#[cfg(target_os = "linux")]
#[path = "../../tests/hostile/attacks.rs"]
mod attacks;
#[cfg(target_os = "linux")]
mod setting;
#[cfg(target_os = "linux")]
#[path = "../../tests/world/mod.rs"]
mod world;

use std::process::ExitCode;

#[cfg(not(target_os = "linux"))]
fn main() -> ExitCode {
    println!("this benchmark counts CPU time as Linux does");
    ExitCode::SUCCESS
}

#[cfg(target_os = "linux")]
fn main() -> ExitCode {
    let outcome = setting::Setting::from_args().and_then(|setting| match setting.is_attacked {
        true => attacked::run(&setting),
        false => attackers::run(&setting),
    });
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("hostile: {error}");
            ExitCode::FAILURE
        }
    }
}

/// What can fail here fails the benchmark.
#[cfg(target_os = "linux")]
type Outcome<T> = Result<T, Box<dyn std::error::Error>>;
