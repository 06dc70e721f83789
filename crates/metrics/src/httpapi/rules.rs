//! `/api/v1/rules` and `/alerts`.

use std::fmt::Write as _;

use super::context::{ActiveAlert, Alerting, Context, Health, Rule, RuleGroup};
use super::envelope::{ApiError, Data};
use super::json::{put_field, put_key, put_labels, put_list, put_number, put_text};
use super::request::Params;
use super::text::quoted;
use super::time::formatted;
use crate::exposition::number;
use crate::select::Matcher;

/// Which rules are asked for.
struct Filter<'a> {
    names: Vec<&'a str>,
    groups: Vec<&'a str>,
    files: Vec<&'a str>,
    sets: Vec<Vec<Matcher>>,
    alerting: bool,
    recording: bool,
    with_alerts: bool,
}

impl Filter<'_> {
    fn takes(&self, rule: &Rule) -> bool {
        let kind = if rule.alerting.is_some() { self.alerting } else { self.recording };
        let named = self.names.is_empty() || self.names.contains(&rule.name.as_str());
        let matched = |set: &Vec<Matcher>| set.iter().all(|matcher| matcher.accepts(&rule.labels));
        kind && named && (self.sets.is_empty() || self.sets.iter().any(matched))
    }

    fn takes_group(&self, group: &RuleGroup) -> bool {
        (self.groups.is_empty() || self.groups.contains(&group.name.as_str()))
            && (self.files.is_empty() || self.files.contains(&group.file.as_str()))
    }
}

pub(super) fn rules(context: &Context<'_>, params: &Params) -> Result<Data, ApiError> {
    if let Some(error) = &params.error {
        return Err(ApiError::bad_data(format!("error parsing form values: {error}")));
    }
    let sets = params.matchers().map_err(ApiError::bad_data)?;
    let kind = params.of_url("type").to_lowercase();
    if !matches!(kind.as_str(), "" | "alert" | "record") {
        return Err(ApiError::parameter("type", format!("not supported value {}", quoted(&kind))));
    }
    let exclude = params.of_url("exclude_alerts").to_lowercase();
    let filter = Filter {
        names: params.all("rule_name[]").collect(),
        groups: params.all("rule_group[]").collect(),
        files: params.all("file[]").collect(),
        sets,
        alerting: kind != "record",
        recording: kind != "alert",
        with_alerts: !boolean(&exclude)?,
    };
    let (most, from) = page(params)?;
    let groups = context.rules.groups();
    let first = match from {
        None => 0,
        Some(token) => groups.iter().position(|group| page_token(group) == token).ok_or_else(|| {
            let why = format!("invalid group_next_token '{token}'. were rule groups changed?");
            ApiError::parameter("group_next_token", why)
        })?,
    };
    let mut next = None;
    let mut shown: Vec<(&RuleGroup, Vec<&Rule>)> = Vec::new();
    for group in groups.iter().skip(first).filter(|group| filter.takes_group(group)) {
        let rules: Vec<&Rule> = group.rules.iter().filter(|rule| filter.takes(rule)).collect();
        if rules.is_empty() {
            continue;
        }
        if most.is_some_and(|most| shown.len() == most) {
            next = Some(page_token(group));
            break;
        }
        shown.push((group, rules));
    }
    let mut out = String::from("{");
    put_key(&mut out, "groups");
    put_list(&mut out, shown, |out, (group, rules)| put_group(out, group, &rules, filter.with_alerts));
    if let Some(token) = next {
        put_field(&mut out, "groupNextToken", &token);
    }
    out.push('}');
    Ok(Data::new(out))
}

pub(super) fn alerts(context: &Context<'_>, _: &Params) -> Result<Data, ApiError> {
    let groups = context.rules.groups();
    let rules = groups.iter().flat_map(|group| &group.rules);
    let alerts = rules.filter_map(|rule| rule.alerting.as_ref()).flat_map(|alerting| &alerting.alerts);
    let mut out = String::from("{");
    put_key(&mut out, "alerts");
    put_list(&mut out, alerts, put_alert);
    out.push('}');
    Ok(Data::new(out))
}

/// As Go's `strconv.ParseBool`, of lower case.
fn boolean(text: &str) -> Result<bool, ApiError> {
    match text {
        "" | "0" | "f" | "false" => Ok(false),
        "1" | "t" | "true" => Ok(true),
        _ => {
            let why = format!("strconv.ParseBool: parsing {}: invalid syntax", quoted(text));
            Err(ApiError::parameter("exclude_alerts", format!("error converting exclude_alerts: {why}")))
        }
    }
}

/// How many groups a page has, and the token of its first.
fn page(params: &Params) -> Result<(Option<usize>, Option<String>), ApiError> {
    let (most, token) = (params.of_url("group_limit"), params.of_url("group_next_token"));
    if most.is_empty() {
        let why = "group_limit needs to be present in order to paginate over the groups";
        return if token.is_empty() {
            Ok((None, None))
        } else {
            Err(ApiError::parameter("group_next_token", why))
        };
    }
    let number: i32 = most.parse().map_err(|_| {
        let why = format!("strconv.ParseInt: parsing {}: invalid syntax", quoted(most));
        ApiError::parameter("group_limit", format!("group_limit needs to be a valid number: {why}"))
    })?;
    let number = usize::try_from(number).ok().filter(|number| *number > 0);
    let number =
        number.ok_or_else(|| ApiError::parameter("group_limit", "group_limit needs to be greater than 0"))?;
    Ok((Some(number), (!token.is_empty()).then(|| token.to_owned())))
}

/// What names a group's place, to whoever asks for the next page. Opaque to them.
fn page_token(group: &RuleGroup) -> String {
    let named = format!("{};{}", group.file, group.name);
    named.bytes().fold(String::new(), |mut token, byte| {
        let _ = write!(token, "{byte:02x}");
        token
    })
}

fn put_group(out: &mut String, group: &RuleGroup, rules: &[&Rule], with_alerts: bool) {
    out.push('{');
    put_field(out, "name", &group.name);
    put_field(out, "file", &group.file);
    put_key(out, "rules");
    put_list(out, rules, |out, rule| match &rule.alerting {
        Some(alerting) => put_alerting(out, rule, alerting, with_alerts),
        None => put_recording(out, rule),
    });
    put_number(out, "interval", group.interval.as_secs_f64());
    put_key(out, "limit");
    let _ = write!(out, "{}", group.limit);
    put_number(out, "evaluationTime", group.evaluation_time.as_secs_f64());
    put_field(out, "lastEvaluation", &formatted(group.last_evaluation_ms));
    out.push('}');
}

fn put_alerting(out: &mut String, rule: &Rule, alerting: &Alerting, with_alerts: bool) {
    let state = if alerting.alerts.iter().any(|alert| alert.firing) {
        "firing"
    } else if alerting.alerts.is_empty() {
        "inactive"
    } else {
        "pending"
    };
    out.push('{');
    put_field(out, "state", state);
    put_field(out, "name", &rule.name);
    put_field(out, "query", &rule.query);
    put_number(out, "duration", alerting.hold.as_secs_f64());
    put_number(out, "keepFiringFor", alerting.keep_firing.as_secs_f64());
    put_key(out, "labels");
    put_labels(out, &rule.labels);
    put_key(out, "annotations");
    put_labels(out, &alerting.annotations);
    put_key(out, "alerts");
    if with_alerts {
        put_list(out, &alerting.alerts, put_alert);
    } else {
        out.push_str("null");
    }
    put_outcome(out, rule);
    put_field(out, "type", "alerting");
    out.push('}');
}

fn put_recording(out: &mut String, rule: &Rule) {
    out.push('{');
    put_field(out, "name", &rule.name);
    put_field(out, "query", &rule.query);
    if !rule.labels.is_empty() {
        put_key(out, "labels");
        put_labels(out, &rule.labels);
    }
    put_outcome(out, rule);
    put_field(out, "type", "recording");
    out.push('}');
}

fn put_outcome(out: &mut String, rule: &Rule) {
    put_key(out, "health");
    put_text(out, rule.health.rule());
    if !rule.last_error.is_empty() {
        put_field(out, "lastError", &rule.last_error);
    }
    put_number(out, "evaluationTime", rule.evaluation_time.as_secs_f64());
    put_field(out, "lastEvaluation", &formatted(rule.last_evaluation_ms));
}

impl Health {
    fn rule(self) -> &'static str {
        match self {
            Self::Good => "ok",
            Self::Bad => "err",
            Self::Unknown => "unknown",
        }
    }
}

fn put_alert(out: &mut String, alert: &ActiveAlert) {
    out.push('{');
    put_key(out, "labels");
    put_labels(out, &alert.labels);
    put_key(out, "annotations");
    put_labels(out, &alert.annotations);
    put_field(out, "state", if alert.firing { "firing" } else { "pending" });
    put_field(out, "activeAt", &formatted(Some(alert.active_at_ms)));
    if let Some(since_ms) = alert.keep_firing_since_ms {
        put_field(out, "keepFiringSince", &formatted(Some(since_ms)));
    }
    put_field(out, "value", &number::exponent(alert.value));
    out.push('}');
}
