//! The guide: how to do the usual things, how to write a transport or a storage, and what
//! is promised. It has no code of its own; all of its examples are compiled, and most of
//! them run, as tests.

pub mod how_do_i;
pub mod promises;
pub mod seams;
