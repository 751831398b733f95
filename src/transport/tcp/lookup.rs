//! Looking up host names.
//!
//! The operating system offers only a call that blocks, for half a minute or more if its
//! resolver does not answer. So each lookup has a thread of its own, which nobody waits
//! for: a runtime that is dropped meanwhile ends at once, as it would not with a thread of
//! its own pool.

use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::thread;

use tokio::sync::{Semaphore, oneshot};

/// How many lookups there may be at a time, in the whole process. Others wait.
const MAX_LOOKUPS: usize = 16;

static PLACES: Semaphore = Semaphore::const_new(MAX_LOOKUPS);

/// Looks up a host name; blocks.
pub(super) type Lookup = fn(&str, u16) -> io::Result<Vec<SocketAddr>>;

/// Asks the operating system.
pub(super) fn system_lookup(host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
    Ok((host, port).to_socket_addrs()?.collect())
}

/// Runs a lookup on a thread of its own.
///
/// Cancel safe: the thread of a lookup that nobody waits for ends with it.
pub(super) async fn look_up(
    lookup: Lookup,
    host: String,
    port: u16,
) -> io::Result<Vec<SocketAddr>> {
    let place = PLACES.acquire().await.map_err(io::Error::other)?;
    let (sender, found) = oneshot::channel();
    thread::Builder::new()
        .name("bt_lite lookup".into())
        .spawn(move || {
            // When nobody waits any more, that is fine.
            let _ = sender.send(lookup(&host, port));
            drop(place);
        })?;
    let ended = |_| io::Error::other("the lookup has ended without a result");
    found.await.map_err(ended)?
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::time::Duration;

    use super::*;

    /// A resolver that answers nobody.
    fn hangs(_: &str, _: u16) -> io::Result<Vec<SocketAddr>> {
        loop {
            thread::park();
        }
    }

    #[test]
    fn runtime_ends_while_the_resolver_hangs() {
        let (ended, ends) = mpsc::channel();
        thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().build();
            let runtime = runtime.unwrap();
            runtime.block_on(async {
                let looking = look_up(hangs, "name".into(), 7);
                // The lookup begins, and nobody waits for it.
                assert!(futures::poll!(std::pin::pin!(looking)).is_pending());
            });
            drop(runtime);
            ended.send(()).unwrap();
        });
        let hung = Duration::from_secs(60);
        ends.recv_timeout(hung).expect("the runtime does not end");
    }

    #[tokio::test]
    async fn address_with_the_name_of_an_interface_gets_its_number() {
        // Every machine has this interface, and on Linux it is the first.
        #[cfg(target_os = "linux")]
        {
            let found = look_up(system_lookup, "fe80::1%lo".into(), 7)
                .await
                .unwrap();
            assert_eq!(found, ["[fe80::1%1]:7".parse().unwrap()]);
        }
        let local = look_up(system_lookup, "localhost".into(), 7).await.unwrap();
        assert!(
            local
                .iter()
                .all(|addr| addr.ip().is_loopback() && addr.port() == 7)
        );
    }
}
