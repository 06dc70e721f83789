//! Reads what targets show into the store, Fairway's own figures among them.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use fairway_metrics::exposition::{ACCEPT, Format, Scrape, ScrapeError, ScrapeSettings, TargetMemory};
use fairway_metrics::httpapi::{self, Health};
use fairway_metrics::labels::Labels;
use fairway_metrics::sample::Sample;
use fairway_metrics::store::Appended;
use hyper::header;
use tokio::task::JoinSet;

use super::Watching;
use super::targets::{SCRAPE_EVERY, Target, Targets, targets};
use crate::outgoing::Request;
use crate::warn::warn;

/// From asking to the end of the answer; what takes longer than Prometheus' default will not be in time for the next.
pub const SCRAPE_TIMEOUT: Duration = Duration::from_secs(10);

/// A body that is longer is cut off and the scrape failed: a service with 20,000 series shows some 4 MB.
const BODY_BYTES_MAX: usize = 8 << 20;

/// Scrapes under way, each with its body in memory. Those that hang take a place until their time is over.
const AT_ONCE_MAX: usize = 16;

/// Whatever was wished for: the samples of each round are a write to disk.
const EVERY_MIN: Duration = Duration::from_secs(1);

/// Between two looks at what is due, where no place is free for it.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// Cutting blocks, merging and forgetting them.
const MAINTAIN_EVERY: Duration = Duration::from_secs(60);

struct Known {
    target: Target,
    /// None while the target is asked: whoever asks has it.
    memory: Option<TargetMemory>,
    next: Instant,
}

/// What one scrape came to.
struct Done {
    labels: Labels,
    memory: TargetMemory,
    scrape: Scrape,
    at_ms: i64,
    began: Instant,
    took: Duration,
}

/// Against the samples that are there: a machine's clock that was ahead is put right while no server runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Clock {
    Runs,
    /// What is measured now is refused, as it would lie before what was measured last.
    Behind,
}

impl Clock {
    /// What Fairway's own figures came to, and what is to be said, once.
    fn look(&mut self, own: &Appended) -> Option<&'static str> {
        let is = if own.out_of_order + own.too_old > 0 { Clock::Behind } else { Clock::Runs };
        match (std::mem::replace(self, is), is) {
            (Clock::Runs, Clock::Behind) => Some(
                "the clock is behind the last samples, was it put back? Nothing that is measured can be kept until \
                 it has caught up: gates have no data, and alerts see nothing new",
            ),
            (Clock::Behind, Clock::Runs) => Some("the clock has caught up: what is measured is kept again"),
            (Clock::Runs, Clock::Runs) | (Clock::Behind, Clock::Behind) => None,
        }
    }
}

pub async fn run(watching: Arc<Watching>) {
    let mut known: HashMap<Labels, Known> = HashMap::new();
    let mut own = TargetMemory::default();
    let mut own_next = Instant::now();
    let mut clock = Clock::Runs;
    let mut asking: JoinSet<Done> = JoinSet::new();
    let mut tidying: JoinSet<()> = JoinSet::new();
    let mut maintain_next = Instant::now() + MAINTAIN_EVERY;
    let mut samples = Vec::new();
    loop {
        let wanted = watching.pump.shared.read(targets);
        let now = Instant::now();
        samples.extend(follow(&mut known, wanted, watching.now_ms(), now));
        watching.forget_gone(&known);
        for (target, memory) in due(&mut known, now, AT_ONCE_MAX.saturating_sub(asking.len())) {
            asking.spawn(scrape(Arc::clone(&watching), target, memory));
        }
        if own_next <= now {
            let figures = own_figures(&watching, &mut own).await;
            if let Some(words) = watching.keep(figures).await.and_then(|kept| clock.look(&kept)) {
                warn(format_args!("{words}"));
            }
            own_next = now + SCRAPE_EVERY;
        }
        watching.keep(std::mem::take(&mut samples)).await;
        if maintain_next <= now && tidying.is_empty() {
            let watching = Arc::clone(&watching);
            // Merging may take longer than the time between two scrapes.
            tidying.spawn(async move { watching.maintain().await });
            maintain_next = now + MAINTAIN_EVERY;
        }
        let waiting = known.values().filter(|one| one.memory.is_some()).map(|one| one.next);
        let next = waiting.chain([own_next, maintain_next]).min().unwrap_or(own_next);
        tokio::select! {
            Some(done) = asking.join_next() => {
                let ready = std::iter::from_fn(|| asking.try_join_next());
                for done in std::iter::once(done).chain(ready).flatten() {
                    samples.extend(watching.take(&mut known, done));
                }
            }
            Some(_) = tidying.join_next() => {}
            // New copies are found when one of the known is asked again; a figure of a copy is never older than that.
            () = tokio::time::sleep_until(next.max(now + LOOK_AGAIN).into()) => {}
        }
    }
}

/// Takes in new targets, and gives markers for the series of those that are gone. One that is being asked is still
/// there when the answer comes.
fn follow(
    known: &mut HashMap<Labels, Known>,
    wanted: Targets,
    at_ms: i64,
    now: Instant,
) -> Vec<(Labels, Sample)> {
    let mut ended = Vec::new();
    known.retain(|labels, one| {
        let is_wanted = wanted.get(labels) == Some(&one.target);
        match &mut one.memory {
            Some(memory) if !is_wanted => {
                ended.extend(memory.gone(&settings(&one.target), at_ms));
                false
            }
            Some(_) | None => true,
        }
    });
    for (labels, target) in wanted {
        // The first scrape comes at once: a new release is of interest from its first second on.
        known.entry(labels).or_insert_with(|| Known {
            target,
            memory: Some(TargetMemory::default()),
            next: now,
        });
    }
    ended
}

/// Who is to be asked now: those that have waited longest, as many as there is room for. A target that hangs holds up
/// nobody else.
fn due(known: &mut HashMap<Labels, Known>, now: Instant, room: usize) -> Vec<(Target, TargetMemory)> {
    let mut due: Vec<&mut Known> =
        known.values_mut().filter(|one| one.next <= now && one.memory.is_some()).collect();
    due.sort_by_key(|one| one.next);
    due.into_iter().take(room).filter_map(|one| Some((one.target.clone(), one.memory.take()?))).collect()
}

fn settings(target: &Target) -> ScrapeSettings {
    ScrapeSettings { fallback_format: Some(Format::Text), ..ScrapeSettings::new(target.labels.clone()) }
}

async fn scrape(watching: Arc<Watching>, target: Target, mut memory: TargetMemory) -> Done {
    let (at_ms, began) = (watching.now_ms(), Instant::now());
    let answer = ask(&watching, &target.url).await;
    let (took, settings) = (began.elapsed(), settings(&target));
    // Megabytes take longer than a thread that others wait for may be held.
    let read = tokio::task::spawn_blocking(move || {
        let scrape = match answer {
            Ok((body, content_type)) => memory.scraped(&settings, &body, &content_type, at_ms, took),
            Err(error) => memory.failed(&settings, error, at_ms, took),
        };
        (memory, scrape)
    });
    let (memory, scrape) = read.await.unwrap_or_else(|error| {
        // A body that makes the reader panic is one target's trouble.
        let mut memory = TargetMemory::default();
        let error = ScrapeError::Unreachable { why: error.to_string() };
        let scrape = memory.failed(&self::settings(&target), error, at_ms, took);
        (memory, scrape)
    });
    Done { labels: target.labels, memory, scrape, at_ms, began, took }
}

async fn ask(watching: &Watching, url: &str) -> Result<(Bytes, String), ScrapeError> {
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
    Ok((answer.body, content_type))
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
    fn take(&self, known: &mut HashMap<Labels, Known>, done: Done) -> Vec<(Labels, Sample)> {
        let Some(one) = known.get_mut(&done.labels) else { return Vec::new() };
        one.memory = Some(done.memory);
        one.next = done.began + one.target.every.max(EVERY_MIN);
        self.limited(&one.target, done.scrape.dropped);
        self.show_scraped(&one.target, &done.scrape, done.at_ms, done.took);
        done.scrape.samples
    }

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

    /// What is said of targets ends with them: there are as many copies as there ever were deploys.
    fn forget_gone(&self, known: &HashMap<Labels, Known>) {
        let mut scraped = self.scraped.lock().unwrap_or_else(PoisonError::into_inner);
        scraped.retain(|labels, _| known.contains_key(labels));
        drop(scraped);
        let mut limited = self.limited.lock().unwrap_or_else(PoisonError::into_inner);
        limited.retain(|labels, _| known.contains_key(labels));
    }
}

#[cfg(test)]
mod tests {
    use fairway_metrics::labels::NAME;
    use fairway_metrics::store::{Options, Store};

    use super::*;

    fn wanted(names: &[&str]) -> Targets {
        let target = |name: &&str| {
            let labels = Labels::new([("job", *name)]);
            let url = format!("http://{name}/metrics");
            (labels.clone(), Target { url, every: SCRAPE_EVERY, labels })
        };
        names.iter().map(target).collect()
    }

    fn names(asked: &[(Target, TargetMemory)]) -> Vec<&str> {
        asked.iter().filter_map(|(target, _)| target.labels.get("job")).collect()
    }

    #[test]
    fn a_clock_that_was_put_back_is_told_once_and_so_is_its_end() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path(), Options::default()).unwrap().store;
        let (mut clock, series) = (Clock::Runs, Labels::new([(NAME, "up")]));
        let mut at = |at_ms| {
            let kept = store.append_labels([(&series, Sample { at_ms, value: 1.0 })]).unwrap();
            clock.look(&kept)
        };
        assert_eq!(at(1_000_000), None);
        assert!(at(500_000).unwrap().contains("put back"));
        assert_eq!(at(515_000), None);
        assert!(at(1_015_000).unwrap().contains("caught up"));
        assert_eq!(at(1_030_000), None);
    }

    #[test]
    fn a_target_that_hangs_holds_up_no_other() {
        let (mut known, now) = (HashMap::new(), Instant::now());
        follow(&mut known, wanted(&["hangs"]), 0, now);
        let hanging = due(&mut known, now, 2);
        assert_eq!(names(&hanging), ["hangs"]);
        follow(&mut known, wanted(&["hangs", "quick"]), 0, now);
        assert_eq!(names(&due(&mut known, now + SCRAPE_TIMEOUT, 1)), ["quick"], "and it is not asked twice");
        assert_eq!(names(&due(&mut known, now + SCRAPE_TIMEOUT, 1)), Vec::<&str>::new());
    }

    #[test]
    fn who_has_waited_longest_is_asked_first_and_no_more_than_there_is_room_for() {
        let (mut known, now) = (HashMap::new(), Instant::now());
        follow(&mut known, wanted(&["later"]), 0, now + Duration::from_secs(1));
        follow(&mut known, wanted(&["later", "first"]), 0, now);
        let then = now + Duration::from_secs(5);
        assert_eq!(names(&due(&mut known, then, 0)), Vec::<&str>::new());
        assert_eq!(names(&due(&mut known, then, 1)), ["first"]);
        assert_eq!(names(&due(&mut known, then, 1)), ["later"]);
    }

    #[test]
    fn a_target_that_goes_while_it_is_asked_ends_with_its_answer() {
        let (mut known, now) = (HashMap::new(), Instant::now());
        follow(&mut known, wanted(&["one"]), 0, now);
        let (target, mut memory) = due(&mut known, now, 1).pop().unwrap();
        assert!(follow(&mut known, wanted(&[]), 1, now).is_empty());
        let scrape = memory.scraped(&settings(&target), b"a 1\n", "text/plain", 2, Duration::ZERO);
        assert!(!scrape.samples.is_empty());
        known.get_mut(&target.labels).unwrap().memory = Some(memory);
        let ended = follow(&mut known, wanted(&[]), 3, now);
        assert_eq!(ended.len(), scrape.samples.len(), "every series has its marker");
        assert!(known.is_empty());
    }
}
