//! Where the programs are, and the network of the cells.

use std::env;
use std::net::{Ipv4Addr, TcpListener, UdpSocket};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use crate::client::Client;

/// An address that `.ci/clients` gives to a network of its own: some speak to nobody on a
/// loopback address.
const SHARED_ADDRESS: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);

/// Another one, for those that know others by their IP alone: they would take all others
/// for one, and that one for themselves where a tracker names them as well.
const OWN_ADDRESS: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);

/// The first port for programs: below those that the system gives to connections, so that
/// one that was free stays so.
const FIRST_PORT: u16 = 20_000;

/// Ends a cell that hangs. The slowest client takes 20 seconds on a machine that is free.
pub(crate) const PATIENCE: Duration = Duration::from_secs(150);

/// How often it is looked whether something is as it is to be.
const LOOKS_EVERY: Duration = Duration::from_millis(50);

/// What all programs of a cell have in common.
pub(crate) struct Setting {
    pub(crate) programs: PathBuf,
    /// That of the trackers and of most peers.
    pub(crate) address: Ipv4Addr,
}

impl Setting {
    /// That of this run. `None`, with the reason in the output of the test, if a program
    /// could not be installed.
    ///
    /// # Panics
    /// If it is not there although it could.
    pub(crate) fn find(clients: &[&Client], others: &[(&str, &str)]) -> Option<Self> {
        let programs = env::var_os("BT_LITE_CLIENTS");
        let programs = PathBuf::from(programs.expect("BT_LITE_CLIENTS names no folder"));
        let both = [SHARED_ADDRESS, OWN_ADDRESS];
        let has_both = both.iter().all(|ip| TcpListener::bind((*ip, 0)).is_ok());
        let address = match has_both {
            true => SHARED_ADDRESS,
            false => Ipv4Addr::LOCALHOST,
        };
        let needed = clients.iter().map(|client| (client.name, client.program));
        for (name, program) in needed.chain(others.iter().copied()) {
            if let Ok(why) = std::fs::read_to_string(programs.join(format!("{name}.failed"))) {
                println!("not run: {name}: {}", why.trim());
                return None;
            }
            let is_there = programs.join(program).exists();
            assert!(is_there, "{name} is not in {}", programs.display());
        }
        for client in clients {
            let name = client.name;
            let may_run = has_both || !client.needs_own_address;
            assert!(may_run, "{name} needs {OWN_ADDRESS}, which is not set up");
        }
        Some(Self { programs, address })
    }

    /// The address of a client.
    pub(crate) fn address_of(&self, client: &Client) -> Ipv4Addr {
        match client.needs_own_address {
            true => OWN_ADDRESS,
            false => self.address,
        }
    }

    /// A port that nobody has, neither of TCP nor of UDP.
    pub(crate) fn free_port(&self) -> u16 {
        static NEXT: AtomicU16 = AtomicU16::new(FIRST_PORT);
        loop {
            let port = NEXT.fetch_add(1, Ordering::Relaxed);
            let at = (Ipv4Addr::UNSPECIFIED, port);
            if TcpListener::bind(at).is_ok() && UdpSocket::bind(at).is_ok() {
                return port;
            }
        }
    }
}

/// Looks until it is so.
///
/// # Panics
/// If it does not become so.
pub(crate) async fn until(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    let looks = async {
        let mut ticks = tokio::time::interval(LOOKS_EVERY);
        loop {
            ticks.tick().await;
            if is_so().await {
                return;
            }
        }
    };
    let outcome = tokio::time::timeout(PATIENCE, looks).await;
    assert!(outcome.is_ok(), "this has not come: {what}");
}
