//! Links in documents: relative ones must lead to a file and, after `#`, to a heading in it.

use std::collections::BTreeSet;
use std::path::{Component, Path, PathBuf};

use super::text::Text;
use crate::workspace;

pub fn check(files: &[Text]) -> Vec<String> {
    let root = workspace::root();
    let mut findings = Vec::new();
    for file in files.iter().filter(|file| file.name().ends_with(".md")) {
        for (line, link) in links(&file.text) {
            if let Some(why) = broken(&link, file, files, &|path| root.join(path).exists()) {
                findings.push(format!("{}:{line}: {link}: {why}", file.name()));
            }
        }
    }
    findings
}

fn broken(link: &str, file: &Text, files: &[Text], exists: &dyn Fn(&Path) -> bool) -> Option<String> {
    if link.contains("://") || link.starts_with("mailto:") {
        return None;
    }
    let (path, anchor) = link.split_once('#').map_or((link, None), |(path, anchor)| (path, Some(anchor)));
    let target = if path.is_empty() {
        file.path.clone()
    } else {
        resolve(file.path.parent().unwrap_or(Path::new("")), path)
    };
    if !exists(&target) && !files.iter().any(|file| file.path == target) {
        return Some("there is no such file".to_owned());
    }
    let anchor = anchor?;
    let text = &files.iter().find(|file| file.path == target)?.text;
    (!headings(text).contains(anchor)).then(|| "there is no such heading".to_owned())
}

fn resolve(base: &Path, path: &str) -> PathBuf {
    let mut whole = PathBuf::new();
    for part in base.join(path).components() {
        match part {
            Component::ParentDir => {
                whole.pop();
            }
            Component::Normal(name) => whole.push(name),
            Component::CurDir | Component::RootDir | Component::Prefix(_) => {}
        }
    }
    whole
}

/// Line number and target of every `[text](target)` outside of code.
fn links(text: &str) -> Vec<(usize, String)> {
    let mut links = Vec::new();
    for (number, line) in prose(text) {
        let mut outside_code = String::new();
        for (index, part) in line.split('`').enumerate() {
            // Code may be the text of a link, so its place is kept.
            outside_code.push_str(if index % 2 == 0 { part } else { "code" });
        }
        let mut rest = outside_code.as_str();
        while let Some((_, after)) = rest.split_once("](") {
            let Some((target, more)) = after.split_once(')') else { break };
            links.push((number, target.trim_matches(['<', '>']).to_owned()));
            rest = more;
        }
    }
    links
}

/// The anchors that GitHub makes: lower case, spaces to hyphens, other punctuation dropped.
fn headings(text: &str) -> BTreeSet<String> {
    let mut anchors = BTreeSet::new();
    for (_, line) in prose(text) {
        let title = line.trim_start_matches('#');
        if title.len() == line.len() || !title.starts_with(' ') {
            continue;
        }
        let anchor: String = title
            .trim()
            .to_lowercase()
            .chars()
            .filter_map(|c| match c {
                ' ' => Some('-'),
                c if c.is_alphanumeric() || c == '-' || c == '_' => Some(c),
                _ => None,
            })
            .collect();
        let mut unique = anchor.clone();
        let mut number = 0;
        while !anchors.insert(unique.clone()) {
            number += 1;
            unique = format!("{anchor}-{number}");
        }
    }
    anchors
}

/// Numbered lines outside of fenced code.
fn prose(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut fenced = false;
    text.lines().enumerate().filter_map(move |(index, line)| {
        if line.trim_start().starts_with("```") {
            fenced = !fenced;
            return None;
        }
        (!fenced).then_some((index + 1, line))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expect: &[&str]) {
        let files = [
            Text { path: "docs/a.md".into(), text: text.into() },
            Text { path: "README.md".into(), text: "# The `two` commands!\n## Same\n## Same\n".into() },
        ];
        let found: Vec<String> = links(text)
            .iter()
            .filter_map(|(line, link)| {
                broken(link, &files[0], &files, &|_| false).map(|why| format!("{line} {link}: {why}"))
            })
            .collect();
        assert_eq!(found, expect);
    }

    #[test]
    fn links_that_lead_nowhere_are_named() {
        check("[a](../README.md) [`b`](b.md)", &["1 b.md: there is no such file"]);
        check(
            "[a](../README.md#the-two-commands)\n[b](../README.md#no)",
            &["2 ../README.md#no: there is no such heading"],
        );
        check("[a](../README.md#same-1) [b](https://example.org/x#y)", &[]);
        check("# Here\n[a](#here) [b](#there)", &["2 #there: there is no such heading"]);
    }

    #[test]
    fn code_has_no_links() {
        check("```\n[a](b)\n```\n`[a](b)`", &[]);
    }
}
