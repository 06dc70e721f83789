use super::*;
use crate::sample::is_stale;

const TEXT: &str = "text/plain; version=0.0.4";

fn settings() -> ScrapeSettings {
    ScrapeSettings::new(Labels::new([("instance", "i1"), ("job", "shop")]))
}

/// The samples of a scrape without those about it, as lines.
fn lines(samples: &[(Labels, Sample)]) -> Vec<String> {
    let line = |(labels, sample): &(Labels, Sample)| {
        let value = if is_stale(sample.value) { "stale".to_owned() } else { sample.value.to_string() };
        format!("{labels} {value} @{}", sample.at_ms)
    };
    let mut lines: Vec<String> =
        samples.iter().filter(|(labels, _)| !REPORTS.contains(&labels.name())).map(line).collect();
    lines.sort();
    lines
}

fn report(scrape: &Scrape, name: &str) -> f64 {
    let wanted = Labels::new([(NAME, name), ("instance", "i1"), ("job", "shop")]);
    scrape.samples.iter().find(|(labels, _)| *labels == wanted).unwrap().1.value
}

fn scraped(memory: &mut TargetMemory, settings: &ScrapeSettings, body: &str, at_ms: i64) -> Scrape {
    memory.scraped(settings, body.as_bytes(), TEXT, at_ms, Duration::from_millis(250))
}

#[test]
fn series_that_are_not_shown_any_more_end() {
    let (mut memory, settings) = (TargetMemory::default(), settings());
    let first = scraped(&mut memory, &settings, "a 1\nb 2\nc 3 5000\n", 10_000);
    assert_eq!(
        lines(&first.samples),
        [
            r#"a{instance="i1", job="shop"} 1 @10000"#,
            r#"b{instance="i1", job="shop"} 2 @10000"#,
            r#"c{instance="i1", job="shop"} 3 @5000"#,
        ]
    );
    let figures = REPORTS.map(|name| report(&first, name));
    assert_eq!(figures, [1.0, 0.25, 3.0, 3.0, 3.0, 0.0]);
    let second = scraped(&mut memory, &settings, "b 4\nd 1\n", 20_000);
    // `c` has times of its own, so no one knows when it ended.
    assert_eq!(
        lines(&second.samples),
        [
            r#"a{instance="i1", job="shop"} stale @20000"#,
            r#"b{instance="i1", job="shop"} 4 @20000"#,
            r#"d{instance="i1", job="shop"} 1 @20000"#,
        ]
    );
    assert_eq!(report(&second, "scrape_series_added"), 1.0);
    // Marked once, not at every scrape after.
    assert_eq!(lines(&scraped(&mut memory, &settings, "b 4\nd 1\n", 30_000).samples).len(), 2);
}

#[test]
fn a_failed_scrape_ends_every_series_and_says_why() {
    let (mut memory, settings) = (TargetMemory::default(), settings());
    let _ = scraped(&mut memory, &settings, "a 1\n", 10_000);
    let bad = scraped(&mut memory, &settings, "# HELP a half\na 2\nb 3\nc\n", 20_000);
    assert_eq!(lines(&bad.samples), [r#"a{instance="i1", job="shop"} stale @20000"#]);
    assert_eq!((report(&bad, "up"), report(&bad, "scrape_samples_post_metric_relabeling")), (0.0, 0.0));
    assert_eq!(bad.error.unwrap().to_string(), "line 4: expected a value, got the end of the line");
    assert!(bad.metadata.is_empty());

    let why = ScrapeError::Unreachable { why: "connection refused".to_owned() };
    let down = memory.failed(&settings, why, 30_000, Duration::from_secs(1));
    assert_eq!((lines(&down.samples).len(), report(&down, "up")), (0, 0.0));
    let back = scraped(&mut memory, &settings, "a 1\n", 40_000);
    assert_eq!((report(&back, "up"), report(&back, "scrape_series_added")), (1.0, 1.0));
}

#[test]
fn a_target_that_is_gone_ends_with_all_it_had() {
    let (mut memory, settings) = (TargetMemory::default(), settings());
    assert!(memory.gone(&settings, 5_000).is_empty(), "nothing was ever written");
    let _ = scraped(&mut memory, &settings, "a 1\n", 10_000);
    let ended = memory.gone(&settings, 20_000);
    assert_eq!(ended.len(), 1 + REPORTS.len());
    assert!(ended.iter().all(|(_, sample)| is_stale(sample.value) && sample.at_ms == 20_000));
    assert!(memory.gone(&settings, 30_000).is_empty());
}

#[test]
fn labels_that_conflict_are_renamed_or_honored() {
    let mut settings = settings();
    let body = "a{job=\"own\",exported_job=\"x\",instance=\"\"} 1\n";
    let one = |settings: &ScrapeSettings| {
        lines(&scraped(&mut TargetMemory::default(), settings, body, 0).samples).remove(0)
    };
    assert_eq!(
        one(&settings),
        r#"a{exported_exported_job="own", exported_job="x", instance="i1", job="shop"} 1 @0"#
    );
    settings.honor_labels = true;
    assert_eq!(one(&settings), r#"a{exported_job="x", job="own"} 1 @0"#);
}

#[test]
fn an_explosion_of_series_is_cut_and_never_displaces_what_was_there() {
    let (mut memory, mut settings) = (TargetMemory::default(), settings());
    settings.series_per_target_max = 3;
    let _ = scraped(&mut memory, &settings, "m 1\nz 1\n", 10_000);
    let burst: String = (0..1000).map(|user| format!("by_user{{user=\"{user}\"}} 1\n")).collect();
    let cut = scraped(&mut memory, &settings, &(burst.clone() + "m 2\nz 2\n"), 20_000);
    assert_eq!(
        lines(&cut.samples),
        [
            r#"by_user{instance="i1", job="shop", user="0"} 1 @20000"#,
            r#"m{instance="i1", job="shop"} 2 @20000"#,
            r#"z{instance="i1", job="shop"} 2 @20000"#,
        ]
    );
    assert_eq!((cut.scraped, cut.added, cut.dropped), (1002, 1, 999));
    assert_eq!((report(&cut, "scrape_series_dropped"), report(&cut, "up")), (999.0, 1.0));
    // And the same the next time: no series comes and goes with the cap.
    let again = scraped(&mut memory, &settings, &(burst + "m 2\nz 2\n"), 30_000);
    assert_eq!((again.added, again.dropped, lines(&again.samples).len()), (0, 999, 3));
}

#[test]
fn a_series_that_is_there_twice_counts_once() {
    let twice = scraped(&mut TargetMemory::default(), &settings(), "a 1\na 2\nb 1 1000\nb 2 2000\n", 10_000);
    assert_eq!((twice.duplicates, lines(&twice.samples).len()), (1, 3));
    let ahead = scraped(&mut TargetMemory::default(), &settings(), "a 1 1000001\na 1 600000\n", 0);
    assert_eq!((ahead.out_of_bounds, lines(&ahead.samples).len()), (1, 1));
}

#[test]
fn a_body_in_no_known_format_is_an_error_unless_one_is_given() {
    let mut settings = settings();
    let scrape = |settings: &ScrapeSettings| {
        TargetMemory::default().scraped(settings, b"a 1\n", "text/html", 0, Duration::ZERO).error
    };
    let message = "the target answers in \"text/html\", which is no exposition format";
    assert_eq!(scrape(&settings).unwrap().to_string(), message);
    settings.fallback_format = Some(Format::Text);
    assert_eq!(scrape(&settings), None);
}

#[test]
fn times_of_lines_count_only_when_honored() {
    let mut settings = settings();
    settings.honor_timestamps = false;
    let mut memory = TargetMemory::default();
    let first = scraped(&mut memory, &settings, "a 1 5000\n", 10_000);
    assert_eq!(lines(&first.samples), [r#"a{instance="i1", job="shop"} 1 @10000"#]);
    assert_eq!(
        lines(&scraped(&mut memory, &settings, "", 20_000).samples).len(),
        1,
        "its end can be told then"
    );
}
