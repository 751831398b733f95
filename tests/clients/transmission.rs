//! Transmission: its daemon.

use std::fs;
use std::io;
use std::process::Command;

use crate::client::{Client, Place};

pub(crate) const CLIENT: Client = Client {
    name: "transmission",
    program: "bin/transmission-daemon",
    needs_own_address: true,
    makes_empty_files: false,
    tells_udp_trackers: true,
    command,
};

fn command(place: &Place<'_>) -> io::Result<Command> {
    let config = place.home.join("config");
    let torrents = config.join("torrents");
    fs::create_dir_all(&torrents)?;
    // What lies there at the start is begun at once.
    fs::copy(place.torrent, torrents.join("content.torrent"))?;
    let settings = serde_json::json!({
        "bind-address-ipv4": place.address.to_string(),
        "dht-enabled": false,
        "download-dir": place.directory,
        "lpd-enabled": false,
        "peer-port": place.port,
        "port-forwarding-enabled": false,
        "rpc-enabled": false,
        "utp-enabled": false,
    });
    fs::write(config.join("settings.json"), settings.to_string())?;
    let mut command = Command::new(place.program(CLIENT.program));
    command.args(["--foreground", "--config-dir"]).arg(config);
    Ok(command)
}
