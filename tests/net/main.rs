//! Transports and the wire, on real sockets and on pipes.

mod broken;
mod conformance;
mod framing;
