//! The addresses of endpoints: `memory:NAME` and `memory:NAME:PORT`.

use crate::protocol::{Addr, MAX_ADDR_LEN};
use crate::transport::error::TransportError;

const SCHEME: &str = "memory:";

/// The longest name of an endpoint, in bytes. With scheme and port, it still fits
/// into an address.
pub const MAX_ENDPOINT_NAME: usize = MAX_ADDR_LEN - SCHEME.len() - ":65535".len();

/// Whether an endpoint may have this name.
pub(super) fn is_name(name: &str) -> bool {
    (1..=MAX_ENDPOINT_NAME).contains(&name.len())
        && name.bytes().all(|b| b.is_ascii_graphic() && b != b':')
}

/// Splits an address into name and port.
pub(super) fn split(addr: &Addr) -> Result<(&str, Option<u16>), TransportError> {
    let refused = |reason: &str| TransportError::Address {
        addr: addr.clone(),
        reason: reason.into(),
    };
    let rest = addr
        .as_str()
        .strip_prefix(SCHEME)
        .ok_or_else(|| refused("it does not start with `memory:`"))?;
    let (name, port) = match rest.split_once(':') {
        None => (rest, None),
        Some((name, port)) => match port.parse() {
            Ok(number) if port.bytes().all(|b| b.is_ascii_digit()) => (name, Some(number)),
            _ => return Err(refused("the port is not a number from 0 to 65535")),
        },
    };
    if !is_name(name) {
        return Err(refused(
            "the name is empty, too long, or has a character that is not allowed",
        ));
    }
    Ok((name, port))
}

/// Joins a name and a port. The name must be valid; see [`is_name`].
pub(super) fn join(name: &str, port: Option<u16>) -> Addr {
    let text = match port {
        None => format!("{SCHEME}{name}"),
        Some(port) => format!("{SCHEME}{name}:{port}"),
    };
    text.parse().expect("a valid name is short and printable")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn address_splits_and_joins() {
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
