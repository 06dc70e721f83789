//! Dashboards and what Grafana needs to load them by itself.

use super::{Export, ExportFile};
use crate::builtin::dashboards::Dashboard;
use crate::rules::emit::Yaml;

/// The data source that the dashboards ask.
#[derive(Clone, Debug)]
pub struct GrafanaSource {
    /// What it is called in Grafana.
    pub name: String,
    /// Of Fairway's API, or of a Prometheus.
    pub url: String,
    /// Where Grafana will find the dashboards on its own machine: `/var/lib/grafana/dashboards/fairway`.
    pub dashboards_dir: String,
}

/// `grafana/dashboards/*.json`, and `grafana/provisioning/{dashboards,datasources}/fairway.yaml`.
#[must_use]
pub fn grafana(dashboards: &[Dashboard], source: &GrafanaSource) -> Export {
    let mut export = Export::default();
    for dashboard in dashboards {
        let json = serde_json::to_string_pretty(&dashboard.json()).expect("texts and numbers can be written");
        let path = format!("grafana/dashboards/{}.json", super::file_name(&dashboard.uid));
        export.files.push(ExportFile { path, text: json + "\n" });
    }
    let provider = Yaml::map([
        ("name", Yaml::text("fairway")),
        ("orgId", Yaml::plain(1)),
        ("folder", Yaml::text("Fairway")),
        ("type", Yaml::text("file")),
        ("disableDeletion", Yaml::plain(false)),
        ("updateIntervalSeconds", Yaml::plain(30)),
        ("allowUiUpdates", Yaml::plain(false)),
        ("options", Yaml::map([("path", Yaml::text(&source.dashboards_dir))])),
    ]);
    let datasource = Yaml::map([
        ("name", Yaml::text(&source.name)),
        ("type", Yaml::text("prometheus")),
        ("access", Yaml::text("proxy")),
        ("url", Yaml::text(&source.url)),
        ("isDefault", Yaml::plain(true)),
        ("jsonData", Yaml::map([("httpMethod", Yaml::text("POST")), ("timeInterval", Yaml::text("15s"))])),
    ]);
    for (kind, key, entry) in
        [("dashboards", "providers", provider), ("datasources", "datasources", datasource)]
    {
        let document = Yaml::map([("apiVersion", Yaml::plain(1)), (key, Yaml::List(vec![entry]))]).document();
        let path = format!("grafana/provisioning/{kind}/fairway.yaml");
        export.files.push(ExportFile { path, text: document });
    }
    export
}
