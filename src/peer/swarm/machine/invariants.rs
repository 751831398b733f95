//! What always holds. For tests.

use super::effort::Serving;
use super::parts::Parts;
use crate::peer::swarm::phase::Phase;

/// Panics where the machine contradicts itself. For tests.
pub(super) fn check(parts: &Parts) {
    parts.uploader.check_invariants();
    parts.book.check_invariants();
    assert!(parts.links.len() <= parts.config.max_links);
    if let Some(early) = &parts.early {
        early.check_invariants(&parts.config);
        assert!(parts.phase.is_beginning());
    }
    parts.line.check_invariants();
    assert!(parts.line.len() <= parts.config.max_waiting);
    assert!(parts.line.is_empty() || parts.is_seeding());
    assert!(parts.standby.len() <= parts.config.sources);
    assert!(parts.standby.len() == 0 || !parts.is_seeding());
    assert!(!parts.is_paused() || !parts.is_seeding());
    assert!(!parts.is_paused() || parts.standby.len() == 0);
    let rests = parts.effort.pause() == Some(Serving::Rests);
    assert!(!rests || parts.links.len() == 0 || parts.keeping.is_arriving());
    if parts.is_paused() {
        let planner = match &parts.phase {
            Phase::Transfer(transfer) => Some(&transfer.planner),
            _ => parts.early.as_ref().map(|early| &early.planner),
        };
        let asks = planner.is_some_and(|planner| planner.busy_links() > 0);
        assert!(!asks, "a paused download asks");
    }
    for id in parts.links.keys() {
        assert!(!parts.line.contains(id) && !parts.standby.contains(id));
    }
    if let Phase::Transfer(transfer) = &parts.phase {
        transfer.check_invariants(&parts.config);
        for (id, link) in parts.links.iter() {
            // Otherwise nothing would ever tell that it is wanted after all.
            let useful = transfer.planner.is_useful(id);
            let waits = link.is_choked() && !link.is_interested() && useful;
            let idle = transfer.planner.next_idle(id) == Some(id);
            assert!(!waits || idle || parts.ask_queue.contains(id), "given up");
        }
    }
}
