//! libtorrent, by its Python package.

use std::fs;
use std::io;
use std::process::Command;

use crate::client::{Client, Place};

/// It has no program of its own.
const SCRIPT: &str = include_str!("libtorrent.py");

pub(crate) const CLIENT: Client = Client {
    name: "libtorrent",
    program: "libtorrent/bin/python",
    needs_own_address: false,
    makes_empty_files: true,
    tells_udp_trackers: true,
    command,
};

fn command(place: &Place<'_>) -> io::Result<Command> {
    // By its own name it would be taken for the package.
    let script = place.home.join("program.py");
    fs::write(&script, SCRIPT)?;
    let mut command = Command::new(place.program(CLIENT.program));
    command.arg("-u").arg(script);
    command.arg(format!("{}:{}", place.address, place.port));
    command.args([place.torrent, place.directory]);
    command.args(place.chosen.iter().map(usize::to_string));
    Ok(command)
}
