//! A tracker over HTTP that tells everybody about everybody else (BEP 3 and 23), for one
//! torrent: how a receiver finds the owner.

use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::Duration;

use super::Outcome;

/// How long a program may take until it announces that it has all.
const PATIENCE: Duration = Duration::from_secs(300);

/// Who has announced, and how many bytes each lacks.
#[derive(Debug, Default)]
struct Announced(Vec<(SocketAddrV4, u64)>);

impl Announced {
    fn note(&mut self, addr: SocketAddrV4, left: u64, leaves: bool) {
        self.0.retain(|(other, _)| *other != addr);
        if !leaves {
            self.0.push((addr, left));
        }
    }

    /// Everybody but this one, in the compact form.
    fn others(&self, asker: SocketAddrV4) -> Vec<u8> {
        let others = self.0.iter().filter(|(addr, _)| *addr != asker);
        others
            .flat_map(|(addr, _)| {
                let port = addr.port().to_be_bytes();
                addr.ip().octets().into_iter().chain(port)
            })
            .collect()
    }
}

#[derive(Debug, Default)]
struct Shared {
    announced: Mutex<Announced>,
    changed: Condvar,
}

/// The tracker; it serves until the process ends.
#[derive(Debug, Clone)]
pub(crate) struct AnnounceServer {
    shared: Arc<Shared>,
    addr: SocketAddrV4,
}

impl AnnounceServer {
    pub(crate) fn start(address: Ipv4Addr) -> Outcome<Self> {
        let listener = TcpListener::bind((address, 0))?;
        let addr = SocketAddrV4::new(address, listener.local_addr()?.port());
        let shared = Arc::<Shared>::default();
        let server = Self {
            shared: Arc::clone(&shared),
            addr,
        };
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let shared = Arc::clone(&shared);
                // One that says nothing holds up nobody else.
                std::thread::spawn(move || serve(stream, &shared));
            }
        });
        Ok(server)
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}/announce", self.addr)
    }

    /// Forgets everybody.
    pub(crate) fn clear(&self) {
        self.lock().0.clear();
    }

    /// Waits until somebody has announced that it lacks nothing.
    pub(crate) fn until_owner(&self) -> Outcome<()> {
        let nobody = |announced: &mut Announced| announced.0.iter().all(|(_, left)| *left > 0);
        let waited = self
            .shared
            .changed
            .wait_timeout_while(self.lock(), PATIENCE, nobody);
        let (announced, waited) = waited.map_err(|_| "the tracker has failed")?;
        drop(announced);
        match waited.timed_out() {
            true => Err("nobody has announced that it has the file".into()),
            false => Ok(()),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Announced> {
        self.shared.announced.lock().expect("no holder panics")
    }
}

/// Answers one request. Errors are the client's.
fn serve(stream: TcpStream, shared: &Shared) -> Option<()> {
    let SocketAddr::V4(from) = stream.peer_addr().ok()? else {
        return None;
    };
    let mut lines = BufReader::new(&stream).lines();
    let request = lines.next()?.ok()?;
    // The rest of the head says nothing of interest here.
    while !lines.next()?.ok()?.is_empty() {}
    let query = request.split(' ').nth(1)?.split_once('?')?.1;
    let value = |name: &str| {
        let mut pairs = query.split('&').filter_map(|pair| pair.split_once('='));
        pairs.find(|(key, _)| *key == name).map(|(_, value)| value)
    };
    let addr = SocketAddrV4::new(*from.ip(), value("port")?.parse().ok()?);
    let left = value("left").and_then(|left| left.parse().ok());
    let leaves = value("event") == Some("stopped");
    let others = {
        let mut announced = shared.announced.lock().ok()?;
        announced.note(addr, left.unwrap_or(u64::MAX), leaves);
        announced.others(addr)
    };
    shared.changed.notify_all();
    let mut body = format!("d8:intervali1800e5:peers{}:", others.len()).into_bytes();
    body.extend(others);
    body.push(b'e');
    let head = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {}\r\n\
         Connection: close\r\n\r\n",
        body.len()
    );
    (&stream).write_all(&[head.as_bytes(), &body].concat()).ok()
}
