//! The extended handshake (BEP 10): which extensions a side speaks, under which ids, and
//! some facts about it. It may come late, again as an update, or never.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use bytes::Bytes;

use super::dictionary::Dictionary;
use super::error::WireError;
use crate::bittorrent::bencode::DictWriter;
use crate::bittorrent::text::lossy;

/// The id of the extended handshake itself.
pub const HANDSHAKE_EXTENSION: u8 = 0;

/// The longest client name that is kept, in bytes: enough for any that is met, in a log.
pub const MAX_CLIENT_NAME_LEN: usize = 64;

/// Under which id a side takes the messages of an extension. `None`: it did not say; 0: it
/// takes them no longer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ExtensionIds {
    /// Peers that the sender knows (BEP 11).
    pub ut_pex: Option<u8>,
    /// The info dictionary, for magnet links (BEP 9).
    pub ut_metadata: Option<u8>,
    /// The sender has a piece no longer (BEP 54).
    pub lt_donthave: Option<u8>,
    /// The sender wants nothing (BEP 21).
    pub upload_only: Option<u8>,
}

/// The ids of this crate.
pub const OWN_EXTENSIONS: ExtensionIds = ExtensionIds {
    ut_pex: Some(1),
    ut_metadata: Some(2),
    lt_donthave: Some(3),
    upload_only: Some(4),
};

impl ExtensionIds {
    /// These ids, after the sender has said others: what it did not mention stays.
    pub fn update(&mut self, news: Self) {
        self.ut_pex = news.ut_pex.or(self.ut_pex);
        self.ut_metadata = news.ut_metadata.or(self.ut_metadata);
        self.lt_donthave = news.lt_donthave.or(self.lt_donthave);
        self.upload_only = news.upload_only.or(self.upload_only);
    }

    fn named(&self) -> [(&'static str, Option<u8>); 4] {
        // In the order of a canonical dictionary.
        [
            ("lt_donthave", self.lt_donthave),
            ("upload_only", self.upload_only),
            ("ut_metadata", self.ut_metadata),
            ("ut_pex", self.ut_pex),
        ]
    }
}

/// What an extended handshake says. Everything may be missing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ExtendedHandshake {
    /// The ids of the extensions.
    pub extensions: ExtensionIds,
    /// The program and its version. Not longer than [`MAX_CLIENT_NAME_LEN`].
    pub client: Option<String>,
    /// The port on which the sender listens.
    pub port: Option<u16>,
    /// How many requests the sender lets wait.
    pub reqq: Option<u32>,
    /// The length of the info dictionary in bytes.
    pub metadata_size: Option<u32>,
    /// The address from which the receiver is seen to come.
    pub your_ip: Option<IpAddr>,
    /// Whether the sender wants nothing (BEP 21).
    pub upload_only: Option<bool>,
    /// An address of the sender in the other family.
    pub ipv4: Option<Ipv4Addr>,
    /// The same for IPv6.
    pub ipv6: Option<Ipv6Addr>,
}

impl ExtendedHandshake {
    /// Reads the payload. A field with a value that it cannot have counts as missing: the
    /// rest may be useful.
    ///
    /// # Errors
    /// [`WireError::Dictionary`]: the payload is none.
    pub fn decode(payload: &[u8]) -> Result<Self, WireError> {
        let what = "extended handshake";
        let Some((read, _)) = Dictionary::read(payload) else {
            return Err(WireError::Dictionary { what });
        };
        let ids = read.dictionary("m");
        let id = |name| {
            let number = ids?.number(name)?;
            u8::try_from(number).ok()
        };
        let array4 = |bytes: &[u8]| <[u8; 4]>::try_from(bytes).ok();
        let array16 = |bytes: &[u8]| <[u8; 16]>::try_from(bytes).ok();
        let your_ip = read.bytes("yourip").and_then(|bytes| {
            let v4 = array4(bytes).map(IpAddr::from);
            v4.or_else(|| array16(bytes).map(IpAddr::from))
        });
        let port = read.number("p").and_then(|port| u16::try_from(port).ok());
        Ok(Self {
            extensions: ExtensionIds {
                ut_pex: id("ut_pex"),
                ut_metadata: id("ut_metadata"),
                lt_donthave: id("lt_donthave"),
                upload_only: id("upload_only"),
            },
            client: read.bytes("v").map(client_name),
            port: port.filter(|port| *port != 0),
            reqq: read.number("reqq"),
            metadata_size: read.number("metadata_size"),
            your_ip,
            upload_only: read.integer("upload_only").map(|said| said != 0),
            ipv4: read.bytes("ipv4").and_then(array4).map(Ipv4Addr::from),
            ipv6: read.bytes("ipv6").and_then(array16).map(Ipv6Addr::from),
        })
    }

    /// The payload.
    pub fn encode(&self) -> Bytes {
        let mut ids = DictWriter::new();
        for (name, id) in self.extensions.named() {
            if let Some(id) = id {
                ids.int(name, id.into());
            }
        }
        let mut out = DictWriter::new();
        out.raw("m", ids.finish());
        for (key, number) in [
            ("metadata_size", self.metadata_size),
            ("p", self.port.map(u32::from)),
            ("reqq", self.reqq),
            ("upload_only", self.upload_only.map(u32::from)),
        ] {
            if let Some(number) = number {
                out.int(key, number.into());
            }
        }
        for (key, ip) in [
            ("ipv4", self.ipv4.map(IpAddr::from)),
            ("ipv6", self.ipv6.map(IpAddr::from)),
            ("yourip", self.your_ip),
        ] {
            match ip {
                Some(IpAddr::V4(ip)) => out.bytes(key, ip.octets()),
                Some(IpAddr::V6(ip)) => out.bytes(key, ip.octets()),
                None => {}
            }
        }
        if let Some(client) = &self.client {
            out.bytes("v", client);
        }
        out.finish().into()
    }
}

/// A client's name, which may be anything, in a length that a log takes.
fn client_name(bytes: &[u8]) -> String {
    let name = lossy(bytes, MAX_CLIENT_NAME_LEN);
    name.replace(char::is_control, ".")
}
