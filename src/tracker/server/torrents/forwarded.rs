//! Where a request comes from that a proxy has passed on.

use std::net::{IpAddr, SocketAddr};

/// The address of the client, by the `X-Forwarded-For` of a proxy that is trusted: the last
/// one in it that is of no trusted proxy, as all before it may be made up. `None` if there is
/// none.
pub(super) fn client<'a>(
    values: impl DoubleEndedIterator<Item = &'a str>,
    trusted: &[IpAddr],
) -> Option<IpAddr> {
    for entry in values.rev().flat_map(|value| value.rsplit(',')) {
        let ip = ip_of(entry.trim())?;
        if !trusted.contains(&ip) {
            return Some(ip);
        }
    }
    None
}

/// Some proxies write the port behind it, or brackets around IPv6.
fn ip_of(entry: &str) -> Option<IpAddr> {
    let bare = entry.trim_start_matches('[').trim_end_matches(']');
    let ip = bare.parse().ok();
    let ip = ip.or_else(|| Some(entry.parse::<SocketAddr>().ok()?.ip()));
    ip.map(|ip: IpAddr| ip.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn last_address_that_is_of_no_trusted_proxy_counts() {
        let trusted = ["10.0.0.1".parse().unwrap(), "10.0.0.2".parse().unwrap()];
        for (values, found) in [
            (vec!["192.0.2.1"], Some("192.0.2.1")),
            (vec!["8.8.8.8, 192.0.2.1"], Some("192.0.2.1")),
            (vec!["8.8.8.8", "192.0.2.1, 10.0.0.2"], Some("192.0.2.1")),
            (vec!["192.0.2.1,10.0.0.2", "10.0.0.1"], Some("192.0.2.1")),
            (vec!["192.0.2.1:5000"], Some("192.0.2.1")),
            (vec!["[2001:db8::1]:5000"], Some("2001:db8::1")),
            (vec!["[2001:db8::1]"], Some("2001:db8::1")),
            (vec!["2001:db8::1"], Some("2001:db8::1")),
            (vec!["::ffff:192.0.2.1"], Some("192.0.2.1")),
            // What a stranger may have written is not gone back to.
            (vec!["192.0.2.1, unknown"], None),
            (vec!["192.0.2.1, unknown, 10.0.0.1"], None),
            (vec!["10.0.0.1"], None),
            (vec![""], None),
            (vec![], None),
        ] {
            let found = found.map(|ip| ip.parse().unwrap());
            assert_eq!(
                client(values.iter().copied(), &trusted),
                found,
                "{values:?}"
            );
        }
    }
}
