//! docs/reference/bounds.md: what bounds requests and connections and has no key in fairway.toml, from the constants of
//! the proxy: their values, and the comments that say why.

use crate::fault::{Context, Done, Fault};
use crate::workspace;

const PROXY: &str = "crates/proxy/src";

const HEAD: &str = "# Fixed bounds\n\n\
    Made from the constants of the proxy. Every limit that a project may want to change is a key of fairway.toml (see\n\
    [config.md](config.md): `connections`, `proxy`, and `edge` with `timeouts`, `hold`, `breaker`, `retry`, `eject`).\n\
    These are fixed: to change them breaks what rests on them, or changes nothing that could be noticed.\n\n\
    | bound | value | why |\n|---|---|---|\n";

/// All of the first file; of the others those that clients and services may meet.
const LIMITS: &str = "limits.rs";
/// But for what a key says otherwise.
const DEFAULTS: &[&str] = &["IDLE_UPSTREAMS_MAX"];
const OTHERS: &[(&str, &[&str])] = &[
    (
        "codec/head.rs",
        &["REQUEST_HEAD_BYTES_MAX", "RESPONSE_HEAD_BYTES_MAX", "REQUEST_LINE_BYTES_MAX", "HEADERS_MAX"],
    ),
    ("codec/chunked.rs", &["SIZE_DIGITS_MAX", "EXTENSION_BYTES_MAX", "TRAILER_BYTES_MAX"]),
    ("conn/proxy_protocol.rs", &["HEADER_BYTES_MAX"]),
    ("conn/exchange/presence.rs", &["WATCHED_AFTER"]),
    ("conn/relay.rs", &["GIVEN_UP_AFTER", "PROVEN_ATTEMPTS_MAX"]),
    ("conn/relay/cached.rs", &["WAIT_MAX"]),
    ("conn/mirror.rs", &["COPIES_MAX", "ANSWER_BYTES_MAX"]),
    ("h2/budget.rs", &["RESERVE", "PER_SECOND"]),
    ("policy/rate.rs", &["KEYS_PER_SHARD_MAX"]),
    ("policy/cache/fill.rs", &["ANSWER_BYTES_MAX"]),
    ("policy/cache/store.rs", &["VARIANTS_MAX", "PASS"]),
    ("policy/cache/vary.rs", &["NAMES_MAX"]),
    ("accesslog.rs", &["FILE_BYTES_MAX", "QUEUE_LINES_MAX"]),
    ("buffer.rs", &["FREE_BYTES_MAX"]),
    ("listen.rs", &["BACKLOG", "NOT_SENT_BYTES_MAX"]),
    ("worker.rs", &["ROOM_SHARE"]),
    ("handover.rs", &["READY_WITHIN"]),
    ("passing.rs", &["SOCKETS_MAX"]),
];

#[derive(Debug, PartialEq, Eq)]
struct Bound {
    name: String,
    value: String,
    why: String,
}

pub fn page() -> Done<String> {
    let mut text = HEAD.to_owned();
    let read = |file: &str| {
        let path = format!("{PROXY}/{file}");
        std::fs::read_to_string(workspace::root().join(&path)).context(path)
    };
    let mut found = bounds(&read(LIMITS)?);
    found.retain(|bound| !DEFAULTS.contains(&bound.name.as_str()));
    for (file, names) in OTHERS {
        let all = bounds(&read(file)?);
        for name in *names {
            let bound = all.iter().position(|bound| bound.name == *name);
            let Some(bound) = bound else {
                return Err(Fault::new(format!("{PROXY}/{file} has no const {name} with a comment")));
            };
            let Bound { value, why, .. } = &all[bound];
            let place = file.trim_end_matches(".rs");
            found.push(Bound { name: format!("{place}/{name}"), value: value.clone(), why: why.clone() });
        }
    }
    for Bound { name, value, why } in found {
        text.push_str(&format!("| `{name}` | {value} | {} |\n", why.replace('|', "\\|")));
    }
    Ok(text)
}

/// rustfmt puts every constant of a size that is a bound on one line, which is all that this relies on.
fn bounds(source: &str) -> Vec<Bound> {
    let mut bounds = Vec::new();
    let mut why: Vec<&str> = Vec::new();
    for line in source.lines() {
        if let Some(comment) = line.strip_prefix("///") {
            why.push(comment.trim());
            continue;
        }
        let constant =
            line.split_once("const ").filter(|(before, _)| before.is_empty() || before.starts_with("pub"));
        if let Some((_, constant)) = constant
            && let Some((name, rest)) = constant.split_once(": ")
            && let Some((_, value)) = rest.trim_end_matches(';').split_once(" = ")
            && !why.is_empty()
        {
            let value = shown(name, value);
            bounds.push(Bound { name: name.to_owned(), value, why: why.join(" ") });
        }
        why.clear();
    }
    bounds
}

fn shown(name: &str, value: &str) -> String {
    for (of, unit) in [("Duration::from_millis(", "ms"), ("Duration::from_secs(", "s")] {
        if let Some(number) = value.strip_prefix(of) {
            return format!("{} {unit}", number.trim_end_matches(')'));
        }
    }
    let factors = value.split(" * ").map(|factor| factor.replace('_', "").parse::<u64>());
    let Ok(number) = factors.product::<Result<u64, _>>() else { return format!("`{value}`") };
    match number {
        0.. if !name.contains("BYTES") => number.to_string(),
        0..1024 => format!("{number} B"),
        1024..1_048_576 => format!("{} KiB", number / 1024),
        1_048_576.. => format!("{} MiB", number / 1_048_576),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn constants_come_with_their_comments() {
        let source = "use x;\n\n/// So long,\n/// because.\npub(crate) const WAIT: Duration = Duration::from_millis(50);\n\
                      const BARE: u32 = 1;\n/// Room.\nconst ROOM_BYTES: usize = 64 * 1024;\n/// Not one.\nfn f() {}\n";
        let bound = |name: &str, value: &str, why: &str| Bound {
            name: name.into(),
            value: value.into(),
            why: why.into(),
        };
        let expect = [bound("WAIT", "50 ms", "So long, because."), bound("ROOM_BYTES", "64 KiB", "Room.")];
        assert_eq!(bounds(source), expect);
        assert_eq!(shown("COUNT_MAX", "8 * 1024"), "8192");
        assert_eq!(shown("RESERVE", "10.0"), "`10.0`");
    }

    #[test]
    fn the_proxy_has_them() {
        let page = page().unwrap();
        assert!(page.contains("| `codec/head/REQUEST_HEAD_BYTES_MAX` | 32 KiB |"), "{page}");
        assert!(page.contains("| `HOLD_LOOK` | 50 ms |"), "{page}");
    }
}
