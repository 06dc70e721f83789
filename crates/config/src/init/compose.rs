//! compose.yaml: https://compose-spec.io. What is an image has no counterpart; what runs in it often has.

use super::code;
use super::dockerfile;
use super::draft::{Draft, DraftRuns, DraftService, Notes, Word, plain_words, service_name, words};
use super::env::{self, At};
use super::files::{File, Files};
use super::yaml::{self, Yaml, YamlValue};
use crate::keys::COPIES_MAX;
use crate::reader::quote;
use crate::value::{duration, size};

pub(super) const NAMES: [&str; 4] =
    ["compose.yaml", "compose.yml", "docker-compose.yaml", "docker-compose.yml"];

pub(super) fn read(file: &File, files: &Files) -> Draft {
    let mut draft = Draft::default();
    let document = match yaml::parse(&file.text) {
        Ok(documents) => documents.into_iter().next(),
        Err((line, why)) => {
            draft.notes.unmapped(&file.name, line, "(the file)", format!("it is not YAML: {why}"));
            return draft;
        }
    };
    let Some(document) = document else { return draft };
    for (key, line, value) in document.entries() {
        match key.as_str() {
            "services" | "version" => {}
            "name" => draft.project = value.text().map(super::draft::project_name),
            key => draft.notes.unmapped(&file.name, *line, key, top_level(key)),
        }
    }
    let mut theirs = Vec::new();
    for (name, line, value) in document.get("services").map_or(&[][..], Yaml::entries) {
        let own = service_name(name, "service");
        theirs.push((name.clone(), own.clone()));
        let mut service = Service {
            file,
            path: format!("services.{name}"),
            draft: DraftService { name: own, ..DraftService::default() },
            notes: Notes::default(),
        };
        service.read(value, files);
        let Service { draft: drafted, mut notes, .. } = service;
        if matches!(drafted.runs, DraftRuns::Unknown) {
            let own = &drafted.name;
            let why =
                format!("what it runs is inside its image; add [service.{own}] with a command yourself");
            draft.notes.unmapped(&file.name, *line, format!("services.{name}"), why);
            notes.mapped.clear();
        } else {
            draft.services.push(drafted);
        }
        draft.notes.extend(notes);
    }
    let names: Vec<String> = draft.services.iter().map(|service| service.name.clone()).collect();
    for service in &mut draft.services {
        // One that could not be taken over cannot be waited for.
        service.after.retain(|name| names.contains(name));
    }
    env::refer(&mut draft.services, &theirs, &mut draft.notes);
    draft
}

struct Service<'a> {
    file: &'a File,
    path: String,
    draft: DraftService,
    notes: Notes,
}

impl Service<'_> {
    fn mapped(&mut self, line: u32, key: &str, to: &str) {
        let to = format!("service.{}.{to}", self.draft.name);
        self.notes.mapped(&self.file.name, line, format!("{}.{key}", self.path), to);
    }

    fn unmapped(&mut self, line: u32, key: &str, why: impl Into<String>) {
        self.notes.unmapped(&self.file.name, line, format!("{}.{key}", self.path), why);
    }

    fn read(&mut self, service: &Yaml, files: &Files) {
        if let Some(engine) = service.get("image").and_then(Yaml::text).and_then(backing_engine) {
            return self.backing(service, engine);
        }
        let mut entrypoint = Vec::new();
        let mut command = Vec::new();
        let mut healthcheck = None;
        for (key, line, value) in service.entries() {
            let (key, line) = (key.as_str(), *line);
            match key {
                "command" | "entrypoint" => {
                    let list = self.arguments(value, line, key);
                    self.mapped(line, key, "command");
                    if key == "command" { command = list } else { entrypoint = list }
                }
                "build" => self.build(value, line, files),
                "image" => {
                    let why = "there are no images here: its programs must be on the machine";
                    self.unmapped(line, key, why);
                }
                "ports" | "expose" => self.ports(value, line, key),
                "environment" => self.environment(value, key),
                "depends_on" => {
                    let names: Vec<&str> = if value.is_map() {
                        value.entries().iter().map(|(name, _, _)| name.as_str()).collect()
                    } else {
                        value.items().iter().filter_map(Yaml::text).collect()
                    };
                    self.draft.after = names.iter().map(|name| service_name(name, "service")).collect();
                    self.mapped(line, key, "after");
                }
                "healthcheck" => healthcheck = Some((value, line)),
                "deploy" => self.deploy(value),
                "scale" => self.replicas(value, line, key),
                "restart" => {
                    if value.text() == Some("no") {
                        self.draft.restart = Some("burst = 0".to_owned());
                    }
                    self.mapped(line, key, "restart");
                }
                "mem_limit" | "cpus" => self.limit(value, line, key),
                "stop_grace_period" | "stop_signal" => self.stop(value, line, key),
                key => self.unmapped(line, key, of_service(key)),
            }
        }
        if !entrypoint.is_empty() || !command.is_empty() {
            entrypoint.extend(command);
            self.draft.runs = DraftRuns::Command(entrypoint);
        }
        if let Some((value, line)) = healthcheck {
            self.healthcheck(value, line);
        }
    }

    fn backing(&mut self, service: &Yaml, engine: &'static str) {
        self.draft.runs = DraftRuns::Uses(engine);
        for (key, line, value) in service.entries() {
            match key.as_str() {
                "image" => {
                    self.mapped(*line, key, "uses");
                    if value.text().is_some_and(|image| image.contains(':')) {
                        self.unmapped(
                            *line,
                            "image (its version)",
                            "the version that is on the machine is used",
                        );
                    }
                }
                "healthcheck" | "ports" | "expose" | "restart" | "environment" | "volumes" | "command" => {
                    let why =
                        format!("Fairway runs {engine} itself, with its own port, user, data and checks");
                    self.unmapped(*line, key, why);
                }
                key => self.unmapped(*line, key, of_service(key)),
            }
        }
    }

    /// A string is split as a shell would; a list is words.
    fn arguments(&mut self, value: &Yaml, line: u32, key: &str) -> Vec<Word> {
        let mut text = |text: &str| {
            let (text, open) = env::interpolate(text);
            for name in open {
                self.unmapped(
                    line,
                    &format!("{key} (${{{name}}})"),
                    "it comes from the shell that starts compose",
                );
            }
            text
        };
        match &value.value {
            YamlValue::Text(line) => words(&text(line)),
            YamlValue::List(items) => {
                items.iter().filter_map(|item| Some(Word::Text(text(item.text()?)))).collect()
            }
            YamlValue::Null | YamlValue::Map(_) => Vec::new(),
        }
    }

    fn build(&mut self, value: &Yaml, line: u32, files: &Files) {
        let context = value.text().or_else(|| value.get("context").and_then(Yaml::text)).unwrap_or(".");
        for (key, line, _) in value.entries().iter().filter(|(key, _, _)| key != "context") {
            self.unmapped(*line, &format!("build.{key}"), "nothing is built into an image here");
        }
        let Some(below) = files.below(context) else {
            return self.unmapped(line, "build", "its directory is not inside the project");
        };
        self.draft.dir = Some(below.dir.clone());
        self.mapped(line, "build", "dir");
        let dockerfile = value.get("dockerfile").and_then(Yaml::text).unwrap_or("Dockerfile");
        let in_image = below.read(dockerfile).map(|file| (dockerfile::read(&file), file));
        let mut found = code::detect(&below);
        if let Some(code) = found.services.pop().filter(|_| found.services.is_empty()) {
            self.draft.runs = code.runs;
            self.draft.build = code.build;
            self.draft.port = self.draft.port.or(code.port);
            // What it says of the one service is said of this one.
            for mapped in &mut found.notes.mapped {
                mapped.to = mapped
                    .to
                    .replace(&format!("service.{}.", code.name), &format!("service.{}.", self.draft.name));
            }
            self.notes.extend(found.notes);
        }
        if let Some((image, file)) = in_image {
            self.draft.port = image.port.or(self.draft.port);
            let local = |word: &Word| matches!(word, Word::Text(text) if !text.contains('/'));
            match image.command {
                // A path of the image is not one of the project.
                Some((line, command)) if command.first().is_some_and(local) => {
                    self.notes.mapped(
                        &file.name,
                        line,
                        "CMD",
                        format!("service.{}.command", self.draft.name),
                    );
                    self.draft.runs = DraftRuns::Command(command);
                }
                Some(_) | None => {
                    self.notes.unmapped(&file.name, 1, "(the file)", "nothing is built into an image here");
                }
            }
        }
    }

    fn ports(&mut self, value: &Yaml, line: u32, key: &str) {
        let port = |item: &Yaml| -> Option<u16> {
            let text = item.text().or_else(|| item.get("target").and_then(Yaml::text))?;
            let (text, _) = env::interpolate(text);
            text.rsplit(':')
                .next()?
                .split('/')
                .next()?
                .split('-')
                .next()?
                .parse()
                .ok()
                .filter(|port| *port > 0)
        };
        for (index, item) in value.items().iter().enumerate() {
            match port(item) {
                Some(port) if index == 0 => {
                    self.draft.port = Some(port);
                    self.draft.public |= key == "ports";
                    self.mapped(item.line, key, "port");
                }
                Some(_) => self.unmapped(item.line, key, "a service has one port here"),
                None => self.unmapped(line, key, "it is no port number"),
            }
        }
    }

    fn environment(&mut self, value: &Yaml, key: &str) {
        let path = format!("{}.{key}", self.path);
        let listed = value.items().iter().filter_map(|item| {
            let (name, text) =
                item.text()?.split_once('=').map_or((item.text()?, None), |(n, t)| (n, Some(t)));
            Some((name.to_owned(), item.line, text.map(str::to_owned)))
        });
        let mapped = value
            .entries()
            .iter()
            .map(|(name, line, value)| (name.clone(), *line, value.text().map(str::to_owned)));
        for (name, line, text) in mapped.chain(listed).collect::<Vec<_>>() {
            let at = At { file: &self.file.name, line, key: &path };
            let Some((text, open)) = text.as_deref().map(env::interpolate) else {
                self.notes.unmapped(
                    at.file,
                    line,
                    format!("{path}.{name}"),
                    "it comes from the shell that starts compose",
                );
                continue;
            };
            if open.is_empty() {
                env::add(&mut self.draft, &name, &text, at, &mut self.notes);
            } else {
                let why = format!(
                    "${} comes from the shell that starts compose; set it in [vars] or as a secret",
                    open[0]
                );
                self.notes.unmapped(at.file, line, format!("{path}.{name}"), why);
            }
        }
    }

    fn healthcheck(&mut self, value: &Yaml, line: u32) {
        let test = value.get("test");
        let command = match test.map(|test| &test.value) {
            Some(YamlValue::Text(line)) => plain_words(line),
            Some(YamlValue::List(items)) => {
                let items: Vec<&str> = items.iter().filter_map(Yaml::text).collect();
                match items.as_slice() {
                    ["CMD-SHELL", line] => plain_words(line),
                    ["CMD", words @ ..] if !words.is_empty() => {
                        words.iter().map(|word| (*word).to_owned()).collect()
                    }
                    _ => return self.unmapped(line, "healthcheck", "it checks nothing"),
                }
            }
            Some(YamlValue::Null | YamlValue::Map(_)) | None => {
                return self.unmapped(line, "healthcheck", "it checks nothing");
            }
        };
        let mut inside = match probe_path(&command).filter(|_| self.draft.port.is_some()) {
            Some(path) => format!("http = {}", quote(&path)),
            None => format!("exec = {}", list(&command)),
        };
        for (theirs, ours) in [("interval", "every"), ("timeout", "timeout"), ("start_period", "within")] {
            let Some(node) = value.get(theirs) else { continue };
            match node.text().and_then(|text| duration::parse(text).ok()) {
                // `within` counts from the start, and theirs comes on top of the checks.
                Some(given) if !given.is_zero() && ours != "within" => {
                    inside.push_str(&format!(", {ours} = {}", quote(&duration::show(given))));
                }
                Some(_) | None => {
                    let why = if ours == "within" {
                        "ready.within counts from the start to ready (60s)"
                    } else {
                        "it is no duration of ours"
                    };
                    self.unmapped(node.line, &format!("healthcheck.{theirs}"), why);
                }
            }
        }
        if let Some(retries @ 1..=1000) =
            value.get("retries").and_then(Yaml::text).and_then(|text| text.parse::<u32>().ok())
        {
            inside.push_str(&format!(", failures = {retries}"));
        }
        self.draft.ready = Some(inside);
        self.mapped(line, "healthcheck", "ready");
    }

    fn deploy(&mut self, value: &Yaml) {
        for (key, line, value) in value.entries() {
            match key.as_str() {
                "replicas" => self.replicas(value, *line, "deploy.replicas"),
                "resources" => {
                    for (key, line, value) in value.get("limits").map_or(&[][..], Yaml::entries) {
                        self.limit(value, *line, key);
                    }
                    if value.get("reservations").is_some() {
                        self.unmapped(
                            *line,
                            "deploy.resources.reservations",
                            "nothing is reserved on one machine",
                        );
                    }
                }
                key => {
                    self.unmapped(*line, &format!("deploy.{key}"), "Fairway has its own way: see [deploy]")
                }
            }
        }
    }

    fn replicas(&mut self, value: &Yaml, line: u32, key: &str) {
        match value
            .text()
            .and_then(|text| text.parse::<u32>().ok())
            .filter(|replicas| *replicas <= COPIES_MAX)
        {
            Some(replicas) => {
                self.draft.replicas = Some(replicas);
                self.mapped(line, key, "replicas");
            }
            None => self.unmapped(line, key, "it is no number of copies"),
        }
    }

    fn limit(&mut self, value: &Yaml, line: u32, key: &str) {
        let text = value.text().unwrap_or_default();
        let part = match key {
            "mem_limit" | "memory" => {
                let upper = text.to_ascii_uppercase();
                // `512mb` and `512m` are binary in compose.
                let unit =
                    upper.strip_suffix('B').filter(|rest| rest.ends_with(['K', 'M', 'G'])).unwrap_or(&upper);
                size::parse(unit)
                    .ok()
                    .filter(|bytes| *bytes > 0)
                    .map(|bytes| format!("memory = {}", quote(&size::show(bytes))))
            }
            _ => text
                .parse::<f64>()
                .ok()
                .filter(|cores| (0.001..=4096.0).contains(cores))
                .filter(|_| key == "cpus")
                .map(|cores| format!("cpu = {cores:?}")),
        };
        match part {
            Some(part) => {
                let limits = self.draft.limits.take();
                self.draft.limits = Some(limits.map_or(part.clone(), |limits| format!("{limits}, {part}")));
                self.mapped(line, key, "limits");
            }
            None => self.unmapped(line, key, "limits here are cpu and memory"),
        }
    }

    fn stop(&mut self, value: &Yaml, line: u32, key: &str) {
        let text = value.text().unwrap_or_default();
        let signal = text.strip_prefix("SIG").unwrap_or(text);
        let part = if key == "stop_signal" {
            crate::keys::SIGNALS.contains(&signal).then(|| format!("signal = {}", quote(signal)))
        } else {
            duration::parse(text).ok().map(|timeout| format!("timeout = {}", quote(&duration::show(timeout))))
        };
        match part {
            Some(part) => {
                let stop = self.draft.stop.take();
                self.draft.stop = Some(stop.map_or(part.clone(), |stop| format!("{stop}, {part}")));
                self.mapped(line, key, "stop");
            }
            None => self.unmapped(line, key, "Fairway has no such value for stop"),
        }
    }
}

/// The path of `curl http://localhost:3000/healthz` and its like.
fn probe_path(command: &[String]) -> Option<String> {
    let joined = command.join(" ");
    if !["curl", "wget"].iter().any(|tool| joined.contains(tool)) {
        return None;
    }
    let at = joined.find("http://localhost").or_else(|| joined.find("http://127.0.0.1"))?;
    let url = joined[at..].split([' ', '"', '\'', ';', '|']).next()?;
    let path = url.strip_prefix("http://")?.find('/').map_or("/", |slash| &url["http://".len() + slash..]);
    crate::value::path::request(path).is_ok().then(|| path.to_owned())
}

fn list(words: &[String]) -> String {
    let words: Vec<String> = words.iter().map(|word| quote(word)).collect();
    format!("[{}]", words.join(", "))
}

/// `postgres:16-alpine`, `docker.io/library/redis`, `bitnami/postgresql`.
pub(super) fn backing_engine(image: &str) -> Option<&'static str> {
    let last = image.rsplit('/').next()?;
    match last.split([':', '@']).next()? {
        "postgres" | "postgresql" => Some("postgres"),
        "redis" | "valkey" => Some("redis"),
        _ => None,
    }
}

fn top_level(key: &str) -> &'static str {
    match key {
        "volumes" => "a directory that outlives releases is { ref = \"data.dir\" }",
        "networks" => "services reach each other by { ref = \"NAME.url\" }",
        "secrets" => "secrets are set with fairway secret set",
        "configs" => "files of the project are part of each release",
        "include" => "only this file is read",
        key if key.starts_with("x-") => "it is a note of the file's own; what uses it was read",
        _ => "it has no counterpart",
    }
}

fn of_service(key: &str) -> &'static str {
    match key {
        "volumes" => {
            "a directory that outlives releases is { ref = \"data.dir\" }; the project itself is captured"
        }
        "networks" | "network_mode" | "links" | "extra_hosts" | "dns" => {
            "services reach each other by { ref = \"NAME.url\" }"
        }
        "env_file" => "set its values in [vars], and those that are secret with fairway secret set",
        "working_dir" => "it is a path of the image",
        "user" => "it is a user of the image; user here is one of the machine",
        "profiles" => "leave a service out of an environment by its own [env.NAME]",
        "container_name" | "hostname" => "instances are named by service, release and number",
        "labels" | "annotations" => "nothing reads labels here",
        "logging" => "output is kept for every service; see log",
        "extends" => "only what this service says itself was read",
        "secrets" | "configs" => "a secret is the value of a variable: { secret = \"name\" }",
        "develop" => "fairway up reloads on change by itself",
        _ => "it has no counterpart",
    }
}

#[cfg(test)]
mod tests;
