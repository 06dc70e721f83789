//! What do the services and the machine use?

use super::model::{Dashboard, Panel, PanelKind, Row, Unit, Variable};

pub(super) fn dashboard() -> Dashboard {
    Dashboard {
        uid: "fairway-infrastructure".into(),
        title: "Fairway / Infrastructure".into(),
        description: "CPU, memory, disks, copies and restarts.".into(),
        variables: vec![
            Variable::label("environment", "Environment", "fairway_instances_wanted"),
            Variable::label("service", "Service", "fairway_instances_wanted{environment=~\"$environment\"}"),
        ],
        rows: vec![
            Row {
                title: "Machine".into(),
                panels: vec![
                    Panel::new(PanelKind::Stack, 12, "CPU by mode", Unit::None)
                        .query("{{mode}}", "sum by (mode) (rate(node_cpu_seconds_total{mode!=\"idle\"}[$__rate_interval]))"),
                    Panel::new(PanelKind::Graph, 12, "Load over a minute", Unit::None)
                        .query("load", "node_load1")
                        .query("CPUs", "count(count by (cpu) (node_cpu_seconds_total))"),
                    Panel::new(PanelKind::Graph, 12, "Memory", Unit::Bytes)
                        .query("used", "node_memory_MemTotal_bytes - node_memory_MemAvailable_bytes")
                        .query("there is", "node_memory_MemTotal_bytes"),
                    Panel::new(PanelKind::Graph, 12, "Disks", Unit::Ratio)
                        .query("{{mountpoint}}", "1 - node_filesystem_avail_bytes / node_filesystem_size_bytes")
                        .warn(0.85, 0.95),
                ],
            },
            Row {
                title: "Copies".into(),
                panels: vec![
                    Panel::new(PanelKind::Graph, 12, "CPU of copies", Unit::None)
                        .query("{{instance}}", "sum by (environment, service, instance) (rate(process_cpu_seconds_total{environment=~\"$environment\", service=~\"$service\"}[$__rate_interval]))"),
                    Panel::new(PanelKind::Graph, 12, "CPU, of the limit", Unit::Ratio)
                        .query("{{instance}}", "sum by (environment, service, instance) (rate(process_cpu_seconds_total{environment=~\"$environment\", service=~\"$service\"}[$__rate_interval])) / max by (environment, service, instance) (process_cpu_limit_cores)")
                        .warn(0.8, 0.95),
                    Panel::new(PanelKind::Graph, 12, "Memory of copies", Unit::Bytes)
                        .query("{{instance}}", "process_resident_memory_bytes{environment=~\"$environment\", service=~\"$service\"}"),
                    Panel::new(PanelKind::Graph, 12, "Memory, of the limit", Unit::Ratio)
                        .query("{{instance}}", "process_resident_memory_bytes{environment=~\"$environment\", service=~\"$service\"} / process_memory_limit_bytes")
                        .warn(0.8, 0.9),
                ],
            },
            Row {
                title: "Scale and stability".into(),
                panels: vec![
                    Panel::new(PanelKind::Graph, 8, "Copies", Unit::None)
                        .query("{{service}} wanted", "sum by (service) (fairway_instances_wanted{environment=~\"$environment\", service=~\"$service\"})")
                        .query("{{service}} {{state}}", "sum by (service, state) (fairway_instances{environment=~\"$environment\", service=~\"$service\"})"),
                    Panel::new(PanelKind::Graph, 8, "Restarts in ten minutes", Unit::None)
                        .query("{{service}}", "sum by (service) (increase(fairway_instance_restarts_total{environment=~\"$environment\", service=~\"$service\"}[10m]))")
                        .warn(1.0, 3.0),
                    Panel::new(PanelKind::Bars, 8, "Last backup", Unit::Since)
                        .query("{{service}}", "max by (service) (fairway_backup_last_success_timestamp_seconds{environment=~\"$environment\"}) * 1000"),
                ],
            },
            Row {
                title: "Scraping".into(),
                panels: vec![
                    Panel::new(PanelKind::Graph, 8, "Targets that cannot be read", Unit::None)
                        .query("{{service}}", "count by (service) (up{environment=~\"$environment\", job=\"service\"} == 0) or sum by (service) (0 * up{environment=~\"$environment\", job=\"service\"})")
                        .warn(1.0, 1.0),
                    Panel::new(PanelKind::Graph, 8, "Samples of a scrape", Unit::None)
                        .query("{{instance}}", "scrape_samples_scraped{environment=~\"$environment\"}"),
                    Panel::new(PanelKind::Graph, 8, "Series dropped by the cap", Unit::None)
                        .query("{{instance}}", "scrape_series_dropped{environment=~\"$environment\"}")
                        .warn(1.0, 1.0),
                ],
            },
        ],
    }
}
