//! Nothing that a file can say makes the reader panic, and what it finds is bounded and has a place inside the file.

// The helpers of a test fail as the test does.
#![allow(clippy::unwrap_used)]

use std::time::Duration;

use fairway_config::{Colour, DIAGNOSTICS_MAX, Project, Source, render};

const SHOP: &str = include_str!("fixtures/shop/fairway.toml");
const EVERYTHING: &str = include_str!("fixtures/everything.toml");

/// xorshift64*, seeded: the same files each time.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % (bound.max(1) as u64)).unwrap()
    }
}

/// Processor time that this thread has taken: what a busy machine does not stretch at will.
fn worked() -> Duration {
    rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime).try_into().unwrap()
}

fn read(text: &str) -> bool {
    match Project::parse("fairway.toml", text) {
        Ok(project) => {
            for environment in project.environments() {
                let name = environment.name.as_str();
                assert!(!project.resolved_with_origin(name).unwrap().is_empty());
                project.artifacts(name).unwrap();
            }
            true
        }
        Err(problems) => {
            assert!(!problems.is_empty() && problems.len() <= DIAGNOSTICS_MAX + 1);
            for span in problems.iter().filter_map(|problem| problem.span.as_ref()) {
                assert!(span.bytes.end <= text.len() && text.is_char_boundary(span.bytes.start), "{span:?}");
            }
            let shown = render(&problems, &Source::new("fairway.toml", text), Colour::Off);
            assert!(!shown.is_empty() && !shown.contains('\u{1b}'));
            false
        }
    }
}

#[test]
fn truncations_of_a_valid_file_are_read_or_refused() {
    // A prime stride: it falls on every kind of place in the longer file, and the test stays within a second.
    for (text, stride) in [(SHOP, 1), (EVERYTHING, 7)] {
        for end in (0..text.len()).step_by(stride).filter(|end| text.is_char_boundary(*end)) {
            read(&text[..end]);
        }
        assert!(read(text));
    }
}

#[test]
fn mutations_of_a_valid_file_are_read_or_refused() {
    let pieces = [
        "{",
        "}",
        "[",
        "]",
        "=",
        "\"",
        "'",
        "\n",
        "0",
        "-1",
        "1e9",
        "nan",
        "true",
        ".",
        ",",
        "\0",
        "\u{202e}",
        "ü",
        "99999999999",
        "[service.api]\n",
        "{ ref = \"api.url\" }",
        "{ secret = \"\" }",
        "\"\"",
        "1979-05-27",
        "[[env]]\n",
        "service",
        "extends = \"dev\"\n",
        "[]",
        "{}",
        "\"$X\"",
        "\"100000h\"",
        "\"9999999999G\"",
        "# ",
    ];
    let mut random = Random(0x5eed);
    let (mut sound, mut refused) = (0, 0);
    for round in 0..1500 {
        let mut text = if round % 2 == 0 { SHOP.to_owned() } else { EVERYTHING.to_owned() };
        for _ in 0..=random.below(3) {
            let start = random.below(text.len());
            let Some(start) = (start..text.len()).find(|at| text.is_char_boundary(*at)) else { continue };
            let end = (start + random.below(12)).min(text.len());
            let Some(end) = (end..=text.len()).find(|at| text.is_char_boundary(*at)) else { continue };
            match random.below(3) {
                0 => text.replace_range(start..end, ""),
                1 => text.insert_str(start, pieces[random.below(pieces.len())]),
                _ => text.replace_range(start..end, pieces[random.below(pieces.len())]),
            }
        }
        if read(&text) { sound += 1 } else { refused += 1 }
    }
    assert!(sound > 50 && refused > 500, "the mutations are too mild or too wild: {sound} {refused}");
}

#[test]
fn swapped_values_are_read_or_refused() {
    let values: Vec<&str> =
        EVERYTHING.lines().filter_map(|line| line.split_once(" = ")).map(|(_, v)| v).collect();
    let mut random = Random(0xabcd);
    for _ in 0..800 {
        let lines: Vec<String> = EVERYTHING
            .lines()
            .map(|line| match line.split_once(" = ") {
                Some((key, _)) if random.below(12) == 0 => {
                    format!("{key} = {}", values[random.below(values.len())])
                }
                Some(_) | None => line.to_owned(),
            })
            .collect();
        read(&lines.join("\n"));
    }
}

#[test]
fn random_bytes_are_refused() {
    let mut random = Random(7);
    for _ in 0..500 {
        let bytes: Vec<u8> = (0..random.below(300)).map(|_| random.next().to_le_bytes()[3]).collect();
        read(&String::from_utf8_lossy(&bytes));
    }
}

#[test]
fn large_files_end_in_bounded_time() {
    let many = |line: &dyn Fn(usize) -> String, count: usize| {
        let lines: String = (0..count).map(line).collect();
        format!("version = 1\nproject = \"p\"\n[service.a]\ncommand = \"x\"\n{lines}")
    };
    let started = worked();
    for text in [
        many(&|n| format!("unknown{n} = 1\n"), 50_000),
        many(&|n| format!("[service.s{n}]\ncommand = \"x\"\n"), 20_000),
        many(&|n| format!("[env.e{n}]\nextends = \"e{}\"\n", n + 1), 20_000),
        many(&|n| format!("[env.e{n}]\nvars.A = \"{n}\"\n"), 20_000),
        many(&|n| format!("[service.s{n}]\ncommand = \"x\"\nafter = [\"s{}\"]\n", n + 1), 190),
        many(&|n| format!("[vars.v{n}]\n"), 20_000),
        many(&|n| format!("[env.e{n}]\nx = 1\n"), 50) + &format!("[x]\na = [{}]\n", "1,".repeat(400_000)),
        format!("version = 1\nproject = \"{}\"\n", "x".repeat(900_000)),
        format!("{} = 1", "x".repeat(900_000)),
        format!("service.a.command = \"{}\"", "a ".repeat(450_000)),
        format!("service.a.command = [{}]", "\"a\",".repeat(200_000)),
        format!("deploy.steps = [{}]", "{},".repeat(300_000)),
        many(&|n| format!("[env.e{}.probe.p{n}]\ntcp = \"a:1\"\n", n % 40), 20_000),
        many(&|n| format!("[slo.s{n}]\navailability = 0.9\nservice = \"a\"\n"), 20_000),
        format!("alerts.routes = [{}]", "{ match = { a = '=~(a|b)+c' } },".repeat(30_000)),
        "#".repeat(2_000_000),
        "\n".repeat(1_000_000),
        "[".repeat(1_000_000),
        format!("a = {}", "{a=".repeat(300_000)),
    ] {
        assert!(!read(&text));
    }
    // Each takes some ten milliseconds; what this catches is a quadratic step.
    let took = worked() - started;
    assert!(took < Duration::from_secs(30), "{took:?}");
}

/// Thirty thousand of these took a minute.
#[test]
fn a_file_full_of_expressions_is_refused_before_they_are_compiled() {
    let matches: String = (0..20).map(|n| format!("l{n} = '=~\\w+\\d{{9}}', ")).collect();
    let routes = format!("{{ match = {{ {} }}, channels = [] }},", matches.trim_end_matches(", ")).repeat(40);
    let mut text = "version = 1\nproject = \"p\"\nservice.a.command = \"x\"\n".to_owned();
    for n in 0..50 {
        let environment = format!("[env.e{n}.alerts]\nroutes = [{routes}]\n");
        if text.len() + environment.len() < 1_000_000 {
            text += &environment;
        }
    }
    let started = worked();
    let problems = Project::parse("fairway.toml", &text).unwrap_err();
    assert_eq!(problems.iter().map(|one| one.code).collect::<Vec<_>>(), ["config/too-many"]);
    let took = worked() - started;
    assert!(took < Duration::from_secs(10), "{took:?}");
}
