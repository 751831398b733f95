//! The plain pipeline over TCP.

use std::fs::File;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::thread;

use super::common::Outcome;

/// One of several parts of a file of equal length.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Part {
    pub(crate) number: u64,
    pub(crate) of: u64,
}

impl Part {
    /// Where it begins and ends in a file of this length.
    fn range(self, len: u64) -> (u64, u64) {
        let start = |number| len * number / self.of;
        (start(self.number), start(self.number + 1))
    }
}

/// Sends a part of a file to the first that connects, in pieces. Calls `ready` with where it
/// listens and where the part begins as soon as it does.
pub(crate) fn send(
    file: &Path,
    part: Part,
    piece: usize,
    ready: impl FnOnce(String),
) -> Outcome<()> {
    let file = File::open(file)?;
    let (mut at, end) = part.range(file.metadata()?.len());
    let listener = TcpListener::bind("127.0.0.1:0")?;
    ready(format!("{} {at}", listener.local_addr()?));
    let (mut stream, _) = listener.accept()?;
    let mut buffer = vec![0; piece];
    while at < end {
        let room = buffer.len().min((end - at) as usize);
        match file.read_at(&mut buffer[..room], at)? {
            0 => return Err("the file has become shorter".into()),
            read => {
                stream.write_all(&buffer[..read])?;
                at += read as u64;
            }
        }
    }
    Ok(())
}

/// Writes what arrives from all senders to a file, with a thread for each.
pub(crate) fn receive(file: &Path, piece: usize, senders: &[String]) -> Outcome<()> {
    let file = File::create(file)?;
    let from = |sender: &str| -> Outcome<()> {
        let (addr, at) = sender
            .split_once(' ')
            .ok_or("a sender has said something else")?;
        let (mut stream, mut at) = (TcpStream::connect(addr)?, at.parse()?);
        let mut buffer = vec![0; piece];
        loop {
            match stream.read(&mut buffer)? {
                0 => return Ok(()),
                read => {
                    file.write_all_at(&buffer[..read], at)?;
                    at += read as u64;
                }
            }
        }
    };
    let (first, others) = senders.split_first().ok_or("no sender")?;
    thread::scope(|scope| {
        let others = others.iter().map(|sender| {
            let from = &from;
            scope.spawn(move || from(sender).map_err(|error| error.to_string()))
        });
        let others: Vec<_> = others.collect();
        from(first)?;
        for other in others {
            other.join().map_err(|_| "a thread has panicked")??;
        }
        Ok(())
    })
}
