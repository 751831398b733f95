//! `memory:NAME` and `memory:NAME:PORT`.

use crate::protocol::MAX_ADDR_LEN;
use crate::transport::{Addr, TransportError};

const SCHEME: &str = "memory:";

/// The longest name of an endpoint, in bytes: with scheme and port it still is
/// an address.
pub const MAX_ENDPOINT_NAME: usize = MAX_ADDR_LEN - SCHEME.len() - ":65535".len();

/// Whether an endpoint may be called so.
pub(super) fn is_name(name: &str) -> bool {
    (1..=MAX_ENDPOINT_NAME).contains(&name.len())
        && name.bytes().all(|b| b.is_ascii_graphic() && b != b':')
}

/// The parts of an address.
pub(super) fn split(addr: &Addr) -> Result<(&str, Option<u16>), TransportError> {
    let refused = |reason: &str| TransportError::Address {
        addr: addr.clone(),
        reason: reason.into(),
    };
    let rest = addr
        .as_str()
        .strip_prefix(SCHEME)
        .ok_or_else(|| refused("it does not begin with `memory:`"))?;
    let (name, port) = match rest.split_once(':') {
        None => (rest, None),
        Some((name, port)) => match port.parse() {
            Ok(number) if port.bytes().all(|b| b.is_ascii_digit()) => (name, Some(number)),
            _ => return Err(refused("the port is no number up to 65535")),
        },
    };
    if !is_name(name) {
        return Err(refused("no endpoint can have this name"));
    }
    Ok((name, port))
}

/// The address of these parts. The name was checked.
pub(super) fn join(name: &str, port: Option<u16>) -> Addr {
    let text = match port {
        None => format!("{SCHEME}{name}"),
        Some(port) => format!("{SCHEME}{name}:{port}"),
    };
    text.parse()
        .expect("an endpoint's name is short and printable")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_come_apart_and_together() {
        for (text, parts) in [
            ("memory:a", ("a", None)),
            ("memory:seed-1:7", ("seed-1", Some(7))),
            ("memory:x:65535", ("x", Some(65535))),
        ] {
            let addr: Addr = text.parse().unwrap();
            assert_eq!(split(&addr), Ok(parts));
            assert_eq!(join(parts.0, parts.1), addr);
        }
        let long = "x".repeat(MAX_ENDPOINT_NAME);
        assert_eq!(join(&long, Some(65535)).as_str().len(), MAX_ADDR_LEN);
    }

    #[test]
    fn other_addresses_are_refused() {
        let long = format!("memory:{}", "x".repeat(MAX_ENDPOINT_NAME + 1));
        for text in [
            "127.0.0.1:7000",
            "memory:",
            "memory::7",
            "memory:a:",
            "memory:a:x",
            "memory:a:+7",
            "memory:a:65536",
            "memory:a:1:2",
            &long,
        ] {
            let addr: Addr = text.parse().unwrap();
            assert!(
                matches!(split(&addr), Err(TransportError::Address { .. })),
                "{text}"
            );
        }
    }
}
