//! How a release is brought in: the strategy with its options, and what a rollout keeps.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use fairway_engine::strategy::{Match, Step, Strategy};

use crate::code;
use crate::diagnostic::Diagnostic;
use crate::keys;
use crate::monitoring::plain_secret;
use crate::reader::Reader;
use crate::suggest::did_you_mean;
use crate::tree::Value;
use crate::value::duration;
use crate::value::name::looks_secret;
use crate::variable::{Variable, VariableValue};

/// A step without `hold` and `approve` is watched this long, and so are the steps of a canary that names none.
const HOLD_DEFAULT: Duration = Duration::from_secs(300);

/// How long a release is watched with all the traffic, outside of a developer's environment.
const BAKE_DEFAULT: Duration = Duration::from_secs(120);

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum StrategyKind {
    Rolling,
    BlueGreen,
    Canary,
}

impl StrategyKind {
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            StrategyKind::Rolling => "rolling",
            StrategyKind::BlueGreen => "blue-green",
            StrategyKind::Canary => "canary",
        }
    }
}

impl fmt::Display for StrategyKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{given:?} is not a strategy: rolling, blue-green or canary{}", suggestion.as_deref().unwrap_or(""))]
pub struct UnknownStrategy {
    pub given: String,
    suggestion: Option<String>,
}

impl FromStr for StrategyKind {
    type Err = UnknownStrategy;

    fn from_str(text: &str) -> Result<Self, UnknownStrategy> {
        match text {
            "rolling" => Ok(StrategyKind::Rolling),
            "blue-green" | "blue_green" => Ok(StrategyKind::BlueGreen),
            "canary" => Ok(StrategyKind::Canary),
            _ => Err(UnknownStrategy {
                given: text.chars().take(40).collect(),
                suggestion: did_you_mean(text, keys::STRATEGIES.iter().copied())
                    .map(|hint| format!("; {hint}")),
            }),
        }
    }
}

/// `[deploy]` of one environment. The options of every strategy are kept, so that `deploy --strategy` has them.
#[derive(Clone, Debug, PartialEq)]
pub struct Deploy {
    pub strategy: StrategyKind,
    pub max_surge: u32,
    pub max_unavailable: u32,
    /// blue-green: hold before the switch until somebody promotes.
    pub approve: bool,
    pub steps: Vec<Step>,
    pub matches: Vec<Match>,
    pub sticky: bool,
    pub bake: Duration,
    pub keep_warm: Duration,
    pub drain: Duration,
    pub retain: u32,
    pub deadline: Duration,
    pub purge: Option<Purge>,
}

/// A request to a CDN, before the versions of secrets are known.
#[derive(Clone, Debug, PartialEq)]
pub struct Purge {
    pub url: Variable,
    pub method: String,
    pub headers: BTreeMap<String, Variable>,
    pub body: Option<String>,
    pub attempts: u32,
    pub timeout: Duration,
}

impl Deploy {
    /// The declared strategy, or another one with the options that the file has for it.
    #[must_use]
    pub fn strategy(&self, instead: Option<StrategyKind>) -> Strategy {
        match instead.unwrap_or(self.strategy) {
            StrategyKind::Rolling => {
                Strategy::Rolling { max_surge: self.max_surge, max_unavailable: self.max_unavailable }
            }
            StrategyKind::BlueGreen => Strategy::BlueGreen { approve: self.approve },
            StrategyKind::Canary => Strategy::Canary {
                steps: self.steps.clone(),
                matches: self.matches.clone(),
                sticky: self.sticky,
            },
        }
    }
}

pub(crate) fn show_duration(duration: &Duration) -> String {
    format!("{:?}", duration::show(*duration))
}

/// `routed`: a service has a route, so that there is traffic to switch.
pub(crate) fn read(root: &Reader<'_>, routed: bool) -> Deploy {
    let reader = root.table("deploy", &keys::DEPLOY);
    let strategy = reader.get_or(
        "strategy",
        || if routed { "blue-green" } else { "rolling" }.to_owned(),
        |name| format!("{name:?}"),
    );
    // A strategy that does not exist was told by the first pass; any will do to find what else is wrong.
    let strategy = strategy.parse().unwrap_or(StrategyKind::BlueGreen);
    strategy_options(&reader, strategy);
    let (max_surge, max_unavailable) = (reader.fixed("max_surge"), reader.fixed("max_unavailable"));
    if max_surge == 0 && max_unavailable == 0 {
        let message = "max_surge and max_unavailable are both 0: no copy could ever be replaced";
        reader.cx.push_at(
            Diagnostic::error(code::CONFLICT, message).hint("max_surge = 1 starts one before one stops"),
            reader.value_at("max_surge"),
        );
    }
    Deploy {
        strategy,
        max_surge,
        max_unavailable,
        approve: reader.fixed("approve"),
        steps: steps(&reader),
        matches: matches(&reader),
        sticky: reader.fixed("sticky"),
        bake: reader.get_or(
            "bake",
            || if reader.cx.is_dev() { Duration::ZERO } else { BAKE_DEFAULT },
            show_duration,
        ),
        keep_warm: reader.fixed("keep_warm"),
        drain: reader.fixed("drain"),
        retain: reader.fixed("retain"),
        deadline: reader.fixed("deadline"),
        purge: reader.optional_table("purge", &keys::PURGE).and_then(|table| purge(&table)),
    }
}

fn purge(reader: &Reader<'_>) -> Option<Purge> {
    let mut headers = BTreeMap::new();
    for (name, entry) in reader.entries("headers") {
        let path = format!("{}.{name}", reader.path_of("headers"));
        reader.cx.record(path, &entry.node);
        let value = if let Value::Table(table) = &entry.node.value {
            let secret = table.get("secret").and_then(|node| node.value.as_text());
            VariableValue::Secret { name: secret?.to_owned() }
        } else {
            VariableValue::Literal(entry.node.value.as_text()?.to_owned())
        };
        let literal = matches!(value, VariableValue::Literal(_));
        if literal && looks_secret(name, entry.node.value.as_text().unwrap_or_default()) {
            let secret = format!(
                "{{ secret = \"cdn_token\" }}, and fairway secret set cdn_token -e {}",
                reader.cx.environment
            );
            plain_secret(reader, "headers", name, &format!("{name} = {secret}"), entry.node.at);
        }
        let at = reader.cx.source.span(entry.node.at);
        headers.insert(name.to_ascii_lowercase(), Variable { value, at });
    }
    let at = reader.cx.source.span(reader.value_at("url"));
    let url = match reader.optional_table("url", &keys::SECRET) {
        Some(table) => VariableValue::Secret { name: table.get("secret")? },
        None => VariableValue::Literal(reader.get("url")?),
    };
    Some(Purge {
        url: Variable { value: url, at },
        method: reader.fixed("method"),
        headers,
        body: reader.get("body"),
        attempts: reader.fixed("attempts"),
        timeout: reader.fixed("timeout"),
    })
}

/// Options of a strategy other than the one chosen. One that an overlay inherits is no mistake: the overlay could not
/// take it away.
fn strategy_options(reader: &Reader<'_>, strategy: StrategyKind) {
    const OPTIONS: [(&str, StrategyKind); 7] = [
        ("steps", StrategyKind::Canary),
        ("matches", StrategyKind::Canary),
        ("sticky", StrategyKind::Canary),
        ("sequential", StrategyKind::Canary),
        ("max_surge", StrategyKind::Rolling),
        ("max_unavailable", StrategyKind::Rolling),
        ("approve", StrategyKind::BlueGreen),
    ];
    for (option, of) in OPTIONS {
        let inherited = reader.layer(option) < reader.layer("strategy");
        if of == strategy || !reader.has(option) || inherited {
            continue;
        }
        let message = format!("{} belongs to {of}, and the strategy is {strategy}", reader.path_of(option));
        let mut diagnostic = Diagnostic::error(code::STRATEGY_OPTION, message)
            .hint(format!("remove it, or choose strategy = \"{of}\""))
            .at(reader.cx.source.span(reader.key_at(option)));
        if reader.has("strategy") {
            diagnostic = diagnostic
                .related(reader.cx.source.span(reader.value_at("strategy")), "the strategy is chosen here");
        }
        reader.cx.push(diagnostic);
    }
}

fn steps(reader: &Reader<'_>) -> Vec<Step> {
    let Some(list) = reader.list_of_tables("steps", &keys::STEP) else {
        let step = |weight| Step { weight, hold: HOLD_DEFAULT, approve: false, mirror: 0, experiment: None };
        return [5, 25, 50].map(step).to_vec();
    };
    let cx = reader.cx;
    let refuse = |message: String, hint: &str, at| {
        cx.push_at(Diagnostic::error(code::WEIGHTS, message).hint(hint), at);
    };
    if list.is_empty() {
        let message = format!("{} is empty", reader.path_of("steps"));
        refuse(message, "leave it out for the default steps", reader.value_at("steps"));
    }
    let mut steps: Vec<Step> = Vec::new();
    for step in &list {
        let (mirror, experiment) = (step.fixed("mirror"), step.get::<String>("experiment"));
        // Nobody can say how long a comparison takes: it holds until somebody has seen enough.
        let until_promoted = experiment.is_some() && !step.has("hold");
        let approve = step.get_or("approve", || until_promoted, bool::to_string);
        let hold = step.get_or("hold", || if approve { Duration::ZERO } else { HOLD_DEFAULT }, show_duration);
        let Some(weight) = step.get::<u32>("weight") else { continue };
        let next = Step { weight, hold, approve, mirror, experiment };
        if let Some(before) = steps.last()
            && !follows(before, &next)
        {
            let message =
                format!("the weight {weight} does not rise above the step before ({})", before.weight);
            refuse(message, "each step sends more requests to the new version", step.value_at("weight"));
        }
        steps.push(next);
    }
    steps
}

/// A step has more weight than the one before; what watches the same share in another way may keep it.
fn follows(before: &Step, next: &Step) -> bool {
    let other_way = before.experiment != next.experiment || before.mirror != next.mirror;
    next.weight > before.weight || (next.weight == before.weight && other_way)
}

fn matches(reader: &Reader<'_>) -> Vec<Match> {
    let list = reader.list_of_tables("matches", &keys::MATCH).unwrap_or_default();
    let read = |reader: &Reader<'_>| {
        let value = reader.get("value");
        match reader.one_of(&["header", "cookie"]) {
            Some("header") => Some(Match::Header { name: reader.get("header")?, value: value? }),
            Some(_) => Some(Match::Cookie { name: reader.get("cookie")?, value: value? }),
            None => {
                if !reader.has_unknown() {
                    let message = format!("{} names neither a header nor a cookie", reader.path());
                    reader.cx.push_at(
                        Diagnostic::error(code::MISSING_KEY, message).hint("add header = \"X-Canary\""),
                        reader.at,
                    );
                }
                None
            }
        }
    };
    list.iter().filter_map(read).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strategies_are_read_in_both_spellings_and_a_slip_is_recognised() {
        assert_eq!("blue_green".parse(), Ok(StrategyKind::BlueGreen));
        assert_eq!("blue-green".parse(), Ok(StrategyKind::BlueGreen));
        let error = "cannary".parse::<StrategyKind>().unwrap_err().to_string();
        assert!(error.contains("did you mean \"canary\"?"), "{error}");
    }
}
