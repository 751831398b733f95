//! BitTorrent clients over HTTP: connections, and what is said on them.
//!
//! The parser and the keeping of connections are those of hyper. The connections have
//! places among those of the tracker ([`Admission`](super::super::admission::Admission)),
//! and a silent one gives way as all others do.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{ALLOW, CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tracing::{Instrument, debug, info_span, warn};

use super::super::admission::{Decision, Permit};
use super::super::service::{ACCEPT_PAUSES, SHUTDOWN_TIMEOUT, Service};
use super::answers::Source;
use super::forwarded;
use crate::bittorrent::tracker::http::{
    AnnounceQuery, MAX_QUERY_LEN, QueryError, Refusal, RetryIn, ScrapeAnswer, ScrapeQuery,
};
use crate::protocol::limits::HANDSHAKE_TIMEOUT;
use crate::protocol::{self, Addr};
use crate::tracker::registry::TorrentAnnounce;
use crate::transport::{ByteStream, StreamListener, TcpAcceptor, TransportError};

/// The maximum length of the head of a request in bytes: its query, and as much again for
/// what browsers and proxies add.
const MAX_HEAD_LEN: usize = 2 * MAX_QUERY_LEN;

/// How many header fields a request may have. Clients send about five.
const MAX_HEADERS: usize = 64;

/// How long a connection is kept after a request. Clients announce a torrent after half an
/// hour again, so this is for those with several, and for proxies.
const KEPT_ALIVE: Duration = Duration::from_secs(60);

/// After how many minutes those may ask again who have asked too often, or come while the
/// tracker cannot tell.
const RETRY_MINUTES: u32 = 1;

/// The field in which a proxy says for whom it asks.
const FORWARDED_FOR: &str = "x-forwarded-for";

/// Accepts connections until the tracker takes no more.
pub(super) async fn accept(service: Arc<Service>, mut listener: TcpAcceptor) {
    let mut pause = ACCEPT_PAUSES.0;
    loop {
        let accepted = tokio::select! {
            () = service.draining.cancelled() => return,
            accepted = listener.accept_stream() => accepted,
        };
        let stream = match accepted {
            Ok(stream) => stream,
            Err(TransportError::Closed) => return,
            Err(error) => {
                warn!(%error, ?pause, "cannot accept HTTP connections");
                tokio::select! {
                    () = service.draining.cancelled() => return,
                    () = sleep(pause) => {}
                }
                pause = (2 * pause).min(ACCEPT_PAUSES.1);
                continue;
            }
        };
        pause = ACCEPT_PAUSES.0;
        let span = info_span!("tracker_http", peer = %stream.remote);
        let is_proxy = is_proxy(&service, &stream.remote);
        let permit = match service.admission.admit_as(&stream.remote, is_proxy) {
            Decision::Serve(permit) => permit,
            // It sees the end of the connection, and comes again.
            Decision::TurnAway(_) | Decision::Drop => continue,
        };
        let serve = serve(service.clone(), stream, is_proxy, permit);
        service.connections.spawn(serve.instrument(span));
    }
}

fn is_proxy(service: &Service, remote: &Addr) -> bool {
    let ip = remote.socket_addr().map(|addr| addr.ip().to_canonical());
    ip.is_some_and(|ip| service.torrents.trusted_proxies.contains(&ip))
}

/// One connection.
struct Conversation {
    service: Arc<Service>,
    source: Source,
    /// Whether its requests come from others, as they say.
    is_proxy: bool,
    permit: Permit,
    /// When it has asked last.
    asked: Mutex<Option<Instant>>,
}

/// Answers requests until the client goes or is silent for too long, or the tracker stops.
async fn serve(
    service: Arc<Service>,
    stream: ByteStream<TcpStream>,
    is_proxy: bool,
    permit: Permit,
) {
    let conversation = Conversation {
        service: service.clone(),
        source: Source {
            remote: stream.remote,
            local: stream.local,
        },
        is_proxy,
        permit,
        asked: Mutex::default(),
    };
    let answer = service_fn(|request| async {
        let response = conversation.answer(request).await;
        Ok::<_, Infallible>(response)
    });
    let connection = http1::Builder::new()
        .max_buf_size(MAX_HEAD_LEN)
        .max_header_size(MAX_HEAD_LEN)
        .max_headers(MAX_HEADERS)
        .serve_connection(TokioIo::new(stream.io), answer);
    let mut connection = pin!(connection);
    let mut end = Instant::now() + HANDSHAKE_TIMEOUT;
    loop {
        tokio::select! {
            biased;
            ended = connection.as_mut() => {
                if let Err(error) = ended {
                    debug!(%error, "HTTP connection ended");
                }
                return;
            }
            () = service.draining.cancelled() => break,
            () = conversation.permit.revoked() => return,
            // An answer that nobody reads does not keep it either.
            () = sleep_until(end) => match conversation.asked() {
                Some(asked) if asked + KEPT_ALIVE > end => end = asked + KEPT_ALIVE,
                _ => return,
            }
        }
    }
    connection.as_mut().graceful_shutdown();
    let _ = timeout(SHUTDOWN_TIMEOUT, connection).await;
}

impl Conversation {
    fn asked(&self) -> Option<Instant> {
        *self.asked.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn answer(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        *self.asked.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
        self.permit.keep();
        if request.method() != Method::GET {
            let mut response = of_status(StatusCode::METHOD_NOT_ALLOWED);
            let headers = response.headers_mut();
            headers.insert(ALLOW, HeaderValue::from_static("GET"));
            return response;
        }
        let query = request.uri().query().unwrap_or_default();
        let is_announce = match request.uri().path() {
            "/announce" => true,
            "/scrape" => false,
            _ => return of_status(StatusCode::NOT_FOUND),
        };
        let Some(source) = self.source_of(&request) else {
            return of_status(StatusCode::BAD_GATEWAY);
        };
        if !self.service.is_in_pace(&source) {
            return body(refusal("too many requests", Some(RETRY_MINUTES)));
        }
        match is_announce {
            true => body(self.announce(&source, query).await),
            false => body(self.scrape(&source, query).await),
        }
    }

    /// Who asks. The port is that of the connection, which says nothing.
    fn source_of(&self, request: &Request<Incoming>) -> Option<Source> {
        if !self.is_proxy {
            return Some(self.source.clone());
        }
        let values = request.headers().get_all(FORWARDED_FOR).iter();
        let values: Vec<&str> = values.map(|value| value.to_str().unwrap_or("")).collect();
        let ip = forwarded::client(values.into_iter(), &self.service.torrents.trusted_proxies)?;
        let port = self.source.remote.socket_addr()?.port();
        Some(Source {
            remote: SocketAddr::new(ip, port).into(),
            // Where the proxy has reached the tracker is not where others do.
            local: None,
        })
    }

    async fn announce(&self, source: &Source, query: &str) -> Vec<u8> {
        let query = match AnnounceQuery::from_query(query) {
            Ok(query) => query,
            Err(error) => return self.malformed(&error),
        };
        let announce = TorrentAnnounce::from(&query);
        match (self.service.announce(source, &announce).await, source.ip()) {
            (Ok(answer), Some(ip)) => answer.to_http(ip).encode(query.form),
            (Ok(_), None) => refusal("there is no address to list", None),
            (Err(error), _) => {
                let is_passing = error == protocol::Refusal::Busy;
                refusal(&error.to_string(), is_passing.then_some(RETRY_MINUTES))
            }
        }
    }

    async fn scrape(&self, source: &Source, query: &str) -> Vec<u8> {
        let query = match ScrapeQuery::from_query(query) {
            Ok(query) => query,
            Err(error) => return self.malformed(&error),
        };
        let figures = self.service.scrape(source, &query.info_hashes).await;
        let known = query.info_hashes.into_iter().zip(figures);
        let files = known.filter_map(|(hash, of)| Some((hash, of?)));
        let answer = ScrapeAnswer {
            files: files.collect(),
            ..ScrapeAnswer::default()
        };
        answer.encode()
    }

    fn malformed(&self, error: &QueryError) -> Vec<u8> {
        debug!(%error, "malformed request");
        self.service.refuse_malformed();
        let reason = error.to_string();
        let retry_in = Some(RetryIn::Never);
        Refusal { reason, retry_in }.encode()
    }
}

/// Clients show the reason to people.
fn refusal(reason: &str, minutes: Option<u32>) -> Vec<u8> {
    Refusal {
        reason: reason.to_owned(),
        retry_in: minutes.map(RetryIn::Minutes),
    }
    .encode()
}

/// Refusals have the status of success as well: clients show their reason only then.
fn body(body: Vec<u8>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    response
}

fn of_status(status: StatusCode) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::default());
    *response.status_mut() = status;
    response
}
