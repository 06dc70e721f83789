//! The reference of fairway.toml as Markdown, made of the table of keys.

use std::fmt::Write as _;

use crate::code::CODES;
use crate::keys;
use crate::spec::{Absent, Kind, TableSpec};

/// `docs/reference/config.md`; a test holds the file against this.
#[must_use]
pub fn reference_markdown() -> String {
    let mut text = String::from(
        "# fairway.toml\n\n\
         Made from the table of keys that the parser itself reads; `fairway schema` prints the same as a JSON schema.\n\n\
         - An unknown key is an error, with its place and the nearest key that there is.\n\
         - Environments are laid over the rest of the file: tables merge, arrays and everything else replace.\n\
         - A value is never expanded: what varies is `{ ref = \"…\" }` or `{ secret = \"…\" }`.\n\
         - Durations: `\"250ms\"`, `\"90s\"`, `\"5m\"`, `\"24h\"`, `\"30d\"`, `\"1h30m\"`. Sizes: `\"512M\"` and `\"64KiB\"` are binary, \
         `\"5MB\"` is decimal.\n\
         - A command is an array of words, or a string that is split into words. No shell is involved: what needs one \
         says `[\"sh\", \"-c\", \"…\"]`.\n\
         - Bounds of the proxy that have no key, and why: [bounds.md](bounds.md).\n\n\
         References: `{ ref = \"SERVICE.url\" }` (a service with a port, or one with `uses`), `{ ref = \"data.dir\" }` (a \
         directory that outlives releases), `{ ref = \"public.url\" }`, `{ ref = \"release\" }`; in a command `{ ref = \"port\" }`.\n",
    );
    for table in keys::TABLES {
        section(&mut text, table);
    }
    text.push_str("\n## Codes\n\n| code | meaning |\n|---|---|\n");
    for (code, what) in CODES {
        let _ = writeln!(text, "| `{code}` | {} |", cell(what));
    }
    text
}

fn section(text: &mut String, table: &TableSpec) {
    let _ = write!(text, "\n## {}\n\n{}\n\n", title(table), table.doc);
    text.push_str("| key | takes | without it | meaning | example |\n|---|---|---|---|---|\n");
    for key in table.keys {
        let absent = match key.absent {
            Absent::Required => "**required**".to_owned(),
            Absent::Default(value) => format!("`{value}`"),
            Absent::Words(words) => cell(words),
        };
        let _ = writeln!(
            text,
            "| `{}` | {} | {absent} | {} | `{}` |",
            key.name,
            cell(&takes(&key.kind)),
            cell(key.doc),
            cell(key.example)
        );
    }
}

fn title(table: &TableSpec) -> String {
    match table.name {
        "project" => "The top of the file".to_owned(),
        "environment" => "`[env.NAME]`".to_owned(),
        "service" => "`[service.NAME]`".to_owned(),
        name @ ("probe" | "slo") => format!("`[{name}.NAME]`"),
        name @ ("release" | "deploy" | "metrics" | "alerts" | "proxy") => format!("`[{name}]`"),
        name => format!("`{name}`"),
    }
}

fn takes(kind: &Kind) -> String {
    match kind {
        Kind::Table(table) => format!("table, see {}", title(table)),
        Kind::List { of, .. } => format!("array of: {}", takes(of)),
        Kind::Map { key, of, .. } => format!("table of `{}` = {}", key.name, takes(of)),
        Kind::OneOf(kinds) => kinds.iter().map(takes).collect::<Vec<_>>().join(", or "),
        Kind::Duration { .. } => "duration".to_owned(),
        Kind::Size => "size".to_owned(),
        Kind::Command => "command".to_owned(),
        Kind::CommandWithPort => "command, words may be `{ ref = \"port\" }`".to_owned(),
        Kind::Text(_)
        | Kind::Bool
        | Kind::True
        | Kind::Integer { .. }
        | Kind::Number { .. }
        | Kind::Choice(_)
        | Kind::Variable => kind.expected(),
    }
}

/// A bar would end the cell.
fn cell(text: &str) -> String {
    text.replace('|', "\\|").replace('\n', " ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_in_the_documentation_is_this_one() {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/reference/config.md");
        if std::env::var_os("FAIRWAY_BLESS").is_some() {
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(&path, reference_markdown()).unwrap();
        }
        let page = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(
            page == reference_markdown(),
            "docs/reference/config.md is not of these keys: FAIRWAY_BLESS=1 cargo test -p fairway-config"
        );
    }
}
