//! rqbit.

use std::io;
use std::process::Command;

use crate::client::{Client, Place};

pub(crate) const CLIENT: Client = Client {
    name: "rqbit",
    program: "rqbit/bin/rqbit",
    needs_own_address: false,
    makes_empty_files: true,
    tells_udp_trackers: false,
    command,
};

fn command(place: &Place<'_>) -> io::Result<Command> {
    let port = place.port.to_string();
    let mut command = Command::new(place.program(CLIENT.program));
    command.env("HOME", place.home);
    command.args(["--disable-dht", "--disable-lsd", "--ipv4-only"]);
    command.args(["--listen-ip", &place.address.to_string()]);
    // It announces a port of its own choice otherwise.
    command.args(["--listen-port", &port, "--announce-port", &port]);
    // It tells trackers that it is complete when it asks again. This is for HTTP only.
    command.args(["--tracker-refresh-interval", "2s"]);
    command.args(["download", "--disable-http-api", "--overwrite"]);
    command.arg("--output-folder").arg(place.directory);
    command.arg(place.torrent);
    Ok(command)
}
