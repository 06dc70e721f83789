//! What do people do with it?

use super::model::{Dashboard, Panel, PanelKind, Row, Unit, Variable};

pub(super) fn dashboard() -> Dashboard {
    Dashboard {
        uid: "fairway-business".into(),
        title: "Fairway / Business".into(),
        description: "Activity, features used, promises kept. Counters of the services themselves (sign-ups, orders, \
                      reports) can be chosen at the top."
            .into(),
        variables: vec![
            Variable::label("environment", "Environment", "http_requests_total"),
            Variable::label("service", "Service", "http_requests_total{environment=~\"$environment\"}"),
            Variable {
                name: "business_metric".into(),
                label: "Counter".into(),
                query: "label_values({__name__=~\".+_total\", instance!=\"\", __name__!~\"(process|node|go|fairway|http|scrape)_.*\"}, __name__)".into(),
                many: false,
            },
        ],
        rows: vec![
            Row {
                title: "Activity".into(),
                panels: vec![
                    Panel::new(PanelKind::Number, 6, "Requests served", Unit::None)
                        .query("", "sum(increase(http_requests_total{environment=~\"$environment\", service=~\"$service\", code=~\"2xx|3xx\"}[$__range]))"),
                    Panel::new(PanelKind::Number, 6, "Served well", Unit::Ratio)
                        .query("", "1 - (sum(increase(http_requests_total{environment=~\"$environment\", service=~\"$service\", code=~\"5xx|none\"}[$__range])) / sum(increase(http_requests_total{environment=~\"$environment\", service=~\"$service\"}[$__range])))")
                        .warn(0.999, 0.99),
                    Panel::new(PanelKind::Number, 6, "Answered within a second", Unit::Ratio)
                        .query("", "sum(increase(http_request_duration_seconds_bucket{environment=~\"$environment\", service=~\"$service\", le=~\"1(\\\\.0)?\"}[$__range])) / sum(increase(http_request_duration_seconds_count{environment=~\"$environment\", service=~\"$service\"}[$__range]))")
                        .warn(0.99, 0.95),
                    Panel::new(PanelKind::Number, 6, "Deployments", Unit::None)
                        .query("", "sum(increase(fairway_deployments_total{environment=~\"$environment\", outcome=\"completed\"}[$__range]))"),
                    Panel::new(PanelKind::Graph, 12, "Requests, and the week before", Unit::PerSecond)
                        .query("now", "sum(rate(http_requests_total{environment=~\"$environment\", service=~\"$service\"}[5m]))")
                        .query("a week before", "sum(rate(http_requests_total{environment=~\"$environment\", service=~\"$service\"}[5m] offset 1w))"),
                    Panel::new(PanelKind::Bars, 12, "Features used: routes", Unit::None)
                        .query("{{service}} {{route}}", "topk(15, sum by (service, route) (increase(http_requests_total{environment=~\"$environment\", service=~\"$service\", code=~\"2xx|3xx\"}[$__range])))"),
                ],
            },
            Row {
                title: "What the services count".into(),
                panels: vec![
                    Panel::new(PanelKind::Graph, 12, "$business_metric, a minute", Unit::None)
                        .query("{{service}}", "sum by (service) (rate({__name__=\"$business_metric\", environment=~\"$environment\"}[5m])) * 60"),
                    Panel::new(PanelKind::Bars, 12, "$business_metric, in the time shown", Unit::None)
                        .query("{{service}}", "sum by (service) (increase({__name__=\"$business_metric\", environment=~\"$environment\"}[$__range]))"),
                ],
            },
            Row {
                title: "Promises".into(),
                panels: vec![
                    Panel::new(PanelKind::Graph, 12, "Error budget left", Unit::Ratio)
                        .query("{{slo}}", "slo:error_budget_remaining:ratio{environment=~\"$environment\"}"),
                    Panel::new(PanelKind::Graph, 12, "Availability by probes", Unit::Ratio)
                        .query("{{probe}}", "avg_over_time(probe_success{environment=~\"$environment\"}[1h])"),
                ],
            },
        ],
    }
}
