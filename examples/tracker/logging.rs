//! What is logged, to stderr: as text for people, or as a line of JSON for each event.

use std::error::Error;
use std::io;

use serde::{Deserialize, Serialize};
use tracing_subscriber::Layer;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::fmt::layer;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use super::common::Outcome;

/// The form of the log.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Format {
    #[default]
    Text,
    Json,
}

/// Starts the log. The filter is a level, or levels of targets: `info,bt_lite=debug`.
pub(crate) fn start(format: Format, filter: &str) -> Outcome<()> {
    let wrong = |error: &dyn Error| format!("log_filter {filter:?}: {error}");
    // What is neither a level nor `TARGET=LEVEL` would be a target that nobody has.
    for level in filter.split(',').filter(|part| !part.contains('=')) {
        let level: Result<LevelFilter, _> = level.trim().parse();
        level.map_err(|error| wrong(&error))?;
    }
    let targets: Targets = filter.parse().map_err(|error| wrong(&error))?;
    let layer = layer().with_writer(io::stderr);
    let layer = match format {
        Format::Text => layer.with_ansi(false).boxed(),
        Format::Json => layer.json().flatten_event(true).boxed(),
    };
    let registry = tracing_subscriber::registry();
    registry.with(layer.with_filter(targets)).try_init()?;
    Ok(())
}
