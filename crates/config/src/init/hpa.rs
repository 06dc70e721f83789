//! A HorizontalPodAutoscaler of Kubernetes (autoscaling/v1 and v2) as the `autoscale` of a service.

use super::draft::{Draft, DraftRuns, Notes, service_name};
use super::files::File;
use super::yaml::Yaml;
use crate::keys::COPIES_MAX;
use crate::reader::quote;

/// What a manifest says of a workload that may stand in another document.
pub(super) struct Autoscale {
    /// Our name of the service that it scales.
    service: String,
    file: String,
    line: u32,
    /// As people know the object.
    key: String,
    /// The inside of the braces; none when it cannot be taken over.
    inside: Option<String>,
    notes: Notes,
}

pub(super) fn read(document: &Yaml, key: &str, file: &File) -> Autoscale {
    let mut notes = Notes::default();
    let spec = document.get("spec");
    let target = spec.and_then(|spec| spec.get("scaleTargetRef")?.get("name")?.text()).unwrap_or_default();
    Autoscale {
        service: service_name(target, "service"),
        file: file.name.clone(),
        line: document.line,
        key: key.to_owned(),
        inside: spec.and_then(|spec| inside(spec, key, file, &mut notes)),
        notes,
    }
}

/// Gives each service its autoscaler, once all services are known.
pub(super) fn apply(autoscales: Vec<Autoscale>, draft: &mut Draft) {
    for one in autoscales {
        let service = draft.services.iter_mut().find(|service| service.name == one.service);
        let runs = service.filter(|service| matches!(service.runs, DraftRuns::Command(_)));
        match (runs, one.inside) {
            (Some(service), Some(inside)) => {
                draft.notes.mapped(
                    &one.file,
                    one.line,
                    one.key,
                    format!("service.{}.autoscale", one.service),
                );
                draft.notes.extend(one.notes);
                service.autoscale = Some(inside);
                // As in Kubernetes, where the autoscaler sets them.
                service.replicas = None;
            }
            (Some(_), None) => {
                let why = format!("its bounds are not within 1 and {COPIES_MAX}");
                draft.notes.unmapped(&one.file, one.line, one.key, why);
            }
            (None, _) => {
                let why = "nothing that it scales was taken over";
                draft.notes.unmapped(&one.file, one.line, one.key, why);
            }
        }
    }
}

fn inside(spec: &Yaml, key: &str, file: &File, notes: &mut Notes) -> Option<String> {
    let min = number(spec, "minReplicas").unwrap_or(1);
    let max = number(spec, "maxReplicas")?;
    if !(1..=COPIES_MAX).contains(&min) || !(min..=COPIES_MAX).contains(&max) {
        return None;
    }
    let mut parts = vec![format!("min = {min}, max = {max}")];
    if let Some(cpu @ 1..=1000) = number(spec, "targetCPUUtilizationPercentage") {
        parts.push(format!("cpu = {cpu}"));
    }
    for item in spec.get("metrics").map_or(&[][..], Yaml::items) {
        match metric(item) {
            // The reader takes a key once.
            Some((name, value)) if !parts.iter().any(|part| part.starts_with(&format!("{name} = "))) => {
                parts.push(format!("{name} = {value}"));
            }
            Some(_) | None => {
                let why = "it is neither the utilisation of cpu or memory nor requests per second; see query";
                notes.unmapped(&file.name, item.line, format!("{key} metrics"), why);
            }
        }
    }
    let behavior = spec.get("behavior");
    let directions: Vec<String> = ["scaleUp", "scaleDown"]
        .into_iter()
        .filter_map(|name| {
            let inside = direction(behavior?.get(name)?);
            (!inside.is_empty()).then(|| format!("{name} = {{ {inside} }}"))
        })
        .collect();
    if !directions.is_empty() {
        parts.push(format!("behavior = {{ {} }}", directions.join(", ")));
    }
    Some(parts.join(", "))
}

fn number(of: &Yaml, key: &str) -> Option<u32> {
    of.get(key)?.text()?.parse().ok()
}

fn metric(item: &Yaml) -> Option<(&'static str, String)> {
    match item.get("type")?.text()? {
        "Resource" => {
            let resource = item.get("resource")?;
            let name = match resource.get("name")?.text()? {
                "cpu" => "cpu",
                "memory" => "memory",
                _ => return None,
            };
            let percent = number(resource.get("target")?, "averageUtilization")?;
            (1..=1000).contains(&percent).then(|| (name, percent.to_string()))
        }
        "Pods" => {
            let pods = item.get("pods")?;
            let name = pods.get("metric")?.get("name")?.text()?;
            // By the names that adapters give the rate of a counter of requests.
            if !name.ends_with("requests_per_second") {
                return None;
            }
            let rate = quantity(pods.get("target")?.get("averageValue")?.text()?)?;
            (0.001..=1e9).contains(&rate).then(|| ("requests", format!("{rate:?}")))
        }
        _ => None,
    }
}

/// A quantity of Kubernetes without the binary units: `100`, `500m`, `1k`.
fn quantity(text: &str) -> Option<f64> {
    let (digits, factor) = match text.as_bytes().last()? {
        b'm' => (&text[..text.len() - 1], 0.001),
        b'k' => (&text[..text.len() - 1], 1000.0),
        _ => (text, 1.0),
    };
    digits.parse::<f64>().ok().filter(|number| number.is_finite()).map(|number| number * factor)
}

fn direction(rules: &Yaml) -> String {
    let mut parts = Vec::new();
    if let Some(seconds @ 0..=3600) = number(rules, "stabilizationWindowSeconds") {
        parts.push(format!("stabilizationWindowSeconds = {seconds}"));
    }
    let policy = |item: &Yaml| {
        let kind = item.get("type")?.text().filter(|kind| matches!(*kind, "Percent" | "Pods"))?;
        let (value, period) = (number(item, "value")?, number(item, "periodSeconds")?);
        let sound = (1..=100_000).contains(&value) && (1..=1800).contains(&period);
        sound.then(|| format!("{{ type = {}, value = {value}, periodSeconds = {period} }}", quote(kind)))
    };
    let policies = rules.get("policies").map_or(&[][..], Yaml::items).iter().filter_map(policy);
    let policies: Vec<String> = policies.take(20).collect();
    if !policies.is_empty() {
        parts.push(format!("policies = [{}]", policies.join(", ")));
    }
    if let Some(select @ ("Max" | "Min" | "Disabled")) = rules.get("selectPolicy").and_then(Yaml::text) {
        parts.push(format!("selectPolicy = {}", quote(select)));
    }
    parts.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::init::yaml;

    fn inside_of(text: &str) -> (Option<String>, Vec<String>) {
        let documents = yaml::parse(text).unwrap();
        let file = File { name: "hpa.yaml".to_owned(), text: text.to_owned() };
        let read = read(&documents[0], "HorizontalPodAutoscaler x", &file);
        (read.inside, read.notes.unmapped.into_iter().map(|note| note.key).collect())
    }

    #[test]
    fn measures_that_have_a_key_are_taken_over_and_the_others_are_listed() {
        let text = "
spec:
  scaleTargetRef: { name: api }
  maxReplicas: 5
  metrics:
    - { type: Resource, resource: { name: cpu, target: { averageUtilization: 70 } } }
    - { type: Resource, resource: { name: cpu, target: { averageUtilization: 90 } } }
    - { type: Resource, resource: { name: memory, target: { averageValue: 1Gi } } }
    - { type: Pods, pods: { metric: { name: http_requests_per_second }, target: { averageValue: 1k } } }
    - { type: External, external: {} }
";
        let (inside, unmapped) = inside_of(text);
        assert_eq!(inside.as_deref(), Some("min = 1, max = 5, cpu = 70, requests = 1000.0"));
        assert_eq!(unmapped.len(), 3);
        let first = "spec: { maxReplicas: 3, minReplicas: 2, targetCPUUtilizationPercentage: 60 }";
        assert_eq!(inside_of(first).0.as_deref(), Some("min = 2, max = 3, cpu = 60"));
    }

    #[test]
    fn garbage_is_no_autoscaler() {
        for text in [
            "spec: 3",
            "spec: { maxReplicas: x }",
            "spec: { minReplicas: 5, maxReplicas: 2 }",
            "spec: { minReplicas: 0, maxReplicas: 2 }",
            "spec: { maxReplicas: 101 }",
            "a: b",
        ] {
            assert_eq!(inside_of(text).0, None, "{text}");
        }
        let odd = "spec: { maxReplicas: 2, metrics: [1], behavior: { scaleUp: { policies: [1, { type: x }], selectPolicy: y } } }";
        assert_eq!(inside_of(odd).0.as_deref(), Some("min = 1, max = 2"));
    }
}
