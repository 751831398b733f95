//! Pages of the manifest that wait for the limit of the download, and those that were let
//! pass.

use std::collections::{BTreeMap, VecDeque};

use super::LinkId;

/// The requests for pages of a download that is limited. Those that are unanswered are
/// bounded by the fetch of the manifest.
#[derive(Debug, Default)]
pub(super) struct PageAsks {
    waiting: VecDeque<(LinkId, u32)>,
    /// What was counted for a page that was asked for, in bytes.
    counted: BTreeMap<(LinkId, u32), u64>,
}

impl PageAsks {
    /// A page is to be asked for, as soon as that is allowed.
    pub(super) fn push(&mut self, link: LinkId, page: u32) {
        self.waiting.push_back((link, page));
    }

    /// Whether some pages wait.
    pub(super) fn is_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Takes all pages that wait.
    pub(super) fn take_waiting(&mut self) -> VecDeque<(LinkId, u32)> {
        std::mem::take(&mut self.waiting)
    }

    /// A page is asked for, and counts as so many bytes.
    pub(super) fn counted(&mut self, link: LinkId, page: u32, bytes: u64) {
        self.counted.insert((link, page), bytes);
    }

    /// A page was answered or refused. Returns what was counted for it.
    pub(super) fn answered(&mut self, link: LinkId, page: u32) -> u64 {
        self.counted.remove(&(link, page)).unwrap_or(0)
    }

    /// A link is gone. Returns what was counted for its pages.
    pub(super) fn link_removed(&mut self, link: LinkId) -> u64 {
        self.waiting.retain(|(of, _)| *of != link);
        let mut bytes = 0;
        self.counted.retain(|(of, _), counted| {
            bytes += if *of == link { *counted } else { 0 };
            *of != link
        });
        bytes
    }
}
