//! The names of the files that the storage keeps for itself.

use crate::content::{ContentId, ContentName};

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

/// The name of the file that records a finished content.
pub(super) fn record_name(name: &ContentName) -> String {
    format!("{}.manifest", ContentId::of(name.as_str().as_bytes()))
}

/// What a file of the storage itself contains.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ReservedFile {
    Data,
    Journal,
    Record,
}

/// The hash and the purpose in a reserved name. Upper and lower case are the
/// same here, because a file system may not tell them apart.
pub(super) fn parse_reserved(name: &str) -> Option<(ContentId, ReservedFile)> {
    let (id, ending) = name.split_at_checked(ID_LEN)?;
    let id = id.parse().ok()?;
    let reserved = [
        (".part", ReservedFile::Data),
        (".journal", ReservedFile::Journal),
        (".manifest", ReservedFile::Record),
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
    fn only_names_of_the_exact_form_are_reserved() {
        let id = ContentId::of(b"x").to_string();
        for reserved in [
            format!("{id}.part"),
            format!("{id}.journal"),
            format!("{id}.manifest"),
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
