//! Which address of an owner a tracker names to whom.

use std::collections::BTreeMap;
use std::time::Instant;

use bt_lite::protocol::{OwnEntry, OwnState, Refusal, Token, TrackerReply, TrackerRequest};
use bt_lite::tracker::{RegistryConfig, ShardedRegistry};
use bt_lite::{Addr, ContentId};
use proptest::prelude::*;

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

impl Registry {
    /// REGISTER over the other family. Returns where the peer is listed for that.
    fn also(&self, source: &str, listen: &str, token: Token) -> Result<Option<Addr>, Refusal> {
        let listen = Some(addr(listen));
        let request = TrackerRequest::RegisterAlso { listen, token };
        match self.ask(source, None, &request) {
            TrackerReply::Registered(registered) => {
                assert_eq!(registered.token, token);
                Ok(registered.listed)
            }
            TrackerReply::Refused(refusal) => Err(refusal),
            other => panic!("{other:?}"),
        }
    }

    fn own(&self, source: &str, token: Token) {
        let name = "x".parse().unwrap();
        let entry = OwnEntry::new(ContentId::of(b"x"), name, 1, OwnState::Complete);
        let entries = vec![entry];
        let own = TrackerRequest::Own { token, entries };
        assert_eq!(self.ask(source, None, &own), TrackerReply::Done);
    }

    /// The owners that are named to a peer which has registered already.
    fn named_to(&self, source: &str, token: Token, max_owners: u16) -> Vec<String> {
        let key = ContentId::of(b"x").into();
        let need = TrackerRequest::Need {
            token,
            key,
            max_owners,
        };
        let TrackerReply::Found(found) = self.ask(source, Some("192.0.2.1:7000"), &need) else {
            panic!("the content is known");
        };
        let named = found.owners.iter().map(|owner| owner.addr.to_string());
        named.collect()
    }

    fn heartbeat(&self, source: &str, listen: &str, token: Token) {
        let request = TrackerRequest::Register {
            listen: Some(addr(listen)),
            token: Some(token),
        };
        let reply = self.ask(source, None, &request);
        let TrackerReply::Registered(registered) = reply else {
            panic!("{reply:?}");
        };
        assert_eq!(registered.token, token);
    }
}

const V4: &str = "192.0.2.7:5";
const V6: &str = "[2001:db8::7]:5";

#[test]
fn owner_of_both_families_is_named_to_each_asker_at_the_one_that_it_uses() {
    for (first, second) in [(V4, V6), (V6, V4)] {
        let mut registry = Registry::new();
        let (token, _) = registry.register(first, Some("[::]:70"));
        registry.own(first, token);
        let at = |source: &str| source.replace(":5", ":70");
        assert_eq!(registry.named("192.0.2.8:5", "192.0.2.1:7000"), [at(first)]);
        // The content is listed already, and again when it is listed anew.
        let listed = registry.also(second, "[::]:70", token).unwrap();
        assert_eq!(listed, Some(addr(&at(second))));
        for _ in 0..2 {
            assert_eq!(registry.named("192.0.2.8:5", "192.0.2.1:7000"), [at(V4)]);
            let v6 = registry.named("[2001:db8::8]:5", "[2001:db8::1]:7000");
            assert_eq!(v6, [at(V6)]);
            // An asker that has both gets both, its own first; each is one of those that
            // it may have.
            let (asker, _) = registry.register("192.0.2.9:5", Some("[::]:80"));
            assert_eq!(registry.named_to("192.0.2.9:5", asker, 50), [at(V4)]);
            registry.also("[2001:db8::9]:5", "[::]:80", asker).unwrap();
            let both = registry.named_to("192.0.2.9:5", asker, 50);
            assert_eq!(both, [at(V4), at(V6)]);
            assert_eq!(registry.named_to("192.0.2.9:5", asker, 1), [at(V4)]);
            // Who speaks neither may use either.
            let neither = registry.named("memory:a", "memory:tracker");
            assert_eq!(neither.len(), 2);
            registry.own(first, token);
            registry.registry.check_invariants();
        }
        // It is not named to itself.
        let alone = registry.named_to(first, token, 50);
        assert_eq!(alone, [] as [&str; 0]);
        // Said once, it counts for one lease.
        for step in 0..20 {
            registry.now += std::time::Duration::from_secs(10);
            registry.heartbeat(first, "[::]:70", token);
            if step == 0 {
                let v6 = registry.named("[2001:db8::8]:5", "[2001:db8::1]:7000");
                assert_eq!(v6, [at(V6)]);
            }
        }
        for asker in ["192.0.2.8:5", "[2001:db8::8]:5"] {
            assert_eq!(registry.named(asker, "192.0.2.1:7000"), [at(first)]);
        }
        registry.registry.check_invariants();
    }
}

#[test]
fn second_address_is_of_the_other_family_where_it_speaks_from_and_of_who_has_the_token() {
    let registry = Registry::new();
    let (token, _) = registry.register(V4, Some("[::]:70"));
    registry.own(V4, token);
    let foreign = registry.also(V6, "[2001:db8::66]:70", token).unwrap_err();
    assert!(
        matches!(foreign, Refusal::ForeignAddress { .. }),
        "{foreign}"
    );
    let guessed = Token([9; 16]);
    let unknown = registry.also(V6, "[::]:70", guessed).unwrap_err();
    assert_eq!(unknown, Refusal::UnknownToken);
    // It has one of this family, and does not listen for that one.
    for (source, listen) in [
        ("192.0.2.66:5", "[::]:70"),
        (V6, "0.0.0.0:70"),
        (V6, "[::]:0"),
    ] {
        assert_eq!(
            registry.also(source, listen, token),
            Ok(None),
            "{source} {listen}"
        );
        assert_eq!(
            registry.named("192.0.2.8:5", "192.0.2.1:7000"),
            ["192.0.2.7:70"]
        );
        let v6 = registry.named("[2001:db8::8]:5", "[2001:db8::1]:7000");
        assert_eq!(v6, ["192.0.2.7:70"]);
    }
    // One that does not listen at all has no second address either.
    let (silent, _) = registry.register(V4, None);
    assert_eq!(registry.also(V6, "[::]:70", silent), Ok(None));
    // A scope means nothing to others, and loopback is for those on it.
    let scoped = registry.also("[fe80::7%3]:5", "[::]:70", token);
    assert_eq!(scoped, Ok(Some(addr("[fe80::7]:70"))));
    let loopback = registry.also("[::1]:5", "[::1]:70", token);
    assert_eq!(loopback, Ok(Some(addr("[::1]:70"))));
    let v6 = registry.named("[2001:db8::8]:5", "[2001:db8::1]:7000");
    assert_eq!(v6, ["192.0.2.7:70"]);
    // Another first address ends it, and so does the end of the peer.
    assert!(registry.also(V6, "[::]:70", token).unwrap().is_some());
    registry.heartbeat(V4, "[::]:71", token);
    let v6 = registry.named("[2001:db8::8]:5", "[2001:db8::1]:7000");
    assert_eq!(v6, ["192.0.2.7:71"]);
    assert!(registry.also(V6, "[::]:71", token).unwrap().is_some());
    let exit = TrackerRequest::Exit { token };
    assert_eq!(registry.ask(V4, None, &exit), TrackerReply::Done);
    registry.registry.check_invariants();
}

/// What may happen to a peer.
#[derive(Debug, Clone)]
enum Step {
    /// It listens here from now on.
    Moves(u16),
    Also(u16),
    NoLonger,
    /// The others, and the one that has registered a second address, say that they are
    /// there, and this time passes.
    Waits(u64),
    Leaves,
}

/// A peer as it should be listed.
#[derive(Debug, Clone)]
struct Model {
    token: Token,
    over_v6: bool,
    port: u16,
    /// The port of the other family, and when it was said.
    also: Option<(u16, u64)>,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (1..5u16).prop_map(Step::Moves),
        (1..5u16).prop_map(Step::Also),
        Just(Step::NoLonger),
        (1..10u64).prop_map(Step::Waits),
        Just(Step::Leaves),
    ]
}

fn source(peer: usize, v6: bool) -> String {
    match v6 {
        true => format!("[2001:db8:{peer:x}::1]:5"),
        false => format!("10.0.0.{peer}:5"),
    }
}

fn at(peer: usize, v6: bool, port: u16) -> String {
    let source = source(peer, v6);
    let (host, _) = source.rsplit_once(':').unwrap();
    format!("{host}:{port}")
}

proptest! {
    /// Whatever peers do, each asker gets each owner at the address of its own family, if
    /// the owner has said that within a lease, and otherwise at the one that it has.
    #[test]
    fn askers_get_the_addresses_of_a_simple_model(
        steps in proptest::collection::vec((1..5usize, any::<bool>(), step()), 1..60),
    ) {
        let mut registry = Registry::new();
        let lease = RegistryConfig::default();
        let lease = (lease.heartbeat + lease.grace).as_secs();
        let mut models: BTreeMap<usize, Model> = BTreeMap::new();
        let mut clock = 0;
        for (peer, over_v6, step) in steps {
            let listen = |port: u16| format!("[::]:{port}");
            match step {
                Step::Moves(port) => match models.get_mut(&peer) {
                    None => {
                        let from = source(peer, over_v6);
                        let (token, _) = registry.register(&from, Some(&listen(port)));
                        registry.own(&from, token);
                        let model = Model { token, over_v6, port, also: None };
                        models.insert(peer, model);
                    }
                    Some(model) => {
                        registry.heartbeat(&source(peer, model.over_v6), &listen(port), model.token);
                        if model.port != port {
                            model.also = None;
                        }
                        model.port = port;
                    }
                },
                Step::Also(port) => if let Some(model) = models.get_mut(&peer) {
                    let from = source(peer, !model.over_v6);
                    let listed = registry.also(&from, &listen(port), model.token).unwrap();
                    prop_assert_eq!(listed, Some(addr(&at(peer, !model.over_v6, port))));
                    model.also = Some((port, clock));
                },
                Step::NoLonger => if let Some(model) = models.get_mut(&peer) {
                    let from = source(peer, !model.over_v6);
                    prop_assert_eq!(registry.also(&from, "[::]:0", model.token), Ok(None));
                    model.also = None;
                },
                Step::Waits(seconds) => {
                    clock += seconds;
                    registry.now += std::time::Duration::from_secs(seconds);
                    for (peer, model) in &mut models {
                        let from = source(*peer, model.over_v6);
                        registry.heartbeat(&from, &listen(model.port), model.token);
                        // The tracker counts in whole ticks of its own.
                        if model.also.is_some_and(|(_, at)| clock - at > lease + 1) {
                            model.also = None;
                        }
                    }
                }
                Step::Leaves => if let Some(model) = models.remove(&peer) {
                    let exit = TrackerRequest::Exit { token: model.token };
                    let from = source(peer, model.over_v6);
                    prop_assert_eq!(registry.ask(&from, None, &exit), TrackerReply::Done);
                },
            }
            registry.registry.check_invariants();
            if models.is_empty() {
                continue;
            }
            for v6 in [false, true] {
                let asker = source(99, v6);
                let mut named = registry.named(&asker, "192.0.2.1:7000");
                named.sort();
                // Near the end of a lease either is right.
                let edge = models.values().any(|model| {
                    model.also.is_some_and(|(_, at)| clock - at + 1 >= lease)
                });
                let expected = models.iter().map(|(peer, model)| match model.also {
                    Some((port, _)) if v6 != model.over_v6 => at(*peer, v6, port),
                    _ => at(*peer, model.over_v6, model.port),
                });
                let mut expected: Vec<_> = expected.collect();
                expected.sort();
                prop_assert!(edge || named == expected, "{:?} and not {:?}", named, expected);
            }
        }
    }
}
