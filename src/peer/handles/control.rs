//! Control of downloads while they run.

use std::fmt;
use std::time::Duration;

use crate::error::{ConfigError, StartError, checked_addr};
use crate::peer::downloads::pause::PauseOptions;
use crate::peer::downloads::priority::Priority;
use crate::peer::downloads::settings::Settings;
use crate::peer::handles::download::Download;
use crate::peer::handles::peer::Peer;
use crate::peer::swarm::Strategy;
use crate::protocol::{Addr, AddrError};
use crate::tracker::TrackerError;

impl Download {
    /// Pauses the download, for all its handles. Returns at once;
    /// [`DownloadEvent::Paused`](crate::DownloadEvent::Paused) comes when it is in effect,
    /// which is soon. If the peer [remembers](crate::PeerBuilder::share_stored) paused
    /// downloads, the storage has recorded it by then, however long that takes: a crash right
    /// after the event leaves a download that is paused. (If the storage fails to, the log
    /// says so.) May be called again with other options.
    ///
    /// A paused download asks nobody for anything. What it was waiting for is cancelled,
    /// and nobody is blamed for that; what has arrived is stored and made durable. What was
    /// on its way already still arrives, for two seconds at most, and then the links close
    /// that are of no use. Parts of chunks stay in memory, as far as
    /// [`SwarmConfig::max_unverified`](crate::peer::swarm::SwarmConfig::max_unverified)
    /// allows, and are lost only with the process or the download; what is dropped is
    /// counted in [`Progress::wasted`](crate::peer::swarm::Progress::wasted). It keeps that, and its place in the queue, and is no longer among the active ones:
    /// another one begins instead. It never fails for want of
    /// [patience](crate::peer::swarm::SwarmConfig::patience). Whoever awaits it, or reads
    /// what is not here yet, waits.
    ///
    /// No effect on a download that has ended, or whose last chunk is here: that one
    /// completes.
    pub fn pause(&self, options: PauseOptions) {
        self.control().set_pause(Some(options));
    }

    /// Lets the download go on, for all its handles. Returns at once;
    /// [`DownloadEvent::Unpaused`](crate::DownloadEvent::Unpaused) comes when it does. If
    /// too many others are active, it is queued first. No effect if it is not paused.
    pub fn resume(&self) {
        self.control().set_pause(None);
    }

    /// Changes which of the downloads that wait begins first, for all handles of this
    /// one, also one that is paused. One that is active stays active.
    pub fn set_priority(&self, priority: Priority) {
        self.control().set_priority(priority);
    }

    /// Adds an owner to ask, an [`Addr`] or text, in addition to those that are known and
    /// that a tracker names. Returns at once, also if the download waits or is paused: it
    /// asks the owner when it goes on. One by id needs no tracker then; one by name needs
    /// trackers to find its content. The last 1,024 owners are kept. No effect on a download
    /// that has ended.
    ///
    /// Cancel safe: if the future is dropped, the owner is added or it is not.
    ///
    /// # Errors
    /// [`ConfigError`] if it is not an address. An address that the transport cannot reach
    /// is tried in vain.
    pub async fn add_owner<A>(&self, addr: A) -> Result<(), ConfigError>
    where
        A: TryInto<Addr> + fmt::Display,
        A::Error: Into<AddrError>,
    {
        let owner = checked_addr(addr)?;
        self.control()
            .change(|settings| settings.add_owners([owner]));
        Ok(())
    }

    /// Ends the download when nothing arrives for longer than this, whatever
    /// [`SwarmConfig::patience`](crate::peer::swarm::SwarmConfig::patience) says; `None`
    /// never ends it. It counts from when something last arrived, or the download was
    /// resumed: one for which nothing has arrived for longer ends soon. All handles share
    /// it. Returns at once, also if the download waits or is paused. No effect on a download
    /// that has ended.
    ///
    /// Cancel safe: if the future is dropped, it is changed or it is not.
    pub async fn set_patience(&self, patience: Option<Duration>) {
        let change = |settings: &mut Settings| settings.patience = Some(patience);
        self.control().change(change);
    }

    /// Changes the order in which the missing chunks are asked for. While something is
    /// being fetched, it returns when the change is in effect, which is soon: requests that
    /// are made from then on follow it, those that are on their way stay. If the download
    /// waits, looks for its content or is paused, this returns at once, and the order
    /// counts when it goes on. No effect on a download that has ended.
    ///
    /// Cancel safe: if the future is dropped, the order changes or it does not.
    pub async fn set_strategy(&self, strategy: Strategy) {
        let change = |settings: &mut Settings| settings.strategy = Some(strategy);
        self.control().change(change);
        self.control().in_effect().await;
    }

    /// Which of the downloads that wait begins first.
    pub fn priority(&self) -> Priority {
        self.control().ticket().priority()
    }
}

impl Peer {
    /// Lets this many downloads be active from now on
    /// ([`PeerConfig::max_downloads`](crate::PeerConfig::max_downloads)). If more are,
    /// they stay active, and no other one begins until enough of them have ended or are
    /// paused. With 0 none begins.
    pub fn set_max_downloads(&self, max: usize) {
        self.shared().downloads.set_max_active(max);
    }

    /// How many downloads may be active.
    pub fn max_downloads(&self) -> usize {
        self.shared().downloads.max_active()
    }

    /// The trackers of this peer, in the order in which they were added.
    pub fn trackers(&self) -> Vec<Addr> {
        self.shared().trackers.trackers()
    }

    /// Registers with one more tracker, an [`Addr`] or text, in the background. It is told
    /// of everything that this peer has or fetches, and asked by every search from then
    /// on. Downloads that miss an owner ask it as soon as it is reached. Returns `false` if
    /// it is one of the trackers already.
    ///
    /// # Errors
    /// [`StartError::Config`] if it is not an address, [`StartError::Tracker`] if the
    /// transport can never use it, and [`StartError::ShutDown`] after a shutdown.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn add_tracker<A>(&self, addr: A) -> Result<bool, StartError>
    where
        A: TryInto<Addr> + fmt::Display,
        A::Error: Into<AddrError>,
    {
        let tracker = checked_addr(addr)?;
        let shared = self.shared();
        if let Err(source) = shared.transport.check(&tracker) {
            return Err(TrackerError::Unreachable { tracker, source }.into());
        }
        let span = shared.tasks.span.clone();
        let added = span.in_scope(|| shared.trackers.add_tracker(tracker));
        added.map_err(|error| match error {
            TrackerError::Closed => StartError::ShutDown,
            error => error.into(),
        })
    }

    /// Leaves a tracker: it is told EXIT in the background, and no longer lists this peer.
    /// Owners that it has named stay known. Returns `false` if it is none of the trackers.
    ///
    /// # Errors
    /// [`ConfigError::Addr`] if it is not an address.
    pub fn remove_tracker<A>(&self, addr: A) -> Result<bool, ConfigError>
    where
        A: TryInto<Addr> + fmt::Display,
        A::Error: Into<AddrError>,
    {
        let tracker = checked_addr(addr)?;
        Ok(self.shared().trackers.remove_tracker(&tracker))
    }

    /// [Pauses](Download::pause) every download that has not ended. Those that are started
    /// later are not paused. Folders are paused as a whole.
    pub fn pause_all(&self, options: PauseOptions) {
        self.set_pauses(Some(options));
    }

    /// [Resumes](Download::resume) every download that is paused.
    pub fn resume_all(&self) {
        self.set_pauses(None);
    }

    fn set_pauses(&self, pause: Option<PauseOptions>) {
        let shared = self.shared();
        #[cfg(feature = "file-storage")]
        for running in shared.running_folders.all() {
            running.control.set_pause(pause);
        }
        // What is of a folder was not asked for by itself.
        let asked = shared.running.all().into_iter();
        for running in asked.filter(|running| running.key.get().is_some()) {
            running.control.set_pause(pause);
        }
    }
}
