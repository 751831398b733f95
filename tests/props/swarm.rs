//! Whole swarms in one thread: they finish with the right bytes, and nobody
//! but liars is banned.

use proptest::collection::vec;
use proptest::prelude::*;

use crate::swarm_world::{Kind, World};

fn kind() -> impl Strategy<Value = (Kind, bool)> {
    prop_oneof![
        4 => Just((Kind::Honest, true)),
        2 => Just((Kind::Honest, false)),
        2 => any::<bool>().prop_map(|always| (Kind::Liar(always), false)),
        1 => Just((Kind::Silent, false)),
        1 => Just((Kind::Rejecting, false)),
        1 => (0u64..500, any::<bool>()).prop_map(|(ms, leecher)| (Kind::Dies(ms), leecher)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: (ProptestConfig::default().cases / 4).max(1),
        ..ProptestConfig::default()
    })]

    #[test]
    fn swarm_with_one_honest_seeder_finishes_and_bans_liars_only(
        seed: u64,
        length in prop_oneof![Just(0), 1usize..200_000],
        others in vec(kind(), 0..6),
    ) {
        let mut kinds = vec![(Kind::Honest, false), (Kind::Honest, true)];
        kinds.extend(others);
        World::new(seed, length, &kinds).run();
    }
}
