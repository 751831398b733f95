//! What a torrent file has beside the `info` dictionary.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::error::MetainfoError;
use crate::bittorrent::bencode::{BencodeError, DictWriter, Value, list, list_of_bytes, read};
use crate::content::merkle::Hash;

/// The hashes of the pieces of each file with more than one, by the root of the file.
pub(super) type PieceLayers = BTreeMap<Hash, Bytes>;

/// The entries, as they are written and what they say. Those that are of no use to the
/// exchange, and have another type than they should, say nothing and stay as they are:
/// programs write all kinds of things there.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Outer {
    written: BTreeMap<Vec<u8>, Bytes>,
    pub(super) trackers: Vec<Vec<String>>,
    pub(super) comment: Option<String>,
    pub(super) created_by: Option<String>,
    pub(super) creation_date: Option<i64>,
    pub(super) web_seeds: Vec<String>,
    pub(super) nodes: Vec<(String, u16)>,
    /// `None` if the file has none of them.
    pub(super) piece_layers: Option<PieceLayers>,
}

impl Outer {
    /// Takes an entry of the outermost dictionary as it is written.
    pub(super) fn keep(&mut self, key: &[u8], written: Bytes) {
        self.written.insert(key.to_vec(), written);
    }

    /// Reads what was kept.
    pub(super) fn understand(&mut self) -> Result<(), MetainfoError> {
        self.trackers = self
            .entry("announce-list", read_tiers)
            .filter(|tiers| !tiers.is_empty())
            .or_else(|| {
                let announce = self.entry("announce", text)?;
                (!announce.is_empty()).then(|| vec![vec![announce]])
            })
            .unwrap_or_default();
        self.comment = self.entry("comment", text);
        self.created_by = self.entry("created by", text);
        self.creation_date = self.entry("creation date", |value| value.int("creation date"));
        self.web_seeds = self.entry("url-list", read_urls).unwrap_or_default();
        self.nodes = self.entry("nodes", read_nodes).unwrap_or_default();
        let layers = self.written.get(&b"piece layers"[..]);
        let layers = layers.map(read_layers).transpose()?;
        self.piece_layers = layers.filter(|layers| !layers.is_empty());
        Ok(())
    }

    fn entry<T>(
        &self,
        key: &str,
        read_it: impl FnOnce(Value<'_, '_>) -> Result<T, BencodeError>,
    ) -> Option<T> {
        let written = self.written.get(key.as_bytes())?;
        read(written, usize::MAX, read_it).ok()
    }

    /// Puts other trackers in their place (BEP 12).
    pub(super) fn set_trackers(&mut self, tiers: Vec<Vec<String>>) {
        for key in ["announce", "announce-list"] {
            self.written.remove(key.as_bytes());
        }
        let mut dict = DictWriter::new();
        write_trackers(&mut dict, &tiers);
        self.written
            .extend(dict.entries().map(|(key, value)| (key, value.into())));
        self.trackers = tiers;
    }

    /// Puts the hashes of pieces in their place (BEP 52).
    pub(super) fn set_layers(&mut self, layers: PieceLayers) {
        let mut dict = DictWriter::new();
        for (root, hashes) in &layers {
            dict.bytes(root, hashes);
        }
        let key = b"piece layers".to_vec();
        self.written.insert(key, dict.finish().into());
        self.piece_layers = Some(layers).filter(|layers| !layers.is_empty());
    }

    /// Puts web servers in their place (BEP 19).
    pub(super) fn set_web_seeds(&mut self, urls: Vec<String>) {
        let key = b"url-list".to_vec();
        self.written.insert(key, list_of_bytes(&urls).into());
        self.web_seeds = urls;
    }

    /// The whole file with this `info` dictionary.
    pub(super) fn write(&self, info: &[u8]) -> Vec<u8> {
        let mut dict = DictWriter::new();
        for (key, written) in &self.written {
            dict.raw(key, &written[..]);
        }
        dict.raw("info", info);
        dict.finish()
    }
}

/// Writes the trackers: the first for programs that know one only, and all in tiers.
pub(super) fn write_trackers(dict: &mut DictWriter, tiers: &[Vec<String>]) {
    let mut all = tiers.iter().flatten();
    if let Some(first) = all.next() {
        dict.bytes("announce", first);
    }
    if all.next().is_some() {
        dict.raw("announce-list", list(tiers.iter().map(list_of_bytes)));
    }
}

fn text(value: Value<'_, '_>) -> Result<String, BencodeError> {
    value.text("text").map(str::to_owned)
}

/// Tiers of trackers. What is not UTF-8 is left out, and so is an empty tier.
fn read_tiers(value: Value<'_, '_>) -> Result<Vec<Vec<String>>, BencodeError> {
    let mut tiers = Vec::new();
    value.list("announce-list", |tier| {
        let mut trackers = Vec::new();
        tier.list("announce-list", |tracker| {
            trackers.extend(text(tracker).ok().filter(|tracker| !tracker.is_empty()));
            Ok::<_, BencodeError>(())
        })?;
        if !trackers.is_empty() {
            tiers.push(trackers);
        }
        Ok::<_, BencodeError>(())
    })?;
    Ok(tiers)
}

/// One address or a list of them (BEP 19).
fn read_urls(value: Value<'_, '_>) -> Result<Vec<String>, BencodeError> {
    let mut urls = Vec::new();
    if value.is_bytes() {
        urls.extend(text(value).ok().filter(|url| !url.is_empty()));
    } else {
        value.list("url-list", |url| {
            urls.push(text(url)?);
            Ok::<_, BencodeError>(())
        })?;
    }
    Ok(urls)
}

/// Nodes of the DHT (BEP 5).
fn read_nodes(value: Value<'_, '_>) -> Result<Vec<(String, u16)>, BencodeError> {
    let mut nodes = Vec::new();
    value.list("nodes", |node| {
        let (mut host, mut port) = (None, None);
        node.list("nodes", |value| {
            match host {
                None => host = Some(text(value)?),
                Some(_) => port = Some(value.unsigned("nodes")?),
            }
            Ok::<_, BencodeError>(())
        })?;
        nodes.extend(host.zip(port));
        Ok::<_, BencodeError>(())
    })?;
    Ok(nodes)
}

fn read_layers(written: &Bytes) -> Result<PieceLayers, MetainfoError> {
    let mut layers = PieceLayers::new();
    let key = "piece layers";
    read(written, usize::MAX, |value| {
        value.dict(key, |root, value| {
            let root = root.try_into().map_err(|_| BencodeError::Range { key })?;
            layers.insert(root, written.slice_ref(value.bytes(key)?));
            Ok::<_, MetainfoError>(())
        })
    })?;
    Ok(layers)
}
