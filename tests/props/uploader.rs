//! The uploader: windows, slots, fairness, and that nothing is lost.

mod model;
mod pair;
mod queues;
mod script;
mod strangers;
mod trials;
mod turns;
