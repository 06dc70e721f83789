//! Deployments of Kubernetes, as far as what their containers run can be told from the manifest.

use super::compose::backing_engine;
use super::draft::{Draft, DraftRuns, DraftService, DraftValue, Notes, Word, service_name};
use super::env::{self, At};
use super::files::{File, Files};
use super::hpa::{self, Autoscale};
use super::yaml::{self, Yaml};
use crate::keys::COPIES_MAX;
use crate::reader::quote;
use crate::value::{path, size};

/// Where manifests are kept.
pub(super) const DIRECTORIES: [&str; 4] = ["k8s", "kubernetes", "manifests", "deploy"];

pub(super) fn read(files: &Files) -> Option<Draft> {
    let directory = DIRECTORIES.iter().find_map(|name| files.below(name))?;
    let mut draft = Draft::default();
    let mut found = Found::default();
    let mut any = false;
    for name in directory.files() {
        if !name.ends_with(".yaml") && !name.ends_with(".yml") {
            continue;
        }
        let Some(file) = directory.read(&name) else { continue };
        let documents = match yaml::parse(&file.text) {
            Ok(documents) => documents,
            Err((line, why)) => {
                draft.notes.unmapped(&file.name, line, "(the file)", format!("it is not YAML: {why}"));
                continue;
            }
        };
        for document in documents.iter().filter(|document| document.get("kind").is_some()) {
            any = true;
            object(document, &file, &mut draft, &mut found);
        }
    }
    for (service, route) in found.routes {
        if let Some(service) = draft.services.iter_mut().find(|known| known.name == service) {
            service.route = Some(route);
        }
    }
    hpa::apply(found.autoscales, &mut draft);
    let theirs: Vec<(String, String)> =
        draft.services.iter().map(|service| (service.name.clone(), service.name.clone())).collect();
    env::refer(&mut draft.services, &theirs, &mut draft.notes);
    any.then_some(draft)
}

/// What objects say of services that may stand in later documents.
#[derive(Default)]
struct Found {
    routes: Vec<(String, String)>,
    autoscales: Vec<Autoscale>,
}

fn object(document: &Yaml, file: &File, draft: &mut Draft, found: &mut Found) {
    let kind = document.get("kind").and_then(Yaml::text).unwrap_or_default();
    let name = document.get("metadata").and_then(|m| m.get("name")).and_then(Yaml::text).unwrap_or("service");
    let key = format!("{kind} {name}");
    let unmapped = |why: &str, notes: &mut Notes| notes.unmapped(&file.name, document.line, key.clone(), why);
    match kind {
        "Deployment" | "StatefulSet" => workload(document, name, &key, file, draft),
        "Ingress" => ingress(document, &key, file, &mut found.routes, &mut draft.notes),
        "Service" => unmapped("each service is reached by { ref = \"NAME.url\" }", &mut draft.notes),
        "ConfigMap" => unmapped("put its values into [vars]", &mut draft.notes),
        "Secret" => unmapped("set its values with fairway secret set", &mut draft.notes),
        "HorizontalPodAutoscaler" => found.autoscales.push(hpa::read(document, &key, file)),
        "Job" | "CronJob" => {
            unmapped("a command that runs once per release belongs into [release]", &mut draft.notes)
        }
        _ => unmapped("it has no counterpart on one machine", &mut draft.notes),
    }
}

fn workload(document: &Yaml, name: &str, key: &str, file: &File, draft: &mut Draft) {
    let own = service_name(name, "service");
    let mut service = DraftService { name: own.clone(), ..DraftService::default() };
    let mut notes = Notes::default();
    let spec = document.get("spec");
    let containers = spec
        .and_then(|spec| spec.get("template")?.get("spec")?.get("containers"))
        .map_or(&[][..], Yaml::items);
    let Some(container) = containers.first() else {
        return draft.notes.unmapped(&file.name, document.line, key, "it has no container");
    };
    for extra in &containers[1..] {
        notes.unmapped(&file.name, extra.line, format!("{key} containers"), "a service is one command here");
    }
    if let Some(replicas) =
        spec.and_then(|spec| spec.get("replicas")).and_then(Yaml::text).and_then(|t| t.parse().ok())
    {
        service.replicas = Some(replicas).filter(|replicas| *replicas <= COPIES_MAX);
    }
    let words = |key: &str| {
        let items = container.get(key).map_or(&[][..], Yaml::items);
        items.iter().filter_map(|item| Some(Word::Text(item.text()?.to_owned()))).collect::<Vec<_>>()
    };
    let command = words("command");
    let image = container.get("image");
    if let Some(engine) = image.and_then(Yaml::text).and_then(backing_engine) {
        notes.mapped(&file.name, document.line, key, format!("service.{own}.uses"));
        service.runs = DraftRuns::Uses(engine);
        service.replicas = None;
        draft.services.push(service);
        return draft.notes.extend(notes);
    }
    if let Some(image) = image {
        let why = "there are no images here: its programs must be on the machine";
        notes.unmapped(&file.name, image.line, format!("{key} image"), why);
    }
    if command.is_empty() {
        notes.mapped.clear();
        draft.notes.extend(notes);
        let why = format!("what it runs is inside its image; add [service.{own}] with a command yourself");
        return draft.notes.unmapped(&file.name, document.line, key, why);
    }
    notes.mapped(&file.name, document.line, key, format!("service.{own}"));
    service.runs = DraftRuns::Command([command, words("args")].concat());
    for (part, line, value) in container.entries() {
        match part.as_str() {
            "name" | "image" | "command" | "args" | "imagePullPolicy" => {}
            "ports" => {
                let port =
                    value.items().first().and_then(|port| port.get("containerPort")).and_then(Yaml::text);
                service.port = port.and_then(|port| port.parse().ok()).filter(|port| *port > 0);
            }
            "env" => variables(value, key, file, &mut service, &mut notes),
            "readinessProbe" => service.ready = probe(value),
            "livenessProbe" => service.live = probe(value),
            "resources" => service.limits = value.get("limits").and_then(limits),
            part => {
                notes.unmapped(
                    &file.name,
                    *line,
                    format!("{key} {part}"),
                    "it has no counterpart on one machine",
                );
            }
        }
    }
    if service.port.is_none() {
        for probe in [&mut service.ready, &mut service.live] {
            // It would have no port to ask.
            if probe.as_deref().is_some_and(|probe| !probe.starts_with("exec")) {
                *probe = None;
                notes.unmapped(
                    &file.name,
                    container.line,
                    format!("{key} probes"),
                    "the container declares no port",
                );
            }
        }
    }
    draft.services.push(service);
    draft.notes.extend(notes);
}

fn variables(list: &Yaml, key: &str, file: &File, service: &mut DraftService, notes: &mut Notes) {
    for item in list.items() {
        let Some(name) = item.get("name").and_then(Yaml::text) else { continue };
        let path = format!("{key} env");
        let at = At { file: &file.name, line: item.line, key: &path };
        let secret = item.get("valueFrom").and_then(|from| from.get("secretKeyRef")?.get("key")?.text());
        if let Some(text) = item.get("value").and_then(Yaml::text) {
            env::add(service, name, text, at, notes);
        } else if let Some(secret) = secret.filter(|secret| crate::value::name::secret(secret).is_ok())
            && crate::value::name::variable(name).is_ok()
        {
            service.env.insert(name.to_owned(), DraftValue::Secret(secret.to_owned()));
            let why = format!("the value is not in the file: fairway secret set {secret} -e dev");
            notes.unmapped(&file.name, item.line, format!("{path}.{name} (its value)"), why);
        } else {
            notes.unmapped(
                &file.name,
                item.line,
                format!("{path}.{name}"),
                "its value is not in the manifest",
            );
        }
    }
}

fn probe(probe: &Yaml) -> Option<String> {
    let number = |key: &str| probe.get(key).and_then(Yaml::text).and_then(|text| text.parse::<u32>().ok());
    let mut inside = if let Some(http) = probe.get("httpGet") {
        let path = http.get("path").and_then(Yaml::text).unwrap_or("/");
        path::request(path).ok()?;
        format!("http = {}", quote(path))
    } else if probe.get("tcpSocket").is_some() {
        "tcp = true".to_owned()
    } else {
        let words = probe.get("exec")?.get("command")?.items().iter().filter_map(Yaml::text);
        let words: Vec<String> = words.map(quote).collect();
        if words.is_empty() || words[0] == "\"\"" {
            return None;
        }
        format!("exec = [{}]", words.join(", "))
    };
    for (theirs, ours) in [("periodSeconds", "every"), ("timeoutSeconds", "timeout")] {
        if let Some(seconds @ 1..=86_400) = number(theirs) {
            inside.push_str(&format!(", {ours} = \"{seconds}s\""));
        }
    }
    if let Some(failures @ 1..=1000) = number("failureThreshold") {
        inside.push_str(&format!(", failures = {failures}"));
    }
    Some(inside)
}

fn limits(limits: &Yaml) -> Option<String> {
    let mut parts = Vec::new();
    let cpu = limits.get("cpu").and_then(Yaml::text).and_then(|text| match text.strip_suffix('m') {
        Some(millis) => Some(millis.parse::<f64>().ok()? / 1000.0),
        None => text.parse().ok(),
    });
    if let Some(cpu) = cpu.filter(|cpu| (0.001..=4096.0).contains(cpu)) {
        parts.push(format!("cpu = {cpu:?}"));
    }
    if let Some(bytes @ 1..) =
        limits.get("memory").and_then(Yaml::text).and_then(|text| size::parse(text).ok())
    {
        parts.push(format!("memory = {}", quote(&size::show(bytes))));
    }
    (!parts.is_empty()).then(|| parts.join(", "))
}

fn ingress(document: &Yaml, key: &str, file: &File, routes: &mut Vec<(String, String)>, notes: &mut Notes) {
    let rules = document.get("spec").and_then(|spec| spec.get("rules")).map_or(&[][..], Yaml::items);
    for rule in rules {
        if let Some(host) = rule.get("host") {
            notes.unmapped(
                &file.name,
                host.line,
                format!("{key} host"),
                "host belongs to an environment: [env.NAME]",
            );
        }
        for entry in rule.get("http").and_then(|http| http.get("paths")).map_or(&[][..], Yaml::items) {
            let path = entry.get("path").and_then(Yaml::text).unwrap_or("/");
            let backend =
                entry.get("backend").and_then(|b| b.get("service")?.get("name")).and_then(Yaml::text);
            match (path::route(path), backend) {
                (Ok(route), Some(backend)) => {
                    let own = service_name(backend, "service");
                    notes.mapped(
                        &file.name,
                        entry.line,
                        format!("{key} {path}"),
                        format!("service.{own}.route"),
                    );
                    routes.push((own, route));
                }
                (Ok(_) | Err(_), _) => {
                    notes.unmapped(
                        &file.name,
                        entry.line,
                        format!("{key} {path}"),
                        "it is no plain path prefix",
                    );
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn draft(text: &str) -> Option<Draft> {
        let directory = tempfile::tempdir().unwrap();
        fs::create_dir(directory.path().join("k8s")).unwrap();
        fs::write(directory.path().join("k8s/all.yaml"), text).unwrap();
        read(&Files::new(directory.path()))
    }

    const SHOP: &str = r#"
kind: Deployment
metadata: { name: api }
spec:
  replicas: 3
  template:
    spec:
      containers:
        - name: api
          image: shop/api:1
          command: [node]
          args: [server.js]
          ports: [{ containerPort: 3000 }]
          env:
            - { name: LOG_LEVEL, value: info }
            - { name: STRIPE, valueFrom: { secretKeyRef: { name: s, key: stripe_key } } }
            - { name: POD, valueFrom: { fieldRef: { fieldPath: x } } }
            - { name: CACHE, value: "redis://cache:6379" }
          readinessProbe: { httpGet: { path: /healthz, port: 3000 }, periodSeconds: 5, failureThreshold: 2 }
          livenessProbe: { tcpSocket: { port: 3000 } }
          resources: { limits: { cpu: 500m, memory: 256Mi } }
          securityContext: { runAsNonRoot: true }
---
kind: Deployment
metadata: { name: cache }
spec: { template: { spec: { containers: [{ image: "redis:7" }] } } }
---
kind: Deployment
metadata: { name: hidden }
spec: { template: { spec: { containers: [{ image: "x" }] } } }
---
kind: Ingress
metadata: { name: shop }
spec:
  rules:
    - host: shop.example
      http: { paths: [{ path: /api, backend: { service: { name: api } } }] }
---
kind: NetworkPolicy
metadata: { name: deny }
"#;

    #[test]
    fn what_the_manifest_says_is_taken_over() {
        let draft = draft(SHOP).unwrap();
        let api = &draft.services[0];
        assert_eq!((api.port, api.replicas, api.route.as_deref()), (Some(3000), Some(3), Some("/api")));
        assert_eq!(api.ready.as_deref(), Some("http = \"/healthz\", every = \"5s\", failures = 2"));
        assert_eq!(api.live.as_deref(), Some("tcp = true"));
        assert_eq!(api.limits.as_deref(), Some("cpu = 0.5, memory = \"256M\""));
        assert_eq!(api.env["STRIPE"], DraftValue::Secret("stripe_key".into()));
        assert_eq!(api.env["CACHE"], DraftValue::Ref("cache.url".into()));
        assert!(matches!(draft.services[1].runs, DraftRuns::Uses("redis")));
        assert_eq!(draft.services.len(), 2);
        let keys: Vec<&str> = draft.notes.unmapped.iter().map(|unmapped| unmapped.key.as_str()).collect();
        for key in [
            "Deployment hidden",
            "NetworkPolicy deny",
            "Deployment api image",
            "Deployment api securityContext",
            "Deployment api env.POD",
            "Ingress shop host",
        ] {
            assert!(keys.contains(&key), "{key}: {keys:?}");
        }
    }

    #[test]
    fn garbage_is_listed_and_nothing_more() {
        for text in [
            "kind: Deployment",
            "kind: Deployment\nspec: 3",
            "kind: [x]",
            "kind: Ingress\nspec: { rules: [1] }",
        ] {
            assert!(draft(text).unwrap().services.is_empty(), "{text}");
        }
        assert!(draft("a: [").is_none() && draft("x: 1").is_none());
    }
}
