//! WebTorrent, on Node.

use std::fs;
use std::io;
use std::process::Command;

use crate::client::{Client, Place};

/// Its command line is another package, with much more.
const SCRIPT: &str = include_str!("webtorrent.mjs");

pub(crate) const CLIENT: Client = Client {
    name: "webtorrent",
    program: "webtorrent/node_modules/webtorrent/index.js",
    needs_own_address: false,
    makes_empty_files: true,
    tells_udp_trackers: true,
    command,
};

fn command(place: &Place<'_>) -> io::Result<Command> {
    let script = place.home.join("webtorrent.mjs");
    fs::write(&script, SCRIPT)?;
    let mut command = Command::new("node");
    command.arg(script).arg(place.program(CLIENT.program));
    command.arg(place.port.to_string());
    command.args([place.torrent, place.directory]);
    Ok(command)
}
