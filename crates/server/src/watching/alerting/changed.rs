//! What changed shortly before an alert: the first question of whoever is woken.

use fairway_engine::Environment;

/// Older changes are hardly the cause.
const RECENT_MS: i64 = 30 * 60_000;

/// The rollout that goes on, or began or ended lately, in one sentence.
#[must_use]
pub fn changed(env: &Environment, now_ms: i64) -> Option<String> {
    let ago = |at: fairway_engine::time::Timestamp| {
        let passed = now_ms.saturating_sub(i64::try_from(at.0).unwrap_or(i64::MAX));
        (passed < RECENT_MS).then(|| minutes(passed))
    };
    if let Some(rollout) = &env.rollout {
        let since = ago(rollout.requested_at).map(|ago| format!(", since {ago}")).unwrap_or_default();
        let (number, to, by) = (rollout.number, rollout.to, &rollout.requested_by);
        return Some(format!("rollout {number} to {to} goes on{since}, by {by}"));
    }
    let last = env.history.back()?;
    let ago = ago(last.ended_at)?;
    let (number, to, by) = (last.number, last.to, &last.requested_by);
    Some(format!("rollout {number} to {to} ended as {} {ago} ago, by {by}", last.outcome.name()))
}

fn minutes(ms: i64) -> String {
    match ms / 60_000 {
        ..1 => "less than a minute".to_owned(),
        1 => "1 minute".to_owned(),
        minutes => format!("{minutes} minutes"),
    }
}
