//! Alerts of environments whose metrics are somebody else's: that Prometheus evaluates the rules, and is asked what
//! fires.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use fairway_engine::State;
use fairway_engine::id::EnvironmentKey;
use fairway_engine::monitoring::MetricsSource;
use fairway_metrics::labels::Labels;
use serde::{Deserialize, Serialize};
use tokio::sync::broadcast::Receiver;
use tokio::task::JoinSet;

use super::super::{Watching, serving};
use crate::outgoing::Request;

/// As Fairway's own scrapes; Prometheus evaluates hardly more often.
const ASK_EVERY: Duration = Duration::from_secs(15);

/// While a release is being watched, which an alert undoes: that takes seconds, whoever evaluates the rules.
const ASK_EVERY_WATCHED: Duration = Duration::from_secs(3);

/// The answer is made from memory. A longer silence is none, and the next question comes soon.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);

/// Some thousand alerts with their annotations.
const ANSWER_BYTES_MAX: usize = 16 << 20;

/// What fires there, as far as it concerns one environment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Told {
    pub labels: Labels,
    pub annotations: BTreeMap<String, String>,
    pub starts_at_ms: i64,
}

/// The last that was heard.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Heard {
    pub alerts: Vec<Told>,
    /// Whether it ever answered, in this run or one before.
    pub answered: bool,
    /// Why the last question has no answer, in one sentence.
    #[serde(skip)]
    pub silent: Option<String>,
}

pub type AllHeard = BTreeMap<EnvironmentKey, Heard>;

fn sources(state: &State) -> BTreeMap<EnvironmentKey, String> {
    let of = |env: &fairway_engine::Environment| match &serving(env)?.spec.monitoring.source {
        MetricsSource::BuiltIn => None,
        MetricsSource::Prometheus { url } => Some((env.key.clone(), url.clone())),
    };
    state.environments.values().filter_map(of).collect()
}

/// Between two questions.
fn ask_every(state: &State) -> Duration {
    let is_watched = |env: &fairway_engine::Environment| {
        let rollout = env.rollout.as_ref()?;
        let of = |number| Some(&env.releases.get(&number)?.spec.monitoring.source);
        let serving = env.stable.and_then(of);
        Some([serving, of(rollout.to)].into_iter().flatten().any(|source| *source != MetricsSource::BuiltIn))
    };
    match state.environments.values().any(|env| is_watched(env).unwrap_or(false)) {
        true => ASK_EVERY_WATCHED,
        false => ASK_EVERY,
    }
}

pub async fn run(watching: Arc<Watching>) {
    let mut news = watching.pump.follow();
    let mut asked: BTreeMap<EnvironmentKey, String> = BTreeMap::new();
    loop {
        asked = wait_for_some(&watching, &mut news, &asked).await;
        let mut urls: BTreeMap<String, Vec<EnvironmentKey>> = BTreeMap::new();
        for (environment, url) in &asked {
            urls.entry(url.clone()).or_default().push(environment.clone());
        }
        let mut asking = JoinSet::new();
        for (url, environments) in urls {
            let watching = Arc::clone(&watching);
            asking.spawn(async move { (environments, ask(&watching, &url).await) });
        }
        while let Some(answer) = asking.join_next().await {
            let Ok((environments, answer)) = answer else { continue };
            for environment in environments {
                watching.alerting.hear(environment, &answer);
            }
        }
        rest(&watching, &mut news, &asked).await;
    }
}

/// Until it is time for the next question, or somebody else is to be asked.
async fn rest<T: Clone>(
    watching: &Watching,
    news: &mut Receiver<T>,
    asked: &BTreeMap<EnvironmentKey, String>,
) {
    let began = Instant::now();
    loop {
        let (every, wanted) = watching.pump.shared.read(|state| (ask_every(state), sources(state)));
        let left = every.saturating_sub(began.elapsed());
        if left.is_zero() || wanted != *asked {
            return;
        }
        tokio::select! {
            // Missed or read: there is news.
            _ = news.recv() => while news.try_recv().is_ok() {},
            () = tokio::time::sleep(left) => {}
        }
    }
}

/// The environments to ask for. While there is none, only an event can bring one.
async fn wait_for_some<T: Clone>(
    watching: &Watching,
    news: &mut Receiver<T>,
    before: &BTreeMap<EnvironmentKey, String>,
) -> BTreeMap<EnvironmentKey, String> {
    loop {
        let now = watching.pump.shared.read(sources);
        if now != *before {
            watching.alerting.forget_all_but(|environment| now.contains_key(environment));
        }
        if !now.is_empty() {
            return now;
        }
        // Missed or read: there is news.
        drop(news.recv().await);
        while news.try_recv().is_ok() {}
    }
}

async fn ask(watching: &Watching, url: &str) -> Result<Vec<Told>, String> {
    let request = Request {
        within: ANSWER_WITHIN,
        answer_bytes_max: ANSWER_BYTES_MAX,
        ..Request::get(format!("{}/api/v1/alerts", url.trim_end_matches('/')))
    };
    let gone = |why: String| format!("{url} does not answer ({why}): the alerts that it told last are kept");
    let answer = watching.outgoing.send(request).await.map_err(|error| gone(error.to_string()))?;
    if answer.status != 200 {
        return Err(gone(format!("status {}", answer.status)));
    }
    firing(&answer.body).map_err(gone)
}

#[derive(Deserialize)]
struct Envelope {
    status: String,
    data: Option<Data>,
}

#[derive(Deserialize)]
struct Data {
    alerts: Vec<One>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct One {
    labels: BTreeMap<String, String>,
    #[serde(default)]
    annotations: BTreeMap<String, String>,
    state: String,
    #[serde(default)]
    active_at: String,
}

fn firing(body: &[u8]) -> Result<Vec<Told>, String> {
    let envelope: Envelope =
        serde_json::from_slice(body).map_err(|error| format!("no answer of a Prometheus: {error}"))?;
    let data = envelope.data.filter(|_| envelope.status == "success").ok_or("it answers with an error")?;
    let told = |one: One| {
        let labels = Labels::new(one.labels.iter().map(|(name, value)| (name.as_str(), value.as_str())));
        (one.state == "firing" && !labels.is_empty()).then(|| Told {
            labels,
            annotations: one.annotations,
            starts_at_ms: milliseconds(&one.active_at).unwrap_or(0),
        })
    };
    Ok(data.alerts.into_iter().filter_map(told).collect())
}

/// `2026-11-21T05:57:30.25Z`, which is how Prometheus writes it.
fn milliseconds(text: &str) -> Option<i64> {
    let (date, time) = text.strip_suffix('Z')?.split_once('T')?;
    let numbers = |text: &str, sign: char| -> Option<[i64; 3]> {
        let mut parts = text.split(sign).map(|part| part.parse::<i64>().ok());
        Some([parts.next()??, parts.next()??, parts.next()??])
    };
    let [year, month, day] = numbers(date, '-')?;
    let (whole, part) = time.split_once('.').unwrap_or((time, ""));
    let [hour, minute, second] = numbers(whole, ':')?;
    let in_range = (1970..=9999).contains(&year) && (1..=12).contains(&month) && (1..=31).contains(&day);
    if !in_range {
        return None;
    }
    // Days since the epoch, after Howard Hinnant's `days_from_civil`.
    let shifted = if month <= 2 { year - 1 } else { year };
    let era = shifted.div_euclid(400);
    let year_of_era = shifted - era * 400;
    let day_of_year = (153 * (if month > 2 { month - 3 } else { month + 9 }) + 2) / 5 + day - 1;
    let days =
        era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468;
    let part: String = part.chars().chain("000".chars()).take(3).collect();
    let part: i64 = part.parse().ok()?;
    Some((((days * 24 + hour) * 60 + minute) * 60 + second) * 1000 + part)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_as_prometheus_writes_them() {
        assert_eq!(milliseconds("1970-01-01T00:00:00Z"), Some(0));
        assert_eq!(milliseconds("2026-11-21T05:57:30.250123456Z"), Some(1_795_240_650_250));
        assert_eq!(milliseconds("2000-02-29T00:00:00.5Z"), Some(951_782_400_500));
        for bad in ["", "now", "2026-11-21", "2026-13-01T00:00:00Z", "2026-11-21T05:57:30+01:00", "é"] {
            assert_eq!(milliseconds(bad), None, "{bad}");
        }
    }

    #[test]
    fn only_what_fires_is_taken_and_an_error_is_no_answer() {
        let alert = |state: &str| {
            format!(
                r#"{{"labels":{{"alertname":"A","s":"{state}"}},"annotations":{{}},"state":"{state}","activeAt":"1970-01-01T00:00:01Z","value":"1e+00"}}"#
            )
        };
        let body = format!(
            r#"{{"status":"success","data":{{"alerts":[{},{}]}}}}"#,
            alert("pending"),
            alert("firing")
        );
        let told = firing(body.as_bytes()).unwrap();
        assert_eq!((told.len(), told[0].labels.get("s"), told[0].starts_at_ms), (1, Some("firing"), 1000));
        for bad in ["", "{}", r#"{"status":"error","error":"no"}"#, r#"{"status":"success"}"#, "<html>"] {
            assert!(firing(bad.as_bytes()).is_err(), "{bad}");
        }
    }
}
