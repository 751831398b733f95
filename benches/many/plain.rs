//! The plain pipeline.

use std::fs::{self, File};
use std::io::{BufWriter, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;

use super::common::Outcome;

/// Sends all files to the first that connects: the length of each, and its bytes.
/// Calls `ready` with the address as soon as it listens.
pub(crate) fn serve(dir: &Path, files: usize, ready: impl FnOnce(String)) -> Outcome<()> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    ready(listener.local_addr()?.to_string());
    let (stream, _) = listener.accept()?;
    stream.set_nodelay(true)?;
    let mut stream = BufWriter::new(stream);
    for number in 0..files {
        let bytes = fs::read(dir.join(super::rounds::name(number)))?;
        stream.write_all(&(bytes.len() as u64).to_be_bytes())?;
        stream.write_all(&bytes)?;
    }
    stream.flush()?;
    Ok(())
}

/// Stores all files: written under another name, synced, renamed, and the directory
/// synced, one after the other.
pub(crate) fn fetch(dir: &Path, files: usize, addr: &str) -> Outcome<()> {
    let mut stream = TcpStream::connect(addr)?;
    let at = File::open(dir)?;
    let mut bytes = Vec::new();
    for number in 0..files {
        let mut len = [0; 8];
        stream.read_exact(&mut len)?;
        bytes.resize(u64::from_be_bytes(len) as usize, 0);
        stream.read_exact(&mut bytes)?;
        let name = super::rounds::name(number);
        let part = dir.join(format!("{name}.part"));
        let mut file = File::create(&part)?;
        file.write_all(&bytes)?;
        file.sync_data()?;
        fs::rename(part, dir.join(name))?;
        at.sync_all()?;
    }
    Ok(())
}
