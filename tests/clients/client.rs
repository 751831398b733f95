//! What the tests know of each client.

use std::ffi::OsString;
use std::io;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::setting::Setting;

/// A client of another maker. Each verifies what lies in its directory, fetches the rest,
/// shares all of it, and never ends by itself. So whether one seeds or fetches is decided
/// by what lies there at the start.
pub(crate) struct Client {
    /// As `.ci/clients` calls it.
    pub(crate) name: &'static str,
    /// What is run, in the folder of the programs.
    pub(crate) program: &'static str,
    /// Whether it knows others by their IP alone, and speaks to nobody on loopback.
    pub(crate) needs_own_address: bool,
    /// Whether it makes the files that have no bytes.
    pub(crate) makes_empty_files: bool,
    /// Whether it tells a tracker over UDP that it has all, before the interval has passed.
    pub(crate) tells_udp_trackers: bool,
    /// How it is run.
    pub(crate) command: fn(&Place<'_>) -> io::Result<Command>,
}

/// What a client is told.
pub(crate) struct Place<'a> {
    pub(crate) setting: &'a Setting,
    pub(crate) torrent: &'a Path,
    /// The directory in which the folder of the torrent is, or is to be.
    pub(crate) directory: &'a Path,
    /// Where the process may write what it needs beside. The working directory as well.
    pub(crate) home: &'a Path,
    /// Where it listens, and from where it dials if it can be told.
    pub(crate) address: Ipv4Addr,
    pub(crate) port: u16,
    /// Whether the tracker of the torrent is asked over UDP.
    pub(crate) asks_udp: bool,
    /// The numbers of the files that are wanted, if not all are. Only libtorrent is told.
    pub(crate) chosen: &'a [usize],
}

impl Place<'_> {
    pub(crate) fn program(&self, name: &str) -> PathBuf {
        self.setting.programs.join(name)
    }
}

/// An option and its value as one argument.
pub(crate) fn option(name: &str, value: &Path) -> OsString {
    let mut option = OsString::from(name);
    option.push(value);
    option
}
