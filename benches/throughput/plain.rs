//! The plain pipeline over TCP.

use std::fs::File;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::FileExt;
use std::path::Path;

use super::common::Outcome;

/// Sends a file to the first that connects, in pieces. Calls `ready` with the address as
/// soon as it listens.
pub(crate) fn send(file: &Path, piece: usize, ready: impl FnOnce(String)) -> Outcome<()> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    ready(listener.local_addr()?.to_string());
    let (mut stream, _) = listener.accept()?;
    let mut file = File::open(file)?;
    let mut buffer = vec![0; piece];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(()),
            read => stream.write_all(&buffer[..read])?,
        }
    }
}

/// Writes what arrives to a file.
pub(crate) fn receive(file: &Path, piece: usize, addr: &str) -> Outcome<()> {
    let mut stream = TcpStream::connect(addr)?;
    let file = File::create(file)?;
    let mut buffer = vec![0; piece];
    let mut at = 0;
    loop {
        match stream.read(&mut buffer)? {
            0 => return Ok(()),
            read => {
                file.write_all_at(&buffer[..read], at)?;
                at += read as u64;
            }
        }
    }
}
