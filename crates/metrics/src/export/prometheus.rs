//! Rule files, and what Prometheus has to scrape for them.

use std::collections::BTreeSet;

use super::{Export, ExportFile, file_name};
use crate::rules::RuleFile;
use crate::rules::emit::Yaml;

/// Where Prometheus finds Fairway.
#[derive(Clone, Debug)]
pub struct ScrapeOptions {
    /// `host:port` of Fairway's `/metrics`.
    pub target: String,
    pub https: bool,
    /// `host:port` of an Alertmanager; none leaves the block out.
    pub alertmanager: Option<String>,
    /// A file with the token that `/metrics` asks for; none when it asks for none.
    pub token_file: Option<String>,
}

const FAIRWAY: &str = "fairway";

/// In which a new copy is found. The first figures of a release are those by which it is judged.
const FOUND_WITHIN: &str = "5s";

fn authorization(scrape: &ScrapeOptions) -> Option<(&'static str, Yaml)> {
    let file = scrape.token_file.as_ref()?;
    let credentials = Yaml::map([("type", Yaml::text("Bearer")), ("credentials_file", Yaml::text(file))]);
    Some(("authorization", credentials))
}

/// The job of the copies, which Fairway names. Their series get the labels that its own store gives them.
fn services(scrape: &ScrapeOptions) -> Yaml {
    let scheme = if scrape.https { "https" } else { "http" };
    let mut discovery = vec![
        ("url", Yaml::text(format!("{scheme}://{}/api/v1/http_sd", scrape.target))),
        ("refresh_interval", Yaml::text(FOUND_WITHIN)),
    ];
    discovery.extend(authorization(scrape));
    let why = "The copies of services with metrics = \"/path\", and each [metrics.scrape.NAME].";
    Yaml::map([
        ("job_name", Yaml::Noted(why.to_owned(), Box::new(Yaml::text("service")))),
        ("scrape_interval", Yaml::text("15s")),
        ("http_sd_configs", Yaml::List(vec![Yaml::map(discovery)])),
    ])
}

/// `prometheus/prometheus.yml` and `prometheus/rules/*.yml`. Files are written as they were read.
#[must_use]
pub fn prometheus(files: &[RuleFile], scrape: &ScrapeOptions) -> Export {
    let mut export = Export::default();
    let mut taken = BTreeSet::new();
    let mut rules = Vec::new();
    for file in files.iter().filter(|file| !file.groups.is_empty()) {
        let base = file.name.rsplit('/').next().unwrap_or_default();
        let stem = file_name(base.trim_end_matches(".yml").trim_end_matches(".yaml"));
        // Two directories may have a file of one name.
        let name = (1..)
            .map(|number| if number == 1 { format!("{stem}.yml") } else { format!("{stem}-{number}.yml") })
            .find(|name| !taken.contains(name))
            .unwrap_or_else(|| format!("{stem}.yml"));
        taken.insert(name.clone());
        rules.push(ExportFile { path: format!("prometheus/rules/{name}"), text: file.text.clone() });
    }
    let mut job = vec![
        ("job_name", Yaml::text(FAIRWAY)),
        (
            "honor_labels",
            Yaml::Noted(
                "Fairway already says which service and copy a series is of.".to_owned(),
                Box::new(Yaml::plain(true)),
            ),
        ),
        ("scrape_interval", Yaml::text("15s")),
        ("metrics_path", Yaml::text("/metrics")),
    ];
    if scrape.https {
        job.push(("scheme", Yaml::text("https")));
    }
    job.extend(authorization(scrape));
    if let Some(file) = &scrape.token_file {
        let what = "the token for Fairway's /metrics".to_owned();
        export.secrets.push(super::SecretFile { path: file.clone(), what });
    }
    job.push(("static_configs", Yaml::List(vec![Yaml::map([("targets", Yaml::texts([&scrape.target]))])])));
    let mut config = vec![
        (
            "global",
            Yaml::map([("scrape_interval", Yaml::text("15s")), ("evaluation_interval", Yaml::text("30s"))]),
        ),
        ("rule_files", Yaml::texts(["rules/*.yml"])),
    ];
    if let Some(address) = &scrape.alertmanager {
        let targets = Yaml::List(vec![Yaml::map([("targets", Yaml::texts([address]))])]);
        let list = Yaml::List(vec![Yaml::map([("static_configs", targets)])]);
        config.push(("alerting", Yaml::map([("alertmanagers", list)])));
    }
    config.push(("scrape_configs", Yaml::List(vec![Yaml::map(job), services(scrape)])));
    let text = Yaml::map(config).document();
    export.files.push(ExportFile { path: "prometheus/prometheus.yml".to_owned(), text });
    export.files.extend(rules);
    export
}
