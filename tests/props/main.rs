//! Properties, each against a naive model.

mod registry;
