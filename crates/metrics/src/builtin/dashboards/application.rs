//! How do the services answer?

use super::model::{Dashboard, Panel, PanelKind, Row, Unit, Variable};

const LATENCY: &str = "How long one request in two, in twenty, in a hundred takes at least.";

pub(super) fn dashboard() -> Dashboard {
    Dashboard {
        uid: "fairway-application".into(),
        title: "Fairway / Application".into(),
        description: "Rate, errors and duration of each service, by version and by route.".into(),
        variables: vec![
            Variable::label("environment", "Environment", "http_requests_total"),
            Variable::label("service", "Service", "http_requests_total{environment=~\"$environment\"}"),
        ],
        rows: vec![
            Row {
                title: "Services".into(),
                panels: vec![
                    Panel::new(PanelKind::Stack, 12, "Requests", Unit::PerSecond)
                        .query("{{service}}", "sum by (service) (rate(http_requests_total{environment=~\"$environment\", service=~\"$service\"}[$__rate_interval]))"),
                    Panel::new(PanelKind::Graph, 12, "Failing requests", Unit::Ratio)
                        .query("{{service}}", "sum by (service) (rate(http_requests_total{environment=~\"$environment\", service=~\"$service\", code=~\"5xx|none\"}[$__rate_interval])) / sum by (service) (rate(http_requests_total{environment=~\"$environment\", service=~\"$service\"}[$__rate_interval]))")
                        .warn(0.01, 0.05),
                    Panel::new(PanelKind::Graph, 12, "Response time", Unit::Seconds)
                        .about(LATENCY)
                        .query("half", "histogram_quantile(0.5, sum by (le) (rate(http_request_duration_seconds_bucket{environment=~\"$environment\", service=~\"$service\"}[$__rate_interval])))")
                        .query("95 %", "histogram_quantile(0.95, sum by (le) (rate(http_request_duration_seconds_bucket{environment=~\"$environment\", service=~\"$service\"}[$__rate_interval])))")
                        .query("99 %", "histogram_quantile(0.99, sum by (le) (rate(http_request_duration_seconds_bucket{environment=~\"$environment\", service=~\"$service\"}[$__rate_interval])))")
                        .warn(1.0, 2.0),
                    Panel::new(PanelKind::Stack, 12, "Answers by class", Unit::PerSecond)
                        .query("{{code}}", "sum by (code) (rate(http_requests_total{environment=~\"$environment\", service=~\"$service\"}[$__rate_interval]))"),
                ],
            },
            Row {
                title: "Versions".into(),
                panels: vec![
                    Panel::new(PanelKind::Stack, 8, "Requests by version", Unit::PerSecond)
                        .query("{{service}} {{version}}", "sum by (service, version) (rate(http_requests_total{environment=~\"$environment\", service=~\"$service\"}[$__rate_interval]))"),
                    Panel::new(PanelKind::Graph, 8, "Failing by version", Unit::Ratio)
                        .query("{{service}} {{version}}", "sum by (service, version) (rate(http_requests_total{environment=~\"$environment\", service=~\"$service\", code=~\"5xx|none\"}[$__rate_interval])) / sum by (service, version) (rate(http_requests_total{environment=~\"$environment\", service=~\"$service\"}[$__rate_interval]))")
                        .warn(0.01, 0.05),
                    Panel::new(PanelKind::Graph, 8, "95th percentile by version", Unit::Seconds)
                        .query("{{service}} {{version}}", "histogram_quantile(0.95, sum by (service, version, le) (rate(http_request_duration_seconds_bucket{environment=~\"$environment\", service=~\"$service\"}[$__rate_interval])))"),
                ],
            },
            Row {
                title: "Routes".into(),
                panels: vec![
                    Panel::new(PanelKind::Bars, 8, "Busiest routes", Unit::PerSecond)
                        .query("{{service}} {{route}}", "topk(10, sum by (service, route) (rate(http_requests_total{environment=~\"$environment\", service=~\"$service\"}[$__range])))"),
                    Panel::new(PanelKind::Bars, 8, "Slowest routes, 95th percentile", Unit::Seconds)
                        .query("{{service}} {{route}}", "topk(10, histogram_quantile(0.95, sum by (service, route, le) (rate(http_request_duration_seconds_bucket{environment=~\"$environment\", service=~\"$service\"}[$__range]))))"),
                    Panel::new(PanelKind::Bars, 8, "Most failing routes", Unit::Ratio)
                        .query("{{service}} {{route}}", "topk(10, sum by (service, route) (rate(http_requests_total{environment=~\"$environment\", service=~\"$service\", code=~\"5xx|none\"}[$__range])) / sum by (service, route) (rate(http_requests_total{environment=~\"$environment\", service=~\"$service\"}[$__range])))"),
                ],
            },
            Row {
                title: "Load".into(),
                panels: vec![
                    Panel::new(PanelKind::Graph, 12, "Requests in flight", Unit::None)
                        .query("{{service}}", "sum by (service) (http_requests_in_flight{environment=~\"$environment\", service=~\"$service\"})"),
                    Panel::new(PanelKind::Graph, 12, "Database operations, 95th percentile", Unit::Seconds)
                        .about("Where services report OpenTelemetry's db.client.operation.duration.")
                        .query("{{service}}", "histogram_quantile(0.95, sum by (service, le) (rate(db_client_operation_duration_seconds_bucket{environment=~\"$environment\", service=~\"$service\"}[$__rate_interval])))"),
                ],
            },
        ],
    }
}
