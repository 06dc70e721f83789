//! Store, queries and rules, side by side with a real Prometheus.
//!
//! Both sides are processes of their own and are asked in the same way: one connection over loopback, the same bodies,
//! the same questions, no rate limit. Ours answers a write when it is on the disk; Prometheus when its log has been handed
//! to the kernel. Samples go to one side after the other; questions alternate, so that whatever else the machine does
//! meets both.

mod answers;
mod holder;
mod http;
mod load;
mod side;

use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use fairway_metrics::store::bench;

pub use holder::hold;

use super::figure::{Figure, median, percentile};
use crate::fault::{Context, Done, Fault};
use crate::setup::peers;
use load::{Load, STEP_MS};
use side::{Blocks, Memory, Side};

const HOUR_MS: i64 = 3_600_000;
const ROUNDS_AN_HOUR: usize = 240;

/// Blocks of two hours are merged by three when a newer one is there, and the newest three hours stay in memory: the
/// least after which Prometheus has merged.
const HOURS: usize = 12;

/// A thousand each of requests, buckets and others.
const SERIES: usize = 3_000;

/// Heads for which memory is compared, and their hours; the last one is also what ingest is measured with.
const HEADS: [(usize, usize); 2] = [(1_000, 2), (10_000, 2)];

/// So many answers that the 99th percentile is not simply the longest.
const RUNS: usize = 100;

/// Memory that was given back, or not.
const REST: Duration = Duration::from_secs(3);

/// Rules are evaluated as of the last minutes of the samples, which end some hours ago, for this long.
const RULES_LAG_MS: i64 = 15 * 60_000;

const QUERIES: [(&str, &str); 5] = [
    ("sum of rates", "sum by (service) (rate(http_requests_total[5m]))"),
    (
        "p95 of histograms",
        "histogram_quantile(0.95, sum by (service, le) (rate(http_request_duration_seconds_bucket[5m])))",
    ),
    (
        "error ratio",
        "sum by (service) (rate(http_requests_total{code=~\"5.*|none\"}[5m])) \
         / sum by (service) (rate(http_requests_total[5m]))",
    ),
    ("top of hourly increases", "topk(5, sum by (route, instance) (increase(http_requests_total[1h])))"),
    ("every series as it is", "http_requests_total"),
];

const NOT_HERE: &str = "there is no Prometheus on this machine, and none could be fetched";

/// What one side did.
#[derive(Debug)]
struct Measured {
    ingest_per_second: f64,
    /// Seconds of a processor for a million samples.
    ingest_processor: f64,
    heads: Vec<Memory>,
    blocks: Blocks,
    /// Per query.
    times: Vec<Vec<f64>>,
    /// Per query: milliseconds of a processor for one answer, which other work on the machine hardly changes.
    processor: Vec<f64>,
    rules: Vec<f64>,
    rule_samples: u64,
}

pub fn measure() -> Done<Vec<Figure>> {
    let prometheus = prometheus();
    let program = prometheus.as_deref();
    let start = |peer: bool| match (peer, program) {
        (false, _) => Side::fairway().map(Some),
        (true, Some(program)) => Side::prometheus(program).map(Some),
        (true, None) => Ok(None),
    };
    let now_ms = SystemTime::now().duration_since(UNIX_EPOCH).context("the clock")?.as_millis() as i64;
    // Blocks of both begin at multiples of their length; and nothing may come from the future.
    let start_ms = now_ms - now_ms % (6 * HOUR_MS) - 12 * HOUR_MS - 6 * HOUR_MS;
    let end_ms = start_ms + HOURS as i64 * HOUR_MS - STEP_MS;

    let (mut sides, mut measured) = (Vec::new(), Vec::new());
    for peer in [false, true] {
        let Some((ingest_per_second, ingest_processor, heads)) = heads(&|| start(peer), start_ms)? else {
            continue;
        };
        let mut side = start(peer)?.context("a side that was there before")?;
        eprintln!("{}: {HOURS} hours of {SERIES} series", side.name());
        side.feed(&mut Load::new(SERIES, start_ms), HOURS * ROUNDS_AN_HOUR)?;
        let blocks = side.settled_blocks()?;
        sides.push(side);
        let (times, processor, rules, rule_samples) = (Vec::new(), Vec::new(), Vec::new(), 0);
        measured.push(Measured {
            ingest_per_second,
            ingest_processor,
            heads,
            blocks,
            times,
            processor,
            rules,
            rule_samples,
        });
    }

    let (agreed, sizes) = ask(&mut sides, &mut measured, (end_ms - 6 * HOUR_MS, end_ms))?;
    let rules = load::rules(now_ms - end_ms + RULES_LAG_MS);
    for (side, measured) in sides.iter_mut().zip(&mut measured) {
        (measured.rules, measured.rule_samples) = side.rules(&rules)?;
    }
    drop(sides);

    let mut measured = measured.into_iter();
    let ours = measured.next().context("our own side")?;
    let theirs = measured.next();
    let mut figures = ingest(&ours, theirs.as_ref())?;
    figures.extend(room(&ours, theirs.as_ref()));
    for (index, (name, _)) in QUERIES.iter().enumerate() {
        figures.extend(query(name, index, &ours, theirs.as_ref(), (agreed[index], sizes[index])));
    }
    figures.extend(rule_figures(&ours, theirs.as_ref()));
    figures.extend(memory(&ours, theirs.as_ref()));
    Ok(figures)
}

/// The program that was named, or that could be fetched.
fn prometheus() -> Option<PathBuf> {
    let named = std::env::var_os("FAIRWAY_PROMETHEUS").map(PathBuf::from);
    named.filter(|program| program.is_file()).or_else(|| {
        let found = peers::variables().into_iter();
        found.filter(|(variable, _)| *variable == "FAIRWAY_PROMETHEUS").map(|(_, program)| program).next()
    })
}

/// Processes that hold a head and nothing else. `None` when there is no such side.
fn heads(start: &dyn Fn() -> Done<Option<Side>>, start_ms: i64) -> Done<Option<(f64, f64, Vec<Memory>)>> {
    let (mut ingest, mut processor, mut memory) = (0.0, 0.0, Vec::new());
    for (series, hours) in HEADS {
        let Some(mut side) = start()? else { return Ok(None) };
        eprintln!("{}: {hours} hours of {series} series", side.name());
        let fed = side.feed(&mut Load::new(series, start_ms), hours * ROUNDS_AN_HOUR)?;
        ingest = fed.per_second();
        std::thread::sleep(REST);
        processor = side.processor()? * 1e6 / fed.samples as f64;
        memory.push(side.memory()?);
    }
    Ok(Some((ingest, processor, memory)))
}

/// Asks each question of each side in turn. Answers whether the sides agree, and what the answers hold.
fn ask(
    sides: &mut [Side],
    measured: &mut [Measured],
    range: (i64, i64),
) -> Done<(Vec<bool>, Vec<answers::Size>)> {
    let (mut agreed, mut sizes) = (Vec::new(), Vec::new());
    for (name, query) in QUERIES {
        eprintln!("{name}: {query}");
        let first: Vec<Vec<u8>> = sides
            .iter_mut()
            .map(|side| side.range(query, range).map(|(answer, _)| answer))
            .collect::<Done<_>>()?;
        let [ours, theirs @ ..] = &first[..] else { return Err(Fault::new("nobody was asked")) };
        sizes.push(answers::size(ours)?);
        agreed.push(
            theirs
                .iter()
                .map(|theirs| answers::agree(ours, theirs))
                .collect::<Done<Vec<_>>>()?
                .iter()
                .all(|same| *same),
        );
        let mut times = vec![Vec::with_capacity(RUNS); sides.len()];
        let before: Vec<f64> = sides.iter().map(Side::processor).collect::<Done<_>>()?;
        for _ in 0..RUNS {
            for (side, times) in sides.iter_mut().zip(&mut times) {
                times.push(side.range(query, range)?.1.as_secs_f64() * 1e3);
            }
        }
        for (((measured, times), side), before) in measured.iter_mut().zip(times).zip(&*sides).zip(before) {
            measured.times.push(times);
            measured.processor.push((side.processor()? - before) * 1e3 / RUNS as f64);
        }
    }
    Ok((agreed, sizes))
}

/// Ours as a part of theirs.
fn ratio(what: String, ours: f64, theirs: Option<f64>) -> Figure {
    match theirs {
        Some(theirs) => Figure::new(what, ours / theirs, "x", 1.0),
        None => Figure::not_compared(what, NOT_HERE),
    }
}

fn ingest(ours: &Measured, theirs: Option<&Measured>) -> Done<Vec<Figure>> {
    let directory = tempfile::tempdir().context("a directory")?;
    let began = Instant::now();
    let load = bench::Load { series: 10_000, hours: 7 };
    let inside =
        bench::bench(directory.path(), load, &|| began.elapsed()).context("the store's own benchmark")?;
    let what = "metrics: ingest by remote write";
    let figure = Figure::at_least(what, ours.ingest_per_second / 1e3, "k/s", 100.0).detail(
        "one connection, 10,000 series, requests of 2,000 samples, each synced to the disk before it is answered"
            .to_owned(),
    );
    let compared = ratio(
        "metrics: ingest, processor time against Prometheus".to_owned(),
        ours.ingest_processor,
        theirs.map(|theirs| theirs.ingest_processor),
    );
    let compared = match theirs {
        // The time on the clock says whose disk was waited for.
        Some(theirs) => compared.detail(format!(
            "a million samples: {:.2} s of a processor, Prometheus {:.2} s and, without a sync, {:.0} k/s",
            ours.ingest_processor,
            theirs.ingest_processor,
            theirs.ingest_per_second / 1e3
        )),
        None => compared,
    };
    let inside =
        Figure::at_least("metrics: ingest in process", inside.samples_per_second / 1e3, "k/s", 100.0).detail(
            format!(
                "scraped samples: 10,000 series with log, a sync each round, blocks; longest round {:.0} ms",
                inside.round_max.as_secs_f64() * 1e3
            ),
        );
    Ok(vec![figure, compared, inside])
}

fn room(ours: &Measured, theirs: Option<&Measured>) -> Vec<Figure> {
    let of = |blocks: Blocks| format!("{} blocks, {} samples", blocks.count, blocks.samples);
    let bytes = ours.blocks.bytes_per_sample();
    let what = "metrics: room of a sample in blocks, indexes included";
    let figure = Figure::new(what, bytes, "B", 2.0).detail(of(ours.blocks)).valid(ours.blocks.count > 0);
    let their_blocks = theirs.map(|theirs| theirs.blocks);
    let compared = ratio(
        "metrics: room of a sample against Prometheus".to_owned(),
        bytes,
        their_blocks.map(Blocks::bytes_per_sample),
    );
    let compared = match their_blocks {
        Some(blocks) => compared
            .detail(format!("Prometheus: {:.2} B; {}", blocks.bytes_per_sample(), of(blocks)))
            .valid(blocks.count > 0),
        None => compared,
    };
    vec![figure, compared]
}

fn query(
    name: &str,
    index: usize,
    ours: &Measured,
    theirs: Option<&Measured>,
    (agreed, size): (bool, answers::Size),
) -> [Figure; 2] {
    let told = |measured: &Measured| {
        let of = |percent| percentile(measured.times[index].clone(), percent);
        format!(
            "median {:.1} ms, p99 {:.1} ms, {:.1} ms of a processor",
            of(50),
            of(99),
            measured.processor[index]
        )
    };
    let p99 = |measured: &Measured| percentile(measured.times[index].clone(), 99);
    let figure = Figure::new(format!("metrics: 1,000 series × 6 h, {name}, p99"), p99(ours), "ms", 200.0)
        .detail(format!(
            "{} over HTTP, {RUNS} runs; {} series, {} points",
            told(ours),
            size.series,
            size.points
        ))
        .valid(size.points > 0);
    let compared =
        ratio(format!("metrics: {name}, p99 against Prometheus"), p99(ours), theirs.map(p99)).valid(agreed);
    let compared = match theirs {
        Some(theirs) => {
            let medians = median(ours.times[index].clone()) / median(theirs.times[index].clone());
            let agree = if agreed { "the answers are the same" } else { "THE ANSWERS DIFFER" };
            compared.detail(format!("Prometheus: {}; medians {medians:.2} x; {agree}", told(theirs)))
        }
        None => compared,
    };
    [figure, compared]
}

fn rule_figures(ours: &Measured, theirs: Option<&Measured>) -> [Figure; 2] {
    let seconds = median(ours.rules.clone());
    let figure = Figure::new("metrics: 500 rules", seconds, "s", 5.0)
        .detail(format!(
            "five evaluations with storing and a sync: {:.3?} s; {} samples",
            ours.rules, ours.rule_samples
        ))
        .valid(ours.rule_samples > 0);
    let what = "metrics: 500 rules against Prometheus".to_owned();
    let compared = ratio(what, seconds, theirs.map(|theirs| median(theirs.rules.clone())));
    let compared = match theirs {
        Some(theirs) => compared.detail(format!(
            "Prometheus by its own account: {:.3?} s; {} samples",
            theirs.rules, theirs.rule_samples
        )),
        None => compared,
    };
    [figure, compared]
}

fn memory(ours: &Measured, theirs: Option<&Measured>) -> Vec<Figure> {
    let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    let told = |memory: Memory| {
        format!("{:.0} MiB resident, {:.0} of it anonymous", mib(memory.resident), mib(memory.anonymous))
    };
    let figure = |(index, (series, hours)): (usize, (usize, usize))| {
        let own = ours.heads[index];
        let their = theirs.map(|theirs| theirs.heads[index]);
        let what = format!("metrics: memory with {series} series × {hours} h against Prometheus");
        let compared = ratio(what, own.resident as f64, their.map(|their| their.resident as f64));
        match their {
            Some(their) => compared.detail(format!("{}; Prometheus {}", told(own), told(their))),
            None => compared,
        }
    };
    HEADS.into_iter().enumerate().map(figure).collect()
}
