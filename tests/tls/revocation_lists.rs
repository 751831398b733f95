//! Every list that is there counts, whenever it comes, and nothing that was revoked comes
//! back in silence.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use bt_lite::transport::auth::{AuthSetupError, Authenticator, Ca, Identity, Trust};
use bt_lite::transport::{AuthError, TlsTransport};
use bt_lite::{Addr, MemoryNetwork, MemoryTransport, Transport, TransportError};
use futures::StreamExt;

use crate::authority::{Authority, Validity};
use crate::warnings::{Warnings, warned};

type Tls = TlsTransport<MemoryTransport>;

/// A listener that has this trust, which others try to get in at.
struct Gate {
    network: MemoryNetwork,
    auth: Authenticator,
    to: Tls,
    /// The authorities, without their lists.
    ca: Ca,
}

impl Gate {
    /// With these authorities, and with lists.
    async fn new(authorities: &[&Authority], with: impl FnOnce(Ca) -> Ca) -> Self {
        let pem: String = authorities.iter().map(|one| one.pem()).collect();
        let ca = Ca::from_pem(&pem);
        let identity = authorities[0].member(1, Validity::Now);
        let auth = Authenticator::new(identity, Trust::Ca(with(ca.clone())));
        let (network, auth) = (MemoryNetwork::new(1), auth.unwrap());
        let to = TlsTransport::new(network.endpoint("to"), auth.clone());
        let mut listener = to.listen(&"memory:to".parse().unwrap()).await.unwrap();
        tokio::spawn(async move {
            let mut held = Vec::new();
            while let Ok(connection) = listener.accept().await {
                held.push(connection);
            }
        });
        Self {
            network,
            auth,
            to,
            ca,
        }
    }

    /// Whether one with this serial number of this authority is let in.
    async fn lets_in(&self, authority: &Authority, serial: u64) -> bool {
        let identity = authority.member(serial, Validity::Now);
        let member = Authenticator::new(identity, Trust::Ca(self.ca.clone())).unwrap();
        let member = TlsTransport::new(self.network.endpoint("from"), member);
        let addr: Addr = "memory:to".parse().unwrap();
        let before = self.to.stats();
        let connected = member.connect(&addr).await;
        let after = loop {
            let after = self.to.stats();
            if after.accepted + after.failed > before.accepted + before.failed {
                break after;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        };
        drop(connected);
        after.accepted > before.accepted
    }
}

struct Dir(tempfile::TempDir);

impl Dir {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn each_list_of_a_file_counts() {
    let (a, b) = (Authority::new("a"), Authority::new("b"));
    // Two of the same authority, and one of another behind them.
    let lists = a.revocation_list(&[5]) + &a.revocation_list(&[6]) + &b.revocation_list(&[7]);
    let gate = Gate::new(&[&a, &b], |ca| ca.revoked_pem(&lists)).await;
    for (authority, serial, is_in) in [
        (&a, 5, false),
        (&a, 6, false),
        (&a, 7, true),
        (&b, 7, false),
        (&b, 5, true),
    ] {
        assert_eq!(gate.lets_in(authority, serial).await, is_in, "{serial}");
    }
}

#[tokio::test(start_paused = true)]
async fn list_that_is_hidden_behind_the_end_of_another_is_an_error_and_keeps_what_was() {
    let (a, b) = (Authority::new("a"), Authority::new("b"));
    let (of_a, of_b) = (a.revocation_list(&[5]), b.revocation_list(&[5]));
    // As `cat` joins files whose last line has no end.
    let joined = of_b.trim_end().to_owned() + &of_a;
    let with = |lists: &str| {
        let ca = Ca::from_pem(&(a.pem() + &b.pem())).revoked_pem(lists);
        Authenticator::new(a.member(1, Validity::Now), Trust::Ca(ca))
    };
    let error = with(&joined).expect_err("one of them would be passed over");
    assert!(error.to_string().contains("own line"), "{error}");

    let dir = Dir::new();
    dir.write("revoked", &(of_a.clone() + &of_b));
    let gate = Gate::new(&[&a, &b], |ca| ca.revoked_pem_file(dir.path("revoked"))).await;
    dir.write("revoked", &joined);
    let error = gate.auth.reload().unwrap_err();
    assert!(error.to_string().contains("own line"), "{error}");
    assert!(!gate.lets_in(&a, 5).await && !gate.lets_in(&b, 5).await);
}

#[tokio::test(start_paused = true)]
async fn lists_of_two_authorities_with_one_name_count_each_for_its_own() {
    let (old, new) = (Authority::new("the cluster"), Authority::new("the cluster"));
    let lists = old.revocation_list(&[5]) + &new.revocation_list(&[6]);
    let gate = Gate::new(&[&old, &new], |ca| ca.revoked_pem(&lists)).await;
    for (authority, serial, is_in) in [
        (&old, 5, false),
        (&old, 6, true),
        (&new, 5, true),
        (&new, 6, false),
    ] {
        assert_eq!(gate.lets_in(authority, serial).await, is_in, "{serial}");
    }
}

#[test]
fn list_that_its_authority_has_not_signed_is_an_error_that_names_it() {
    let (authority, other) = (Authority::new("the cluster"), Authority::new("the cluster"));
    let dir = Dir::new();
    let lists = authority.revocation_list(&[5]) + &other.revocation_list(&[6]);
    dir.write("revoked", &lists);
    let ca = authority.ca().revoked_pem_file(dir.path("revoked"));
    let identity = authority.member(1, Validity::Now);
    let error = Authenticator::new(identity, Trust::Ca(ca)).err();
    let text = error.expect("nobody has signed it").to_string();
    let path = dir.path("revoked").display().to_string();
    for part in [path.as_str(), "list 2", "CN=the cluster", "signature"] {
        assert!(text.contains(part), "{part}: {text}");
    }
}

/// A list of an authority between, signed with SHA-1.
const BY_SHA_1: &str = "\
-----BEGIN X509 CRL-----
MIGnMFECAQEwCQYHKoZIzj0EATARMQ8wDQYDVQQDDAZtaWRkbGUXDTI2MTEzMDEy
MTUwNVoYDzIxMjYxMTA2MTIxNTA1WqAOMAwwCgYDVR0UBAMCAQEwCQYHKoZIzj0E
AQNHADBEAiAeWyA5tPvgCUiNbGja0+IQTsuezHLe1bd7fNcdsl9ilQIgdryIn8N8
E8tL2P8Q5dJLdxrLw91YScAdl7nozWns6aU=
-----END X509 CRL-----
";

#[test]
fn list_whose_signature_nobody_can_check_is_an_error_and_not_passed_over() {
    let authority = Authority::new("the cluster");
    let ca = authority.ca().revoked_pem(BY_SHA_1);
    let identity = authority.member(1, Validity::Now);
    let error = Authenticator::new(identity, Trust::Ca(ca)).err();
    let text = error.expect("it would revoke nobody").to_string();
    for part in ["list 1", "CN=middle", "algorithm", "SHA-256"] {
        assert!(text.contains(part), "{part}: {text}");
    }
}

#[test]
fn list_past_its_date_counts_and_is_told_unless_there_is_a_newer_one() {
    let authority = Authority::new("the cluster");
    let late = authority.revocation_list_until(&[5], 2022);
    let with = |lists: &str| {
        let ca = authority.ca().revoked_pem(lists);
        let identity = authority.member(1, Validity::Now);
        warned(|| Authenticator::new(identity, Trust::Ca(ca)).unwrap()).0
    };
    let told = with(&late);
    assert_eq!(told.len(), 1, "{told:?}");
    for part in ["CN=the cluster", "2022-01-01"] {
        assert!(told[0].contains(part), "{part}: {told:?}");
    }
    let newer = late + &authority.revocation_list(&[5]);
    assert_eq!(with(&newer), Vec::<String>::new());
}

#[test]
fn list_of_an_unknown_authority_is_told() {
    let (authority, other) = (Authority::new("the cluster"), Authority::new("another"));
    let ca = authority.ca().revoked_pem(&other.revocation_list(&[5]));
    let identity = authority.member(1, Validity::Now);
    let (told, _) = warned(|| Authenticator::new(identity, Trust::Ca(ca)).unwrap());
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(told[0].contains("CN=another"), "{told:?}");
}

#[tokio::test(start_paused = true)]
async fn list_of_an_authority_between_counts() {
    let root = Authority::new("root");
    let middle = root.below("middle");
    let list = middle.revocation_list(&[5]);
    let gate = Gate::new(&[&root], |ca| ca.revoked_pem(&list)).await;
    let member = |serial| {
        let key = rcgen::KeyPair::generate().unwrap();
        let chain = middle.sign(&key, serial, Validity::Now) + &middle.pem();
        let identity = Identity::from_pem(&chain, &key.serialize_pem()).unwrap();
        let auth = Authenticator::new(identity, Trust::Ca(root.ca())).unwrap();
        TlsTransport::new(gate.network.endpoint("from"), auth)
    };
    let addr: Addr = "memory:to".parse().unwrap();
    member(6).connect(&addr).await.unwrap();
    let told = match member(5).connect(&addr).await {
        Err(error) => error,
        Ok(mut connection) => connection.stream.next().await.unwrap().unwrap_err(),
    };
    let TransportError::Auth(AuthError::Refused { reason }) = told else {
        panic!("{told}");
    };
    assert!(reason.contains("revoked"), "{reason}");
}

#[tokio::test(start_paused = true)]
async fn list_that_comes_later_is_missed_aloud_and_counts_when_it_is_there() {
    let authority = Authority::new("the cluster");
    let dir = Dir::new();
    let warnings = Warnings::default();
    let recording = warnings.record();
    let gate = Gate::new(&[&authority], |ca| ca.revoked_pem_file(dir.path("revoked"))).await;
    drop(recording);
    let told = warnings.said();
    assert_eq!(told.len(), 1, "{told:?}");
    let path = dir.path("revoked").display().to_string();
    assert!(told[0].contains(&path), "{told:?}");

    assert!(gate.lets_in(&authority, 5).await);
    let watch = tokio::spawn(gate.auth.clone().watch(Duration::from_secs(1)));
    dir.write("revoked", &authority.revocation_list(&[5]));
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert!(!gate.lets_in(&authority, 5).await);
    assert!(gate.lets_in(&authority, 6).await);
    watch.abort();
}

#[tokio::test(start_paused = true)]
async fn list_that_vanishes_or_breaks_goes_on_counting_and_is_told() {
    let authority = Authority::new("the cluster");
    let dir = Dir::new();
    dir.write("first", &authority.revocation_list(&[5]));
    dir.write("second", &authority.revocation_list(&[6]));
    let gate = Gate::new(&[&authority], |ca| {
        let ca = ca.revoked_pem_file(dir.path("first"));
        ca.revoked_pem_file(dir.path("second"))
    })
    .await;
    assert_eq!(gate.auth.reload(), Ok(()));
    fs::remove_file(dir.path("first")).unwrap();
    // One that is gone does not keep another one from being read.
    dir.write("second", &authority.revocation_list(&[6, 7]));
    let error = gate.auth.reload().unwrap_err();
    assert!(matches!(error, AuthSetupError::File { .. }), "{error}");
    for serial in [5, 6, 7] {
        assert!(!gate.lets_in(&authority, serial).await, "{serial}");
    }
    // One that is broken does not bring back what it had.
    dir.write("second", "nonsense");
    dir.write("first", &authority.revocation_list(&[5, 8]));
    let error = gate.auth.reload().unwrap_err();
    assert!(matches!(error, AuthSetupError::Pem { .. }), "{error}");
    for serial in [5, 6, 7, 8] {
        assert!(!gate.lets_in(&authority, serial).await, "{serial}");
    }
    assert!(gate.lets_in(&authority, 9).await);
    // A new list of the same authority may name fewer.
    dir.write("second", &authority.revocation_list(&[6]));
    assert_eq!(gate.auth.reload(), Ok(()));
    assert!(gate.lets_in(&authority, 7).await);
}

#[tokio::test(start_paused = true)]
async fn list_that_vanishes_from_its_file_goes_on_counting_and_is_told() {
    let (a, b) = (Authority::new("a"), Authority::new("b"));
    let dir = Dir::new();
    let (of_a, of_b) = (a.revocation_list(&[5]), b.revocation_list(&[5]));
    dir.write("revoked", &(of_a.clone() + &of_b));
    let gate = Gate::new(&[&a, &b], |ca| ca.revoked_pem_file(dir.path("revoked"))).await;
    dir.write("revoked", &of_a);
    let warnings = Warnings::default();
    let recording = warnings.record();
    let watch = tokio::spawn(gate.auth.clone().watch(Duration::from_secs(1)));
    tokio::time::sleep(Duration::from_secs(3)).await;
    watch.abort();
    drop(recording);
    let told = warnings.said();
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(told[0].contains("CN=b"), "{told:?}");
    assert!(!gate.lets_in(&b, 5).await);
    assert!(gate.lets_in(&b, 6).await);
}

#[tokio::test(start_paused = true)]
async fn older_list_brings_back_nobody_whom_a_newer_one_has_revoked() {
    let authority = Authority::new("the cluster");
    let list = |serials: &[u64], of| authority.revocation_list_numbered(serials, of);
    let dir = Dir::new();
    // By its day, and on one day by its number.
    for older in [(2022, 3), (2023, 1)] {
        dir.write("revoked", &list(&[5], (2023, 2)));
        let gate = Gate::new(&[&authority], |ca| ca.revoked_pem_file(dir.path("revoked"))).await;
        dir.write("revoked", &list(&[6], older));
        let (told, reloaded) = warned(|| gate.auth.reload());
        assert_eq!((reloaded, told), (Ok(()), Vec::new()));
        for serial in [5, 6] {
            assert!(!gate.lets_in(&authority, serial).await, "{serial}");
        }
        // That it goes on counting is no matter of the order of what comes.
        dir.write("revoked", &list(&[6], older));
        assert_eq!(gate.auth.reload(), Ok(()));
        assert!(!gate.lets_in(&authority, 5).await);
        // A newer one may name fewer.
        dir.write("revoked", &list(&[6], (2024, 1)));
        assert_eq!(gate.auth.reload(), Ok(()));
        assert!(gate.lets_in(&authority, 5).await);
        assert!(!gate.lets_in(&authority, 6).await);
    }
}

#[tokio::test(start_paused = true)]
async fn list_that_is_left_out_beside_another_of_its_authority_goes_on_counting() {
    let authority = Authority::new("the cluster");
    let dir = Dir::new();
    let list = |serial, of| authority.revocation_list_numbered(&[serial], of);
    let part = |serial, of, part| authority.revocation_list_in_part(&[serial], of, part);
    for (of_5, of_6) in [
        (list(5, (2022, 1)), list(6, (2022, 1))),
        (list(5, (2023, 2)), list(6, (2022, 1))),
        (part(5, (2022, 1), "a"), part(6, (2023, 2), "b")),
        (list(5, (2022, 1)), part(6, (2023, 2), "b")),
    ] {
        dir.write("revoked", &(of_5.clone() + &of_6));
        let gate = Gate::new(&[&authority], |ca| ca.revoked_pem_file(dir.path("revoked"))).await;
        dir.write("revoked", &of_6);
        for _ in 0..2 {
            assert_eq!(gate.auth.reload(), Ok(()));
            for serial in [5, 6] {
                assert!(!gate.lets_in(&authority, serial).await, "{serial}");
            }
        }
        assert!(gate.lets_in(&authority, 7).await);
    }
}
