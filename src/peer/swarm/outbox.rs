//! All that the machine wants done, in order; and what each link is told.

use std::collections::VecDeque;

use super::link::Link;
use super::manifest_fetch;
use super::remote_chunks::RemoteChunks;
use super::{LinkId, Output, SwarmEvent};
use crate::content::{ChunkIndex, Manifest};
use crate::protocol::PeerMessage;

/// How many messages may wait for a link before it is told of further chunks.
const MAX_QUEUED_HAVES: usize = 256;

/// The outputs that were not polled yet, and the chunks that links are told of.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    outputs: VecDeque<Output>,
    /// The chunks of a download in the order in which they were stored. Each link was
    /// told of the first ones.
    log: Vec<ChunkIndex>,
    /// Chunks before this one are here no longer.
    gone_before: u32,
}

impl Outbox {
    pub(super) fn push(&mut self, output: Output) {
        self.outputs.push_back(output);
    }

    pub(super) fn pop(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// Trackers are not told what they were to be told, and was not polled yet.
    pub(super) fn keep_from_trackers(&mut self) {
        let is_kept = |output: &Output| !matches!(output, Output::Announce(_));
        self.outputs.retain(is_kept);
    }

    /// A link may have something of the content: those who watch are told, once.
    pub(super) fn owner_joined(&mut self, link: &mut Link) {
        if !link.is_owner
            && link.remote.is_anything()
            && let Some(owner) = link.remote_peer()
        {
            link.is_owner = true;
            self.push(Output::Event(SwarmEvent::OwnerJoined(owner)));
        }
    }

    /// Sends a message to a link.
    pub(super) fn send(&mut self, id: LinkId, link: &mut Link, message: PeerMessage) {
        link.queued += 1;
        self.push(Output::Send { link: id, message });
    }

    /// These chunks are offered from now on.
    pub(super) fn offer(&mut self, chunks: impl IntoIterator<Item = ChunkIndex>) {
        self.log.extend(chunks);
    }

    /// How many chunks were offered so far.
    pub(super) fn offered(&self) -> usize {
        self.log.len()
    }

    /// A chunk is here no longer, and neither is any before it. Returns how much of the log a
    /// link was told if it was told of this chunk; `None` if that was never offered.
    pub(super) fn withdraw(&mut self, chunk: ChunkIndex) -> Option<usize> {
        self.gone_before = self.gone_before.max(chunk.0 + 1);
        // It is among the last, as chunks pass in order.
        let at = self.log.iter().rposition(|offered| *offered == chunk)?;
        Some(at + 1)
    }

    /// Tells a link of the chunks that were stored meanwhile, as long as it takes
    /// messages.
    pub(super) fn send_haves(&mut self, id: LinkId, link: &mut Link) {
        while link.queued < MAX_QUEUED_HAVES
            && let Some(&chunk) = self.log.get(link.told)
        {
            link.told += 1;
            if chunk.0 < self.gone_before {
                continue;
            }
            // The first one also tells a seeder that there is somebody to serve.
            if link.remote != RemoteChunks::All || link.told == 1 {
                self.send(id, link, PeerMessage::Have(chunk));
            }
        }
    }

    /// Tells a seeder of a chunk that it sent. All others are told of every chunk, and a
    /// seeder of no other chunk but the first. But a seeder that never hears what became
    /// of its blocks may take this side for a peer that only takes.
    pub(super) fn send_receipt(&mut self, id: LinkId, link: &mut Link, chunk: ChunkIndex) {
        let is_first = self.log.is_empty();
        if !is_first && link.remote == RemoteChunks::All {
            self.send(id, link, PeerMessage::Have(chunk));
        }
    }

    /// Sends the pages of the manifest that a link asked for, as far as it takes them, and
    /// `admits` lets so many bytes pass.
    pub(super) fn send_pages(
        &mut self,
        id: LinkId,
        link: &mut Link,
        manifest: Option<&Manifest>,
        mut admits: impl FnMut(u64) -> bool,
    ) {
        let mut admits = |page| admits(manifest_fetch::served_bytes(manifest, page));
        while let Some(page) = link.next_page(&mut admits) {
            let reply = match manifest {
                Some(manifest) => manifest_fetch::serve(manifest, page),
                None => PeerMessage::ManifestReject { page },
            };
            if let PeerMessage::ManifestHashes { .. } = &reply {
                link.page_follows();
            }
            self.send(id, link, reply);
        }
    }
}
