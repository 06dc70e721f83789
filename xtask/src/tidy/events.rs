//! docs/reference/events.md, from the enum that is the stored form: its variants, fields and comments.

use crate::fault::{Context, Done};
use crate::workspace;

const SOURCE: &str = "crates/engine/src/event.rs";

const HEAD: &str = "# Events\n\n\
    Made from the engine's own list. The log is a sequence of these and nothing else; `fairway watch`, the API's\n\
    `events` and the record show them. A field may be added with a later version, none is renamed or given another\n\
    meaning. Each comes with `seq`, `at_ms`, `actor` (a person, or `fairway` for what follows by itself), `project` and\n\
    `environment`.\n\n\
    | event | fields | meaning |\n|---|---|---|\n";

#[derive(Debug, Default, PartialEq, Eq)]
struct Variant {
    name: String,
    doc: String,
    fields: Vec<String>,
}

pub fn page() -> Done<String> {
    let source = std::fs::read_to_string(workspace::root().join(SOURCE)).context(SOURCE)?;
    let variants = variants(&source).context(format!("{SOURCE} has no `pub enum Fact`"))?;
    let mut text = HEAD.to_owned();
    for variant in variants {
        let fields: Vec<String> = variant.fields.iter().map(|field| format!("`{field}`")).collect();
        text.push_str(&format!(
            "| `{}` | {} | {} |\n",
            snake(&variant.name),
            fields.join(", "),
            meaning(&variant)
        ));
    }
    Ok(text)
}

/// The comment, or the name in words where the name says it all.
fn meaning(variant: &Variant) -> String {
    if variant.doc.is_empty() {
        let words = snake(&variant.name).replace('_', " ");
        let mut letters = words.chars();
        return letters
            .next()
            .map_or(String::new(), |first| format!("{}{}.", first.to_uppercase(), letters.as_str()));
    }
    variant.doc.replace('|', "\\|")
}

/// rustfmt puts every variant and field on a line of its own, which is all that this relies on.
fn variants(source: &str) -> Option<Vec<Variant>> {
    let (_, body) = source.split_once("pub enum Fact {\n")?;
    let (body, _) = body.split_once("\n}\n")?;
    let mut variants = Vec::new();
    let mut doc = Vec::new();
    for line in body.lines() {
        let depth = line.len() - line.trim_start().len();
        let line = line.trim();
        if let Some(comment) = line.strip_prefix("///") {
            if depth == 4 {
                doc.push(comment.trim().to_owned());
            }
        } else if depth == 4 && line.starts_with(|c: char| c.is_ascii_uppercase()) {
            let name: String = line.chars().take_while(char::is_ascii_alphanumeric).collect();
            variants.push(Variant { name, doc: std::mem::take(&mut doc).join(" "), fields: Vec::new() });
        } else if depth == 8
            && !line.starts_with('#')
            && let Some((field, _)) = line.split_once(':')
            && let Some(variant) = variants.last_mut()
        {
            variant.fields.push(field.to_owned());
        }
    }
    Some(variants)
}

fn snake(name: &str) -> String {
    let mut snake = String::new();
    for c in name.chars() {
        if c.is_ascii_uppercase() && !snake.is_empty() {
            snake.push('_');
        }
        snake.push(c.to_ascii_lowercase());
    }
    snake
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variants_come_with_their_fields_and_comments() {
        let source = "pub enum Fact {\n    Begun,\n    /// It moved,\n    /// twice.\n    ItMoved {\n        /// Where to.\n        #[serde(default)]\n        place: Place,\n        by: u32,\n    },\n}\n";
        let variants = variants(source).unwrap();
        assert_eq!(variants[0], Variant { name: "Begun".into(), ..Variant::default() });
        let moved = Variant {
            name: "ItMoved".into(),
            doc: "It moved, twice.".into(),
            fields: vec!["place".into(), "by".into()],
        };
        assert_eq!(variants[1], moved);
        assert_eq!(snake("ItMoved"), "it_moved");
        assert_eq!(meaning(&variants[0]), "Begun.");
    }

    #[test]
    fn the_engine_has_events() {
        let page = page().unwrap();
        assert!(page.contains("| `rollout_planned` | `rollout` |"), "{page}");
        assert!(page.contains("| `switched` |"), "{page}");
    }
}
