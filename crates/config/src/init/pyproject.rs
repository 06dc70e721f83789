//! pyproject.toml (and requirements.txt): the server among the dependencies and the module that it serves, or
//! `[project.scripts]`.

use super::draft::{Draft, DraftRuns, DraftService, Word, project_name, service_name};
use super::files::{File, Files};
use crate::diagnostic::Findings;
use crate::span::Source;
use crate::tree::{self, Node, Table};

/// What uvicorn, gunicorn and Django listen on when nothing else is said.
const PORT: u16 = 8000;

/// Where an application is looked for, before the directories of the project.
const PLACES: [&str; 8] =
    ["main.py", "app.py", "api.py", "server.py", "asgi.py", "wsgi.py", "application.py", "__init__.py"];

pub(super) fn read(files: &Files) -> Option<Draft> {
    let project = files.read("pyproject.toml");
    let requirements = files.read("requirements.txt");
    if project.is_none() && requirements.is_none() {
        return None;
    }
    let mut draft = Draft::default();
    let mut dependencies: Vec<(String, String, u32)> = Vec::new();
    if let Some(file) = &requirements {
        for (index, line) in file.text.lines().enumerate() {
            let number = u32::try_from(index + 1).unwrap_or(u32::MAX);
            dependencies.extend(package(line).map(|name| (name, file.name.clone(), number)));
        }
    }
    let manifest = project.as_ref().and_then(|file| {
        let manifest = tree::parse(&Source::new(&file.name, &file.text), &mut Findings::default());
        if manifest.is_none() {
            draft.notes.unmapped(&file.name, 1, "(the file)", "it is not TOML");
        }
        manifest
    });
    let prefix = runner(files);
    if let (Some(file), Some(manifest)) = (&project, &manifest) {
        draft.project = at(manifest, &["project", "name"])
            .or_else(|| at(manifest, &["tool", "poetry", "name"]))
            .and_then(|node| node.value.as_text())
            .map(project_name);
        dependencies.extend(declared(manifest, file));
        if at(manifest, &["project", "requires-python"]).is_some() {
            let line = file.line_of("requires-python");
            draft.notes.unmapped(
                &file.name,
                line,
                "project.requires-python",
                "the Python on the machine is used",
            );
        }
    }
    server(files, &dependencies, &prefix, &mut draft);
    if let (Some(file), Some(manifest)) = (&project, &manifest) {
        scripts(file, manifest, files, &prefix, &mut draft);
    }
    Some(draft)
}

/// The web server that the dependencies name, with the application that the code defines.
fn server(files: &Files, dependencies: &[(String, String, u32)], prefix: &[&str], draft: &mut Draft) {
    let find = |name: &str| dependencies.iter().find(|(dependency, _, _)| dependency == name);
    let django = find("django").filter(|_| files.has("manage.py"));
    let settings = django.and_then(|_| files.read("manage.py")).and_then(|file| {
        let at = file.text.find("DJANGO_SETTINGS_MODULE")?;
        let rest = file.text[at..].split(['"', '\'']).nth(2)?;
        rest.strip_suffix(".settings").map(str::to_owned)
    });
    let asgi = application(files, &["FastAPI(", "Starlette(", "Litestar(", "Quart("]);
    let wsgi = application(files, &["Flask(", "Bottle("]);
    let text = |words: &[&str]| words.iter().map(|word| Word::Text((*word).to_owned())).collect::<Vec<_>>();
    let (by, command) = if let (Some(by), Some(project)) = (django, &settings) {
        match find("gunicorn") {
            Some(_) => (by, text(&["gunicorn", &format!("{project}.wsgi")])),
            None => {
                (by, [text(&["python", "manage.py", "runserver", "--noreload"]), vec![Word::Port]].concat())
            }
        }
    } else if let (Some(by), Some(app)) = (find("uvicorn").or(find("fastapi")), &asgi) {
        (by, [text(&["uvicorn", app, "--host", "127.0.0.1", "--port"]), vec![Word::Port]].concat())
    } else if let (Some(by), Some(app)) = (find("gunicorn"), &wsgi) {
        // gunicorn binds to PORT by itself.
        (by, text(&["gunicorn", app]))
    } else if let (Some(by), Some(app)) = (find("flask"), &wsgi) {
        (by, [text(&["flask", "--app", app, "run", "--port"]), vec![Word::Port]].concat())
    } else {
        for name in ["django", "uvicorn", "fastapi", "gunicorn", "flask"] {
            if let Some((name, file, line)) = find(name) {
                let why = "no application was found in main.py, app.py and their like";
                draft.notes.unmapped(file, *line, name.clone(), why);
            }
        }
        return;
    };
    let (name, file, line) = by;
    draft.notes.mapped(file, *line, name.clone(), "service.web.command");
    if django.is_some() {
        let why = "if the release that serves can live with it, it is release.expand = [\"python\", \"manage.py\", \"migrate\"]";
        draft.notes.unmapped(&crate::value::path::join(&files.dir, "manage.py"), 1, "migrate", why);
    }
    draft.services.push(DraftService {
        name: "web".to_owned(),
        runs: DraftRuns::Command([text(prefix), command].concat()),
        dir: Some(files.dir.clone()),
        port: Some(PORT),
        public: true,
        ..DraftService::default()
    });
}

fn scripts(file: &File, manifest: &Table, files: &Files, prefix: &[&str], draft: &mut Draft) {
    let scripts =
        at(manifest, &["project", "scripts"]).or_else(|| at(manifest, &["tool", "poetry", "scripts"]));
    for (name, entry) in
        scripts.and_then(|node| node.value.as_table()).map(|table| &table.entries).into_iter().flatten()
    {
        let line = Source::new(&file.name, &file.text).span(entry.key_at).line;
        let key = format!("project.scripts.{name}");
        if draft.has_runnable() && !prefix.is_empty() || !draft.services.is_empty() {
            let why = "the server among the dependencies was taken; if this runs too, add [service.NAME]";
            draft.notes.unmapped(&file.name, line, key, why);
            continue;
        }
        let own = service_name(name, "service");
        draft.notes.mapped(&file.name, line, key.clone(), format!("service.{own}.command"));
        if prefix.is_empty() {
            draft.notes.unmapped(&file.name, line, key, "it must be installed on the machine: pip install .");
        }
        let command = prefix.iter().copied().chain([name.as_str()]);
        draft.services.push(DraftService {
            name: own,
            runs: DraftRuns::Command(command.map(|word| Word::Text(word.to_owned())).collect()),
            dir: Some(files.dir.clone()),
            ..DraftService::default()
        });
    }
}

/// What runs a command in the project's own environment.
fn runner(files: &Files) -> Vec<&'static str> {
    let locks: [(&str, &[&'static str]); 3] =
        [("uv.lock", &["uv", "run"]), ("poetry.lock", &["poetry", "run"]), ("pdm.lock", &["pdm", "run"])];
    locks.iter().find(|(lock, _)| files.has(lock)).map(|(_, words)| words.to_vec()).unwrap_or_default()
}

/// `module:variable` of the first place where one of the `constructors` is called.
fn application(files: &Files, constructors: &[&str]) -> Option<String> {
    let here = PLACES.iter().map(|place| (files.clone(), String::new(), *place));
    let below = files.directories().into_iter().filter(|name| !name.contains(['-', '.']));
    let below = below.filter_map(|name| Some((files.below(&name)?, format!("{name}."))));
    let below = below
        .flat_map(|(files, prefix)| PLACES.iter().map(move |place| (files.clone(), prefix.clone(), *place)));
    here.chain(below).find_map(|(files, prefix, place)| {
        let file = files.read(place)?;
        let variable = file.text.lines().find_map(|line| {
            // At the start of the line: one inside a function is no variable of the module.
            let (name, value) = line.split_once('=')?;
            let name = name.split(':').next()?;
            let plain = name.trim_end();
            let made = constructors.iter().any(|call| value.trim_start().starts_with(call));
            (made && crate::value::name::variable(plain).is_ok()).then(|| plain.to_owned())
        })?;
        let module = place.strip_suffix(".py")?;
        let module = if module == "__init__" {
            prefix.trim_end_matches('.').to_owned()
        } else {
            format!("{prefix}{module}")
        };
        (!module.is_empty()).then(|| format!("{module}:{variable}"))
    })
}

fn at<'a>(table: &'a Table, path: &[&str]) -> Option<&'a Node> {
    let (last, parents) = path.split_last()?;
    parents.iter().try_fold(table, |table, key| table.get(key)?.value.as_table())?.get(last)
}

fn declared(manifest: &Table, file: &File) -> Vec<(String, String, u32)> {
    let source = Source::new(&file.name, &file.text);
    let mut found = Vec::new();
    let list = at(manifest, &["project", "dependencies"]).and_then(|node| node.value.as_array());
    for node in list.unwrap_or_default() {
        let name = node.value.as_text().and_then(package);
        found.extend(name.map(|name| (name, file.name.clone(), source.span(node.at).line)));
    }
    let table = at(manifest, &["tool", "poetry", "dependencies"]).and_then(|node| node.value.as_table());
    for (name, entry) in table.map(|table| &table.entries).into_iter().flatten() {
        found.push((name.to_ascii_lowercase(), file.name.clone(), source.span(entry.key_at).line));
    }
    found
}

/// The name in `Uvicorn[standard]>=0.30 ; python_version > "3"`.
fn package(requirement: &str) -> Option<String> {
    let requirement = requirement.trim();
    let end = requirement
        .find(|c: char| !c.is_ascii_alphanumeric() && !matches!(c, '-' | '_' | '.'))
        .unwrap_or(requirement.len());
    (end > 0 && !requirement.starts_with('-'))
        .then(|| requirement[..end].to_ascii_lowercase().replace('_', "-"))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn draft(entries: &[(&str, &str)]) -> Option<Draft> {
        let directory = tempfile::tempdir().unwrap();
        for (name, text) in entries {
            let path = directory.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        read(&Files::new(directory.path()))
    }

    fn command(draft: &Draft) -> String {
        match &draft.services[0].runs {
            DraftRuns::Command(words) => words
                .iter()
                .map(|word| match word {
                    Word::Text(text) => text.as_str(),
                    Word::Port => "{port}",
                })
                .collect::<Vec<_>>()
                .join(" "),
            DraftRuns::Unknown | DraftRuns::Static { .. } | DraftRuns::Uses(_) => String::new(),
        }
    }

    #[test]
    fn known_servers_are_started_with_the_application_of_the_code() {
        let fastapi = draft(&[
            (
                "pyproject.toml",
                "[project]\nname = \"Shop\"\ndependencies = [\"fastapi>=0.1\", \"uvicorn[standard]\"]\n",
            ),
            ("uv.lock", ""),
            ("shop/main.py", "def f():\n    x = FastAPI()\napi: FastAPI = FastAPI(title='x')\n"),
        ])
        .unwrap();
        assert_eq!(command(&fastapi), "uv run uvicorn shop.main:api --host 127.0.0.1 --port {port}");
        assert_eq!(fastapi.project.as_deref(), Some("shop"));
        let flask = draft(&[("requirements.txt", "-r x\nFlask==3\n"), ("app.py", "app = Flask(__name__)\n")])
            .unwrap();
        assert_eq!(command(&flask), "flask --app app:app run --port {port}");
        let gunicorn = draft(&[
            ("requirements.txt", "Flask\ngunicorn\n"),
            ("shop/__init__.py", "app = Flask(__name__)\n"),
        ])
        .unwrap();
        assert_eq!(command(&gunicorn), "gunicorn shop:app");
        let manage = "os.environ.setdefault(\"DJANGO_SETTINGS_MODULE\", \"shop.settings\")\n";
        let django = draft(&[("requirements.txt", "django\ngunicorn\n"), ("manage.py", manage)]).unwrap();
        assert_eq!(command(&django), "gunicorn shop.wsgi");
        let django = draft(&[("requirements.txt", "Django\n"), ("manage.py", manage)]).unwrap();
        assert_eq!(command(&django), "python manage.py runserver --noreload {port}");
    }

    #[test]
    fn scripts_are_services_when_there_is_no_server() {
        let draft = draft(&[(
            "pyproject.toml",
            "[project]\nrequires-python = \">=3\"\n[project.scripts]\nshop-worker = \"shop:main\"\n",
        )])
        .unwrap();
        assert_eq!(command(&draft), "shop-worker");
        assert_eq!(draft.services[0].port, None);
        assert!(draft.notes.unmapped.iter().any(|u| u.key == "project.scripts.shop-worker" && u.line == 4));
    }

    #[test]
    fn a_server_without_an_application_is_listed() {
        let draft = draft(&[("requirements.txt", "uvicorn\n")]).unwrap();
        assert!(draft.services.is_empty());
        assert_eq!(draft.notes.unmapped[0].key, "uvicorn");
    }

    #[test]
    fn garbage_is_listed() {
        for text in [
            "[",
            "project = 3",
            "[project]\nscripts = 3\ndependencies = {}",
            "[project]\ndependencies = [3, \"\"]",
        ] {
            assert!(draft(&[("pyproject.toml", text)]).unwrap().services.is_empty(), "{text}");
        }
        assert!(draft(&[]).is_none());
    }
}
