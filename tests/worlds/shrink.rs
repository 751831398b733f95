//! Makes a world that breaks a promise smaller, as long as it breaks the same one.

use crate::plan::Plan;
use crate::run::Report;
use crate::violation::Violation;

/// Runs it at most so many times.
pub(crate) fn shrink(
    plan: &Plan,
    mut violation: Violation,
    most_runs: usize,
    run: impl Fn(&Plan) -> Result<Report, Violation>,
) -> (Plan, Violation) {
    let mut smallest = plan.clone();
    let mut runs = 0;
    'smaller: loop {
        for plan in smallest.simpler() {
            runs += 1;
            if runs > most_runs {
                break 'smaller;
            }
            match run(&plan) {
                Err(same) if same.promise == violation.promise => {
                    (smallest, violation) = (plan, same);
                    continue 'smaller;
                }
                _ => {}
            }
        }
        break;
    }
    (smallest, violation)
}
