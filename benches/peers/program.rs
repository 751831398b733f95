//! The programs, and how each is told to seed a file and to fetch it.

use std::ffi::OsString;
use std::fs::{self, Permissions};
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::{Outcome, ROLE};

/// The program for libtorrent, which has none of its own.
const LIBTORRENT: &str = include_str!("libtorrent.py");

/// What a program runs when it has all: it makes the file that the environment names.
const MARKER: &str = "#!/bin/sh\n: >\"$MARK\"\n";

/// A program that moves files between peers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Program {
    BtLite,
    /// This crate as a BitTorrent client.
    Torrents,
    Libtorrent,
    Rqbit,
    Aria2,
    Transmission,
}

/// What both sides of a transfer are told.
#[derive(Debug)]
pub(crate) struct Place<'a> {
    /// Where it listens.
    pub(crate) address: Ipv4Addr,
    pub(crate) torrent: &'a Path,
    /// Where the file is or comes to be.
    pub(crate) content: &'a Path,
    /// Where the process may write what it needs beside.
    pub(crate) home: &'a Path,
}

impl Place<'_> {
    /// The file that is there when the process has all.
    pub(crate) fn mark(&self) -> PathBuf {
        self.home.join("mark")
    }

    fn directory(&self) -> &Path {
        self.content.parent().expect("a file has a directory")
    }
}

impl Program {
    pub(crate) const ALL: [Self; 5] = [
        Self::BtLite,
        Self::Libtorrent,
        Self::Rqbit,
        Self::Aria2,
        Self::Transmission,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::BtLite => "bt_lite",
            Self::Torrents => "torrents",
            Self::Libtorrent => "libtorrent",
            Self::Rqbit => "rqbit",
            Self::Aria2 => "aria2",
            Self::Transmission => "transmission",
        }
    }

    pub(crate) fn named(name: &str) -> Outcome<Self> {
        let mut all = Self::ALL.into_iter();
        let found = all.find(|program| program.name() == name);
        found.ok_or_else(|| format!("unknown program {name}").into())
    }

    /// The version that is installed, or why it cannot run here.
    pub(crate) fn version(self, address: Ipv4Addr) -> Result<String, String> {
        let first = |command: &mut Command| {
            let output = command.output().map_err(|error| error.to_string())?;
            let said = [output.stdout, output.stderr].concat();
            let said = String::from_utf8_lossy(&said);
            match output.status.success() {
                true => Ok(said.lines().next().unwrap_or_default().to_owned()),
                false => Err("it does not run".to_owned()),
            }
        };
        match self {
            Self::BtLite | Self::Torrents => Ok(env!("CARGO_PKG_VERSION").into()),
            Self::Libtorrent => {
                first(python().args(["-c", "import libtorrent; print(libtorrent.__version__)"]))
            }
            Self::Rqbit => first(rqbit().arg("--version")),
            Self::Aria2 => first(Command::new("aria2c").arg("--version")),
            Self::Transmission => {
                let version = first(Command::new("transmission-daemon").arg("--version"))?;
                match address.is_loopback() {
                    true => Err("it speaks to nobody on a loopback address (--address)".into()),
                    false => Ok(version),
                }
            }
        }
    }

    /// Whether an owner announces at the HTTP tracker that it has all. If not, it says so by
    /// its mark.
    pub(crate) fn announces(self) -> bool {
        // Torrents that are there from the start are told of later.
        !matches!(self, Self::BtLite | Self::Torrents)
    }

    /// Whether its receiver makes a mark when it has all, and goes on. If not, it ends.
    pub(crate) fn marks(self) -> bool {
        self != Self::Rqbit
    }

    /// The process that has the file.
    pub(crate) fn seed(self, place: &Place<'_>) -> Outcome<Command> {
        Ok(match self {
            Self::BtLite => {
                let mut command = Command::new(std::env::current_exe()?);
                command.args([ROLE, "seed", &place.address.to_string()]);
                command.args([place.content, &place.mark()]);
                command
            }
            Self::Torrents => torrents("seed-torrent", place)?,
            Self::Libtorrent => libtorrent("seed", place)?,
            Self::Rqbit => {
                let mut command = rqbit_download(place)?;
                command.arg(place.torrent);
                command
            }
            Self::Aria2 => {
                let mut command = aria2(place)?;
                command.arg("--bt-seed-unverified=true");
                command
            }
            Self::Transmission => transmission(place)?,
        })
    }

    /// The process that begins with nothing. `said` is what the owner has said.
    pub(crate) fn fetch(self, place: &Place<'_>, said: &str) -> Outcome<Command> {
        Ok(match self {
            Self::BtLite => {
                let mut command = Command::new(std::env::current_exe()?);
                command.args([ROLE, "fetch"]);
                command.args([place.directory(), &place.mark()]);
                command.args(said.split(' '));
                command.arg(place.content.file_name().ok_or("a file has a name")?);
                command
            }
            Self::Torrents => torrents("fetch-torrent", place)?,
            Self::Libtorrent => libtorrent("fetch", place)?,
            Self::Rqbit => {
                let mut command = rqbit_download(place)?;
                command.arg("--exit-on-finish").arg(place.torrent);
                command
            }
            Self::Aria2 => aria2(place)?,
            Self::Transmission => transmission(place)?,
        })
    }
}

fn torrents(role: &str, place: &Place<'_>) -> Outcome<Command> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args([ROLE, role, &place.address.to_string()]);
    command.args([place.torrent, place.directory(), &place.mark()]);
    Ok(command)
}

fn python() -> Command {
    Command::new(std::env::var_os("LIBTORRENT_PYTHON").unwrap_or_else(|| "python3".into()))
}

fn libtorrent(role: &str, place: &Place<'_>) -> Outcome<Command> {
    let program = place.home.join("program.py");
    fs::write(&program, LIBTORRENT)?;
    let mut command = python();
    command
        .arg(program)
        .arg(role)
        .arg(place.address.to_string());
    command.args([place.torrent, place.directory(), &place.mark()]);
    Ok(command)
}

fn rqbit() -> Command {
    Command::new(std::env::var_os("RQBIT").unwrap_or_else(|| "rqbit".into()))
}

fn rqbit_download(place: &Place<'_>) -> Outcome<Command> {
    let port = free_port(place.address)?;
    let mut command = rqbit();
    command.env("HOME", place.home);
    command.args(["--disable-dht", "--disable-lsd", "--ipv4-only"]);
    command.args(["--listen-ip", &place.address.to_string()]);
    let port = port.to_string();
    // It announces a port of its own choice otherwise.
    command.args(["--listen-port", &port, "--announce-port", &port, "download"]);
    command.args(["--disable-http-api", "--overwrite", "--output-folder"]);
    command.arg(place.directory());
    Ok(command)
}

fn aria2(place: &Place<'_>) -> Outcome<Command> {
    let port = free_port(place.address)?;
    let mut command = Command::new("aria2c");
    command.args(["--no-conf", "--enable-dht=false", "--seed-ratio=0.0"]);
    command.arg(format!("--listen-port={port}"));
    command.arg(option("--dir=", place.directory()));
    command.arg(option("--on-bt-download-complete=", &marker(place)?));
    command.env("MARK", place.mark()).arg(place.torrent);
    Ok(command)
}

fn transmission(place: &Place<'_>) -> Outcome<Command> {
    let config = place.home.join("config");
    let torrents = config.join("torrents");
    fs::create_dir_all(&torrents)?;
    // What lies there at the start is begun at once.
    fs::copy(place.torrent, torrents.join("content.torrent"))?;
    let settings = serde_json::json!({
        "bind-address-ipv4": place.address.to_string(),
        "dht-enabled": false,
        "download-dir": place.directory(),
        "lpd-enabled": false,
        "peer-port": free_port(place.address)?,
        "port-forwarding-enabled": false,
        "rpc-enabled": false,
        "script-torrent-done-enabled": true,
        "script-torrent-done-filename": marker(place)?,
        "utp-enabled": false,
    });
    fs::write(config.join("settings.json"), settings.to_string())?;
    let mut command = Command::new("transmission-daemon");
    command.args(["--foreground", "--config-dir"]).arg(config);
    command.env("MARK", place.mark());
    Ok(command)
}

/// The script that a program runs when it has all.
fn marker(place: &Place<'_>) -> Outcome<PathBuf> {
    let script = place.home.join("marker");
    fs::write(&script, MARKER)?;
    fs::set_permissions(&script, Permissions::from_mode(0o755))?;
    Ok(script)
}

fn option(name: &str, value: &Path) -> OsString {
    let mut option = OsString::from(name);
    option.push(value);
    option
}

/// A port that nobody listens at.
fn free_port(address: Ipv4Addr) -> Outcome<u16> {
    Ok(TcpListener::bind((address, 0))?.local_addr()?.port())
}
