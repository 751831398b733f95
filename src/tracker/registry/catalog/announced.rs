//! What announces ask of a content: who has it, and how many.

use core::net::{Ipv4Addr, SocketAddr};

use super::{Catalog, Picker, family_of};
use crate::bittorrent::tracker::ScrapeFigures;
use crate::content::ContentId;
use crate::protocol::OwnerRef;
use crate::tracker::registry::announce::Announcer;
use crate::tracker::registry::owner::Owner;
use crate::tracker::registry::peers::Holding;

impl Catalog {
    /// An owner has announced whether it has all of a content, and whether it has just got
    /// it. What it had before is not counted twice.
    pub(crate) fn announced(&mut self, held: Holding, complete: bool, just_got: bool) {
        let content = self.inward(held.content);
        let had = self.ownerships.is_complete(held.ownership);
        self.set_complete(content, held.ownership, complete);
        if complete && just_got && !had {
            let downloaded = &mut self.contents[content].downloaded;
            *downloaded = downloaded.saturating_add(1);
        }
    }

    /// Counts an owner that has just got all of a content and was not known before.
    pub(crate) fn count_download(&mut self, held: Holding) {
        let content = self.inward(held.content);
        self.contents[content].downloaded += 1;
    }

    /// How many owners a content has, if it has any.
    pub(crate) fn figures(&self, hash: u64, id: &ContentId) -> Option<ScrapeFigures> {
        let content = &self.contents[self.contents.by_id(hash, id)?];
        Some(ScrapeFigures {
            complete: content.complete,
            downloaded: content.downloaded,
            incomplete: (content.owner_count() as u32).saturating_sub(content.complete),
        })
    }

    /// A number below `below`, for the time of the next announce.
    pub(crate) fn draw(&mut self, below: u32) -> u32 {
        self.rng_of_announces.u32(..below.max(1))
    }

    /// Owners of a content for one who announces: those that it can connect to over the
    /// family of addresses that it uses. Two who have all of it have nothing for each other.
    pub(crate) fn others(
        &mut self,
        hash: u64,
        id: &ContentId,
        announcer: &Announcer<'_>,
    ) -> Vec<(SocketAddr, OwnerRef)> {
        let Some(content) = self.contents.by_id(hash, id) else {
            return Vec::new();
        };
        self.picks.clear();
        let family = announcer.vantage.family();
        let (fast, rest) = announcer.wanted;
        if fast + rest > 0 && family.is_some() {
            let owners = &self.contents[content].owners;
            let seed = self.rng_of_announces.u64(..);
            let mut viewpoint = announcer.vantage.into();
            let asker = (announcer.listed, &mut viewpoint);
            let mut picker = Picker::new(asker, &self.texts, &mut self.picks);
            owners.choose(seed, (fast, rest), |owner| {
                !(announcer.needs_no_seeders && owner.is_complete())
                    && family_of(owner, &self.texts) == family
                    && picker.take(owner)
            });
        }
        let borrowed = self.show_from(announcer.vantage);
        let picks = self.picks.iter();
        let others = picks.filter_map(|pick| Some((self.socket_of(pick)?, pick.owner_ref())));
        let others = others.collect();
        for text in borrowed {
            self.texts.remove_text(text);
        }
        others
    }

    fn socket_of(&self, owner: &Owner) -> Option<SocketAddr> {
        let socket = match owner.text() {
            None => {
                let port = u16::from_be_bytes(owner.port);
                SocketAddr::new(Ipv4Addr::from(owner.word).into(), port)
            }
            Some(index) => self.texts.get(index).socket_addr()?,
        };
        (!socket.ip().is_unspecified()).then_some(socket)
    }
}
