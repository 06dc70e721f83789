//! Reads what targets show into the store, Fairway's own figures among them.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use fairway_metrics::exposition::{ACCEPT, Format, Scrape, ScrapeError, ScrapeSettings, TargetMemory};
use fairway_metrics::httpapi::{self, Health};
use fairway_metrics::labels::Labels;
use fairway_metrics::sample::Sample;
use hyper::header;
use tokio::task::JoinSet;

use super::Watching;
use super::targets::{SCRAPE_EVERY, Target, Targets, targets};
use crate::outgoing::Request;
use crate::warn::warn;

/// From asking to the end of the answer; what takes longer than Prometheus' default will not be in time for the next.
const SCRAPE_TIMEOUT: Duration = Duration::from_secs(10);

/// A body that is longer is cut off and the scrape failed: a service with 20,000 series shows some 4 MB.
const BODY_BYTES_MAX: usize = 16 << 20;

/// Scrapes under way. More would take memory for bodies, and time from what the machine is there for.
const AT_ONCE_MAX: usize = 16;

/// Cutting blocks, merging and forgetting them.
const MAINTAIN_EVERY: Duration = Duration::from_secs(60);

struct Known {
    target: Target,
    memory: TargetMemory,
    next: Instant,
}

pub async fn run(watching: Arc<Watching>) {
    let mut known: HashMap<Labels, Known> = HashMap::new();
    let mut own = TargetMemory::default();
    let mut own_next = Instant::now();
    let mut maintain_next = Instant::now() + MAINTAIN_EVERY;
    loop {
        let wanted = watching.pump.shared.read(targets);
        let mut samples = forget(&mut known, &wanted, watching.now_ms());
        watching.forget_scraped(&known);
        let now = Instant::now();
        for (labels, target) in wanted {
            // The first scrape comes at once: a new release is of interest from its first second on.
            known.entry(labels).or_insert_with(|| Known {
                target,
                memory: TargetMemory::default(),
                next: now,
            });
        }
        if own_next <= now {
            samples.extend(own_figures(&watching, &mut own).await);
            own_next = now + SCRAPE_EVERY;
        }
        samples.extend(due(&watching, &mut known, now).await);
        watching.keep(samples).await;
        if maintain_next <= now {
            watching.maintain().await;
            maintain_next = now + MAINTAIN_EVERY;
        }
        let next =
            known.values().map(|one| one.next).min().unwrap_or(own_next).min(own_next).min(maintain_next);
        // New copies are found when one of the known is asked again; a figure of a copy is never older than that.
        tokio::time::sleep_until(next.max(now + Duration::from_millis(100)).into()).await;
    }
}

/// Markers for the series of targets that are gone.
fn forget(known: &mut HashMap<Labels, Known>, wanted: &Targets, at_ms: i64) -> Vec<(Labels, Sample)> {
    let mut ended = Vec::new();
    known.retain(|labels, one| {
        let is_wanted = wanted.get(labels) == Some(&one.target);
        if !is_wanted {
            ended.extend(one.memory.gone(&settings(&one.target), at_ms));
        }
        is_wanted
    });
    ended
}

fn settings(target: &Target) -> ScrapeSettings {
    ScrapeSettings { fallback_format: Some(Format::Text), ..ScrapeSettings::new(target.labels.clone()) }
}

async fn due(
    watching: &Arc<Watching>,
    known: &mut HashMap<Labels, Known>,
    now: Instant,
) -> Vec<(Labels, Sample)> {
    let mut asking = JoinSet::new();
    let mut samples = Vec::new();
    let mut answers = Vec::new();
    let due: Vec<Target> =
        known.values().filter(|one| one.next <= now).map(|one| one.target.clone()).collect();
    for target in due {
        if asking.len() >= AT_ONCE_MAX {
            answers.extend(asking.join_next().await);
        }
        let watching = Arc::clone(watching);
        asking.spawn(async move {
            let (at_ms, began) = (watching.now_ms(), Instant::now());
            let answer = ask(&watching, &target.url).await;
            (target.labels, at_ms, began.elapsed(), answer)
        });
    }
    while let Some(answer) = asking.join_next().await {
        answers.push(answer);
    }
    for (labels, at_ms, took, answer) in answers.into_iter().flatten() {
        let Some(one) = known.get_mut(&labels) else { continue };
        one.next = now + one.target.every;
        let settings = settings(&one.target);
        let scrape = match answer {
            Ok((body, content_type)) => one.memory.scraped(&settings, &body, &content_type, at_ms, took),
            Err(error) => one.memory.failed(&settings, error, at_ms, took),
        };
        watching.limited(&one.target, scrape.dropped);
        watching.show_scraped(&one.target, &scrape, at_ms, took);
        samples.extend(scrape.samples);
    }
    samples
}

async fn ask(watching: &Watching, url: &str) -> Result<(Vec<u8>, String), ScrapeError> {
    let fail = |why: String| ScrapeError::Unreachable { why };
    let request = Request {
        headers: vec![(header::ACCEPT, ACCEPT.to_owned())],
        within: SCRAPE_TIMEOUT,
        answer_bytes_max: BODY_BYTES_MAX,
        ..Request::get(url)
    };
    let answer = watching.outgoing.send(request).await.map_err(|error| fail(error.to_string()))?;
    if answer.status != 200 {
        return Err(ScrapeError::Status { status: answer.status });
    }
    let content_type = answer.header(&header::CONTENT_TYPE).unwrap_or_default().to_owned();
    Ok((answer.body.to_vec(), content_type))
}

/// As if Fairway were a target like others, without a way over the network.
async fn own_figures(watching: &Watching, memory: &mut TargetMemory) -> Vec<(Labels, Sample)> {
    let began = Instant::now();
    let text = watching.exposition().await;
    let at_ms = watching.now_ms();
    let labels = Labels::new([("job", "fairway"), ("instance", "fairway")]);
    // What it says of a service's copy has that copy's name, not Fairway's.
    let settings = ScrapeSettings { honor_labels: true, ..ScrapeSettings::new(labels) };
    let scrape =
        memory.scraped(&settings, text.as_bytes(), Format::Text.content_type(), at_ms, began.elapsed());
    if let Some(error) = &scrape.error {
        warn(format_args!("Fairway's own figures cannot be read: {error}"));
    }
    scrape.samples
}

impl Watching {
    fn show_scraped(&self, target: &Target, scrape: &Scrape, at_ms: i64, took: Duration) {
        let shown = httpapi::Target {
            discovered_labels: target.labels.with("__address__", &target.url),
            labels: target.labels.clone(),
            pool: target.labels.get("job").unwrap_or_default().to_owned(),
            url: target.url.clone(),
            last_error: scrape.error.as_ref().map(ToString::to_string).unwrap_or_default(),
            last_scrape_ms: Some(at_ms),
            last_scrape_duration: took,
            health: if scrape.error.is_none() { Health::Good } else { Health::Bad },
            interval: target.every,
            timeout: SCRAPE_TIMEOUT,
            metadata: Arc::new(scrape.metadata.clone()),
        };
        let mut scraped = self.scraped.lock().unwrap_or_else(PoisonError::into_inner);
        scraped.insert(target.labels.clone(), shown);
    }

    fn forget_scraped(&self, known: &HashMap<Labels, Known>) {
        let mut scraped = self.scraped.lock().unwrap_or_else(PoisonError::into_inner);
        scraped.retain(|labels, _| known.contains_key(labels));
    }
}
