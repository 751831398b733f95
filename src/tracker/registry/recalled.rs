//! The contents of an earlier tracker, until they have an owner again.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use super::addrs::TextAddrs;
use super::reply::ReplyWriter;
use super::snapshot::KnownContent;
use crate::content::{ContentId, ContentName};

/// What one shard of the catalog recalls of contents without owners.
#[derive(Debug, Default)]
pub(super) struct Recalled {
    /// When all of it is forgotten. `None`: never.
    until: Option<Instant>,
    contents: BTreeMap<ContentId, KnownContent>,
    by_name: BTreeSet<(ContentName, ContentId)>,
}

impl Recalled {
    /// Recalls one more content, and all of them until then.
    pub(super) fn insert(&mut self, content: &KnownContent, until: Option<Instant>) {
        self.until = until;
        let names = content.names.iter();
        let names = names.map(|name| (name.clone(), content.id));
        self.by_name.extend(names);
        self.contents.insert(content.id, content.clone());
    }

    /// Forgets a content, because it has an owner again.
    pub(super) fn remove(&mut self, id: &ContentId) {
        if let Some(content) = self.contents.remove(id) {
            for name in content.names {
                self.by_name.remove(&(name, *id));
            }
        }
    }

    /// Forgets everything once its time is over.
    pub(super) fn expire(&mut self, now: Instant) {
        if self.until.is_some_and(|until| until <= now) {
            *self = Self::default();
        }
    }

    /// All contents that are recalled.
    pub(super) fn contents(&self) -> impl Iterator<Item = &KnownContent> {
        self.contents.values()
    }

    /// A name of a content.
    pub(super) fn name(&self, id: &ContentId) -> Option<&ContentName> {
        self.contents.get(id)?.names.first()
    }

    /// The contents of a name, with their lengths.
    pub(super) fn named(&self, name: &ContentName) -> impl Iterator<Item = (ContentId, u64)> {
        let first = ContentId::from_bytes([0; 32]);
        let from = self.by_name.range((name.clone(), first)..);
        let name = name.clone();
        let bearing = from.take_while(move |(other, _)| *other == name);
        bearing.filter_map(|(_, id)| Some((*id, self.contents.get(id)?.length)))
    }

    /// Answers NEED for a content that is recalled, with an empty list of
    /// owners. Returns whether it is recalled.
    pub(super) fn answer(
        &self,
        id: &ContentId,
        name: Option<&ContentName>,
        out: &mut impl ReplyWriter,
    ) -> bool {
        let Some(content) = self.contents.get(id) else {
            return false;
        };
        let Some(name) = name.or(content.names.first()) else {
            return false;
        };
        out.found(content.id, content.length, name);
        out.owners(&[], &TextAddrs::default());
        true
    }
}
