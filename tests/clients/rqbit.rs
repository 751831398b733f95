//! rqbit.

use std::io;
use std::process::Command;

use crate::client::{Client, Place};

pub(crate) const CLIENT: Client = Client {
    name: "rqbit",
    program: "rqbit/bin/rqbit",
    takes_loopback: true,
    command,
};

fn command(place: &Place<'_>) -> io::Result<Command> {
    let port = place.port.to_string();
    let mut command = Command::new(place.program(CLIENT.program));
    command.env("HOME", place.home);
    command.args(["--disable-dht", "--disable-lsd", "--ipv4-only"]);
    command.args(["--listen-ip", &place.address().to_string()]);
    // It announces a port of its own choice otherwise.
    command.args(["--listen-port", &port, "--announce-port", &port]);
    command.args(["download", "--disable-http-api", "--overwrite"]);
    command.arg("--output-folder");
    // Else it is what lies in the folder of the torrent.
    command.arg(place.directory.join(crate::torrent::NAME));
    command.arg(place.torrent);
    Ok(command)
}
