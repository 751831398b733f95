//! How the download of a folder that was paused is written down: everything that was asked
//! for and set, and what was known. This module does no I/O; FORMAT.md describes the bytes.

use std::path::PathBuf;
use std::time::Duration;

use bytes::{Buf, Bytes};

use super::status::{Folder, FolderProgress};
use crate::content::{ContentId, ContentName, FolderPath};
use crate::peer::downloads::pause::PauseOptions;
use crate::peer::downloads::paused_form::{
    MAX_OWNERS, Out, RecordedState, VERSION, option, put_limits, put_path, put_patience, state_at,
    state_number, take_bytes, take_duration, take_id, take_limits, take_name, take_owners,
    take_path, take_priority,
};
use crate::peer::downloads::priority::Priority;
use crate::peer::limits::ContentLimits;
use crate::protocol::{Addr, ContentKey};

/// What is recorded is the download of a folder.
const FOLDER: u8 = 2;

const SHARED: u8 = 1;
const OVERWRITES: u8 = 2;

/// A download of a folder that was paused.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::peer) struct FolderForm {
    pub(super) state: RecordedState,
    /// What it was asked for by.
    pub(super) key: ContentKey,
    /// The name that the user wants it stored under.
    pub(super) name: Option<ContentName>,
    /// The directory that it goes to, if it is another one.
    pub(super) directory: Option<PathBuf>,
    /// Whether it replaces what has its name.
    pub(super) overwrites: bool,
    /// What is wanted of it; all, if there are none.
    pub(super) paths: Vec<FolderPath>,
    pub(super) priority: Priority,
    /// Whether the folder is shared when it is complete.
    pub(super) seeds: bool,
    /// How long nothing may arrive, if that is not what the peer is set to.
    pub(super) patience: Option<Option<Duration>>,
    pub(super) limits: Option<ContentLimits>,
    pub(super) owners: Vec<Addr>,
    /// What is wanted, under the name that it gets here, and how much of it was there.
    pub(super) known: Option<(Folder, FolderProgress)>,
}

impl FolderForm {
    /// What an earlier version has recorded of the folder with this id.
    pub(super) fn first(id: ContentId, pause: PauseOptions) -> Self {
        Self {
            state: RecordedState::Paused(pause),
            key: ContentKey::Id(id),
            name: None,
            directory: None,
            overwrites: false,
            paths: Vec::new(),
            priority: Priority::default(),
            seeds: true,
            patience: None,
            limits: None,
            owners: Vec::new(),
            known: None,
        }
    }

    /// The bytes of the record; nothing if a path in it cannot be written down.
    pub(in crate::peer) fn encode(&self) -> Option<Bytes> {
        let mut out = Out(VERSION.to_le_bytes().to_vec());
        out.u8(FOLDER).u8(state_number(self.state));
        let flag = |set: bool, flag: u8| if set { flag } else { 0 };
        out.u8(flag(self.seeds, SHARED) | flag(self.overwrites, OVERWRITES));
        out.priority(self.priority);
        out.key(&self.key);
        out.option(self.name.as_ref(), |out, name| _ = out.text(name.as_str()));
        put_path(&mut out, self.directory.as_deref())?;
        put_limits(&mut out, self.limits.as_ref());
        put_patience(&mut out, self.patience.as_ref());
        out.option(self.known.as_ref(), |out, (folder, progress)| {
            out.id(&folder.id).text(folder.name.as_str());
            for number in [
                progress.files as u64,
                progress.length,
                progress.files_done as u64,
                progress.verified_bytes,
                progress.files_found as u64,
            ] {
                out.u64(number);
            }
        });
        let owners = &self.owners[self.owners.len().saturating_sub(MAX_OWNERS)..];
        out.u32(owners.len() as u32);
        for owner in owners {
            out.text(owner.as_str());
        }
        out.u32(u32::try_from(self.paths.len()).ok()?);
        for path in &self.paths {
            out.text(path.as_str());
        }
        Some(out.0.into())
    }

    /// Reads a record. Nothing if it is not one of a folder, or is damaged.
    pub(in crate::peer) fn decode(mut bytes: Bytes) -> Option<Self> {
        let bytes = &mut bytes;
        if bytes.try_get_u32_le().ok()? != VERSION || bytes.try_get_u8().ok()? != FOLDER {
            return None;
        }
        let state = state_at(bytes.try_get_u8().ok()?)?;
        let flags = bytes.try_get_u8().ok()?;
        if flags & !(SHARED | OVERWRITES) != 0 {
            return None;
        }
        let priority = take_priority(bytes)?;
        let key = match bytes.try_get_u8().ok()? {
            0 => ContentKey::Id(take_id(bytes)?),
            1 => ContentKey::Name(take_name(bytes)?),
            _ => return None,
        };
        let name = option(bytes, take_name)?;
        let directory = option(bytes, take_path)?;
        let limits = option(bytes, take_limits)?;
        let patience = option(bytes, |bytes| option(bytes, take_duration))?;
        let known = option(bytes, take_known)?;
        let owners = take_owners(bytes)?;
        let count = bytes.try_get_u32_le().ok()?;
        let mut paths = Vec::new();
        for _ in 0..count {
            let path = take_bytes(bytes)?;
            paths.push(std::str::from_utf8(&path).ok()?.parse().ok()?);
        }
        bytes.is_empty().then_some(Self {
            state,
            key,
            name,
            directory,
            overwrites: flags & OVERWRITES != 0,
            paths,
            priority,
            seeds: flags & SHARED != 0,
            patience,
            limits,
            owners,
            known,
        })
    }
}

fn take_known(bytes: &mut Bytes) -> Option<(Folder, FolderProgress)> {
    let (id, name) = (take_id(bytes)?, take_name(bytes)?);
    let mut number = || bytes.try_get_u64_le().ok();
    let (files, length) = (usize::try_from(number()?).ok()?, number()?);
    let progress = FolderProgress {
        files,
        length,
        files_done: usize::try_from(number()?).ok()?,
        verified_bytes: number()?,
        files_found: usize::try_from(number()?).ok()?,
    };
    let is_right = progress.files_done <= files && progress.verified_bytes <= length;
    let folder = Folder {
        id,
        name,
        files,
        length,
    };
    is_right.then_some((folder, progress))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn forms() -> [FolderForm; 2] {
        let id = ContentId::of(b"x");
        let pause = PauseOptions::new();
        let mut plain = FolderForm::first(id, pause.serve(false));
        plain.key = ContentKey::Name("naïve 文件".parse().unwrap());
        plain.seeds = false;
        let full = FolderForm {
            state: RecordedState::Resumed,
            key: ContentKey::Id(id),
            name: Some("mine".parse().unwrap()),
            directory: Some("/some/where".into()),
            overwrites: true,
            paths: ["a", "b/c"].map(|path| path.parse().unwrap()).into(),
            priority: Priority::High,
            seeds: true,
            patience: Some(Some(Duration::new(60, 5))),
            limits: Some(ContentLimits::default().upload(7)),
            owners: vec!["memory:a".parse().unwrap(), "tcp:b:1".parse().unwrap()],
            known: Some((
                Folder {
                    id,
                    name: "here".parse().unwrap(),
                    files: 3,
                    length: 40_000,
                },
                FolderProgress {
                    files: 3,
                    files_done: 2,
                    length: 40_000,
                    verified_bytes: 30_000,
                    files_found: 1,
                },
            )),
        };
        [plain, full]
    }

    #[test]
    fn form_is_read_back_and_a_part_of_it_is_damaged() {
        for form in forms() {
            let bytes = form.encode().unwrap();
            assert_eq!(FolderForm::decode(bytes.clone()), Some(form));
            for at in 0..bytes.len() {
                assert_eq!(FolderForm::decode(bytes.slice(..at)), None, "{at}");
            }
            let mut longer = bytes.to_vec();
            longer.push(0);
            assert_eq!(FolderForm::decode(longer.into()), None);
        }
    }

    #[test]
    fn any_byte_may_be_anything() {
        for form in forms() {
            let bytes = form.encode().unwrap();
            for at in 0..bytes.len() {
                for flip in [1, 0x80, 0xff] {
                    let mut altered = bytes.to_vec();
                    altered[at] ^= flip;
                    assert_ne!(FolderForm::decode(altered.into()).as_ref(), Some(&form));
                }
            }
        }
    }
}
