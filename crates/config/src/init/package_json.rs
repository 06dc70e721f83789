//! package.json: the scripts `start` and `build`, `engines`, and the packages of a workspace.

use serde_json::{Map, Value};

use super::draft::{
    Draft, DraftBuild, DraftRuns, DraftService, Notes, plain_words, project_name, service_name, words,
};
use super::files::{File, Files};

const NAME: &str = "package.json";

/// What Node frameworks listen on when PORT says nothing.
const PORT: u16 = 3000;

/// Packages whose presence means that the process answers requests.
const SERVERS: [&str; 15] = [
    "express",
    "fastify",
    "koa",
    "@hapi/hapi",
    "next",
    "nuxt",
    "@nestjs/core",
    "@sveltejs/kit",
    "@remix-run/node",
    "hono",
    "restify",
    "polka",
    "astro",
    "socket.io",
    "ws",
];

/// Tools that leave a site in a directory, by package.
const SITES: [(&str, &str); 5] = [
    ("vite", "dist"),
    ("react-scripts", "build"),
    ("parcel", "dist"),
    ("@vue/cli-service", "dist"),
    ("@11ty/eleventy", "_site"),
];

pub(super) fn read(files: &Files) -> Option<Draft> {
    let file = files.read(NAME)?;
    let mut draft = Draft::default();
    let package: Value = match serde_json::from_str(&file.text) {
        Ok(package) => package,
        Err(error) => {
            let line = u32::try_from(error.line()).unwrap_or(u32::MAX).max(1);
            draft.notes.unmapped(&file.name, line, "(the file)", "it is not JSON");
            return Some(draft);
        }
    };
    draft.project = package.get("name").and_then(Value::as_str).map(project_name);
    let manager = manager(&package, files);
    one(&package, &file, files, manager, &mut draft);
    workspaces(&package, &file, files, &mut draft);
    Some(draft)
}

/// One package as one service, when its scripts say how.
fn one(package: &Value, file: &File, files: &Files, manager: &str, draft: &mut Draft) {
    let empty = Map::new();
    let scripts = package.get("scripts").and_then(Value::as_object).unwrap_or(&empty);
    let script =
        |name: &str| scripts.get(name).and_then(Value::as_str).filter(|line| !line.trim().is_empty());
    let name = package.get("name").and_then(Value::as_str).unwrap_or("web");
    let name = if files.dir == "." {
        "web".to_owned()
    } else {
        service_name(name.rsplit('/').next().unwrap_or(name), "web")
    };
    let mut service =
        DraftService { name: name.clone(), dir: Some(files.dir.clone()), ..DraftService::default() };
    let run = |script: &str| [manager, "run", script].map(str::to_owned).to_vec();
    let site = SITES.iter().find(|(tool, _)| depends(package, tool));
    let line = |key: &str| file.line_of(&format!("\"{key}\""));
    let built = script("build").is_some();
    if let Some(start) = script("start") {
        service.runs = DraftRuns::Command(match plain_words(start).as_slice() {
            // Node itself as the process: npm in between would not pass the stop signal on.
            [node, ..] if node == "node" => words(start),
            _ => words(&run("start").join(" ")),
        });
        draft.notes.mapped(&file.name, line("start"), "scripts.start", format!("service.{name}.command"));
        if SERVERS.iter().any(|server| depends(package, server))
            || start.contains("PORT")
            || start.contains("serve")
        {
            service.port = Some(PORT);
            service.public = true;
        }
    } else if let Some((_, dir)) = site.filter(|_| built) {
        service.runs = DraftRuns::Static { dir: (*dir).to_owned(), spa: true };
        service.route = Some("/".to_owned());
    } else if let Some(main) = package.get("main").and_then(Value::as_str)
        && package.get("scripts").is_none()
        && files.has(main)
        && SERVERS.iter().any(|server| depends(package, server))
    {
        service.runs = DraftRuns::Command(words(&format!("node {main}")));
        service.port = Some(PORT);
        service.public = true;
        draft.notes.mapped(&file.name, line("main"), "main", format!("service.{name}.command"));
    }
    let runs = !matches!(service.runs, DraftRuns::Unknown);
    if built && runs {
        let artifact = match &service.runs {
            DraftRuns::Static { dir, .. } => Some(dir.clone()),
            DraftRuns::Unknown | DraftRuns::Command(_) | DraftRuns::Uses(_) => None,
        };
        service.build = Some(DraftBuild { run: run("build"), artifact });
        draft.notes.mapped(&file.name, line("build"), "scripts.build", format!("service.{name}.build"));
    }
    other_scripts(scripts, file, manager, runs, draft);
    if let Some(engines) = package.get("engines").and_then(Value::as_object) {
        for (engine, version) in engines {
            let why = format!(
                "the {engine} on the machine is used; the file asks for {}",
                version.as_str().unwrap_or("another")
            );
            draft.notes.unmapped(&file.name, line("engines"), format!("engines.{engine}"), why);
        }
    }
    if runs {
        draft.services.push(service);
    }
}

fn other_scripts(scripts: &Map<String, Value>, file: &File, manager: &str, runs: bool, draft: &mut Draft) {
    for name in scripts.keys() {
        let line = file.line_of(&format!("\"{name}\""));
        let key = format!("scripts.{name}");
        let mut unmapped = |why: &str| draft.notes.unmapped(&file.name, line, key.clone(), why);
        match name.as_str() {
            "start" | "build" if runs => {}
            "build" => unmapped("nothing says what to serve or to start afterwards"),
            "dev" => unmapped("fairway up runs what is deployed, and reloads on change"),
            "seed" | "db:seed" if runs => {
                draft.seed = Some([manager, "run", name].map(str::to_owned).to_vec());
                draft.notes.mapped(&file.name, line, key, "release.seed");
            }
            name if name.contains("migrate") => {
                unmapped(
                    "if the release that serves can live with it, it is release.expand; otherwise release.contract",
                );
            }
            name if name.starts_with("test") || name.starts_with("lint") => {
                unmapped("it belongs to a pipeline")
            }
            _ => unmapped("it is not part of running the project"),
        }
    }
}

/// The packages of a workspace that can be started.
fn workspaces(package: &Value, file: &File, files: &Files, draft: &mut Draft) {
    let globs = package.get("workspaces");
    let globs = globs.and_then(|globs| globs.get("packages")).or(globs).and_then(Value::as_array);
    let line = file.line_of("\"workspaces\"");
    for glob in globs.into_iter().flatten().filter_map(Value::as_str) {
        let directories: Vec<String> = match glob.trim_end_matches('/').strip_suffix("/*") {
            Some(parent) => {
                let below = files.below(parent).map(|parent| parent.directories()).unwrap_or_default();
                below.iter().map(|name| format!("{parent}/{name}")).collect()
            }
            None if glob.contains('*') => {
                draft.notes.unmapped(
                    &file.name,
                    line,
                    format!("workspaces {glob}"),
                    "only NAME and NAME/* are looked into",
                );
                continue;
            }
            None => vec![glob.to_owned()],
        };
        for directory in directories {
            let Some(below) = files.below(&directory) else { continue };
            let Some(member) = below.read(NAME) else { continue };
            let Ok(package) = serde_json::from_str::<Value>(&member.text) else { continue };
            let mut found = Draft { notes: Notes::default(), ..Draft::default() };
            // The lock file is the workspace's.
            let manager = manager(&package, files);
            one(&package, &member, &below, manager, &mut found);
            draft.services.append(&mut found.services);
            draft.notes.extend(found.notes);
        }
    }
}

fn depends(package: &Value, name: &str) -> bool {
    ["dependencies", "devDependencies"]
        .iter()
        .any(|key| package.get(key).and_then(|list| list.get(name)).is_some())
}

fn manager(package: &Value, files: &Files) -> &'static str {
    let named = package.get("packageManager").and_then(Value::as_str).unwrap_or_default();
    let is = |manager: &str, lock: &str| named.starts_with(manager) || (named.is_empty() && files.has(lock));
    if is("pnpm", "pnpm-lock.yaml") {
        "pnpm"
    } else if is("yarn", "yarn.lock") {
        "yarn"
    } else if is("bun", "bun.lockb") {
        "bun"
    } else {
        "npm"
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::super::draft::Word;
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

    fn command(service: &DraftService) -> String {
        match &service.runs {
            DraftRuns::Command(words) => words
                .iter()
                .map(|word| match word {
                    Word::Text(text) => text.clone(),
                    Word::Port => "{port}".to_owned(),
                })
                .collect::<Vec<_>>()
                .join(" "),
            DraftRuns::Unknown | DraftRuns::Static { .. } | DraftRuns::Uses(_) => String::new(),
        }
    }

    #[test]
    fn start_is_the_command_and_node_is_not_hidden_behind_npm() {
        let text = r#"{"name":"@acme/shop","engines":{"node":">=20"},"scripts":{"start":"node server.js","build":"tsc","test":"x","seed":"node seed.js"},"dependencies":{"express":"4"}}"#;
        let draft = draft(&[("package.json", text), ("pnpm-lock.yaml", "")]).unwrap();
        assert_eq!(draft.project.as_deref(), Some("shop"));
        let service = &draft.services[0];
        assert_eq!((service.name.as_str(), service.port, service.public), ("web", Some(PORT), true));
        assert_eq!(command(service), "node server.js");
        assert_eq!(service.build.as_ref().unwrap().run, ["pnpm", "run", "build"]);
        assert_eq!(draft.seed.unwrap(), ["pnpm", "run", "seed"]);
        let unmapped: Vec<&str> = draft.notes.unmapped.iter().map(|u| u.key.as_str()).collect();
        assert_eq!(unmapped, ["scripts.test", "engines.node"]);
    }

    #[test]
    fn a_start_that_needs_a_shell_is_left_to_the_package_manager() {
        let text = r#"{"scripts":{"start":"NODE_ENV=production node x.js"}}"#;
        let draft = draft(&[("package.json", text)]).unwrap();
        assert_eq!(command(&draft.services[0]), "npm run start");
        assert_eq!(draft.services[0].port, None);
    }

    #[test]
    fn a_site_that_is_only_built_is_static() {
        let text = r#"{"scripts":{"build":"vite build","dev":"vite"},"devDependencies":{"vite":"7"}}"#;
        let draft = draft(&[("package.json", text)]).unwrap();
        assert!(matches!(&draft.services[0].runs, DraftRuns::Static { dir, spa: true } if dir == "dist"));
        assert_eq!(draft.services[0].build.as_ref().unwrap().artifact.as_deref(), Some("dist"));
    }

    #[test]
    fn packages_of_a_workspace_are_services() {
        let draft = draft(&[
            ("package.json", r#"{"workspaces":["apps/*","tool","../out","lib/**"]}"#),
            ("apps/api/package.json", r#"{"name":"@acme/api","scripts":{"start":"node a.js"}}"#),
            ("apps/lib/package.json", r#"{"name":"lib"}"#),
            ("tool/package.json", "not json"),
        ])
        .unwrap();
        assert_eq!(draft.services.len(), 1);
        assert_eq!(
            (draft.services[0].name.as_str(), draft.services[0].dir.as_deref()),
            ("api", Some("apps/api"))
        );
    }

    #[test]
    fn garbage_is_listed() {
        for text in ["", "[]", "3", "{\"scripts\":3}", "{\"scripts\":{\"start\":3}}", "{\"workspaces\":{}}"] {
            assert!(draft(&[("package.json", text)]).unwrap().services.is_empty(), "{text}");
        }
        assert!(draft(&[]).is_none());
    }
}
