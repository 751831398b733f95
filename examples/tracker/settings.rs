//! What the tracker is told: by flags, by the environment, and by a file. Flags win over the
//! environment, and that over the file. A key that is not known is a mistake wherever it is.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bt_lite::TrackerConfig;
use bt_lite::tracker::RedisConfig;
use clap::{ArgAction, Parser};
use serde::{Deserialize, Serialize};
use toml::{Table, Value};

use super::common::Outcome;
use super::common::members::Members;
use super::logging::Format;

/// What all variables of the environment begin with.
const PREFIX: &str = "BT_LITE_TRACKER_";

/// The variable with the path of the file.
const CONFIG: &str = "BT_LITE_TRACKER_CONFIG";

/// How long clients have to go, by default, in seconds: as long as peers take at most to look
/// for another tracker, and less than service managers wait before they kill.
const DRAIN: u64 = 20;

const HELP: &str = "\
THE FILE is TOML. Its keys are the names of the flags, with _ for - : listen, admin, http, udp,
  redis, redis_secret, secret, certificates, quic, drain, log, log_filter. http, udp and redis
  are lists. Two tables have more: [limits], the fields of TrackerConfig (max_connections,
  [limits.registry] max_peers, and so on), and [store], those of RedisConfig (prefix, patience,
  answers_without).

THE ENVIRONMENT has the same keys in capitals behind BT_LITE_TRACKER_, as
  BT_LITE_TRACKER_LISTEN=0.0.0.0:7000, and with __ before a key of a table, as
  BT_LITE_TRACKER_LIMITS__MAX_CONNECTIONS=10000. A value is as in the file, but quotes may be
  left out, and so may the brackets of a list. BT_LITE_TRACKER_CONFIG is the path of the file.

  Flags win over the environment, and that over the file. A key that is not known is an error.

THE ADMIN ADDRESS answers over HTTP, and should be reached by those alone who look after the
  tracker:
  /healthz  200 as long as the process lives
  /readyz   200, or 503 while it drains, or when its store is away for longer than it answers
            without it
  /metrics  for Prometheus

SIGTERM and Ctrl-C let the clients go to other trackers, for as long as --drain says, and end
  the tracker. A second one ends it at once.";

/// A tracker on its own, until Ctrl-C or SIGTERM.
#[derive(Debug, Default, Parser, Serialize)]
#[command(after_help = HELP)]
pub(crate) struct Flags {
    /// A file with what is not said by flags or in the environment.
    #[arg(long, value_name = "FILE")]
    #[serde(skip)]
    config: Option<PathBuf>,
    /// The address at which to listen; with port 0, at any free port. Default 127.0.0.1:7000.
    #[arg(long, value_name = "ADDR")]
    listen: Option<String>,
    /// Where to tell over HTTP how the tracker is. Default: nowhere.
    #[arg(long, value_name = "ADDR")]
    admin: Option<String>,
    /// Where to serve BitTorrent clients over HTTP.
    #[arg(long, value_name = "ADDR")]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    http: Vec<String>,
    /// Where to serve BitTorrent clients over UDP.
    #[arg(long, value_name = "ADDR")]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    udp: Vec<String>,
    /// A store that several trackers share, and its replicas; or some nodes of a Redis
    /// Cluster. May be given several times.
    #[arg(long, value_name = "URL")]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    redis: Vec<String>,
    /// A file with random bytes that all trackers of the store have.
    #[arg(long, value_name = "FILE")]
    redis_secret: Option<PathBuf>,
    /// Serves only those who know the secret in this file, which is made if it is not there.
    #[arg(long, value_name = "FILE", conflicts_with = "certificates")]
    secret: Option<PathBuf>,
    /// Serves only those with a certificate of the authority in ca.pem in this directory. The
    /// own one is in cert.pem, its key in key.pem, and a list of those that are revoked, if
    /// there is one, in revoked.pem. They are read again every second.
    #[arg(long, value_name = "DIR")]
    certificates: Option<PathBuf>,
    /// Over TLS, which is so by default where there are members.
    #[arg(long, conflicts_with = "quic")]
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    tls: bool,
    /// Over QUIC instead of TLS.
    #[arg(long, action = ArgAction::SetTrue)]
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    quic: bool,
    /// How long clients have to go when the tracker is told to end. Default 20.
    #[arg(long, value_name = "SECONDS")]
    drain: Option<u64>,
    /// The form of the log. Default: text.
    #[arg(long, value_name = "FORM")]
    log: Option<Format>,
    /// What is logged: a level, or levels of targets, as info,bt_lite=debug. Default: warn.
    #[arg(long, value_name = "LEVELS")]
    log_filter: Option<String>,
}

/// Seconds, which are written as a number.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(transparent)]
pub(crate) struct Seconds(u64);

impl From<Seconds> for Duration {
    fn from(seconds: Seconds) -> Self {
        Self::from_secs(seconds.0)
    }
}

/// Everything that is said, or is so by default.
#[derive(Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Settings {
    pub(crate) listen: String,
    pub(crate) admin: Option<String>,
    pub(crate) http: Vec<String>,
    pub(crate) udp: Vec<String>,
    pub(crate) redis: Vec<String>,
    pub(crate) redis_secret: Option<PathBuf>,
    secret: Option<PathBuf>,
    certificates: Option<PathBuf>,
    tls: bool,
    quic: bool,
    pub(crate) drain: Seconds,
    pub(crate) log: Format,
    pub(crate) log_filter: String,
    pub(crate) limits: TrackerConfig,
    pub(crate) store: RedisConfig,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            listen: "127.0.0.1:7000".into(),
            admin: None,
            http: Vec::new(),
            udp: Vec::new(),
            redis: Vec::new(),
            redis_secret: None,
            secret: None,
            certificates: None,
            tls: false,
            quic: false,
            drain: Seconds(DRAIN),
            log: Format::Text,
            log_filter: "warn".into(),
            limits: TrackerConfig::default(),
            store: RedisConfig::default(),
        }
    }
}

impl Settings {
    /// Reads the file, if one is named, and puts the environment and the flags over it.
    pub(crate) fn load(
        flags: &Flags,
        environment: impl Iterator<Item = (OsString, OsString)>,
    ) -> Outcome<Self> {
        let mut named = None;
        let mut by_environment = Table::new();
        for (name, value) in environment {
            let Some(name) = name.to_str().filter(|name| name.starts_with(PREFIX)) else {
                continue;
            };
            if name == CONFIG {
                named = Some(PathBuf::from(value));
                continue;
            }
            let Some(value) = value.to_str() else {
                return Err(format!("{name}: it is not UTF-8").into());
            };
            let one = of_variable(name, value);
            let known = Self::deserialize(Value::Table(one.clone()));
            known.map_err(|error| format!("{name}: {}", error.message()))?;
            put_over(&mut by_environment, one);
        }
        let mut all = match flags.config.clone().or(named) {
            Some(path) => of_file(&path)?,
            None => Table::new(),
        };
        put_over(&mut all, by_environment);
        put_over(&mut all, Table::try_from(flags)?);
        let settings = Self::deserialize(Value::Table(all))?;
        settings.check()?;
        Ok(settings)
    }

    fn check(&self) -> Outcome<()> {
        if (self.tls || self.quic) && self.secret.is_none() && self.certificates.is_none() {
            return Err("--tls and --quic need --secret or --certificates".into());
        }
        if self.secret.is_some() && self.certificates.is_some() {
            return Err("there is both a secret and certificates".into());
        }
        if self.tls && self.quic {
            return Err("it is over TLS or over QUIC".into());
        }
        if self.redis.is_empty() != self.redis_secret.is_none() {
            return Err("redis needs redis_secret, and it needs redis".into());
        }
        Ok(())
    }

    /// Whom to serve.
    pub(crate) fn members(&self) -> Outcome<Members> {
        let (secret, certificates) = (self.secret.clone(), self.certificates.clone());
        Ok(Members::new(secret, certificates, self.quic))
    }
}

/// What a file says. It is checked by itself, so that an error tells where in it.
fn of_file(path: &Path) -> Outcome<Table> {
    let wrong = |error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
    let text = std::fs::read_to_string(path).map_err(|error| wrong(&error))?;
    toml::from_str::<Settings>(&text).map_err(|error| wrong(&error))?;
    Ok(text.parse::<Table>().map_err(|error| wrong(&error))?)
}

/// What one variable says, as a file would.
fn of_variable(name: &str, text: &str) -> Table {
    let key = name[PREFIX.len()..].to_ascii_lowercase();
    let mut parts = key.split("__").collect::<Vec<_>>();
    let last = parts.pop().unwrap_or_default();
    let is_list = parts.is_empty() && matches!(last, "http" | "udp" | "redis");
    let strings = || text.split(',').map(|part| Value::from(part.trim()));
    let value = match toml::from_str::<Table>(&format!("value = {text}")) {
        Ok(mut table) if table.len() == 1 => table.remove("value"),
        _ if is_list => Some(Value::Array(strings().collect())),
        _ => None,
    };
    let value = value.unwrap_or_else(|| Value::from(text));
    let mut table = Table::from_iter([(last.to_owned(), value)]);
    for part in parts.into_iter().rev() {
        table = Table::from_iter([(part.to_owned(), Value::Table(table))]);
    }
    table
}

/// Puts what is said later over what was said before, key by key, also in tables.
fn put_over(before: &mut Table, later: Table) {
    for (key, value) in later {
        match (before.get_mut(&key), value) {
            (Some(Value::Table(before)), Value::Table(later)) => put_over(before, later),
            (_, value) => drop(before.insert(key, value)),
        }
    }
}
