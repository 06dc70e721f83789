//! Five dashboards as Grafana reads them: system, application, infrastructure, security, business.

mod application;
mod business;
mod infrastructure;
mod model;
mod security;
mod system;

pub use model::{Dashboard, Panel, PanelKind, Row, SCHEMA_VERSION, Target, Unit, Variable, bind};

/// In the order in which one looks at them.
#[must_use]
pub fn all() -> Vec<Dashboard> {
    vec![
        system::dashboard(),
        application::dashboard(),
        infrastructure::dashboard(),
        security::dashboard(),
        business::dashboard(),
    ]
}

#[cfg(test)]
mod data;

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::promql;

    #[test]
    fn every_query_can_be_read_and_every_variable_is_known() {
        for dashboard in all() {
            for (panel, query) in dashboard.queries() {
                let bound = bind(query, &[]);
                assert!(!bound.contains('$'), "{}: {panel}: {bound}", dashboard.title);
                promql::parse(&bound)
                    .unwrap_or_else(|error| panic!("{}: {panel}: {error}: {bound}", dashboard.title));
            }
        }
    }

    #[test]
    fn panels_lie_side_by_side_and_have_names_of_their_own() {
        for dashboard in all() {
            let json = dashboard.json();
            let panels = json["panels"].as_array().unwrap();
            let ids: BTreeSet<u64> = panels.iter().map(|panel| panel["id"].as_u64().unwrap()).collect();
            assert_eq!(ids.len(), panels.len());
            let mut taken = BTreeSet::new();
            for panel in panels {
                let at = |key: &str| panel["gridPos"][key].as_u64().unwrap();
                assert!(at("x") + at("w") <= 24, "{}", panel["title"]);
                for x in at("x")..at("x") + at("w") {
                    for y in at("y")..at("y") + at("h") {
                        assert!(taken.insert((x, y)), "{}: {} overlaps", dashboard.title, panel["title"]);
                    }
                }
                if panel["type"] != "row" {
                    assert_eq!(panel["datasource"]["uid"], "${DS_PROMETHEUS}");
                    assert!(!panel["targets"].as_array().unwrap().is_empty());
                }
            }
        }
        let uids: BTreeSet<String> = all().iter().map(|dashboard| dashboard.uid.clone()).collect();
        assert_eq!(uids.len(), 5);
    }
}
