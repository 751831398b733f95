//! A registry works with any figures in its configuration.

use std::time::{Duration, Instant};

use bt_lite::protocol::{OwnerRef, TrackerReply, TrackerRequest, Upload};
use bt_lite::tracker::{RegistryConfig, ShardedRegistry};

use crate::tracker_world::{addr, entry, id};

type Set = fn(&mut RegistryConfig, u64);

fn duration(extreme: u64) -> Duration {
    match extreme {
        u64::MAX => Duration::MAX,
        seconds => Duration::from_secs(seconds),
    }
}

#[test]
fn registry_works_with_any_figures() {
    let fields: [(&str, Set); 18] = [
        ("heartbeat", |c, x| c.heartbeat = duration(x)),
        ("grace", |c, x| c.grace = duration(x)),
        ("max_owners", |c, x| c.max_owners = x as u16),
        ("random_percent", |c, x| c.random_percent = x as u8),
        ("half_life", |c, x| c.half_life = duration(x)),
        ("max_credit_rate", |c, x| c.max_credit_rate = x),
        ("max_peers", |c, x| c.max_peers = x as u32),
        ("max_peers_per_host", |c, x| c.max_peers_per_host = x as u32),
        ("max_contents", |c, x| c.max_contents = x as u32),
        ("max_contents_per_peer", |c, x| {
            c.max_contents_per_peer = x as u32
        }),
        ("max_contents_per_host", |c, x| {
            c.max_contents_per_host = x as u32
        }),
        ("max_ownerships_per_host", |c, x| {
            c.max_ownerships_per_host = x as u32
        }),
        ("max_ownerships", |c, x| c.max_ownerships = x as u32),
        ("max_owners_per_content", |c, x| {
            c.max_owners_per_content = x as u32
        }),
        ("max_names_per_content", |c, x| {
            c.max_names_per_content = x as u8
        }),
        ("max_contents_per_name", |c, x| {
            c.max_contents_per_name = x as u32
        }),
        ("heartbeat and grace", |c, x| {
            (c.heartbeat, c.grace) = (duration(x), duration(x));
        }),
        ("all", |c, x| {
            (c.heartbeat, c.grace, c.half_life) = (duration(x), duration(x), duration(x));
            (c.max_credit_rate, c.max_owners) = (x, x as u16);
        }),
    ];
    for (field, set) in fields {
        for extreme in [0, 1, u64::MAX] {
            let mut config = RegistryConfig::default();
            set(&mut config, extreme);
            println!("{field} {extreme}");
            survives(&config);
        }
    }
}

/// A bit of everything. Each request must have a reply that can be encoded.
fn survives(config: &RegistryConfig) {
    let start = Instant::now();
    let one = ShardedRegistry::new(config.clone(), [1; 32], 1, 1, start);
    let sharded = ShardedRegistry::new(config.clone(), [1; 32], 1, 8, start);
    let mut tokens = Vec::new();
    for step in 0..40_u32 {
        let now = start + Duration::from_secs(5 * u64::from(step));
        let source = addr(1 + (step % 3) as u8, 1000 + step as u16);
        let mut requests = vec![TrackerRequest::Register {
            listen: Some(source.clone()),
            token: None,
        }];
        for &token in &tokens {
            let entries = (0..12).map(|n| entry(n + step % 4, &format!("name-{}", n % 3)));
            let entries = entries.collect();
            requests.push(TrackerRequest::Own { token, entries });
            let key = id(step % 12).into();
            requests.push(TrackerRequest::Need {
                token,
                key,
                max_owners: u16::MAX,
            });
            let uploads = (0..3).map(|n| Upload::new(OwnerRef(n), u64::MAX));
            let uploads = uploads.collect();
            requests.push(TrackerRequest::Update { token, uploads });
        }
        if step % 7 == 6
            && let Some(token) = tokens.pop()
        {
            requests.push(TrackerRequest::Exit { token });
        }
        for request in requests {
            let reply = one.handle(now, &source, &request);
            reply.encode().unwrap();
            if let TrackerReply::Registered(registered) = reply {
                tokens.push(registered.token);
            }
            sharded.handle(now, &source, &request).encode().unwrap();
        }
        for _ in 0..100 {
            one.handle_timeout(now);
            sharded.handle_timeout(now);
        }
        let turns = (one.poll_timeout(), sharded.poll_timeout());
        assert!([turns.0, turns.1].iter().flatten().all(|turn| *turn > now));
        one.check_invariants();
        sharded.check_invariants();
        let snapshot = one.snapshot(now);
        let again = ShardedRegistry::new(config.clone(), [2; 32], 2, 1, now);
        again.restore(now, &snapshot);
        again.snapshot(now);
    }
}
