//! The names of the files that the storage keeps for itself.

use crate::content::{ContentId, ContentName};
use crate::storage::PausedId;

/// The length of a content id in a file name.
const ID_LEN: usize = 2 * ContentId::LEN;

/// The names of the two files of an unfinished content.
#[derive(Debug, Clone)]
pub(super) struct PartialNames {
    /// The file with the bytes.
    pub(super) data: String,
    pub(super) journal: String,
}

impl PartialNames {
    pub(super) fn of(id: ContentId) -> Self {
        Self {
            data: format!("{id}.part"),
            journal: format!("{id}.journal"),
        }
    }
}

/// The first and the second name of a file that is made and removed to see how
/// files are renamed here. They belong to whoever has the lock of this content.
pub(super) fn probe_names(id: ContentId) -> [String; 2] {
    [format!("{id}.probe"), format!("{id}.probed")]
}

/// The name of a file that is written before its content is known.
pub(super) fn draft_name(number: ContentId) -> String {
    format!("{number}.draft")
}

/// The name of the record of a download that was paused.
pub(super) fn paused_name(id: PausedId) -> String {
    format!("{id}.paused")
}

/// The name of such a record while it is being written.
pub(super) fn pausing_name(number: ContentId) -> String {
    format!("{number}.pausing")
}

/// The name of the directory that the storage keeps for a folder.
pub(super) fn folder_name(id: ContentId) -> String {
    format!("{id}.folder")
}

/// The name of a segment of the log of finished contents.
pub(super) fn segment_name(number: u64) -> String {
    format!("{number:064x}.catalogue")
}

/// The highest number that a segment may have.
pub(super) const MAX_SEGMENT: u64 = u64::MAX >> 1;

/// The number of a segment, if the hash in its name is one.
pub(super) fn segment_number(id: ContentId) -> Option<u64> {
    let (zeros, number) = id.as_bytes().split_last_chunk()?;
    let number = u64::from_be_bytes(*number);
    let is_one = number <= MAX_SEGMENT && zeros.iter().all(|&byte| byte == 0);
    is_one.then_some(number)
}

/// The name of the file that recorded a finished content in earlier versions.
pub(super) fn record_name(name: &ContentName) -> String {
    format!("{}.manifest", ContentId::of(name.as_str().as_bytes()))
}

/// What a file of the storage itself contains.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ReservedFile {
    Data,
    Journal,
    /// A segment of the log of finished contents.
    Segment,
    /// A record of a finished content, as earlier versions kept them.
    Record,
    /// An empty file that shows how files are renamed here.
    Probe,
    /// A file that is written before its content is known.
    Draft,
    /// The directory of a folder.
    Folder,
    /// The record of a download that was paused.
    Paused,
    /// The same while it is being written.
    Pausing,
}

/// The hash and the purpose in a reserved name. Upper and lower case are the
/// same here, because a file system may not tell them apart.
pub(super) fn parse_reserved(name: &str) -> Option<(ContentId, ReservedFile)> {
    let (id, ending) = name.split_at_checked(ID_LEN)?;
    let id = id.parse().ok()?;
    let reserved = [
        (".part", ReservedFile::Data),
        (".journal", ReservedFile::Journal),
        (".catalogue", ReservedFile::Segment),
        (".manifest", ReservedFile::Record),
        (".probe", ReservedFile::Probe),
        (".probed", ReservedFile::Probe),
        (".draft", ReservedFile::Draft),
        (".folder", ReservedFile::Folder),
        (".paused", ReservedFile::Paused),
        (".pausing", ReservedFile::Pausing),
    ];
    reserved
        .into_iter()
        .find(|(reserved, _)| ending.eq_ignore_ascii_case(reserved))
        .map(|(_, file)| (id, file))
}

/// Whether a file system could take this name for a reserved one. One that
/// ignores case may fold a letter outside ASCII to an ASCII letter of an
/// ending, so an ending outside ASCII is reserved as well.
pub(super) fn is_reserved(name: &str) -> bool {
    let foreign = |(id, ending): (&str, &str)| {
        id.parse::<ContentId>().is_ok() && ending.starts_with('.') && !ending.is_ascii()
    };
    parse_reserved(name).is_some() || name.split_at_checked(ID_LEN).is_some_and(foreign)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn segment_is_known_by_its_number() {
        for number in [0, 7, MAX_SEGMENT] {
            let (id, file) = parse_reserved(&segment_name(number)).unwrap();
            assert_eq!(file, ReservedFile::Segment);
            assert_eq!(segment_number(id), Some(number));
        }
        let (id, _) = parse_reserved(&segment_name(MAX_SEGMENT + 1)).unwrap();
        assert_eq!(segment_number(id), None);
        assert_eq!(segment_number(ContentId::of(b"x")), None);
    }

    #[test]
    fn only_names_of_the_exact_form_are_reserved() {
        let id = ContentId::of(b"x").to_string();
        for reserved in [
            format!("{id}.part"),
            format!("{id}.journal"),
            format!("{id}.catalogue"),
            format!("{id}.manifest"),
            format!("{id}.probe"),
            format!("{id}.probed"),
            draft_name(ContentId::of(b"x")),
            folder_name(ContentId::of(b"x")),
            paused_name(PausedId([255; 32])),
            pausing_name(ContentId::of(b"x")),
            format!("{}.PART", id.to_uppercase()),
        ] {
            assert!(parse_reserved(&reserved).is_some(), "{reserved}");
            assert!(is_reserved(&reserved), "{reserved}");
        }
        // Where case is ignored, a long s is an s.
        assert!(is_reserved(&format!("{id}.manife\u{17f}t")));
        for free in [
            id.clone(),
            format!("{id}.parts"),
            format!("{id}.part.part"),
            format!("{}.part", &id[1..]),
            format!("x{id}.part"),
            format!("{}g.part", &id[1..]),
            "a.part".into(),
            // A character that spans the place where the ending would begin.
            format!("{}é.part", &id[1..]),
        ] {
            assert!(!is_reserved(&free), "{free}");
        }
    }
}
