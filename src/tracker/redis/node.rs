//! One server of the store: a connection to it, what it says of itself, and calls that go to
//! it together. It knows neither slots nor what the calls are about.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, ErrorKind, RedisError, ServerErrorKind, Value};
use tokio::time::{Instant, timeout};
use tracing::warn;

use super::config::StoreError;
use super::scripts::Call;
use super::values::text;
use crate::metrics::{self, Timer};

/// What has become of one call.
#[derive(Debug)]
pub(super) enum Answer {
    /// It was made, or refused for a reason of its own, which is nothing.
    Value(Value),
    /// Another node is to be asked, as it says here: from now on, as the slot has moved there,
    /// or this time, as it is moving.
    Elsewhere { to: String, has_moved: bool },
    /// Its keys are on their way to another node.
    Again,
}

/// How this tracker speaks to servers.
#[derive(Debug)]
pub(super) struct Wire {
    pub(super) patience: Duration,
    begun: Instant,
    round_trips: AtomicU64,
    calls: AtomicU64,
}

impl Wire {
    pub(super) fn new(patience: Duration) -> Self {
        Self {
            patience,
            begun: Instant::now(),
            round_trips: AtomicU64::new(0),
            calls: AtomicU64::new(0),
        }
    }

    /// How many pipelines were sent, and how many calls.
    pub(super) fn counts(&self) -> [u64; 2] {
        [&self.round_trips, &self.calls].map(|count| count.load(Ordering::Relaxed))
    }

    /// Connects to a server.
    ///
    /// # Errors
    /// [`StoreError::Unreachable`].
    pub(super) async fn connect(
        &self,
        client: &Client,
    ) -> Result<MultiplexedConnection, StoreError> {
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(self.patience))
            .set_response_timeout(None);
        let connected = client.get_multiplexed_async_connection_with_config(&config);
        match timeout(self.patience, connected).await {
            Ok(connected) => connected.map_err(|error| error_of(&error)),
            Err(_) => Err(StoreError::Unreachable {
                message: format!("no connection within {:?}", self.patience),
            }),
        }
    }

    /// Gives a server all scripts. Returns what it says of itself.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(super) async fn greet(
        &self,
        connection: &mut MultiplexedConnection,
    ) -> Result<Info, StoreError> {
        let mut calls = Info::calls(0).to_vec();
        calls.extend(Call::load_all());
        let answers = self.ask(connection, &calls).await?;
        Ok(Info::of(&answers))
    }

    /// Makes calls for which no redirection is expected.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(super) async fn ask(
        &self,
        connection: &mut MultiplexedConnection,
        calls: &[Call],
    ) -> Result<Vec<Value>, StoreError> {
        let calls: Vec<&Call> = calls.iter().collect();
        let silent = |error: Option<_>| error.unwrap_or_else(|| self.silence());
        let nobody = AtomicU64::new(0);
        let answered = self.exchange(connection, &calls, false, &nobody).await;
        let answers = answered.map_err(silent)?.into_iter();
        let values = answers.map(|answer| match answer {
            Answer::Value(value) => Ok(value),
            Answer::Elsewhere { .. } | Answer::Again => Err(StoreError::Unreachable {
                message: "its slots are moving".into(),
            }),
        });
        values.collect()
    }

    /// Makes calls in one round trip, in their order. `is_asking` says that they were led here
    /// for this time. Notes in `answered` that there was an answer.
    ///
    /// # Errors
    /// Why there is no use in the connection; nothing, if there is no answer in time.
    pub(super) async fn exchange(
        &self,
        connection: &mut MultiplexedConnection,
        calls: &[&Call],
        is_asking: bool,
        answered: &AtomicU64,
    ) -> Result<Vec<Answer>, Option<StoreError>> {
        let mut answers = self.send(connection, calls, is_asking, answered).await?;
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
            let load: Vec<&Call> = load.iter().collect();
            self.send(connection, &load, false, answered).await?;
            let again: Vec<&Call> = unknown.iter().map(|&at| calls[at]).collect();
            let made = self.send(connection, &again, is_asking, answered).await?;
            for (&at, answer) in unknown.iter().zip(made) {
                answers[at] = answer;
            }
        }
        let answers = answers.into_iter().map(|answer| match answer {
            Ok(value) => Ok(Answer::Value(value)),
            Err(error) => answer_of(&error).map_err(Some),
        });
        answers.collect()
    }

    async fn send(
        &self,
        connection: &mut MultiplexedConnection,
        calls: &[&Call],
        is_asking: bool,
        answered: &AtomicU64,
    ) -> Result<Vec<Result<Value, RedisError>>, Option<StoreError>> {
        self.round_trips.fetch_add(1, Ordering::Relaxed);
        self.calls.fetch_add(calls.len() as u64, Ordering::Relaxed);
        metrics::count(metrics::store::CALLS, calls.len() as u64);
        let timer = Timer::start();
        let mut pipe = redis::Pipeline::with_capacity(calls.len());
        pipe.ignore_errors();
        for call in calls {
            if is_asking {
                pipe.cmd("ASKING").ignore();
            }
            pipe.add_command(call.cmd().clone());
        }
        let answers = timeout(self.patience, pipe.query_async(connection)).await;
        timer.record(metrics::store::ROUND_TRIP);
        match answers {
            Ok(Ok(answers)) => {
                let now = self.begun.elapsed().as_millis() as u64;
                answered.fetch_max(now, Ordering::Relaxed);
                Ok(answers)
            }
            Ok(Err(error)) => Err(Some(error_of(&error))),
            Err(_) => Err(None),
        }
    }

    /// Whether anything was answered within the time that one answer may take.
    pub(super) fn is_lately(&self, answered: &AtomicU64) -> bool {
        let answered = Duration::from_millis(answered.load(Ordering::Relaxed));
        self.begun.elapsed().saturating_sub(answered) < self.patience
    }

    pub(super) fn silence(&self) -> StoreError {
        StoreError::Unreachable {
            message: format!("no answer within {:?}", self.patience),
        }
    }
}

/// What a server says of itself.
#[derive(Debug)]
pub(super) struct Info(String);

impl Info {
    /// What the server with this number is asked for it.
    pub(super) fn calls(node: usize) -> [Call; 2] {
        ["server", "replication"].map(|section| Call::to_node(node, &["INFO", section]))
    }

    /// The answers to these.
    pub(super) fn of(answers: &[Value]) -> Self {
        let sections = answers.iter().take(2).filter_map(text);
        Self(sections.collect::<Vec<_>>().join("\n"))
    }

    fn field(&self, name: &str) -> Option<&str> {
        let mut lines = self.0.lines();
        lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(':').map(str::trim))
    }

    pub(super) fn is_replica(&self) -> bool {
        self.field("role") == Some("slave")
    }

    /// Whether it is one of a cluster.
    pub(super) fn is_of_cluster(&self) -> bool {
        let mode = self.field("redis_mode").or(self.field("server_mode"));
        mode == Some("cluster")
    }

    /// What changes when it may have lost its last moments.
    pub(super) fn history(&self) -> String {
        // Another process, or the same one which has been a replica meanwhile. (Its own
        // `master_replid` changes when the first replica comes as well.)
        let fields = ["run_id", "master_replid2"];
        fields
            .map(|name| self.field(name).unwrap_or_default())
            .join(" ")
    }
}

/// What follows from an error of one call.
///
/// # Errors
/// That after which there is no use in the connection.
fn answer_of(error: &RedisError) -> Result<Answer, StoreError> {
    match (error.kind(), error.redirect_node()) {
        (ErrorKind::Server(ServerErrorKind::TryAgain), _) => return Ok(Answer::Again),
        (kind, Some((to, _))) => {
            return Ok(Answer::Elsewhere {
                to: to.to_owned(),
                has_moved: kind == ErrorKind::Server(ServerErrorKind::Moved),
            });
        }
        _ => {}
    }
    match loss_of(error) {
        Some(loss) => Err(loss),
        None => {
            warn!(%error, "the store refuses a call");
            Ok(Answer::Value(Value::Nil))
        }
    }
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
