//! The connection to the store: found, lost and found again. It knows nothing of peers.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, ErrorKind, RedisError, ServerErrorKind, Value};
use tokio::sync::{Notify, Semaphore};
use tokio::time::{Instant, timeout};
use tracing::{info, warn};

use super::config::{RedisConfig, StoreError};
use super::plan::Present;
use super::schema::{Keys, SCHEMA};
use super::scripts::{Call, Script};
use super::values::{number, parts, text};
use crate::metrics::{self, Timer};

/// How many pipelines are under way at once. So many keep the store busy, and with more it
/// would seem silent to the last of them; those wait for their turn, in order. No more wait
/// than there are connections to the tracker.
const MAX_UNDER_WAY: usize = 128;

/// The store is away, or too slow. Who has noticed that it is away has said why.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Lost;

/// The connection to the store, or none.
#[derive(Debug)]
pub(super) struct Link {
    clients: Vec<Client>,
    patience: Duration,
    keys: Keys,
    fingerprint: String,
    state: Mutex<State>,
    turns: Semaphore,
    begun: Instant,
    /// When the store has answered last, in ms from the beginning.
    answered: AtomicU64,
    /// Notified when the store is lost.
    pub(super) lost: Notify,
    losses: AtomicU64,
    round_trips: AtomicU64,
    calls: AtomicU64,
}

#[derive(Debug)]
struct State {
    connection: Option<MultiplexedConnection>,
    /// Of which connection an error tells.
    serial: u64,
    /// The URL that was used last.
    at: usize,
    present: Present,
    store: String,
    lost_at: Option<Instant>,
}

/// What a store says of itself.
struct Opened {
    connection: MultiplexedConnection,
    epoch: u64,
    founded: u64,
    store: String,
}

impl Link {
    /// A link that is not connected yet.
    ///
    /// # Errors
    /// [`StoreError::Unreachable`] if a URL is none.
    pub(super) fn new(config: &RedisConfig, keys: Keys) -> Result<Self, StoreError> {
        let clients = config
            .urls
            .iter()
            .map(|url| Client::open(url.as_str()).map_err(|error| error_of(&error)));
        let fingerprint = blake3::derive_key("bt_lite 2026 key of a shared store", &config.key);
        Ok(Self {
            clients: clients.collect::<Result<_, _>>()?,
            patience: config.patience,
            keys,
            fingerprint: blake3::Hash::from_bytes(fingerprint).to_hex()[..16].to_owned(),
            state: Mutex::new(State {
                connection: None,
                serial: 0,
                at: 0,
                present: Present::default(),
                store: String::new(),
                lost_at: None,
            }),
            turns: Semaphore::new(MAX_UNDER_WAY),
            begun: Instant::now(),
            answered: AtomicU64::new(0),
            lost: Notify::new(),
            losses: AtomicU64::new(0),
            round_trips: AtomicU64::new(0),
            calls: AtomicU64::new(0),
        })
    }

    /// What is true of the store, as far as is known.
    pub(super) fn present(&self) -> Present {
        self.state().present
    }

    pub(super) fn set_totals(&self, totals: [u64; 3]) {
        self.state().present.totals = totals;
    }

    /// For how long the store has been away, if it is.
    pub(super) fn away(&self) -> Option<Duration> {
        Some(self.state().lost_at?.elapsed())
    }

    pub(super) fn is_connected(&self) -> bool {
        self.state().connection.is_some()
    }

    /// How often the store was lost, how many pipelines were sent to it, and how many calls.
    pub(super) fn counts(&self) -> [u64; 3] {
        [&self.losses, &self.round_trips, &self.calls].map(|count| count.load(Ordering::Relaxed))
    }

    /// Makes calls in one round trip, in their order. Whatever the store refuses for a reason
    /// of its own is answered with nothing.
    ///
    /// Cancel safe: if it is dropped, the calls may have been made.
    pub(super) async fn run(&self, calls: &[Call]) -> Result<Vec<Value>, Lost> {
        let Ok(_turn) = self.turns.acquire().await else {
            return Err(Lost);
        };
        let (connection, serial) = {
            let state = self.state();
            (state.connection.clone(), state.serial)
        };
        let Some(mut connection) = connection else {
            return Err(Lost);
        };
        let exchanged = self.exchange(&mut connection, calls).await;
        exchanged.map_err(|error| match error {
            // Others are answered: it is busy, and not away.
            None if self.has_answered_lately() => Lost,
            None => self.lose(serial, &self.silence()),
            Some(error) => self.lose(serial, &error),
        })
    }

    /// Fails with nothing if there is no answer in time.
    async fn exchange(
        &self,
        connection: &mut MultiplexedConnection,
        calls: &[Call],
    ) -> Result<Vec<Value>, Option<StoreError>> {
        let calls: Vec<&Call> = calls.iter().collect();
        let mut answers = self.send(connection, &calls).await?;
        let is_unknown = |answer: &Result<Value, RedisError>| {
            let error = answer.as_ref().err();
            error.is_some_and(|error| error.kind() == ErrorKind::Server(ServerErrorKind::NoScript))
        };
        let unknown = (0..).zip(&answers);
        let unknown = unknown.filter(|(_, answer)| is_unknown(answer));
        let unknown: Vec<usize> = unknown.map(|(at, _)| at).collect();
        if !unknown.is_empty() {
            // Somebody has had it forget its scripts. None of these calls was made.
            let load = Call::load_all();
            let mut again: Vec<&Call> = load.iter().collect();
            again.extend(unknown.iter().map(|&at| calls[at]));
            let answered = self.send(connection, &again).await?.into_iter();
            for (&at, answer) in unknown.iter().zip(answered.skip(load.len())) {
                answers[at] = answer;
            }
        }
        let mut values = Vec::with_capacity(answers.len());
        for answer in answers {
            values.push(match answer {
                Ok(value) => value,
                Err(error) => match loss_of(&error) {
                    Some(loss) => return Err(Some(loss)),
                    None => {
                        warn!(%error, "the store refuses a call");
                        Value::Nil
                    }
                },
            });
        }
        Ok(values)
    }

    async fn send(
        &self,
        connection: &mut MultiplexedConnection,
        calls: &[&Call],
    ) -> Result<Vec<Result<Value, RedisError>>, Option<StoreError>> {
        self.round_trips.fetch_add(1, Ordering::Relaxed);
        self.calls.fetch_add(calls.len() as u64, Ordering::Relaxed);
        metrics::count(metrics::store::CALLS, calls.len() as u64);
        let timer = Timer::start();
        let mut pipe = redis::Pipeline::with_capacity(calls.len());
        pipe.ignore_errors();
        for call in calls {
            pipe.add_command(call.cmd().clone());
        }
        let answers = timeout(self.patience, pipe.query_async(connection)).await;
        timer.record(metrics::store::ROUND_TRIP);
        match answers {
            Ok(Ok(answers)) => {
                let now = self.begun.elapsed().as_millis() as u64;
                self.answered.fetch_max(now, Ordering::Relaxed);
                Ok(answers)
            }
            Ok(Err(error)) => Err(Some(error_of(&error))),
            Err(_) => Err(None),
        }
    }

    /// Whether anything was answered within the time that one answer may take.
    fn has_answered_lately(&self) -> bool {
        let answered = Duration::from_millis(self.answered.load(Ordering::Relaxed));
        self.begun.elapsed().saturating_sub(answered) < self.patience
    }

    fn silence(&self) -> StoreError {
        StoreError::Unreachable {
            message: format!("no answer within {:?}", self.patience),
        }
    }

    /// Notes that a connection is of no use.
    fn lose(&self, serial: u64, error: &StoreError) -> Lost {
        let mut state = self.state();
        if state.serial == serial && state.connection.take().is_some() {
            state.lost_at = Some(Instant::now());
            self.losses.fetch_add(1, Ordering::Relaxed);
            metrics::count(metrics::store::LOSSES, 1);
            metrics::set(metrics::store::UP, 0);
            warn!(%error, "the store is lost: answering from what is known of it");
            self.lost.notify_one();
        }
        Lost
    }

    /// Connects to the first of the URLs that leads to a store that accepts changes. Returns
    /// whether it is another store than before.
    ///
    /// # Errors
    /// What the last of them has said.
    pub(super) async fn connect(&self) -> Result<(), StoreError> {
        let first = self.state().at;
        let mut last = None;
        for turn in 0..self.clients.len() {
            let at = (first + turn) % self.clients.len();
            match self.open(&self.clients[at]).await {
                Ok(opened) => {
                    self.opened(at, opened);
                    return Ok(());
                }
                Err(error @ (StoreError::Schema { .. } | StoreError::Key)) => return Err(error),
                Err(error) => last = Some(error),
            }
        }
        Err(last.unwrap_or(StoreError::Unreachable {
            message: "there is no URL".into(),
        }))
    }

    fn opened(&self, at: usize, opened: Opened) {
        let mut state = self.state();
        if state.lost_at.take().is_some() {
            let is_same = state.store == opened.store;
            info!(is_same, "the store is back");
        }
        state.serial += 1;
        state.at = at;
        state.store = opened.store;
        state.present.epoch = opened.epoch;
        state.present.founded = opened.founded;
        state.connection = Some(opened.connection);
        metrics::set(metrics::store::UP, 1);
    }

    async fn open(&self, client: &Client) -> Result<Opened, StoreError> {
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(self.patience))
            .set_response_timeout(None);
        let connected = client.get_multiplexed_async_connection_with_config(&config);
        let connected = timeout(self.patience, connected).await;
        let mut connection = match connected {
            Ok(connected) => connected.map_err(|error| error_of(&error))?,
            Err(_) => {
                let message = format!("no connection within {:?}", self.patience);
                return Err(StoreError::Unreachable { message });
            }
        };
        let mut calls = Self::info_calls().to_vec();
        calls.extend(Call::load_all());
        let silent = |error: Option<_>| error.unwrap_or_else(|| self.silence());
        let info = self.exchange(&mut connection, &calls).await;
        let info = info.map_err(silent)?;
        let info = &info_of(&info);
        if field(info, "role") == Some("slave") {
            return Err(StoreError::ReadOnly {
                message: "it is a replica".into(),
            });
        }
        let id = getrandom::u64().map_err(|error| StoreError::Unreachable {
            message: error.to_string(),
        })?;
        let meta = Call::new(Script::Meta, &[self.keys.meta()])
            .arg(SCHEMA)
            .arg(format!("{id:016x}"))
            .arg(&self.fingerprint);
        let meta = self
            .exchange(&mut connection, &[meta])
            .await
            .map_err(silent)?;
        let meta = meta.first().map_or(&[][..], parts);
        let [schema, store, key, founded] = meta else {
            let found = "of another kind".into();
            let expected = SCHEMA;
            return Err(StoreError::Schema { found, expected });
        };
        if text(schema) != Some(SCHEMA) {
            return Err(StoreError::Schema {
                found: text(schema).unwrap_or("of another kind").to_owned(),
                expected: SCHEMA,
            });
        }
        if text(key) != Some(&self.fingerprint) {
            return Err(StoreError::Key);
        }
        let store = text(store).unwrap_or_default().to_owned();
        Ok(Opened {
            connection,
            epoch: epoch_of(&store, info),
            founded: number(founded).unwrap_or(0),
            store,
        })
    }

    /// What a store is asked of itself.
    pub(super) fn info_calls() -> [Call; 2] {
        ["server", "replication"].map(|section| Call::command("INFO").arg(section))
    }

    /// Looks whether the store is still what it was, from what it says of itself:
    /// one that was promoted, or that has started again, may have lost the last moments.
    pub(super) fn check(&self, info: &[Value]) {
        let info = &info_of(info);
        let serial = self.state().serial;
        if field(info, "role") == Some("slave") {
            let message = "it is a replica by now".into();
            self.lose(serial, &StoreError::ReadOnly { message });
            return;
        }
        let mut state = self.state();
        let epoch = epoch_of(&state.store, info);
        if state.connection.is_some() && state.present.epoch != epoch {
            state.present.epoch = epoch;
            info!("the history of the store has changed");
        }
    }

    /// Ignores poison: no change under this lock is left half done.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// All that the store says of itself.
fn info_of(answers: &[Value]) -> String {
    let sections = answers.iter().take(2).filter_map(text);
    sections.collect::<Vec<_>>().join("\n")
}

/// A field of what INFO says.
fn field<'a>(info: &'a str, name: &str) -> Option<&'a str> {
    let mut lines = info.lines();
    lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(':').map(str::trim))
}

/// What trackers tell as their epoch: the same for all of one store, and another one when the
/// store has another history.
fn epoch_of(store: &str, info: &str) -> u64 {
    // Another process, or the same one which has been a replica meanwhile. (Its own
    // `master_replid` changes when the first replica comes as well.)
    let history = ["run_id", "master_replid2"].map(|name| field(info, name).unwrap_or_default());
    let hash = blake3::hash(format!("{store} {}", history.join(" ")).as_bytes());
    let (first, _) = hash
        .as_bytes()
        .split_first_chunk::<8>()
        .unwrap_or((&[0; 8], &[]));
    u64::from_be_bytes(*first)
}

/// The error after which there is no use in a connection, if it is one.
fn loss_of(error: &RedisError) -> Option<StoreError> {
    let message = error.to_string();
    let code = error.code().unwrap_or_default();
    // Older stores wrap what a script has run into.
    if code == "OOM" || message.contains("OOM command not allowed") {
        return Some(StoreError::Full { message });
    }
    let read_only = ["READONLY", "MISCONF", "NOREPLICAS"];
    if read_only.contains(&code) || message.contains("READONLY") || message.contains("MISCONF") {
        return Some(StoreError::ReadOnly { message });
    }
    let lost = [
        "LOADING",
        "BUSY",
        "MASTERDOWN",
        "CLUSTERDOWN",
        "NOAUTH",
        "NOPERM",
        "MOVED",
    ];
    match error.kind() {
        ErrorKind::Server(_) | ErrorKind::Extension if !lost.contains(&code) => None,
        _ => Some(StoreError::Unreachable { message }),
    }
}

fn error_of(error: &RedisError) -> StoreError {
    loss_of(error).unwrap_or_else(|| StoreError::Unreachable {
        message: error.to_string(),
    })
}
