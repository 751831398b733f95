//! The parts of the swarm machine, for property tests and benchmarks. They are not part of
//! the stable surface of the crate: programs use
//! [`Swarm`](crate::peer::swarm::Swarm), or better [`Peer`](crate::Peer).

pub use crate::peer::swarm::assembler::{Assembled, Assembler, Inserted};
pub use crate::peer::swarm::block_layout::BlockLayout;
pub use crate::peer::swarm::chunk_set::ChunkSet;
pub use crate::peer::swarm::picker::Picker;
pub use crate::peer::swarm::planner::{Arrival, Planner, Released, Request};
pub use crate::peer::swarm::uploader::{Turn, UploadLimits, Uploader};
