//! Downloads: they wait for their turn, and then find, fetch and publish a content.

pub(super) mod asked;
pub(super) mod control;
pub(super) mod copies;
pub(super) mod discard;
pub(super) mod holders;
pub(super) mod local;
pub(super) mod pause;
pub(super) mod pause_record;
pub(super) mod paused_form;
pub(super) mod priority;
pub(super) mod queue;
pub(super) mod restored;
pub(super) mod running;
pub(super) mod search;
pub(super) mod settings;
pub(super) mod task;
