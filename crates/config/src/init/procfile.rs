//! Procfile: `NAME: COMMAND`, one process type a line. https://devcenter.heroku.com/articles/procfile

use super::draft::{Draft, DraftRuns, DraftService, plain_words, service_name, words};
use super::files::File;

/// Port declared for a `web` process; on one machine it is given another in PORT, as Heroku does.
const WEB_PORT: u16 = 3000;

pub(super) fn read(file: &File) -> Draft {
    let mut draft = Draft::default();
    for (index, line) in file.text.lines().enumerate() {
        let number = u32::try_from(index + 1).unwrap_or(u32::MAX);
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let process = line.split_once(':').map(|(name, command)| (name.trim(), command.trim()));
        let Some((name, command)) = process.filter(|(name, command)| is_name(name) && !command.is_empty())
        else {
            let shown: String = line.chars().take(40).collect();
            draft.notes.unmapped(&file.name, number, shown, "it is not of the form NAME: COMMAND");
            continue;
        };
        if name == "release" {
            draft.expand = Some(plain_words(command));
            draft.notes.mapped(&file.name, number, name, "release.expand");
            continue;
        }
        let own = service_name(name, "service");
        let to = format!("service.{own}.command");
        draft.notes.mapped(&file.name, number, name, to);
        let mut service =
            DraftService { name: own, runs: DraftRuns::Command(words(command)), ..DraftService::default() };
        // Only `web` is reached from outside; another that reads PORT listens all the same.
        if name == "web" {
            service.port = Some(WEB_PORT);
            service.route = Some("/".to_owned());
        } else if command.contains("$PORT") || command.contains("${PORT") {
            service.port = Some(WEB_PORT);
        }
        draft.services.push(service);
    }
    draft
}

fn is_name(name: &str) -> bool {
    !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-')
}

#[cfg(test)]
mod tests {
    use super::super::draft::Word;
    use super::*;

    fn draft(text: &str) -> Draft {
        read(&File { name: "Procfile".to_owned(), text: text.to_owned() })
    }

    #[test]
    fn web_has_the_route_release_is_the_migration_and_the_rest_are_workers() {
        let draft = draft(
            "# all\nweb: bundle exec puma -p $PORT\nworker: bin/work --queue 'a b'\nrelease: bin/migrate\n",
        );
        assert_eq!(draft.expand.as_deref(), Some(&["bin/migrate".to_owned()][..]));
        let web = &draft.services[0];
        assert_eq!((web.route.as_deref(), web.port), (Some("/"), Some(WEB_PORT)));
        assert!(matches!(&web.runs, DraftRuns::Command(words)
            if words[0] == Word::Text("sh".into()) && words[2] == Word::Text("bundle exec puma -p $PORT".into())));
        let worker = &draft.services[1];
        assert_eq!((worker.route.as_deref(), worker.port), (None, None));
        assert!(matches!(&worker.runs, DraftRuns::Command(words) if words[2] == Word::Text("a b".into())));
    }

    #[test]
    fn a_line_that_is_no_process_is_listed() {
        let draft = draft("web bin/web\n: x\nempty:\n");
        assert!(draft.services.is_empty());
        let lines: Vec<u32> = draft.notes.unmapped.iter().map(|unmapped| unmapped.line).collect();
        assert_eq!(lines, [1, 2, 3]);
    }
}
