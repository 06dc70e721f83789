//! Who is turned away, and what is about to expire?

use super::model::{Dashboard, Panel, PanelKind, Row, Unit, Variable};

pub(super) fn dashboard() -> Dashboard {
    Dashboard {
        uid: "fairway-security".into(),
        title: "Fairway / Security".into(),
        description: "Refused and malformed requests, client errors that look like probing, certificates, changes.".into(),
        variables: vec![Variable::label("environment", "Environment", "http_requests_total")],
        rows: vec![
            Row {
                title: "Turned away".into(),
                panels: vec![
                    Panel::new(PanelKind::Stack, 12, "Refused before any service saw them", Unit::PerSecond)
                        .about("By status: 400 malformed, 404 unknown host, 429 over the rate limit, 431 too large.")
                        .query("{{code}}", "sum by (code) (rate(fairway_requests_refused_total[$__rate_interval]))"),
                    Panel::new(PanelKind::Graph, 12, "Over the rate limit", Unit::PerSecond)
                        .query("429", "sum(rate(fairway_requests_refused_total{code=\"429\"}[$__rate_interval])) or vector(0)")
                        .warn(1.0, 10.0),
                ],
            },
            Row {
                title: "Client errors".into(),
                panels: vec![
                    Panel::new(PanelKind::Graph, 12, "Client errors, of all answers", Unit::Ratio)
                        .about("Failed sign-ins, missing pages and probing for holes all end as 4xx.")
                        .query("{{service}}", "sum by (service) (rate(http_requests_total{environment=~\"$environment\", code=\"4xx\"}[$__rate_interval])) / sum by (service) (rate(http_requests_total{environment=~\"$environment\"}[$__rate_interval]))"),
                    Panel::new(PanelKind::Graph, 12, "Client errors, to the same hour of the day before", Unit::None)
                        .about("Above 2, somebody tries something, or a client is broken.")
                        .query("{{service}}", "sum by (service) (rate(http_requests_total{environment=~\"$environment\", code=\"4xx\"}[5m])) / (sum by (service) (rate(http_requests_total{environment=~\"$environment\", code=\"4xx\"}[1h] offset 1d)) > 0)")
                        .warn(2.0, 10.0),
                    Panel::new(PanelKind::Bars, 24, "Routes with the most client errors", Unit::PerSecond)
                        .query("{{service}} {{route}}", "topk(10, sum by (service, route) (rate(http_requests_total{environment=~\"$environment\", code=\"4xx\"}[$__range])))"),
                ],
            },
            Row {
                title: "Certificates and changes".into(),
                panels: vec![
                    Panel::new(PanelKind::Bars, 12, "Certificates end in", Unit::Seconds)
                        .query("{{probe}}", "probe_ssl_earliest_cert_expiry - time()")
                        .query("{{name}}", "fairway_certificate_expiry_timestamp_seconds{environment=~\"$environment\"} - time()")
                        .warn(14.0 * 86_400.0, 3.0 * 86_400.0),
                    Panel::new(PanelKind::Bars, 6, "Deployments", Unit::None)
                        .query("{{environment}} {{outcome}}", "sum by (environment, outcome) (increase(fairway_deployments_total{environment=~\"$environment\"}[$__range]))"),
                    Panel::new(PanelKind::Table, 6, "What serves", Unit::None)
                        .query("", "fairway_release_info{environment=~\"$environment\"}"),
                ],
            },
        ],
    }
}
