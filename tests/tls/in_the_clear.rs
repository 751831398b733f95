//! One side speaks TLS and the other does not: both are told so, and that only a person can
//! change it.

use std::error::Error;

use bt_lite::transport::auth::{AllowedKeys, Authenticator, Identity, Secret, Trust};
use bt_lite::transport::{AuthError, TlsTransport};
use bt_lite::{
    Addr, Advice, ErrorKind, MemoryNetwork, MemoryStorage, Peer, StartError, TcpTransport, Tracker,
    TrackerError, Transport, TransportError,
};
use futures::{SinkExt, StreamExt};

use crate::authority::{Authority, Validity};
use crate::outsiders::Clear;
use crate::recorder::Recorded;

/// A transport of each kind.
struct Side {
    clear: Box<dyn Transport>,
    tls: Box<dyn Transport>,
}

fn trust() -> (Identity, Trust) {
    (Identity::generate().unwrap(), Trust::Secret(secret()))
}

fn secret() -> Secret {
    Secret::from_bytes(&[7; 32]).unwrap()
}

fn auth((identity, trust): (Identity, Trust)) -> Authenticator {
    Authenticator::new(identity, trust).unwrap()
}

fn memory(network: &MemoryNetwork, name: &str) -> Side {
    Side {
        clear: Box::new(Clear(Recorded::new(network.endpoint(name)))),
        tls: Box::new(TlsTransport::new(network.endpoint(name), auth(trust()))),
    }
}

fn tcp() -> Side {
    Side {
        clear: Box::new(TcpTransport::new()),
        tls: Box::new(TlsTransport::new(TcpTransport::new(), auth(trust()))),
    }
}

/// Asserts that an error is that of a person to mend, and says so in words of this crate.
fn expect_asks(error: &TransportError, text: &str) {
    assert_eq!(error.advice(), Advice::AskUser, "{error}");
    assert!(!error.is_transient());
    assert_eq!(error.to_string(), text);
}

const SPEAKS_TLS: &str = "the other side speaks TLS, and this side does not";
const NOT_TLS: &str = "the other side does not speak TLS, and this side does: set both to the \
                       same transport, or look whether this is its address";

/// Why a peer over this transport cannot register there.
async fn refusal(transport: Box<dyn Transport>, tracker: &Addr) -> TransportError {
    let started = Peer::builder(transport, MemoryStorage::new())
        .tracker(tracker)
        .start()
        .await;
    match started.unwrap_err() {
        error @ StartError::Tracker(_) => {
            assert_eq!(error.advice(), Advice::AskUser, "{error}");
            let StartError::Tracker(TrackerError::Unreachable { source, .. }) = error else {
                panic!("{error}");
            };
            source
        }
        other => panic!("{other}"),
    }
}

/// Both kinds of peers at both kinds of trackers and of peers.
async fn each_is_told(here: [Side; 2], there: [Side; 2], at: [&str; 2]) {
    let [tracker, owner] = there;
    let [first, second] = here;
    let clear = Tracker::builder(tracker.clear).bind(at[0]).await.unwrap();
    let error = refusal(first.tls, clear.local_addr()).await;
    expect_asks(&error, NOT_TLS);
    assert_eq!(error, TransportError::Auth(AuthError::NotTls));
    clear.shutdown().await;

    let tls = Tracker::builder(tracker.tls).bind(at[0]).await.unwrap();
    let error = refusal(first.clear, tls.local_addr()).await;
    expect_asks(&error, SPEAKS_TLS);
    assert_eq!(error.kind(), "speaks_tls");
    tls.shutdown().await;

    // The same at a peer that listens.
    let clear = Peer::builder(owner.clear, MemoryStorage::new()).listen(at[1]);
    let clear = clear.start().await.unwrap();
    let error = second.tls.connect(clear.local_addr().unwrap()).await;
    expect_asks(&error.err().unwrap(), NOT_TLS);
    clear.shutdown().await;

    let tls = Peer::builder(owner.tls, MemoryStorage::new()).listen(at[1]);
    let tls = tls.start().await.unwrap();
    let connection = second.clear.connect(tls.local_addr().unwrap()).await;
    let mut connection = connection.unwrap();
    let frame = bt_lite::protocol::Frame::head("hello");
    connection.sink.send(frame).await.unwrap();
    let error = connection.stream.next().await.unwrap().unwrap_err();
    expect_asks(&error, SPEAKS_TLS);
    tls.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn each_side_is_told_what_the_other_does_not_speak() {
    let network = MemoryNetwork::new(1);
    let side = |name| memory(&network, name);
    let (here, there) = ([side("a"), side("b")], [side("tracker"), side("owner")]);
    each_is_told(here, there, ["memory:tracker", "memory:owner"]).await;
}

#[tokio::test]
async fn each_side_is_told_what_the_other_does_not_speak_over_tcp() {
    let there = "127.0.0.1:0";
    each_is_told([tcp(), tcp()], [tcp(), tcp()], [there, there]).await;
}

/// Why a member of one swarm cannot register at the tracker of another one.
async fn turned_away(tracker: (Identity, Trust), peer: (Identity, Trust)) -> TransportError {
    let network = MemoryNetwork::new(1);
    let there = TlsTransport::new(network.endpoint("tracker"), auth(tracker));
    let tracker = Tracker::builder(there).bind("memory:tracker").await;
    let tracker = tracker.unwrap();
    let here = TlsTransport::new(network.endpoint("peer"), auth(peer));
    let error = refusal(Box::new(here), tracker.local_addr()).await;
    tracker.shutdown().await;
    error
}

#[tokio::test(start_paused = true)]
async fn wrong_secret_key_or_certificate_is_told_in_words_and_asks_a_person() {
    let new = || Identity::generate().unwrap();
    let (ca, other) = (Authority::new("the cluster"), Authority::new("another"));
    let of = |authority: &Authority, serial, validity| {
        let identity = authority.member(serial, validity);
        (identity, Trust::Ca(authority.ca()))
    };
    let (tracker, stranger, known) = (new(), new(), ca.member(1, Validity::Now));
    let only = |identity: &Identity| Trust::Keys(AllowedKeys::from_iter([identity.identity()]));
    let (by_tracker, by_known) = (only(&tracker), only(&known));
    let another = Secret::generate().unwrap();
    let cases = [
        (trust(), (new(), Trust::Secret(another)), "secret"),
        (
            (tracker, Trust::Keys(AllowedKeys::new())),
            (stranger, by_tracker),
            "allow",
        ),
        (
            of(&ca, 1, Validity::Now),
            of(&other, 2, Validity::Now),
            "authority",
        ),
        // An expired certificate cannot be an own one where certificates count.
        (
            (known, Trust::Ca(ca.ca())),
            (ca.member(2, Validity::Over), by_known),
            "expired",
        ),
    ];
    for (there, here, word) in cases {
        let error = turned_away(there, here).await;
        let text = error.to_string();
        assert!(text.contains(word) && !text.contains("://"), "{text}");
        assert_eq!(error.advice(), Advice::AskUser, "{text}");
        let source = error.source().expect("it has a source");
        assert!(source.is::<AuthError>(), "{source}");
    }
}
