//! Is everything well?

use super::model::{Dashboard, Panel, PanelKind, Row, Unit, Variable};

pub(super) fn dashboard() -> Dashboard {
    Dashboard {
        uid: "fairway-system".into(),
        title: "Fairway / System".into(),
        description: "The whole platform at a glance: what runs, what fails, what fires.".into(),
        variables: vec![Variable::label("environment", "Environment", "fairway_instances_wanted")],
        rows: vec![
            Row {
                title: "Now".into(),
                panels: vec![
                    Panel::new(PanelKind::Number, 4, "Services down", Unit::None)
                        .query("", "count((fairway_instances_wanted{environment=~\"$environment\"} > 0) unless on (environment, service) (sum by (environment, service) (fairway_instances{state=\"ready\"}) > 0)) or vector(0)")
                        .warn(1.0, 1.0),
                    Panel::new(PanelKind::Number, 4, "Alerts firing", Unit::None)
                        .query("", "count(ALERTS{alertstate=\"firing\", severity=~\"critical|warning\"}) or vector(0)")
                        .warn(1.0, 5.0),
                    Panel::new(PanelKind::Number, 4, "Requests", Unit::PerSecond)
                        .query("", "sum(rate(http_requests_total{environment=~\"$environment\"}[$__rate_interval]))"),
                    Panel::new(PanelKind::Number, 4, "Failing", Unit::Ratio)
                        .query("", "sum(rate(http_requests_total{environment=~\"$environment\", code=~\"5xx|none\"}[$__rate_interval])) / sum(rate(http_requests_total{environment=~\"$environment\"}[$__rate_interval]))")
                        .warn(0.01, 0.05),
                    Panel::new(PanelKind::Number, 4, "95th percentile", Unit::Seconds)
                        .query("", "histogram_quantile(0.95, sum by (le) (rate(http_request_duration_seconds_bucket{environment=~\"$environment\"}[$__rate_interval])))")
                        .warn(1.0, 2.0),
                    Panel::new(PanelKind::Number, 4, "Probes failing", Unit::None)
                        .query("", "count(probe_success{environment=~\"$environment\"} == 0) or vector(0)")
                        .warn(1.0, 1.0),
                ],
            },
            Row {
                title: "Services".into(),
                panels: vec![
                    Panel::new(PanelKind::Graph, 12, "Copies ready, of those wanted", Unit::Ratio)
                        .query("{{environment}} {{service}}", "sum by (environment, service) (fairway_instances{environment=~\"$environment\", state=\"ready\"}) / on (environment, service) (fairway_instances_wanted > 0)"),
                    Panel::new(PanelKind::Graph, 12, "Failing requests", Unit::Ratio)
                        .query("{{environment}} {{service}}", "sum by (environment, service) (rate(http_requests_total{environment=~\"$environment\", code=~\"5xx|none\"}[$__rate_interval])) / sum by (environment, service) (rate(http_requests_total{environment=~\"$environment\"}[$__rate_interval]))")
                        .warn(0.01, 0.05),
                    Panel::new(PanelKind::Table, 12, "Alerts", Unit::None)
                        .query("", "ALERTS{alertstate=\"firing\"}"),
                    Panel::new(PanelKind::Table, 12, "What serves", Unit::None)
                        .query("", "fairway_release_info{environment=~\"$environment\"}"),
                ],
            },
            Row {
                title: "Deployments and objectives".into(),
                panels: vec![
                    Panel::new(PanelKind::Bars, 8, "Deployments by outcome", Unit::None)
                        .query("{{outcome}}", "sum by (outcome) (increase(fairway_deployments_total{environment=~\"$environment\"}[$__range]))"),
                    Panel::new(PanelKind::Number, 8, "Last deployment", Unit::Since)
                        .query("{{environment}}", "max by (environment) (fairway_deployment_last_end_timestamp_seconds{environment=~\"$environment\"}) * 1000"),
                    Panel::new(PanelKind::Bars, 8, "Error budget left", Unit::Ratio)
                        .query("{{slo}}", "slo:error_budget_remaining:ratio{environment=~\"$environment\"}")
                        .warn(0.5, 0.1),
                ],
            },
            Row {
                title: "Machine".into(),
                panels: vec![
                    Panel::new(PanelKind::Graph, 8, "CPU", Unit::Ratio)
                        .query("busy", "1 - avg(rate(node_cpu_seconds_total{mode=\"idle\"}[$__rate_interval]))")
                        .warn(0.8, 0.95),
                    Panel::new(PanelKind::Graph, 8, "Memory", Unit::Ratio)
                        .query("used", "1 - node_memory_MemAvailable_bytes / node_memory_MemTotal_bytes")
                        .warn(0.8, 0.9),
                    Panel::new(PanelKind::Graph, 8, "Disks", Unit::Ratio)
                        .query("{{mountpoint}}", "1 - node_filesystem_avail_bytes / node_filesystem_size_bytes")
                        .warn(0.85, 0.95),
                ],
            },
        ],
    }
}
