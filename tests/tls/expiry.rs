//! The end of the own certificate, and of those of the authorities, is warned of before it
//! comes.

use std::time::{Duration, SystemTime};

use bt_lite::transport::auth::{AuthSetupError, Authenticator, Ca, Trust};
use bt_lite::transport::{AuthError, TlsTransport};
use bt_lite::{Addr, MemoryNetwork, Transport, TransportError};

use crate::authority::{Authority, Validity};
use crate::swarm::LONG;
use crate::warnings::{Warnings, warned};

const DAY: Duration = Duration::from_secs(24 * 3600);

/// What is warned of within 26 hours by one whose certificate has so many days left.
async fn warnings(days: u32) -> Vec<String> {
    let authority = Authority::new("the cluster");
    let until = SystemTime::now() + days * DAY;
    let identity = authority.member(1, Validity::Until(until));
    let auth = Authenticator::new(identity, Trust::Ca(authority.ca())).unwrap();
    // To the second.
    let expires = auth.expires_at().unwrap();
    assert!(until.duration_since(expires).unwrap() < Duration::from_secs(1));
    watched(auth).await
}

/// What is warned of within 26 hours.
async fn watched(auth: Authenticator) -> Vec<String> {
    let warnings = Warnings::default();
    let _guard = warnings.record();
    let watch = tokio::spawn(auth.clone().watch(DAY / 24));
    tokio::time::sleep(26 * DAY / 24).await;
    watch.abort();
    warnings.said()
}

#[tokio::test(start_paused = true)]
async fn certificate_that_expires_within_a_week_is_warned_of_once_a_day() {
    let warned = warnings(6).await;
    assert_eq!(warned.len(), 2, "{warned:?}");
    for text in warned {
        assert!(text.contains("expires soon"), "{text}");
        assert!(text.contains("hours=143"), "{text}");
    }
}

#[tokio::test(start_paused = true)]
async fn certificate_that_is_valid_for_longer_is_not() {
    assert_eq!(warnings(8).await, Vec::<String>::new());
}

#[tokio::test(start_paused = true)]
async fn authority_that_expires_within_a_week_is_warned_of_once_a_day_by_its_name() {
    let until = SystemTime::now() + 6 * DAY;
    let authority = Authority::valid("the cluster", Validity::Until(until));
    let identity = authority.member(1, Validity::Now);
    let auth = Authenticator::new(identity, Trust::Ca(authority.ca())).unwrap();
    let warned = watched(auth).await;
    assert_eq!(warned.len(), 2, "{warned:?}");
    for text in warned {
        assert!(text.contains("expires soon"), "{text}");
        assert!(text.contains("CN=the cluster"), "{text}");
    }
}

#[test]
fn authority_that_has_expired_is_an_error_if_there_is_no_other() {
    let old = Authority::valid("the old cluster", Validity::Over);
    let identity = old.member(1, Validity::Now);
    let error = Authenticator::new(identity, Trust::Ca(old.ca())).err();
    let error = error.expect("it is of no use");
    assert!(matches!(error, AuthSetupError::Expired { .. }), "{error:?}");
    let text = error.to_string();
    for part in ["CN=the old cluster", "2021-01-01", "clock"] {
        assert!(text.contains(part), "{part}: {text}");
    }
}

#[tokio::test(start_paused = true)]
async fn authority_that_has_expired_is_named_and_the_one_beside_it_goes_on() {
    let old = Authority::valid("the old cluster", Validity::Over);
    let good = Authority::new("the cluster");
    let both = || Trust::Ca(Ca::from_pem(&(old.pem() + &good.pem())));
    let (warned, auth) = warned(|| Authenticator::new(good.member(1, Validity::Now), both()));
    assert_eq!(warned.len(), 1, "{warned:?}");
    assert!(warned[0].contains("CN=the old cluster"), "{warned:?}");
    assert!(warned[0].contains("has expired"), "{warned:?}");
    let network = MemoryNetwork::new(1);
    let to = TlsTransport::new(network.endpoint("to"), auth.unwrap());
    let addr: Addr = "memory:to".parse().unwrap();
    let mut listener = to.listen(&addr).await.unwrap();
    let accepting = tokio::spawn(async move { while listener.accept().await.is_ok() {} });
    let of = |authority: &Authority, serial| {
        let auth = Authenticator::new(authority.member(serial, Validity::Now), both()).unwrap();
        TlsTransport::new(network.endpoint(&format!("member-{serial}")), auth)
    };
    let let_in = of(&good, 2).connect(&addr).await.unwrap();
    // What the expired one has signed counts no more than itself.
    let refused = of(&old, 3).connect(&addr).await;
    let decided = async {
        while to.stats().accepted + to.stats().failed < 2 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(LONG, decided).await.unwrap();
    assert_eq!((to.stats().accepted, to.stats().failed), (1, 1));
    drop((let_in, refused));
    let late = of(&old, 4);
    let mut listener = late
        .listen(&"memory:member-4".parse().unwrap())
        .await
        .unwrap();
    tokio::spawn(async move { while listener.accept().await.is_ok() {} });
    let refused = of(&good, 5)
        .connect(&"memory:member-4".parse().unwrap())
        .await;
    let Err(TransportError::Auth(error)) = refused else {
        panic!("what an expired authority has signed is let in");
    };
    assert!(
        matches!(error, AuthError::AuthorityExpired { .. }),
        "{error}"
    );
    assert!(error.to_string().contains("CN=the old cluster"), "{error}");
    accepting.abort();
}
