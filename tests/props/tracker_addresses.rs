//! Which address of an owner a tracker names to whom.

use std::time::Instant;

use bt_lite::protocol::{OwnEntry, OwnState, Token, TrackerReply, TrackerRequest};
use bt_lite::tracker::{RegistryConfig, ShardedRegistry};
use bt_lite::{Addr, ContentId};

struct Registry {
    registry: ShardedRegistry,
    now: Instant,
}

fn addr(text: &str) -> Addr {
    text.parse().unwrap()
}

impl Registry {
    fn new() -> Self {
        let now = Instant::now();
        let registry = ShardedRegistry::new(RegistryConfig::default(), [7; 32], 1, 4, now);
        Self { registry, now }
    }

    fn ask(&self, source: &str, local: Option<&str>, request: &TrackerRequest) -> TrackerReply {
        let (source, local) = (addr(source), local.map(addr));
        let mut reply = Vec::new();
        let _ = self
            .registry
            .handle_at(self.now, &source, local.as_ref(), request, &mut reply);
        TrackerReply::decode(bt_lite::protocol::Frame::head(reply)).unwrap()
    }

    /// Registers a peer. Returns its token, and where it is listed.
    fn register(&self, source: &str, listen: Option<&str>) -> (Token, Option<Addr>) {
        let listen = listen.map(addr);
        let request = TrackerRequest::Register {
            listen,
            token: None,
        };
        match self.ask(source, None, &request) {
            TrackerReply::Registered(registered) => (registered.token, registered.listed),
            other => panic!("{other:?}"),
        }
    }

    /// An owner that speaks from `source` and says to listen at `listen`.
    fn owner(&self, source: &str, listen: &str) {
        let (token, _) = self.register(source, Some(listen));
        let entry = OwnEntry::new(
            ContentId::of(b"x"),
            "x".parse().unwrap(),
            1,
            OwnState::Complete,
        );
        let own = TrackerRequest::Own {
            token,
            entries: vec![entry],
        };
        assert_eq!(self.ask(source, None, &own), TrackerReply::Done);
    }

    /// The owners that are named to one who speaks from `source` and reached the tracker
    /// at `local`.
    fn named(&self, source: &str, local: &str) -> Vec<String> {
        let (token, _) = self.register(source, None);
        let need = TrackerRequest::Need {
            token,
            key: ContentId::of(b"x").into(),
            max_owners: 50,
        };
        let TrackerReply::Found(found) = self.ask(source, Some(local), &need) else {
            panic!("the content is known");
        };
        let named = found.owners.iter().map(|owner| owner.addr.to_string());
        named.collect()
    }
}

#[test]
fn owner_beside_the_tracker_is_named_at_the_address_of_the_tracker() {
    for (source, listen, over_v4, over_v6) in [
        ("127.0.0.1:999", "0.0.0.0:70", Some("192.168.1.5:70"), None),
        (
            "127.0.0.1:999",
            "[::]:70",
            Some("192.168.1.5:70"),
            Some("[2001:db8::5]:70"),
        ),
        (
            "[::1]:999",
            "[::]:70",
            Some("192.168.1.5:70"),
            Some("[2001:db8::5]:70"),
        ),
        // It does not listen for others.
        ("127.0.0.1:999", "127.0.0.1:70", None, None),
        ("[::1]:999", "[::1]:70", None, None),
        // It knows an address of the machine, or of the router before it.
        (
            "127.0.0.1:999",
            "203.0.113.9:70",
            Some("203.0.113.9:70"),
            Some("203.0.113.9:70"),
        ),
        (
            "[::1]:999",
            "host.example:70",
            Some("host.example:70"),
            Some("host.example:70"),
        ),
    ] {
        let registry = Registry::new();
        registry.owner(source, listen);
        let as_listed = |listed: Option<&str>| Vec::from_iter(listed.map(String::from));
        let v4 = registry.named("192.168.1.7:5", "192.168.1.5:7000");
        assert_eq!(v4, as_listed(over_v4), "{source} {listen}");
        let v6 = registry.named("[2001:db8::7]:5", "[2001:db8::5]:7000");
        assert_eq!(v6, as_listed(over_v6), "{source} {listen}");
        // The tracker cannot tell where it was reached.
        for nowhere in ["127.0.0.1:7000", "0.0.0.0:7000", "memory:tracker"] {
            let named = registry.named("192.168.1.8:5", nowhere);
            assert!(
                named
                    .iter()
                    .all(|addr| addr.contains("203.") || addr.contains("host"))
            );
        }
    }
}

#[test]
fn owner_beside_the_tracker_is_named_over_loopback_to_others_beside_it() {
    for (listen, over_v4, over_v6) in [
        ("0.0.0.0:70", Some("127.0.0.1:70"), None),
        ("[::]:70", Some("127.0.0.1:70"), Some("[::1]:70")),
        ("127.0.0.1:70", Some("127.0.0.1:70"), Some("127.0.0.1:70")),
        ("[::1]:70", Some("[::1]:70"), Some("[::1]:70")),
    ] {
        let registry = Registry::new();
        registry.owner("127.0.0.1:999", listen);
        let as_listed = |listed: Option<&str>| Vec::from_iter(listed.map(String::from));
        let v4 = registry.named("127.0.0.1:5", "127.0.0.1:7000");
        assert_eq!(v4, as_listed(over_v4), "{listen}");
        let v6 = registry.named("[::1]:5", "[::1]:7000");
        assert_eq!(v6, as_listed(over_v6), "{listen}");
    }
}

#[test]
fn what_is_listed_is_what_listens() {
    let registry = Registry::new();
    let listed = |source, listen| {
        let (_, listed) = registry.register(source, Some(listen));
        listed.map(|addr| addr.to_string())
    };
    let some = |text: &str| Some(text.to_owned());
    // Nobody listens for IPv6 at 0.0.0.0.
    assert_eq!(listed("[2001:db8::7]:5", "0.0.0.0:70"), None);
    assert_eq!(
        listed("[2001:db8::7]:5", "[::]:70"),
        some("[2001:db8::7]:70")
    );
    assert_eq!(listed("192.0.2.7:5", "[::]:70"), some("192.0.2.7:70"));
    assert_eq!(listed("192.0.2.7:5", "0.0.0.0:70"), some("192.0.2.7:70"));
    // A scope means nothing to others.
    assert_eq!(listed("[fe80::7%3]:5", "[::]:70"), some("[fe80::7]:70"));
    assert_eq!(
        listed("[fe80::7%3]:5", "[fe80::7%9]:70"),
        some("[fe80::7]:70")
    );
    // A name proves no host, unless the peer is beside the tracker.
    let request = TrackerRequest::Register {
        listen: Some(addr("host.example:70")),
        token: None,
    };
    let refused = registry.ask("192.0.2.7:5", None, &request);
    assert!(matches!(refused, TrackerReply::Refused(_)), "{refused:?}");
}
