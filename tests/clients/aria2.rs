//! aria2.

use std::io;
use std::process::Command;

use crate::client::{Client, Place, option};

pub(crate) const CLIENT: Client = Client {
    name: "aria2",
    program: "bin/aria2c",
    needs_own_address: false,
    makes_empty_files: true,
    tells_udp_trackers: true,
    command,
};

fn command(place: &Place<'_>) -> io::Result<Command> {
    let mut command = Command::new(place.program(CLIENT.program));
    command.args(["--no-conf", "--bt-enable-lpd=false", "--disable-ipv6=true"]);
    // Without a DHT it asks no tracker over UDP. It knows nobody in it.
    command.arg(format!("--enable-dht={}", place.asks_udp));
    command.arg(option("--dht-file-path=", &place.home.join("dht")));
    // It would stop when it has sent as much as it has received.
    command.arg("--seed-ratio=0.0");
    // It would take what lies there for something else, and give the folder another name.
    command.args(["--check-integrity=true", "--allow-overwrite=true"]);
    command.args(["--file-allocation=none", "--summary-interval=0"]);
    command.arg(format!("--listen-port={}", place.port));
    command.arg(format!("--dht-listen-port={}", place.port));
    command.arg(option("--dir=", place.directory));
    command.arg(place.torrent);
    Ok(command)
}
