//! How a test is run with many orders of its threads.

use shuttle::Config;
use shuttle::scheduler::{PctScheduler, RandomScheduler};

/// How many orders are tried in each of two ways, unless the environment says so.
const SCHEDULES: usize = 2000;

/// How many times one thread has to be overtaken for the faults that are surely found, if the
/// number of orders is high enough. Few are deeper.
const DEPTH: usize = 3;

/// Runs a test with threads that take turns at random, and with threads of which one runs as
/// long as it can. A test that hangs fails. One that fails prints its order, which
/// `shuttle::replay` runs again.
pub(crate) fn try_all(test: impl Fn() + Clone + Send + Sync + 'static) {
    let schedules = std::env::var("SCHEDULES").ok();
    let schedules = schedules.map_or(SCHEDULES, |count| count.parse().expect("a number"));
    let mut config = Config::new();
    // Counters are tested as if each were seen by all threads in one order.
    config.silence_warnings = true;
    shuttle::Runner::new(RandomScheduler::new(schedules), config.clone()).run(test.clone());
    shuttle::Runner::new(PctScheduler::new(DEPTH, schedules), config).run(test);
    println!("schedules {}", 2 * schedules);
}
