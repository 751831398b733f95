//! What a tracker last knew of the contents that it was asked for: what it answers from
//! while the store is away.

use std::collections::HashMap;
use std::sync::Arc;

use super::answers::Drawn;
use crate::content::{ContentId, ContentName};

/// How many contents are known, twice at most: the newer ones, and those before them. With
/// the longest answers they take about 50 MB.
const MAX_KNOWN: usize = 4096;

/// Contents in two generations. When the newer one is full, the older one is forgotten.
#[derive(Debug, Default)]
pub(super) struct Known {
    contents: [HashMap<ContentId, Arc<Drawn>>; 2],
    names: [HashMap<ContentName, ContentId>; 2],
}

impl Known {
    /// What was drawn of a content, for somebody who asked by this name or by id.
    pub(super) fn learn(&mut self, id: ContentId, name: Option<ContentName>, drawn: Drawn) {
        let [new, old] = &mut self.contents;
        if new.len() >= MAX_KNOWN {
            *old = std::mem::take(new);
        }
        new.insert(id, Arc::new(drawn));
        if let Some(name) = name {
            let [new, old] = &mut self.names;
            if new.len() >= MAX_KNOWN {
                *old = std::mem::take(new);
            }
            new.insert(name, id);
        }
    }

    /// What was drawn of it last.
    pub(super) fn of(&self, id: &ContentId) -> Option<Arc<Drawn>> {
        let mut both = self.contents.iter();
        both.find_map(|contents| contents.get(id)).cloned()
    }

    /// The content that somebody has asked for by this name.
    pub(super) fn named(&self, name: &ContentName) -> Option<ContentId> {
        self.names.iter().find_map(|names| names.get(name)).copied()
    }
}
