//! One file from one program to another one of its kind, beside programs that people have.
//!
//! ```text
//! cargo bench --bench peers -- --size 1GiB
//! cargo bench --bench peers -- --size 1GiB --rounds 5 --only bt_lite,libtorrent
//! unshare --net sh -c 'ip link set lo up; ip addr add 192.0.2.1/32 dev lo;
//!     cargo bench --bench peers -- --address 192.0.2.1'
//! cargo bench --bench peers -- --roles
//! ```
//! With `--roles` this crate is a BitTorrent client: it fetches the file from libtorrent, and
//! libtorrent from it. The last lines are the CPU of this side over what libtorrent needs for
//! the same role when both sides are libtorrent.
//!
//! Beside this crate: libtorrent (its Python package), rqbit, aria2 and Transmission, each
//! where it is installed; where it is not, a line says so. `LIBTORRENT_PYTHON` and `RQBIT`
//! name the interpreter and the program, if they are not found by the search path.
//! Transmission speaks to nobody on a loopback address, so it needs the third form, with an
//! address of another kind on the loopback device of a network of its own.
//!
//! Each transfer has one process that has the whole file, and one that begins with nothing.
//! All use plain TCP, one v1 torrent with pieces of 1 MiB, and a small HTTP tracker in this
//! process; discovery by other ways, port mapping and uTP are off, all else is as it is by
//! default. The owner has checked its file before the clock starts. Counted are the time
//! from the start of the receiver's process until it has all and has said so, and the CPU
//! that both processes have used until then, in ticks of the system; the receiver's start
//! is in it. What has arrived is compared. The programs take turns, `--rounds` times
//! (default 5). The last lines are the ratios to the best of the others. Linux only.

#[cfg(target_os = "linux")]
mod announce;
#[cfg(target_os = "linux")]
#[path = "../common/bytes.rs"]
mod bytes;
#[cfg(target_os = "linux")]
mod measured;
#[cfg(target_os = "linux")]
mod ours;
#[cfg(target_os = "linux")]
mod program;
#[cfg(target_os = "linux")]
mod roles;
#[cfg(target_os = "linux")]
mod rounds;
#[cfg(target_os = "linux")]
mod torrent;

use std::process::ExitCode;

#[cfg(target_os = "linux")]
use std::net::Ipv4Addr;

#[cfg(target_os = "linux")]
use bytes::bytes;
#[cfg(target_os = "linux")]
use program::Program;

/// What can fail here fails the benchmark.
#[cfg(target_os = "linux")]
type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

/// The first argument of a process that is one side of a transfer with this crate.
#[cfg(target_os = "linux")]
const ROLE: &str = "--role";

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
            eprintln!("peers: {error}");
            ExitCode::FAILURE
        }
    }
}

/// What to measure.
#[cfg(target_os = "linux")]
struct Setting {
    size: usize,
    rounds: usize,
    /// Where all programs listen.
    address: Ipv4Addr,
    programs: Vec<Program>,
    /// Compares the roles of a transfer, and not programs.
    roles: bool,
}

#[cfg(target_os = "linux")]
impl Setting {
    fn from_args() -> Outcome<Self> {
        let mut setting = Self {
            size: 1 << 30,
            rounds: 5,
            address: Ipv4Addr::LOCALHOST,
            programs: Program::ALL.to_vec(),
            roles: false,
        };
        let mut args = std::env::args().skip(1);
        while let Some(arg) = args.next() {
            let mut value = || args.next().ok_or(format!("{arg} needs a value"));
            match arg.as_str() {
                "--size" => setting.size = bytes(&value()?)?,
                "--rounds" => setting.rounds = value()?.parse()?,
                "--address" => setting.address = value()?.parse()?,
                "--only" => {
                    let names = value()?;
                    let programs = names.split(',').map(Program::named);
                    setting.programs = programs.collect::<Outcome<_>>()?;
                }
                "--roles" => setting.roles = true,
                // Cargo passes this to every benchmark.
                "--bench" => {}
                "--test" => (setting.size, setting.rounds) = (1 << 20, 1),
                _ => return Err(format!("unknown option {arg}").into()),
            }
        }
        match [setting.size, setting.rounds, setting.programs.len()].contains(&0) {
            true => Err("no number may be 0".into()),
            false => Ok(setting),
        }
    }
}

#[cfg(target_os = "linux")]
fn run() -> Outcome<()> {
    let mut args = std::env::args().skip(1);
    if args.next().as_deref() == Some(ROLE) {
        return ours::run(args);
    }
    let setting = Setting::from_args()?;
    match setting.roles {
        true => roles::compare(&setting),
        false => rounds::compare(&setting),
    }
}
