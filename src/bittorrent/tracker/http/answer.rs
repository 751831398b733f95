//! The answer to an announce.

use core::net::{IpAddr, SocketAddr};

use thiserror::Error;

use super::announce::PeersForm;
use super::{DEFAULT_INTERVAL, MAX_ANSWER_LEN, MAX_ANSWER_PEERS, MAX_TEXT_LEN};
use crate::bittorrent::bencode::{BencodeError, DictWriter, Value, canonical, list, read};
use crate::bittorrent::compact::{read_compact, write_compact};
use crate::bittorrent::text::lossy;

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum AnswerError {
    /// It is none at all, such as a web page.
    #[error("the tracker's answer: {0}")]
    Bencode(#[from] BencodeError),
    /// The tracker refuses.
    #[error("the tracker refuses: {}", .0.reason)]
    Refused(Refusal),
}

/// That and why a tracker refuses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// For people.
    pub reason: String,
    /// When to ask again (BEP 31), if it says so.
    pub retry_in: Option<RetryIn>,
}

/// When to ask a tracker again that has refused (BEP 31).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum RetryIn {
    /// After so many minutes.
    Minutes(u32),
    /// Never.
    Never,
}

/// The answer of a tracker over HTTP to an announce.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct AnnounceAnswer {
    /// After how many seconds to announce again.
    pub interval: u32,
    /// The least number of seconds between two announces.
    pub min_interval: Option<u32>,
    /// How many peers have all of it.
    pub complete: Option<u32>,
    /// How many peers do not have all of it.
    pub incomplete: Option<u32>,
    /// How many times it was fetched as a whole.
    pub downloaded: Option<u32>,
    /// What the tracker wants to be told next time.
    pub tracker_id: Option<Vec<u8>>,
    /// For people; the announce is answered all the same.
    pub warning: Option<String>,
    /// The address that the announce came from (BEP 24).
    pub external_ip: Option<IpAddr>,
    /// Other peers.
    pub peers: Vec<HttpPeer>,
}

/// A peer that a tracker names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct HttpPeer {
    /// Its address.
    pub addr: SocketAddr,
    /// Its id, if the tracker says it.
    pub peer_id: Option<[u8; 20]>,
}

impl From<SocketAddr> for HttpPeer {
    fn from(addr: SocketAddr) -> Self {
        let peer_id = None;
        Self { addr, peer_id }
    }
}

impl Refusal {
    /// The body of the answer. It is for scrapes as well.
    pub fn encode(&self) -> Vec<u8> {
        let mut dict = DictWriter::new();
        dict.bytes("failure reason", &self.reason);
        match self.retry_in {
            None => {}
            Some(RetryIn::Minutes(minutes)) => dict.bytes("retry in", minutes.to_string()),
            Some(RetryIn::Never) => dict.bytes("retry in", "never"),
        }
        dict.finish()
    }
}

impl AnnounceAnswer {
    /// The body of the answer.
    pub fn encode(&self, form: PeersForm) -> Vec<u8> {
        let mut dict = DictWriter::new();
        dict.int("interval", self.interval.into());
        for (key, number) in [
            ("min interval", self.min_interval),
            ("complete", self.complete),
            ("incomplete", self.incomplete),
            ("downloaded", self.downloaded),
        ] {
            if let Some(number) = number {
                dict.int(key, number.into());
            }
        }
        if let Some(id) = &self.tracker_id {
            dict.bytes("tracker id", id);
        }
        if let Some(warning) = &self.warning {
            dict.bytes("warning message", warning);
        }
        match self.external_ip {
            None => {}
            Some(IpAddr::V4(ip)) => dict.bytes("external ip", ip.octets()),
            Some(IpAddr::V6(ip)) => dict.bytes("external ip", ip.octets()),
        }
        let (v4, v6): (Vec<_>, Vec<_>) = self.peers.iter().partition(|peer| peer.addr.is_ipv4());
        match form {
            PeersForm::Compact => {
                dict.bytes("peers", compact(&v4));
                if !v6.is_empty() {
                    dict.bytes("peers6", compact(&v6));
                }
            }
            PeersForm::Full | PeersForm::FullWithoutIds => {
                let peers = self.peers.iter();
                dict.raw("peers", list(peers.map(|peer| full(peer, form))));
            }
        }
        dict.finish()
    }

    /// Reads the body of an answer.
    ///
    /// # Errors
    /// [`AnswerError::Refused`] if the tracker refuses, and [`AnswerError::Bencode`] if
    /// this is no answer.
    pub fn decode(body: &[u8]) -> Result<Self, AnswerError> {
        let (body, _) = canonical(body, MAX_ANSWER_LEN)?;
        let mut refusal = Reasons::default();
        let mut answer = Self {
            interval: DEFAULT_INTERVAL,
            ..Self::default()
        };
        read(&body, usize::MAX, |value| {
            value.dict("answer", |key, value| {
                match key {
                    b"failure reason" | b"retry in" => refusal.take(key, value),
                    b"peers" if value.is_bytes() => answer.take_compact(value, false)?,
                    b"peers" => answer.take_full(value)?,
                    b"peers6" if value.is_bytes() => answer.take_compact(value, true)?,
                    _ => answer.take(key, value),
                }
                Ok::<_, BencodeError>(())
            })
        })?;
        match refusal.refusal() {
            Some(refusal) => Err(AnswerError::Refused(refusal)),
            None => Ok(answer),
        }
    }

    fn take(&mut self, key: &[u8], value: Value<'_, '_>) {
        let number = |value: Value<'_, '_>| value.unsigned("number").ok();
        match key {
            b"interval" => self.interval = number(value).unwrap_or(self.interval),
            b"min interval" => self.min_interval = number(value),
            b"complete" => self.complete = number(value),
            b"incomplete" => self.incomplete = number(value),
            b"downloaded" => self.downloaded = number(value),
            b"tracker id" => self.tracker_id = short(value).map(<[u8]>::to_vec),
            b"warning message" => self.warning = text(value),
            b"external ip" => {
                self.external_ip = short(value).and_then(|bytes| match bytes.len() {
                    4 => <[u8; 4]>::try_from(bytes).ok().map(IpAddr::from),
                    _ => <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from),
                });
            }
            _ => {}
        }
    }

    fn room(&self) -> usize {
        MAX_ANSWER_PEERS.saturating_sub(self.peers.len())
    }

    fn take_compact(&mut self, value: Value<'_, '_>, is_v6: bool) -> Result<(), BencodeError> {
        let peers = read_compact(value.bytes("peers")?, is_v6, self.room());
        self.peers.extend(peers.into_iter().map(HttpPeer::from));
        Ok(())
    }

    fn take_full(&mut self, value: Value<'_, '_>) -> Result<(), BencodeError> {
        value.list("peers", |value| {
            let (mut ip, mut port, mut peer_id) = (None, None, None);
            value.dict("peers", |key, value| {
                match key {
                    b"ip" => ip = value.text("ip").ok().and_then(|ip| ip.parse().ok()),
                    b"port" => port = value.unsigned("port").ok(),
                    b"peer id" => peer_id = value.array("peer id").ok(),
                    _ => {}
                }
                Ok::<_, BencodeError>(())
            })?;
            if let (Some(ip), Some(port @ 1..)) = (ip, port)
                && self.room() > 0
            {
                let addr = SocketAddr::new(ip, port);
                self.peers.push(HttpPeer { addr, peer_id });
            }
            Ok(())
        })
    }
}

/// What a tracker gives as its reasons.
#[derive(Default)]
pub(super) struct Reasons {
    reason: Option<String>,
    retry_in: Option<RetryIn>,
}

impl Reasons {
    pub(super) fn take(&mut self, key: &[u8], value: Value<'_, '_>) {
        match key {
            // It refuses, also if nobody can read why.
            b"failure reason" => self.reason = Some(text(value).unwrap_or_default()),
            _ => self.retry_in = retry_in(value),
        }
    }

    pub(super) fn refusal(self) -> Option<Refusal> {
        let retry_in = self.retry_in;
        self.reason.map(|reason| Refusal { reason, retry_in })
    }
}

/// A text or a number: trackers write both.
fn retry_in(value: Value<'_, '_>) -> Option<RetryIn> {
    if !value.is_bytes() {
        return value.unsigned("retry in").ok().map(RetryIn::Minutes);
    }
    match short(value)? {
        b"never" => Some(RetryIn::Never),
        text => {
            let text = std::str::from_utf8(text).ok()?;
            text.parse().ok().map(RetryIn::Minutes)
        }
    }
}

fn short<'a>(value: Value<'_, 'a>) -> Option<&'a [u8]> {
    let bytes = value.bytes("text").ok();
    bytes.filter(|bytes| bytes.len() <= MAX_TEXT_LEN)
}

fn text(value: Value<'_, '_>) -> Option<String> {
    short(value).map(|bytes| lossy(bytes, MAX_TEXT_LEN))
}

fn compact(peers: &[&HttpPeer]) -> Vec<u8> {
    let mut out = Vec::new();
    peers
        .iter()
        .for_each(|peer| write_compact(&mut out, peer.addr));
    out
}

fn full(peer: &HttpPeer, form: PeersForm) -> Vec<u8> {
    let mut dict = DictWriter::new();
    dict.bytes("ip", peer.addr.ip().to_string());
    dict.int("port", peer.addr.port().into());
    if let (PeersForm::Full, Some(id)) = (form, peer.peer_id) {
        dict.bytes("peer id", id);
    }
    dict.finish()
}
