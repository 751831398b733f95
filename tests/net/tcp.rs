//! Behaviour that is specific to TCP.

use bt_lite::{TcpTransport, Transport};
use tokio::net::TcpStream;

use crate::world::soon;

/// More than the common backlog of 128, but within the limit of open files of a
/// process.
const BURST: usize = 300;

#[tokio::test]
async fn burst_of_connections_waits_to_be_accepted() {
    #[cfg(target_os = "linux")]
    {
        let most = std::fs::read_to_string("/proc/sys/net/core/somaxconn").unwrap();
        if most.trim().parse::<usize>().unwrap() <= BURST {
            return;
        }
    }
    let (transport, any) = (TcpTransport::new(), "127.0.0.1:0".parse().unwrap());
    let listener = transport.listen(&any).await.unwrap();
    let addr = listener.local_addr().as_str().to_owned();
    // Nobody accepts. If the backlog were full, connecting would wait.
    let mut waiting = Vec::new();
    for _ in 0..BURST {
        waiting.push(soon(TcpStream::connect(&addr)).await.unwrap());
    }
}
