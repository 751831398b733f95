//! What changes while a program runs: certificates, revocation lists, allowed keys.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Barrier;
use std::time::{Duration, SystemTime};

use bt_lite::protocol::Frame;
use bt_lite::transport::auth::{
    AllowedKeys, AuthSetupError, Authenticator, Ca, Identity, Secret, Trust,
};
use bt_lite::transport::{AuthError, Connection, TlsTransport};
use bt_lite::{Addr, MemoryNetwork, MemoryTransport, Transport, TransportError};
use futures::{SinkExt, StreamExt};
use rcgen::KeyPair;

use crate::authority::{Authority, Validity};
use crate::swarm::LONG;

/// The files of a member.
struct Files {
    dir: tempfile::TempDir,
    key: KeyPair,
    authority: Authority,
}

impl Files {
    fn new() -> Self {
        let files = Self {
            dir: tempfile::tempdir().unwrap(),
            key: KeyPair::generate().unwrap(),
            authority: Authority::new("the cluster"),
        };
        files.write("ca", &files.authority.pem());
        files.write("revoked", &files.authority.revocation_list(&[99]));
        files.write("certificate", &files.certificate(Validity::Now));
        files.write("key", &files.key.serialize_pem());
        files
    }

    fn certificate(&self, validity: Validity) -> String {
        self.authority.sign(&self.key, 1, validity)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        write(&self.path(name), text);
    }

    fn identity(&self) -> Result<Identity, AuthSetupError> {
        Identity::from_pem_files(self.path("certificate"), self.path("key"))
    }

    fn trust(&self) -> Trust {
        let ca = Ca::from_pem_file(self.path("ca"));
        Trust::Ca(ca.revoked_pem_file(self.path("revoked")))
    }

    fn authenticator(&self) -> Result<Authenticator, AuthSetupError> {
        Authenticator::new(self.identity()?, self.trust())
    }
}

fn write(path: &Path, text: &str) {
    fs::write(path, text).unwrap();
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        fs::set_permissions(path, PermissionsExt::from_mode(0o600)).unwrap();
    }
}

type Tls = TlsTransport<MemoryTransport>;

/// A connection from one transport to the other, both its ends.
async fn connection(from: &Tls, to: &Tls) -> (Connection, Connection) {
    let addr: Addr = "memory:to".parse().unwrap();
    let mut listener = to.listen(&addr).await.unwrap();
    let (here, there) = tokio::join!(from.connect(&addr), listener.accept());
    (here.unwrap(), there.unwrap())
}

/// Asserts that a frame gets through.
async fn expect_alive(here: &mut Connection, there: &mut Connection) {
    here.sink.send(Frame::head("hello")).await.unwrap();
    assert_eq!(next(there).await, Some(Ok(Frame::head("hello"))));
}

/// What comes next, in time.
async fn next(connection: &mut Connection) -> Option<Result<Frame, TransportError>> {
    let next = tokio::time::timeout(LONG, connection.stream.next()).await;
    next.expect("nothing comes")
}

#[tokio::test(start_paused = true)]
async fn revoked_certificate_ends_its_connections_and_opens_no_others() {
    let files = Files::new();
    let network = MemoryNetwork::new(1);
    let auth = files.authenticator().unwrap();
    let to = TlsTransport::new(network.endpoint("to"), auth.clone());
    let member = |serial| {
        let identity = files.authority.member(serial, Validity::Now);
        let trust = Trust::Ca(files.authority.ca());
        let auth = Authenticator::new(identity, trust).unwrap();
        TlsTransport::new(network.endpoint("from"), auth)
    };
    let (revoked, other) = (member(5), member(6));
    let (mut here, mut there) = connection(&revoked, &to).await;
    let (mut other_here, mut other_there) = connection(&other, &to).await;
    expect_alive(&mut here, &mut there).await;

    files.write("revoked", &files.authority.revocation_list(&[99, 5]));
    let (ended, reloaded) = tokio::join!(next(&mut there), async { auth.reload() });
    assert_eq!(reloaded, Ok(()));
    assert_eq!(ended, Some(Err(TransportError::Auth(AuthError::Revoked))));
    let sent = there.sink.send(Frame::head("more")).await;
    assert_eq!(sent, Err(TransportError::Auth(AuthError::Revoked)));
    expect_alive(&mut other_here, &mut other_there).await;
    drop((here, there));

    let addr: Addr = "memory:to".parse().unwrap();
    let mut listener = to.listen(&addr).await.unwrap();
    let accepting = tokio::spawn(async move { listener.accept().await.map(drop) });
    let mut again = revoked.connect(&addr).await.unwrap();
    let Some(Err(TransportError::Auth(AuthError::Refused { reason }))) = again.stream.next().await
    else {
        panic!("it is not refused");
    };
    assert_eq!(reason, "the certificate of this side was revoked");
    accepting.abort();
}

#[tokio::test(start_paused = true)]
async fn key_that_is_taken_out_ends_its_connections() {
    let network = MemoryNetwork::new(1);
    let new = || Identity::generate().unwrap();
    let (from, other, to) = (new(), new(), new());
    let [from_key, other_key, to_key] = [&from, &other, &to].map(Identity::identity);
    let keys = AllowedKeys::from_iter([from_key, other_key, to_key]);
    let tls = |name, identity, keys: &AllowedKeys| {
        let auth = Authenticator::new(identity, Trust::Keys(keys.clone())).unwrap();
        TlsTransport::new(network.endpoint(name), auth)
    };
    let theirs = AllowedKeys::from_iter([to_key]);
    let (from, other) = (tls("a", from, &theirs), tls("b", other, &theirs));
    let to = tls("to", to, &keys);
    let (mut here, mut there) = connection(&from, &to).await;
    let (mut other_here, mut other_there) = connection(&other, &to).await;
    expect_alive(&mut here, &mut there).await;
    assert!(keys.remove(&from_key));
    let unknown = TransportError::Auth(AuthError::UnknownKey(from_key));
    assert_eq!(next(&mut there).await, Some(Err(unknown)));
    expect_alive(&mut other_here, &mut other_there).await;
    // It is let in again.
    drop((here, there));
    assert!(keys.insert(from_key));
    let (mut here, mut there) = connection(&from, &to).await;
    expect_alive(&mut here, &mut there).await;
    keys.replace([other_key, to_key]);
    assert!(matches!(
        next(&mut there).await,
        Some(Err(TransportError::Auth(_)))
    ));
    expect_alive(&mut other_here, &mut other_there).await;
}

#[tokio::test(start_paused = true)]
async fn renewed_certificate_is_used_and_connections_go_on() {
    let files = Files::new();
    let network = MemoryNetwork::new(1);
    let auth = files.authenticator().unwrap();
    let to = TlsTransport::new(network.endpoint("to"), auth.clone());
    let member = || {
        let identity = files.authority.member(6, Validity::Now);
        let trust = Trust::Ca(files.authority.ca());
        let auth = Authenticator::new(identity, trust).unwrap();
        TlsTransport::new(network.endpoint("from"), auth)
    };
    let (mut here, mut there) = connection(&member(), &to).await;
    let before = auth.expires_at().unwrap();
    let far = SystemTime::now() + Duration::from_secs(3600 * 24 * 365);
    assert!(before > far, "{before:?}");

    // It serves with the new one: the old one is revoked by now.
    let renewed = files.authority.sign(&files.key, 7, Validity::Now);
    files.write("certificate", &renewed);
    assert_eq!(auth.reload(), Ok(()));
    expect_alive(&mut here, &mut there).await;
    let ca = files.authority.ca();
    let ca = ca.revoked_pem(&files.authority.revocation_list(&[1]));
    let identity = files.authority.member(8, Validity::Now);
    let strict = Authenticator::new(identity, Trust::Ca(ca)).unwrap();
    let strict = TlsTransport::new(network.endpoint("strict"), strict);
    let (mut here, mut there) = connection(&strict, &to).await;
    expect_alive(&mut here, &mut there).await;
    assert_eq!(here.identity, Some(auth.identity()));
}

#[tokio::test(start_paused = true)]
async fn files_that_cannot_be_used_change_nothing_and_are_reported() {
    let files = Files::new();
    let auth = files.authenticator().unwrap();
    let before = auth.expires_at();

    files.write("certificate", &files.certificate(Validity::Over));
    assert!(matches!(auth.reload(), Err(AuthSetupError::Expired { .. })));
    let other = KeyPair::generate().unwrap();
    let certificate = files.authority.sign(&other, 2, Validity::Now);
    files.write("certificate", &certificate);
    assert!(matches!(auth.reload(), Err(AuthSetupError::Key { .. })));
    files.write("key", &other.serialize_pem());
    assert_eq!(auth.reload(), Err(AuthSetupError::KeyChanged));
    files.write("certificate", "nonsense");
    assert!(matches!(auth.reload(), Err(AuthSetupError::Pem { .. })));
    fs::remove_file(files.path("ca")).unwrap();
    assert!(matches!(auth.reload(), Err(AuthSetupError::File { .. })));
    assert_eq!(auth.expires_at(), before);
}

#[test]
fn set_up_that_cannot_work_is_an_error_at_once() {
    let files = Files::new();
    let set_up = || files.authenticator().err().unwrap();

    files.write("certificate", &files.certificate(Validity::Over));
    let AuthSetupError::Expired { at, .. } = set_up() else {
        panic!("not the error of an expired certificate");
    };
    // The first of January 2021.
    let first = SystemTime::UNIX_EPOCH + Duration::from_secs(1_609_459_200);
    assert_eq!(at, first);
    files.write("certificate", &files.certificate(Validity::Now));
    files.write("revoked", "no list");
    let text = set_up().to_string();
    assert!(text.starts_with("revocation list in /"), "{text}");
    files.write("revoked", &files.authority.revocation_list(&[9]));
    files.write("ca", &files.key.serialize_pem());
    assert!(matches!(set_up(), AuthSetupError::Pem { .. }));
    fs::remove_file(files.path("key")).unwrap();
    assert!(matches!(set_up(), AuthSetupError::File { .. }));
}

#[tokio::test(start_paused = true)]
async fn watch_reloads_and_ends_with_its_last_handle() {
    let files = Files::new();
    let auth = files.authenticator().unwrap();
    let network = MemoryNetwork::new(1);
    let to = TlsTransport::new(network.endpoint("to"), auth.clone());
    let identity = files.authority.member(5, Validity::Now);
    let member = Authenticator::new(identity, Trust::Ca(files.authority.ca())).unwrap();
    let member = TlsTransport::new(network.endpoint("from"), member);
    let (here, mut there) = connection(&member, &to).await;
    let watch = tokio::spawn(auth.watch(Duration::from_secs(1)));
    files.write("revoked", &files.authority.revocation_list(&[5]));
    let ended = next(&mut there).await;
    assert_eq!(ended, Some(Err(TransportError::Auth(AuthError::Revoked))));
    drop((here, there, to));
    let ended = tokio::time::timeout(LONG, watch).await;
    ended.expect("it goes on").unwrap();
}

#[test]
fn reload_that_has_read_earlier_brings_nothing_back() {
    const ROUNDS: u64 = 12;
    // The first of January 2100.
    const FIRST: Duration = Duration::from_secs(4_102_444_800);
    let files = Files::new();
    let auth = files.authenticator().unwrap();
    let until = |n| SystemTime::UNIX_EPOCH + FIRST + Duration::from_secs(n);
    // It takes longer to read than the next one.
    let slow = "a line before the certificate\n".repeat(30_000);
    let slow = slow + &files.certificate(Validity::Now);
    for round in 0..ROUNDS {
        files.write("certificate", &slow);
        let renewed = files.certificate(Validity::Until(until(round)));
        files.write("new", &renewed);
        let both = Barrier::new(2);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                both.wait();
                auth.reload().unwrap();
            });
            both.wait();
            // At another moment of the other one in each round.
            for _ in 0..20_000 * round {
                std::hint::spin_loop();
            }
            fs::rename(files.path("new"), files.path("certificate")).unwrap();
            auth.reload().unwrap();
        });
        assert_eq!(auth.expires_at(), Some(until(round)), "round {round}");
    }
}

#[test]
fn time_of_the_own_certificate_is_no_matter_where_only_keys_count() {
    let files = Files::new();
    files.write("certificate", &files.certificate(Validity::Over));
    let keys = AllowedKeys::from_iter([files.identity().unwrap().identity()]);
    let secret = Secret::generate().unwrap();
    for trust in [Trust::Keys(keys), Trust::Secret(secret)] {
        let auth = Authenticator::new(files.identity().unwrap(), trust).unwrap();
        assert_eq!(auth.expires_at(), None);
        assert_eq!(auth.reload(), Ok(()));
    }
}
