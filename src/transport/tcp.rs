//! TCP, for IPv4 and IPv6.

/// TCP.
#[derive(Debug, Clone, Default)]
pub struct TcpTransport {}
