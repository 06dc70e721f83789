//! Dockerfile: its last command and port, for a service of a compose file that names none. Everything else of an image
//! has no counterpart where nothing is an image.

use super::draft::{Word, words};
use super::files::File;

#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Dockerfile {
    pub(super) command: Option<(u32, Vec<Word>)>,
    pub(super) port: Option<u16>,
}

pub(super) fn read(file: &File) -> Dockerfile {
    let mut found = Dockerfile::default();
    let mut entrypoint: Vec<Word> = Vec::new();
    let mut command: Vec<Word> = Vec::new();
    let mut at = 1;
    for (number, line) in logical_lines(&file.text) {
        let (instruction, rest) = line.split_once(char::is_whitespace).unwrap_or((&line, ""));
        match instruction.to_ascii_uppercase().as_str() {
            // A new stage forgets what the one before would have run.
            "FROM" => {
                entrypoint.clear();
                command.clear();
                found.port = None;
            }
            "CMD" => (command, at) = (arguments(rest), number),
            "ENTRYPOINT" => (entrypoint, at) = (arguments(rest), number),
            "EXPOSE" => {
                let port = rest.split_whitespace().next().and_then(|port| port.split('/').next());
                found.port = found.port.or(port.and_then(|port| port.parse().ok()).filter(|port| *port > 0));
            }
            _ => {}
        }
    }
    entrypoint.extend(command);
    if !entrypoint.is_empty() {
        found.command = Some((at, entrypoint));
    }
    found
}

/// Lines with their `\` continuations, by the number of the first.
fn logical_lines(text: &str) -> Vec<(u32, String)> {
    let mut lines: Vec<(u32, String)> = Vec::new();
    let mut open = false;
    for (index, line) in text.lines().enumerate() {
        let trimmed = line.trim();
        if trimmed.starts_with('#') {
            continue;
        }
        let (part, continues) = trimmed.strip_suffix('\\').map_or((trimmed, false), |part| (part, true));
        match lines.last_mut().filter(|_| open) {
            Some((_, joined)) => {
                joined.push(' ');
                joined.push_str(part);
            }
            None => lines.push((u32::try_from(index + 1).unwrap_or(u32::MAX), part.to_owned())),
        }
        open = continues;
    }
    lines
}

/// The array form is JSON; the other is a line for a shell.
fn arguments(rest: &str) -> Vec<Word> {
    match serde_json::from_str::<Vec<String>>(rest) {
        Ok(list) => list.into_iter().map(Word::Text).collect(),
        Err(_) if rest.trim().is_empty() => Vec::new(),
        Err(_) => words(rest),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dockerfile(text: &str) -> Dockerfile {
        read(&File { name: "Dockerfile".to_owned(), text: text.to_owned() })
    }

    #[test]
    fn the_last_stage_says_what_runs() {
        let found = dockerfile(
            "FROM rust AS build\nCMD [\"no\"]\nEXPOSE 1\nFROM node:20\n# CMD no\nEXPOSE 8080/tcp\nENTRYPOINT [\"node\"]\nCMD [ \\\n  \"server.js\" ]\n",
        );
        assert_eq!(found.port, Some(8080));
        assert_eq!(found.command, Some((8, vec![Word::Text("node".into()), Word::Text("server.js".into())])));
        assert_eq!(dockerfile("FROM x\n").command, None);
        let shell = dockerfile("FROM x\nCMD a $PORT\n").command.unwrap().1;
        assert_eq!(shell[0], Word::Text("sh".into()));
    }
}
