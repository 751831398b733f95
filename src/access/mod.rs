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
//! # Where it is
//! A policy is told where the other side is now. A connection over QUIC outlives a change
//! of its address; then it is asked about again within half a second, with all its links,
//! and a tracker lists the peer where its next heartbeat comes from.
//!
//! # A policy that is slow
//! Each question is asked by itself, side by side with the others, and holds up only what it
//! is about: a link that is not open yet, a connection that is not let in yet. At a tracker
//! the replies on one connection come in their order, so those behind it wait for it as
//! well, but for no longer than for the slowest of them, as all are asked about at once. No
//! more than [`max_questions`](AccessConfig::max_questions) are asked at a time, and of one
//! host no more than [`max_questions_per_host`](AccessConfig::max_questions_per_host), half
//! of that about one identity. A question that waits for its turn or its answer for longer
//! than [`answer_timeout`](AccessConfig::answer_timeout) counts as [`Access::Unknown`]. So a
//! policy that takes seconds needs a longer time, and one that takes long for each of very
//! many links, more questions at a time, or a cache of its own.
//!
//! # A policy that cannot tell
//! [`Access::Unknown`], an answer that does not come in time, and a panic are the same. What
//! is unknown is not kept: whoever comes next is asked about anew.
//!
//! | about what | what follows |
//! |---|---|
//! | a connection to a peer, a link | not made. The other side is told "busy", and comes again within a second or a few |
//! | REGISTER, by somebody new | [`Refusal::Busy`](crate::protocol::Refusal::Busy), and the connection ends. Clients come again within 15 s |
//! | REGISTER, by somebody who is registered | as if it were allowed, within the grace |
//! | an entry of OWN | the same refusal for this entry, which clients announce again. What is owned already goes on |
//! | NEED | nothing is told of that content |
//! | what is open, registered or owned already | it goes on for [`AccessConfig::grace`], and is asked about each second. Then it ends as if it were denied |
//!
//! So a directory that is started again within the grace, also after a change, throws
//! nobody out, and lets nobody in. Whoever would rather have everything end sets the grace
//! to zero.
//!
//! # Taking it back
//! When [`AccessPolicy::changes`] tells of a change, what was answered before is forgotten,
//! and each open connection and link is asked about again: those that are denied now end
//! within a second (after the policy has answered, if that takes long), and a tracker
//! forgets the registrations of whoever may not register any more, whether they are
//! connected or not. An answer to a question that was asked before a change is not kept, and
//! what it has let in is asked about again. A policy that cannot tell of changes is asked
//! again when its answer is over ([`AccessConfig::cache_lifetime`]), but about a
//! registration without a connection only when its owner comes back, or its lease ends. It
//! is asked at once with [`Peer::refresh_access`](crate::Peer::refresh_access) and
//! [`Tracker::refresh_access`](crate::Tracker::refresh_access).
//!
//! Who is allowed late comes in soon: a peer dials at once whom it allows by now, and
//! whoever was denied comes again by itself within a minute.
//!
//! A tracker that is [restored](crate::tracker::TrackerBuilder::restore) knows names and
//! upload rates, and no registrations: nobody is listed before he has registered again, and
//! was allowed to. Whoever a *transport* lets in no more (`transport::auth`), as its
//! key is taken out or its certificate revoked, is another matter than a policy: what was
//! registered by it ends with its connection, and without one within a second as well.
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
mod who;

pub use allow::AllowIdentities;
pub use and::{AccessPolicyExt, And};
pub use config::AccessConfig;
pub use policy::{AccessPolicy, AllowAll};
pub use request::{Access, AccessAction, AccessContent, AccessRequest};
pub use rules::ContentRules;

pub(crate) use gate::{AccessGate, Changes, Verdict};
pub(crate) use standing::{MIN_RECHECK, RETRY_UNSURE, Standing};
pub(crate) use who::Who;
