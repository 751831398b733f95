//! How a download that was paused is written down. This module does no I/O; FORMAT.md
//! describes the bytes.

use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::{Buf, Bytes};

use crate::content::{Content, ContentId, ContentName, Geometry};
use crate::peer::downloads::asked::Asked;
use crate::peer::downloads::pause::PauseOptions;
use crate::peer::downloads::priority::Priority;
use crate::peer::downloads::settings::MAX_ADDED_OWNERS;
use crate::peer::limits::ContentLimits;
use crate::peer::swarm::Strategy;
use crate::protocol::{Addr, ContentKey};
use crate::storage::{PausedDownload, bytes_path, path_bytes};

/// The version that is written, of records of all kinds.
pub(in crate::peer) const VERSION: u32 = 2;

/// What is recorded is the download of a content. Other kinds have other forms.
const CONTENT: u8 = 1;

/// The most owners in a record: those of the user, and as many that trackers named.
pub(in crate::peer) const MAX_OWNERS: usize = 2 * MAX_ADDED_OWNERS;

/// The longest path in bytes: far more than systems can open.
const MAX_PATH_LEN: usize = 64 << 10;

const SHARED: u8 = 1;
const OVERWRITES: u8 = 2;

/// The flags of version 1.
mod first {
    pub(super) const SERVES: u8 = 1;
    pub(super) const SEEDS: u8 = 2;
    pub(super) const NAMED: u8 = 4;
}

/// A download that was paused.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::peer) struct PausedRecord {
    pub(in crate::peer) state: RecordedState,
    /// What it was asked for by.
    pub(in crate::peer) key: ContentKey,
    /// The content, if it was found.
    pub(in crate::peer) id: Option<ContentId>,
    /// The name that trackers have for it.
    pub(in crate::peer) listed_as: Option<ContentName>,
    /// What is known since the manifest is.
    pub(in crate::peer) known: Option<KnownContent>,
    pub(in crate::peer) asked: Asked,
    /// Its place in the queue: less is earlier.
    pub(in crate::peer) place: u64,
    pub(in crate::peer) priority: Priority,
    /// Whether the content is shared when it is complete.
    pub(in crate::peer) seeds: bool,
    /// How long it goes on without anything, if that is not what the peer is set to.
    pub(in crate::peer) patience: Option<Option<Duration>>,
    pub(in crate::peer) owners: Vec<Addr>,
}

/// Whether a download goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::peer) enum RecordedState {
    Paused(PauseOptions),
    /// It went on after a pause, and has not ended.
    Resumed,
}

/// A content, under the name that it gets here, and how much of it was there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::peer) struct KnownContent {
    pub(in crate::peer) content: Content,
    pub(in crate::peer) verified_bytes: u64,
    pub(in crate::peer) verified_chunks: u32,
}

/// What a record turned out to be.
#[derive(Debug, PartialEq)]
pub(in crate::peer) enum ReadRecord {
    Content(Box<PausedRecord>),
    /// Somebody else reads it: its kind or its version is not known here.
    Foreign,
    Damaged,
}

impl PausedRecord {
    /// The bytes of the record; nothing if a path in it cannot be written down.
    pub(in crate::peer) fn encode(&self) -> Option<Bytes> {
        let mut out = Out(VERSION.to_le_bytes().to_vec());
        out.u8(CONTENT);
        out.u8(state_number(self.state));
        let flag = |set: bool, flag: u8| if set { flag } else { 0 };
        out.u8(flag(self.seeds, SHARED) | flag(self.asked.overwrites, OVERWRITES));
        out.priority(self.priority);
        out.u8(match self.asked.strategy {
            Strategy::RarestFirst => 0,
            Strategy::Sequential => 1,
        });
        out.u64(self.place);
        out.key(&self.key);
        out.option(self.id.as_ref(), |out, id| _ = out.id(id));
        for name in [&self.asked.name, &self.listed_as] {
            out.option(name.as_ref(), |out, name| _ = out.text(name.as_str()));
        }
        out.option(self.known.as_ref(), |out, known| {
            out.text(known.content.name.as_str());
            out.u64(known.content.length).u64(known.verified_bytes);
            out.u32(known.verified_chunks);
        });
        put_limits(&mut out, self.asked.limits.as_ref());
        put_patience(&mut out, self.patience.as_ref());
        for path in [&self.asked.directory, &self.asked.existing] {
            put_path(&mut out, path.as_deref())?;
        }
        let owners = &self.owners[..self.owners.len().min(MAX_OWNERS)];
        out.u32(owners.len() as u32);
        for owner in owners {
            out.text(owner.as_str());
        }
        (out.0.len() <= PausedDownload::MAX_LEN).then(|| out.0.into())
    }
}

/// Reads a record.
pub(in crate::peer) fn read(mut bytes: Bytes) -> ReadRecord {
    if bytes.len() > PausedDownload::MAX_LEN {
        return ReadRecord::Damaged;
    }
    let record = match bytes.try_get_u32_le() {
        Ok(1) => read_first(&mut bytes),
        Ok(VERSION) => match bytes.try_get_u8() {
            Ok(CONTENT) => read_content(&mut bytes),
            Ok(_) => return ReadRecord::Foreign,
            Err(_) => None,
        },
        Ok(0) | Err(_) => None,
        Ok(_) => return ReadRecord::Foreign,
    };
    match record.filter(|_| bytes.is_empty()) {
        Some(record) => ReadRecord::Content(Box::new(record)),
        None => ReadRecord::Damaged,
    }
}

fn read_content(bytes: &mut Bytes) -> Option<PausedRecord> {
    let state = state_at(bytes.try_get_u8().ok()?)?;
    let flags = bytes.try_get_u8().ok()?;
    if flags & !(SHARED | OVERWRITES) != 0 {
        return None;
    }
    let priority = take_priority(bytes)?;
    let strategy = match bytes.try_get_u8().ok()? {
        0 => Strategy::RarestFirst,
        1 => Strategy::Sequential,
        _ => return None,
    };
    let place = bytes.try_get_u64_le().ok()?;
    let key = match bytes.try_get_u8().ok()? {
        0 => ContentKey::Id(take_id(bytes)?),
        1 => ContentKey::Name(take_name(bytes)?),
        _ => return None,
    };
    let id = option(bytes, take_id)?;
    let name = option(bytes, take_name)?;
    let listed_as = option(bytes, take_name)?;
    let known = option(bytes, |bytes| take_known(bytes, id))?;
    let limits = option(bytes, take_limits)?;
    let patience = option(bytes, |bytes| option(bytes, take_duration))?;
    let directory = option(bytes, take_path)?;
    let existing = option(bytes, take_path)?;
    let owners = take_owners(bytes)?;
    let asked = Asked {
        name,
        directory,
        overwrites: flags & OVERWRITES != 0,
        existing,
        strategy,
        limits,
    };
    Some(PausedRecord {
        state,
        key,
        id,
        listed_as,
        known,
        asked,
        place,
        priority,
        seeds: flags & SHARED != 0,
        patience,
        owners,
    })
}

/// Reads version 1, which had little more than the id.
fn read_first(bytes: &mut Bytes) -> Option<PausedRecord> {
    let id = take_id(bytes)?;
    let flags = bytes.try_get_u8().ok()?;
    let name = match flags & first::NAMED {
        0 => None,
        _ => Some(ContentName::try_from(&bytes.split_off(0)[..]).ok()?),
    };
    let serve = flags & first::SERVES != 0;
    let asked = Asked {
        name,
        directory: None,
        overwrites: false,
        existing: None,
        strategy: Strategy::default(),
        limits: None,
    };
    Some(PausedRecord {
        state: RecordedState::Paused(PauseOptions::new().serve(serve)),
        key: ContentKey::Id(id),
        id: Some(id),
        listed_as: None,
        known: None,
        asked,
        // Nothing says which one was first.
        place: 0,
        priority: Priority::default(),
        seeds: flags & first::SEEDS != 0,
        patience: None,
        owners: Vec::new(),
    })
}

/// The number of a state in a record.
pub(in crate::peer) fn state_number(state: RecordedState) -> u8 {
    match state {
        RecordedState::Paused(PauseOptions { serve: false }) => 0,
        RecordedState::Paused(PauseOptions { serve: true }) => 1,
        RecordedState::Resumed => 2,
    }
}

/// The state with a number.
pub(in crate::peer) fn state_at(number: u8) -> Option<RecordedState> {
    match number {
        serve @ 0..=1 => Some(RecordedState::Paused(PauseOptions::new().serve(serve == 1))),
        2 => Some(RecordedState::Resumed),
        _ => None,
    }
}

pub(in crate::peer) fn put_limits(out: &mut Out, limits: Option<&ContentLimits>) {
    out.option(limits, |out, limits| {
        // No limit is zero.
        out.u64(limits.upload.unwrap_or(0));
        out.u64(limits.download.unwrap_or(0));
    });
}

pub(in crate::peer) fn put_patience(out: &mut Out, patience: Option<&Option<Duration>>) {
    out.option(patience, |out, patience| {
        out.option(patience.as_ref(), |out, patience| {
            out.u64(patience.as_secs()).u32(patience.subsec_nanos());
        });
    });
}

/// Nothing if the path cannot be written down.
pub(in crate::peer) fn put_path(out: &mut Out, path: Option<&Path>) -> Option<()> {
    let bytes = match path {
        None => None,
        Some(path) => Some(path_bytes(path).filter(|path| path.len() <= MAX_PATH_LEN)?),
    };
    out.option(bytes, |out, bytes| _ = out.bytes(bytes));
    Some(())
}

/// The bytes that are written.
pub(in crate::peer) struct Out(pub(in crate::peer) Vec<u8>);

impl Out {
    pub(in crate::peer) fn priority(&mut self, priority: Priority) -> &mut Self {
        self.u8(match priority {
            Priority::Low => 0,
            Priority::Normal => 1,
            Priority::High => 2,
        })
    }

    pub(in crate::peer) fn key(&mut self, key: &ContentKey) -> &mut Self {
        match key {
            ContentKey::Id(id) => self.u8(0).id(id),
            ContentKey::Name(name) => self.u8(1).text(name.as_str()),
        }
    }

    pub(in crate::peer) fn u8(&mut self, value: u8) -> &mut Self {
        self.0.push(value);
        self
    }

    pub(in crate::peer) fn u32(&mut self, value: u32) -> &mut Self {
        self.0.extend(value.to_le_bytes());
        self
    }

    pub(in crate::peer) fn u64(&mut self, value: u64) -> &mut Self {
        self.0.extend(value.to_le_bytes());
        self
    }

    pub(in crate::peer) fn id(&mut self, id: &ContentId) -> &mut Self {
        self.0.extend(id.as_bytes());
        self
    }

    pub(in crate::peer) fn text(&mut self, text: &str) -> &mut Self {
        self.bytes(text.as_bytes())
    }

    /// No field is as long as 4 GiB.
    pub(in crate::peer) fn bytes(&mut self, bytes: &[u8]) -> &mut Self {
        self.u32(bytes.len() as u32);
        self.0.extend(bytes);
        self
    }

    pub(in crate::peer) fn option<T>(
        &mut self,
        value: Option<T>,
        write: impl FnOnce(&mut Self, T),
    ) {
        self.u8(value.is_some().into());
        if let Some(value) = value {
            write(self, value);
        }
    }
}

pub(in crate::peer) fn option<T>(
    bytes: &mut Bytes,
    read: impl FnOnce(&mut Bytes) -> Option<T>,
) -> Option<Option<T>> {
    match bytes.try_get_u8().ok()? {
        0 => Some(None),
        1 => read(bytes).map(Some),
        _ => None,
    }
}

pub(in crate::peer) fn take_id(bytes: &mut Bytes) -> Option<ContentId> {
    let mut id = [0; ContentId::LEN];
    bytes.try_copy_to_slice(&mut id).ok()?;
    Some(ContentId::from_bytes(id))
}

pub(in crate::peer) fn take_bytes(bytes: &mut Bytes) -> Option<Bytes> {
    let len = bytes.try_get_u32_le().ok()? as usize;
    (len <= bytes.len()).then(|| bytes.split_to(len))
}

pub(in crate::peer) fn take_name(bytes: &mut Bytes) -> Option<ContentName> {
    ContentName::try_from(&take_bytes(bytes)?[..]).ok()
}

pub(in crate::peer) fn take_path(bytes: &mut Bytes) -> Option<PathBuf> {
    let path = take_bytes(bytes)?;
    bytes_path(&path).filter(|_| path.len() <= MAX_PATH_LEN)
}

fn take_known(bytes: &mut Bytes, id: Option<ContentId>) -> Option<KnownContent> {
    let name = take_name(bytes)?;
    let length = bytes.try_get_u64_le().ok()?;
    let verified_bytes = bytes.try_get_u64_le().ok()?;
    let verified_chunks = bytes.try_get_u32_le().ok()?;
    let geometry = Geometry::of(length).ok()?;
    let is_right = verified_bytes <= length && verified_chunks <= geometry.chunks();
    is_right.then_some(())?;
    Some(KnownContent {
        content: Content::new(id?, name, length),
        verified_bytes,
        verified_chunks,
    })
}

pub(in crate::peer) fn take_priority(bytes: &mut Bytes) -> Option<Priority> {
    match bytes.try_get_u8().ok()? {
        0 => Some(Priority::Low),
        1 => Some(Priority::Normal),
        2 => Some(Priority::High),
        _ => None,
    }
}

pub(in crate::peer) fn take_limits(bytes: &mut Bytes) -> Option<ContentLimits> {
    let mut rate = || Some(bytes.try_get_u64_le().ok()?).map(|rate| (rate > 0).then_some(rate));
    Some(ContentLimits::default().upload(rate()?).download(rate()?))
}

pub(in crate::peer) fn take_duration(bytes: &mut Bytes) -> Option<Duration> {
    let secs = bytes.try_get_u64_le().ok()?;
    let nanos = bytes.try_get_u32_le().ok()?;
    (nanos < 1_000_000_000).then(|| Duration::new(secs, nanos))
}

pub(in crate::peer) fn take_owners(bytes: &mut Bytes) -> Option<Vec<Addr>> {
    let count = bytes.try_get_u32_le().ok()? as usize;
    if count > MAX_OWNERS {
        return None;
    }
    let owner = |_| std::str::from_utf8(&take_bytes(bytes)?).ok()?.parse().ok();
    (0..count).map(owner).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> ContentName {
        text.parse().unwrap()
    }

    /// One with nothing, and one with everything.
    fn records() -> [PausedRecord; 2] {
        let id = ContentId::of(b"x");
        let plain = PausedRecord {
            state: RecordedState::Paused(PauseOptions::new()),
            key: ContentKey::Name(name("naïve 文件")),
            id: None,
            listed_as: None,
            known: None,
            asked: Asked {
                name: None,
                directory: None,
                overwrites: false,
                existing: None,
                strategy: Strategy::RarestFirst,
                limits: None,
            },
            place: 0,
            priority: Priority::Low,
            seeds: false,
            patience: None,
            owners: Vec::new(),
        };
        let full = PausedRecord {
            state: RecordedState::Resumed,
            key: ContentKey::Id(id),
            id: Some(id),
            listed_as: Some(name("listed")),
            known: Some(KnownContent {
                content: Content::new(id, name("here"), 40_000),
                verified_bytes: 16_384,
                verified_chunks: 1,
            }),
            asked: Asked {
                name: Some(name("mine")),
                directory: Some("/some/where".into()),
                overwrites: true,
                existing: Some("else".into()),
                strategy: Strategy::Sequential,
                limits: Some(ContentLimits::default().upload(7)),
            },
            place: 1 << 40,
            priority: Priority::High,
            seeds: true,
            patience: Some(Some(Duration::new(60, 5))),
            owners: vec!["memory:a".parse().unwrap(), "tcp:b:1".parse().unwrap()],
        };
        [plain, full]
    }

    #[test]
    fn record_is_read_back_and_a_part_of_it_is_damaged() {
        let [plain, full] = records();
        let mut resting = plain.clone();
        resting.state = RecordedState::Paused(PauseOptions::new().serve(false));
        resting.patience = Some(None);
        for record in [plain, full, resting] {
            let bytes = record.encode().unwrap();
            let whole = ReadRecord::Content(Box::new(record));
            assert_eq!(read(bytes.clone()), whole);
            for at in 0..bytes.len() {
                assert_eq!(read(bytes.slice(..at)), ReadRecord::Damaged, "{at}");
            }
            let mut longer = bytes.to_vec();
            longer.push(0);
            assert_eq!(read(longer.into()), ReadRecord::Damaged);
        }
    }

    #[test]
    fn any_byte_may_be_anything() {
        for record in records() {
            let bytes = record.encode().unwrap();
            for at in 0..bytes.len() {
                for flip in [1, 2, 0x80, 0xff] {
                    let mut altered = bytes.to_vec();
                    altered[at] ^= flip;
                    // It is something else, or nothing, and bounded.
                    if let ReadRecord::Content(other) = read(altered.into()) {
                        assert_ne!(*other, record);
                    }
                }
            }
        }
        // More owners than there is room for.
        let [plain, _] = records();
        let bytes = plain.encode().unwrap();
        let mut many = bytes[..bytes.len() - 4].to_vec();
        many.extend(u32::MAX.to_le_bytes());
        assert_eq!(read(many.into()), ReadRecord::Damaged);
        let long = Bytes::from(vec![0; PausedDownload::MAX_LEN + 1]);
        assert_eq!(read(long), ReadRecord::Damaged);
    }

    #[test]
    fn records_of_other_kinds_and_versions_are_left_alone() {
        let [plain, _] = records();
        let mut folder = plain.encode().unwrap().to_vec();
        folder[4] = 2;
        assert_eq!(read(folder.into()), ReadRecord::Foreign);
        assert_eq!(read(Bytes::from_static(&[3, 0, 0, 0])), ReadRecord::Foreign);
        assert_eq!(read(Bytes::from_static(&[0; 4])), ReadRecord::Damaged);
    }

    #[test]
    fn most_that_fits_is_kept_and_a_path_that_is_too_long_is_not() {
        let [_, mut full] = records();
        let owner = |number| format!("{number:0255}").parse().unwrap();
        full.owners = (0..MAX_OWNERS + 1).map(owner).collect();
        let long = |len| Some("x".repeat(len).into());
        (full.asked.directory, full.asked.existing) = (long(MAX_PATH_LEN), long(MAX_PATH_LEN));
        let bytes = full.encode().unwrap();
        full.owners.pop();
        assert_eq!(read(bytes), ReadRecord::Content(Box::new(full.clone())));
        full.asked.directory = long(MAX_PATH_LEN + 1);
        assert_eq!(full.encode(), None);
    }

    #[test]
    fn first_version_is_read() {
        let id = ContentId::of(b"x");
        for (flags, named, serve, seeds) in [
            (0, "", false, false),
            (7, "文件", true, true),
            (5, "y", true, false),
        ] {
            let mut bytes = 1_u32.to_le_bytes().to_vec();
            bytes.extend(id.as_bytes());
            bytes.push(flags);
            bytes.extend(named.as_bytes());
            let ReadRecord::Content(record) = read(bytes.clone().into()) else {
                panic!("{flags}");
            };
            let paused = RecordedState::Paused(PauseOptions::new().serve(serve));
            assert_eq!((record.state, record.seeds), (paused, seeds));
            assert_eq!((record.id, &record.key), (Some(id), &ContentKey::Id(id)));
            let expected = (!named.is_empty()).then(|| name(named));
            assert_eq!(record.asked.name, expected);
            bytes.truncate(36);
            assert_eq!(read(bytes.into()), ReadRecord::Damaged);
        }
    }
}
