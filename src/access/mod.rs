//! Who may do what: one question that a peer and a tracker ask before they let somebody in.
//!
//! An [`AccessPolicy`] is asked who it is ([identity](AccessRequest::identity) and address),
//! what it wants ([`AccessAction`]), and which content that is about. It is given to
//! [`PeerBuilder::access`](crate::PeerBuilder::access) and to
//! [`TrackerBuilder::access`](crate::TrackerBuilder::access). Without one everybody may do
//! everything, and nothing is asked.
//!
//! | who asks | when | what follows from [`Access::Deny`] |
//! |---|---|---|
//! | a peer | a connection is made, by either side: [`Connect`](AccessAction::Connect) | it is closed |
//! | a peer | a link about a content is opened, by either side: [`Fetch`](AccessAction::Fetch) | no link. The other side is told the same as about a content that is not here |
//! | a tracker | REGISTER: [`Register`](AccessAction::Register) | [`Refusal::Denied`](crate::protocol::Refusal::Denied) |
//! | a tracker | each entry of OWN: [`Own`](AccessAction::Own) | the same, for this entry |
//! | a tracker | NEED, for each content that it is about: [`List`](AccessAction::List) | the same as if the tracker did not know that content |
//!
//! Ready ones: [`AllowAll`], [`AllowIdentities`], [`ContentRules`], and
//! [`and`](AccessPolicyExt::and), which joins two. There is none for a secret: who knows the
//! secret of a swarm is decided by the transport
//! (`transport::auth::Trust::Secret`, feature `tls`), before anybody is asked here.
//!
//! # Folders
//! A tracker knows a folder by its index alone. A peer is asked for each file of it, and asks
//! the policy about the folders that the file belongs to: it may be fetched by whoever may
//! fetch one of them. A file that is shared by itself as well is also asked about by itself.
//!
//! # Identities
//! Only a transport that authenticates knows who the other side is
//! ([`Transport::identity`](crate::Transport::identity)). Over others
//! [`AccessRequest::identity`] is `None`, and what is left is the address.
//!
//! # Taking it back
//! When [`AccessPolicy::changes`] tells of a change, what was answered before is forgotten,
//! and each open connection and link is asked about again: those that are denied now end
//! within a second, and a tracker forgets the registrations of whoever may not register any
//! more. A policy that cannot tell is asked again when its answer is over
//! ([`AccessConfig::cache_lifetime`]), or at once with
//! [`Peer::refresh_access`](crate::Peer::refresh_access) and
//! [`Tracker::refresh_access`](crate::Tracker::refresh_access).
//!
//! ```
//! use bt_lite::access::AllowIdentities;
//! use bt_lite::transport::PeerIdentity;
//! use bt_lite::{MemoryNetwork, Tracker};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let member = PeerIdentity::of_public_key(b"the key of a member");
//! let members = AllowIdentities::from_iter([member]);
//! let network = MemoryNetwork::new(1);
//! let tracker = Tracker::builder(network.endpoint("tracker"))
//!     .access(members.clone())
//!     .bind("memory:tracker")
//!     .await?;
//! // From here on it is no member: within a second, nothing of it is left.
//! members.remove(&member);
//! # tracker.shutdown().await;
//! # Ok(())
//! # }
//! ```

mod allow;
mod and;
mod config;
mod gate;
mod policy;
mod request;
mod rules;
mod standing;
mod turns;

pub use allow::AllowIdentities;
pub use and::{AccessPolicyExt, And};
pub use config::AccessConfig;
pub use policy::{AccessPolicy, AllowAll};
pub use request::{Access, AccessAction, AccessContent, AccessRequest};
pub use rules::ContentRules;

pub(crate) use gate::{AccessGate, Changes, Verdict, Who};
pub(crate) use standing::{MIN_RECHECK, RETRY_UNSURE, Standing};
