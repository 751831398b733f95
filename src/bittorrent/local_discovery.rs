//! What peers in one local network say to find each other (BEP 14): datagrams to a multicast
//! group, which look like HTTP. Pure encoding, both ways.

use core::net::{Ipv4Addr, SocketAddrV4};

use super::InfoHashV1;

/// Where announces are sent to, over IPv4.
pub const GROUP: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(239, 192, 152, 143), 6771);

/// The longest announce in bytes, so that it is one packet.
pub const MAX_ANNOUNCE_LEN: usize = 1400;

/// How many torrents of one announce are read: as many as fit into it.
const MAX_TORRENTS: usize = MAX_ANNOUNCE_LEN / (2 * InfoHashV1::LEN);

/// How many lines one announce may have.
const MAX_LINES: usize = MAX_TORRENTS + 8;

/// The method in the first line.
const METHOD: &str = "BT-SEARCH";

/// That a peer has torrents, or wants them.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct LocalAnnounce {
    /// The port at which it takes connections, at the address that this comes from.
    pub port: u16,
    /// The torrents.
    pub info_hashes: Vec<InfoHashV1>,
    /// What the sender knows its own announces by.
    pub cookie: Option<String>,
}

impl LocalAnnounce {
    /// The datagram. Of the torrents only as many as fit into one.
    pub fn encode(&self) -> Vec<u8> {
        let mut text = format!(
            "{METHOD} * HTTP/1.1\r\nHost: {GROUP}\r\nPort: {}\r\n",
            self.port
        );
        let end = match &self.cookie {
            Some(cookie) => format!("cookie: {cookie}\r\n\r\n\r\n"),
            None => "\r\n\r\n".to_owned(),
        };
        for hash in &self.info_hashes {
            let line = format!("Infohash: {hash}\r\n");
            if text.len() + line.len() + end.len() > MAX_ANNOUNCE_LEN {
                break;
            }
            text.push_str(&line);
        }
        text.push_str(&end);
        text.into_bytes()
    }

    /// Reads a datagram. `None` if it is no announce, names no port, or no torrent. Other
    /// lines, and torrents that are none, are passed over.
    pub fn decode(datagram: &[u8]) -> Option<Self> {
        if datagram.len() > MAX_ANNOUNCE_LEN {
            return None;
        }
        let mut lines = [httparse::EMPTY_HEADER; MAX_LINES];
        let mut request = httparse::Request::new(&mut lines);
        request.parse(datagram).ok()?;
        request.method.filter(|method| *method == METHOD)?;
        let values = |name: &'static str| {
            let named = request.headers.iter();
            let named = named.filter(move |line| line.name.eq_ignore_ascii_case(name));
            named.filter_map(|line| std::str::from_utf8(line.value).ok())
        };
        let port = values("Port")
            .next()?
            .parse()
            .ok()
            .filter(|port| *port > 0)?;
        let info_hashes: Vec<_> = values("Infohash")
            .filter_map(|hash| hash.parse().ok())
            .take(MAX_TORRENTS)
            .collect();
        let announce = Self {
            port,
            info_hashes,
            cookie: values("cookie").next().map(str::to_owned),
        };
        (!announce.info_hashes.is_empty()).then_some(announce)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hash(byte: u8) -> InfoHashV1 {
        InfoHashV1::from_bytes([byte; 20])
    }

    #[test]
    fn announce_has_the_form_of_the_specification() {
        let announce = LocalAnnounce {
            port: 6881,
            info_hashes: vec![hash(0xab)],
            cookie: Some("me".to_owned()),
        };
        let expected = format!(
            "BT-SEARCH * HTTP/1.1\r\nHost: 239.192.152.143:6771\r\nPort: 6881\r\n\
             Infohash: {}\r\ncookie: me\r\n\r\n\r\n",
            "ab".repeat(20)
        );
        assert_eq!(announce.encode(), expected.as_bytes());
        assert_eq!(LocalAnnounce::decode(expected.as_bytes()), Some(announce));
    }

    #[test]
    fn announces_of_others_are_read_whatever_their_case_and_order() {
        let (one, other) = ("AB".repeat(20), "cd".repeat(20));
        let text = format!(
            "BT-SEARCH * HTTP/1.1\r\nINFOHASH: {one}\r\nX-Else: 1\r\ninfohash:{other}\r\n\
             Infohash: zz\r\nhost: 239.192.152.143:6771\r\nport: 1\r\n\r\n"
        );
        let read = LocalAnnounce::decode(text.as_bytes()).unwrap();
        assert_eq!(read.info_hashes, [hash(0xab), hash(0xcd)]);
        assert_eq!((read.port, read.cookie), (1, None));
    }

    #[test]
    fn what_is_no_announce_is_none() {
        let whole = |method: &str, port: &str, hash: &str| {
            format!("{method} * HTTP/1.1\r\nPort: {port}\r\nInfohash: {hash}\r\n\r\n")
        };
        let good = "ab".repeat(20);
        let is_read = |text: String| LocalAnnounce::decode(text.as_bytes()).is_some();
        assert!(is_read(whole(METHOD, "1", &good)));
        for (method, port, hash) in [
            ("M-SEARCH", "1", &*good),
            (METHOD, "0", &good),
            (METHOD, "65536", &good),
            (METHOD, "", &good),
            (METHOD, "1", "ab"),
        ] {
            assert!(
                !is_read(whole(method, port, hash)),
                "{method} {port} {hash}"
            );
        }
        assert_eq!(LocalAnnounce::decode(b""), None);
        assert_eq!(LocalAnnounce::decode(&[0xff; 100]), None);
        let long = whole(METHOD, "1", &good) + &" ".repeat(MAX_ANNOUNCE_LEN);
        assert!(!is_read(long));
    }

    #[test]
    fn as_many_torrents_are_announced_as_fit_into_one_datagram() {
        let announce = LocalAnnounce {
            port: 6881,
            info_hashes: (0..100).map(hash).collect(),
            cookie: Some("x".repeat(20)),
        };
        let bytes = announce.encode();
        assert!(bytes.len() <= MAX_ANNOUNCE_LEN && bytes.len() > MAX_ANNOUNCE_LEN - 60);
        let read = LocalAnnounce::decode(&bytes).unwrap();
        assert_eq!(
            read.info_hashes,
            announce.info_hashes[..read.info_hashes.len()]
        );
        assert!(read.info_hashes.len() >= 20);
    }
}
