//! What is promised, and what is not.
//!
//! # Versions
//!
//! The crate follows semantic versioning. Before 1.0, a new minor version may change the
//! API; a patch never does. Structs that users fill in and enums that may grow are
//! `non_exhaustive`. The protocol and the files have versions of their own: PROTOCOL.md says
//! which ones talk to each other, and a storage reads what an earlier version of the crate
//! has written. The oldest Rust that builds the crate is in `rust-version` of Cargo.toml; to
//! raise it is a minor version.
//!
//! # Dropped futures
//!
//! Every async method says what becomes of what it stands for when its future is dropped.
//! Where it says *cancel safe*, nothing is half done: the call has happened or it has not,
//! nothing is leaked, and it may be made again. Dropping a [`Download`] cancels it, and
//! dropping the last handle of a [`Peer`] or a [`Tracker`] stops it.
//!
//! # Durability
//!
//! With a [`FileStorage`](crate::FileStorage), on a disk that keeps what it says it has
//! synced:
//!
//! - After `Ok` of a download, the content, its name and its directory are durable.
//! - A content is visible under its name when it is whole, and never before. What had the
//!   name is never replaced.
//! - A process that is killed, or a machine that loses its power, costs at most what was not
//!   committed yet: [`commit_bytes`] and [`commit_interval`] bound it. What the journal
//!   names is verified again before it is served.
//! - [`Download::durable_bytes`] says how much of a running download would survive now.
//!
//! # What others can do
//!
//! - A peer that sends wrong bytes costs their transfer, and is not asked again. Wrong bytes
//!   are never stored, served or counted.
//! - A tracker can withhold owners, and chooses what a *name* stands for. It cannot change
//!   what an *id* stands for: that is the hash of the bytes.
//! - Nobody can have a file written outside the directory of the storage, replace one, or
//!   make the crate allocate without a bound or panic.
//! - Over plain TCP, whoever can read the wire reads everything, and whoever reaches a port
//!   can ask. SECURITY.md lists what each kind of stranger can cost, and which figure bounds
//!   it.
//!
//! # Determinism
//!
//! The pure part ([`peer::swarm`](crate::peer::swarm), the registry, [`content`], and
//! [`protocol`]) gives the same outputs for the same inputs, on every platform. With a
//! paused clock, a [`MemoryNetwork`](crate::MemoryNetwork), ids and seeds, a whole swarm
//! can be repeated.
//!
//! [`commit_bytes`]: crate::peer::swarm::SwarmConfig::commit_bytes
//! [`commit_interval`]: crate::peer::swarm::SwarmConfig::commit_interval
//! [`content`]: crate::content
//! [`Download`]: crate::Download
//! [`Download::durable_bytes`]: crate::Download::durable_bytes
//! [`Peer`]: crate::Peer
//! [`protocol`]: crate::protocol
//! [`Tracker`]: crate::Tracker
