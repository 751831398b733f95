//! Scrapes over HTTP (BEP 48).

use std::collections::BTreeMap;

use super::announce::QueryError;
use super::answer::{AnswerError, Reasons};
use super::{MAX_ANSWER_LEN, MAX_QUERY_LEN, MAX_SCRAPE};
use crate::bittorrent::InfoHashV1;
use crate::bittorrent::bencode::{BencodeError, DictWriter, Value, canonical, read};
use crate::bittorrent::percent::{decode, encode, pairs};
use crate::bittorrent::tracker::ScrapeFigures;

/// A scrape over HTTP.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ScrapeQuery {
    /// Of which torrents: at most [`MAX_SCRAPE`].
    pub info_hashes: Vec<InfoHashV1>,
}

impl ScrapeQuery {
    /// The query, without `?`. What is beyond [`MAX_SCRAPE`] is left out.
    pub fn to_query(&self) -> String {
        let hashes = self.info_hashes.iter().take(MAX_SCRAPE);
        let parts = hashes.map(|hash| format!("info_hash={}", encode(hash.as_bytes())));
        parts.collect::<Vec<_>>().join("&")
    }

    /// Reads the query of a client, without `?`. A scrape of all torrents, which is one
    /// without an info hash, is refused: its answer has no bound.
    ///
    /// # Errors
    /// [`QueryError`].
    pub fn from_query(query: &str) -> Result<Self, QueryError> {
        let (len, key) = (query.len(), "info_hash");
        if len > MAX_QUERY_LEN {
            return Err(QueryError::TooLong { len });
        }
        let pairs = pairs(query, usize::MAX).filter(|(name, _)| *name == key);
        let hashes = pairs.take(MAX_SCRAPE).map(|(_, value)| {
            let bytes = <[u8; 20]>::try_from(&*decode(value));
            let hash = bytes.map(InfoHashV1::from_bytes);
            hash.map_err(|_| QueryError::Invalid { key })
        });
        let info_hashes = hashes.collect::<Result<Vec<_>, _>>()?;
        match info_hashes.is_empty() {
            true => Err(QueryError::Missing { key }),
            false => Ok(Self { info_hashes }),
        }
    }
}

/// The address for scrapes of a tracker, from that for announces, if it has one (BEP 48).
///
/// ```
/// use bt_lite::bittorrent::tracker::http::scrape_url;
///
/// let url = scrape_url("http://t.example/x/announce.php?user=7");
/// assert_eq!(url.as_deref(), Some("http://t.example/x/scrape.php?user=7"));
/// assert_eq!(scrape_url("http://t.example/a"), None);
/// ```
pub fn scrape_url(announce_url: &str) -> Option<String> {
    let end = announce_url.find(['?', '#']).unwrap_or(announce_url.len());
    let (path, rest) = announce_url.split_at(end);
    let (before, last) = path.rsplit_once('/')?;
    let suffix = last.strip_prefix("announce")?;
    Some(format!("{before}/scrape{suffix}{rest}"))
}

/// The answer of a tracker over HTTP to a scrape.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ScrapeAnswer {
    /// The figures of the torrents that it knows.
    pub files: BTreeMap<InfoHashV1, ScrapeFigures>,
    /// The least number of seconds between two scrapes.
    pub min_request_interval: Option<u32>,
}

impl ScrapeAnswer {
    /// The body of the answer.
    pub fn encode(&self) -> Vec<u8> {
        let mut files = DictWriter::new();
        for (hash, figures) in &self.files {
            let mut file = DictWriter::new();
            file.int("complete", figures.complete.into());
            file.int("downloaded", figures.downloaded.into());
            file.int("incomplete", figures.incomplete.into());
            files.raw(hash.as_bytes(), file.finish());
        }
        let mut dict = DictWriter::new();
        dict.raw("files", files.finish());
        if let Some(seconds) = self.min_request_interval {
            let mut flags = DictWriter::new();
            flags.int("min_request_interval", seconds.into());
            dict.raw("flags", flags.finish());
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
        let (mut answer, mut refusal) = (Self::default(), Reasons::default());
        read(&body, usize::MAX, |value| {
            value.dict("answer", |key, value| match key {
                b"failure reason" | b"retry in" => {
                    refusal.take(key, value);
                    Ok(())
                }
                b"files" => answer.take_files(value),
                b"flags" => value.dict("flags", |key, value| {
                    if key == b"min_request_interval" {
                        answer.min_request_interval = value.unsigned("interval").ok();
                    }
                    Ok::<_, BencodeError>(())
                }),
                _ => Ok(()),
            })
        })?;
        match refusal.refusal() {
            Some(refusal) => Err(AnswerError::Refused(refusal)),
            None => Ok(answer),
        }
    }

    fn take_files(&mut self, value: Value<'_, '_>) -> Result<(), BencodeError> {
        value.dict("files", |hash, value| {
            let mut figures = ScrapeFigures::default();
            value.dict("files", |key, value| {
                let number = || value.unsigned("number").unwrap_or(0);
                match key {
                    b"complete" => figures.complete = number(),
                    b"downloaded" => figures.downloaded = number(),
                    b"incomplete" => figures.incomplete = number(),
                    _ => {}
                }
                Ok::<_, BencodeError>(())
            })?;
            if let Ok(hash) = hash.try_into() {
                self.files.insert(InfoHashV1::from_bytes(hash), figures);
            }
            Ok(())
        })
    }
}
