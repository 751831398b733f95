//! Contents whose owners are found and linked in another way than those of this crate's
//! own network: torrents.

use std::sync::Arc;

use async_trait::async_trait;
use tokio::sync::mpsc;

use crate::content::Bitfield;
use crate::peer::contents::choice::Choice;
use crate::peer::contents::inbox::{DriverInput, NewLink};
use crate::peer::session::HandshakeError;
use crate::protocol::Addr;
use crate::storage::StorageError;

/// What a driver needs of the network of such a content. The futures are cancel safe.
#[async_trait]
pub(in crate::peer) trait Outside: Send + Sync {
    /// The content has a driver from now on. Returns those who may have some of it, as far
    /// as is known.
    #[cfg_attr(not(feature = "bittorrent"), allow(dead_code))]
    fn claimed(&self) -> Vec<(Addr, bool)>;

    /// Those who may have some of it, and whether they should have all.
    async fn owners(&self) -> Vec<(Addr, bool)>;

    /// Opens a link with one of them. What arrives by it goes to `inbox`.
    async fn dial(
        &self,
        addr: Addr,
        inbox: mpsc::Sender<DriverInput>,
    ) -> Result<NewLink, HandshakeError>;

    /// All of it is here and published. Comes once, before anybody else hears of it.
    fn completed(&self);

    /// What is wanted of it.
    fn choice(&self) -> Arc<Choice>;

    /// Makes durable and publishes what is wanted, as far as it is whole with these chunks.
    async fn finish_part(&self, verified: Bitfield) -> Result<(), StorageError>;

    /// All that is wanted is here, and nobody is asked for anything; or not any more.
    fn rests(&self, rests: bool);
}
