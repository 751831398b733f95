//! What a flood of handshakes leaves of an honest transfer over TLS or QUIC.
//!
//! ```text
//! cargo bench --bench handshake_flood -- --transport tls
//! cargo bench --bench handshake_flood -- --transport quic --rounds 9 --hosts 200
//! cargo bench --bench handshake_flood -- --transport tls --kind hello --rate 5000
//! ```
//! An owner and a member are in this process, in a runtime with two threads. The member
//! fetches `--mib` MiB (default 256) again and again, each time with a new handshake, in
//! turns without a flood and with one. The flood comes from another process, with `--rate`
//! attempts a second (default 2000) from `--hosts` addresses of loopback (default 16), none
//! of which is the member's. Over TLS they are in equal parts connections that say nothing
//! (`silent`), half a ClientHello (`half`), a ClientHello and no more (`hello`), and 512
//! random bytes (`garbage`), of which the last 512 are kept open. Over QUIC they are first
//! datagrams, each of another connection: from one port (`one-port`), and from a port on each
//! host (`many-ports`). `--kind` chooses one of them.
//!
//! The medians of `--rounds` pairs (default 5) are compared: the bytes a second, and the CPU
//! time of this process for a byte. The second is the ratio to look at where the machine has
//! other work, or no core for the flood: it counts what the flood costs those who are
//! flooded, and not what it costs to flood. What that costs is printed too. Linux only.

#[cfg(target_os = "linux")]
mod flood;
#[cfg(target_os = "linux")]
mod honest;

use std::process::ExitCode;

#[cfg(not(target_os = "linux"))]
fn main() -> ExitCode {
    println!("this benchmark reads /proc, so it runs on Linux only");
    ExitCode::SUCCESS
}

#[cfg(target_os = "linux")]
fn main() -> ExitCode {
    match setting::Setting::from_args().and_then(run) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("handshake_flood: {error}");
            ExitCode::FAILURE
        }
    }
}

#[cfg(target_os = "linux")]
type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

#[cfg(target_os = "linux")]
fn run(setting: setting::Setting) -> Outcome<()> {
    match setting.target {
        Some(target) => flood::run(&setting, target),
        None => honest::run(&setting),
    }
}

#[cfg(target_os = "linux")]
mod setting {
    use std::net::SocketAddr;

    use super::Outcome;

    /// Over what.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub(crate) enum Over {
        Tls,
        Quic,
    }

    pub(crate) struct Setting {
        pub(crate) over: Over,
        pub(crate) kind: Option<String>,
        /// Attempts a second.
        pub(crate) rate: u32,
        pub(crate) hosts: u8,
        pub(crate) mib: usize,
        pub(crate) rounds: usize,
        /// Whom to flood. Only the process of the flood has it.
        pub(crate) target: Option<SocketAddr>,
    }

    impl Setting {
        pub(crate) fn from_args() -> Outcome<Self> {
            let mut setting = Self {
                over: Over::Tls,
                kind: None,
                rate: 2000,
                hosts: 16,
                mib: 256,
                rounds: 5,
                target: None,
            };
            let mut args = std::env::args().skip(1);
            while let Some(arg) = args.next() {
                let mut value = || args.next().ok_or(format!("{arg} needs a value"));
                match arg.as_str() {
                    "--transport" => {
                        setting.over = match value()?.as_str() {
                            "tls" => Over::Tls,
                            "quic" => Over::Quic,
                            other => return Err(format!("no transport {other}").into()),
                        }
                    }
                    "--kind" => setting.kind = Some(value()?),
                    "--rate" => setting.rate = value()?.parse()?,
                    "--hosts" => setting.hosts = value()?.parse()?,
                    "--mib" => setting.mib = value()?.parse()?,
                    "--rounds" => setting.rounds = value()?.parse()?,
                    "--flood" => setting.target = Some(value()?.parse()?),
                    // Cargo passes these to every benchmark.
                    "--bench" => {}
                    "--test" => (setting.mib, setting.rounds, setting.rate) = (4, 1, 200),
                    other => return Err(format!("unknown argument {other}").into()),
                }
            }
            if setting.rounds == 0 || setting.hosts == 0 || setting.mib == 0 {
                return Err("nothing to measure".into());
            }
            Ok(setting)
        }
    }
}
