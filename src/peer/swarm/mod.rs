//! The swarm machine.
