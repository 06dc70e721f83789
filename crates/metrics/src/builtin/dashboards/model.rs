//! What a dashboard is made of, and its JSON.

use serde_json::{Value, json};

/// Of Grafana 12; older ones ignore what they do not know, newer ones migrate.
pub const SCHEMA_VERSION: u32 = 41;

/// The data source is a variable, so that one file serves every installation.
const SOURCE: &str = "${DS_PROMETHEUS}";

#[derive(Clone, Debug)]
pub struct Dashboard {
    /// Also the file's name.
    pub uid: String,
    pub title: String,
    pub description: String,
    pub variables: Vec<Variable>,
    pub rows: Vec<Row>,
}

/// A choice at the top of a dashboard.
#[derive(Clone, Debug)]
pub struct Variable {
    pub name: String,
    pub label: String,
    /// In Grafana's words: `label_values(…)`, `metrics(…)`.
    pub query: String,
    /// Several at once, and all of them; used with `=~`.
    pub many: bool,
}

#[derive(Clone, Debug)]
pub struct Row {
    pub title: String,
    pub panels: Vec<Panel>,
}

#[derive(Clone, Debug)]
pub struct Panel {
    pub title: String,
    pub description: String,
    pub kind: PanelKind,
    pub unit: Unit,
    pub targets: Vec<Target>,
    /// Of 24.
    pub width: u32,
    /// From which value on it is yellow, and red.
    pub warn: Option<(f64, f64)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PanelKind {
    Graph,
    /// Areas on top of each other.
    Stack,
    /// The last value, large.
    Number,
    Bars,
    Table,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    None,
    /// 0 to 1.
    Ratio,
    Seconds,
    Bytes,
    PerSecond,
    /// Unix time in seconds, shown as how long ago.
    Since,
}

#[derive(Clone, Debug)]
pub struct Target {
    pub query: String,
    /// With `{{label}}`.
    pub legend: String,
}

impl Unit {
    fn grafana(self) -> &'static str {
        match self {
            Self::None => "short",
            Self::Ratio => "percentunit",
            Self::Seconds => "s",
            Self::Bytes => "bytes",
            Self::PerSecond => "reqps",
            Self::Since => "dateTimeFromNow",
        }
    }
}

impl Panel {
    #[must_use]
    pub fn new(kind: PanelKind, width: u32, title: &str, unit: Unit) -> Self {
        Self {
            title: title.to_owned(),
            description: String::new(),
            kind,
            unit,
            targets: Vec::new(),
            width,
            warn: None,
        }
    }

    #[must_use]
    pub fn query(mut self, legend: &str, query: &str) -> Self {
        self.targets.push(Target { query: query.to_owned(), legend: legend.to_owned() });
        self
    }

    #[must_use]
    pub fn about(mut self, description: &str) -> Self {
        description.clone_into(&mut self.description);
        self
    }

    #[must_use]
    pub fn warn(mut self, yellow: f64, red: f64) -> Self {
        self.warn = Some((yellow, red));
        self
    }

    fn height(&self) -> u32 {
        match self.kind {
            PanelKind::Number => 4,
            PanelKind::Graph | PanelKind::Stack | PanelKind::Bars | PanelKind::Table => 8,
        }
    }

    fn json(&self, id: u32, x: u32, y: u32) -> Value {
        let source = json!({ "type": "prometheus", "uid": SOURCE });
        let instant = matches!(self.kind, PanelKind::Bars | PanelKind::Table);
        let targets: Vec<Value> = self
            .targets
            .iter()
            .enumerate()
            .map(|(index, target)| {
                json!({
                    "refId": reference(index),
                    "datasource": source,
                    "editorMode": "code",
                    "expr": target.query,
                    "legendFormat": target.legend,
                    "instant": instant,
                    "range": !instant,
                    "format": if self.kind == PanelKind::Table { "table" } else { "time_series" },
                })
            })
            .collect();
        let mut steps = vec![json!({ "color": "green", "value": null })];
        if let Some((yellow, red)) = self.warn {
            // Where less is worse, red comes first.
            if yellow <= red {
                steps.extend([
                    json!({ "color": "yellow", "value": yellow }),
                    json!({ "color": "red", "value": red }),
                ]);
            } else {
                steps = vec![
                    json!({ "color": "red", "value": null }),
                    json!({ "color": "yellow", "value": red }),
                    json!({ "color": "green", "value": yellow }),
                ];
            }
        }
        let (kind, custom, options) = match self.kind {
            PanelKind::Graph | PanelKind::Stack => {
                let stacked = self.kind == PanelKind::Stack;
                (
                    "timeseries",
                    json!({
                        "lineWidth": 1,
                        "fillOpacity": if stacked { 30 } else { 5 },
                        "showPoints": "never",
                        "spanNulls": false,
                        "stacking": { "group": "A", "mode": if stacked { "normal" } else { "none" } },
                        "thresholdsStyle": { "mode": if self.warn.is_some() { "dashed" } else { "off" } },
                    }),
                    json!({
                        "legend": { "calcs": ["lastNotNull", "max"], "displayMode": "table", "placement": "bottom" },
                        "tooltip": { "mode": "multi", "sort": "desc" },
                    }),
                )
            }
            PanelKind::Number => (
                "stat",
                json!({}),
                json!({
                    "colorMode": if self.warn.is_some() { "value" } else { "none" },
                    "graphMode": "area",
                    "reduceOptions": { "calcs": ["lastNotNull"], "fields": "", "values": false },
                }),
            ),
            PanelKind::Bars => (
                "bargauge",
                json!({}),
                json!({
                    "displayMode": "basic",
                    "orientation": "horizontal",
                    "reduceOptions": { "calcs": ["lastNotNull"], "fields": "", "values": false },
                }),
            ),
            PanelKind::Table => ("table", json!({ "filterable": true }), json!({ "showHeader": true })),
        };
        let mut defaults = json!({
            "unit": self.unit.grafana(),
            "custom": custom,
            "thresholds": { "mode": "absolute", "steps": steps },
            "color": { "mode": if self.warn.is_some() && self.kind != PanelKind::Graph { "thresholds" } else { "palette-classic" } },
        });
        if self.unit != Unit::Since {
            defaults["min"] = json!(0);
        }
        if self.unit == Unit::Since {
            // Grafana counts moments in milliseconds.
            for target in &self.targets {
                debug_assert!(target.query.ends_with("* 1000"), "{}", target.query);
            }
        }
        json!({
            "id": id,
            "type": kind,
            "title": self.title,
            "description": self.description,
            "datasource": source,
            "gridPos": { "x": x, "y": y, "w": self.width, "h": self.height() },
            "targets": targets,
            "fieldConfig": { "defaults": defaults, "overrides": [] },
            "options": options,
        })
    }
}

/// A, B, … Z, and numbers after it.
fn reference(index: usize) -> String {
    let letter =
        u8::try_from(index).ok().and_then(|index| b'A'.checked_add(index)).filter(u8::is_ascii_uppercase);
    letter.map_or_else(|| format!("Q{index}"), |letter| char::from(letter).to_string())
}

impl Variable {
    /// Values of a label, any number of them.
    #[must_use]
    pub fn label(name: &str, label: &str, metric: &str) -> Self {
        Self {
            name: name.to_owned(),
            label: label.to_owned(),
            query: format!("label_values({metric}, {name})"),
            many: true,
        }
    }

    fn json(&self) -> Value {
        json!({
            "type": "query",
            "name": self.name,
            "label": self.label,
            "datasource": { "type": "prometheus", "uid": SOURCE },
            "query": { "query": self.query, "refId": format!("variable-{}", self.name) },
            "definition": self.query,
            "refresh": 2,
            "sort": 1,
            "multi": self.many,
            "includeAll": self.many,
            "allValue": if self.many { json!(".*") } else { Value::Null },
            "current": if self.many { json!({ "text": ["All"], "value": ["$__all"] }) } else { json!({}) },
            "options": [],
        })
    }
}

impl Dashboard {
    /// Each with the title of its panel.
    pub fn queries(&self) -> impl Iterator<Item = (&str, &str)> {
        let panels = self.rows.iter().flat_map(|row| &row.panels);
        panels.flat_map(|panel| {
            panel.targets.iter().map(|target| (panel.title.as_str(), target.query.as_str()))
        })
    }

    #[must_use]
    pub fn json(&self) -> Value {
        let mut panels = Vec::new();
        let (mut id, mut y) = (0, 0);
        for row in &self.rows {
            id += 1;
            panels.push(json!({
                "id": id, "type": "row", "title": row.title, "collapsed": false, "panels": [],
                "gridPos": { "x": 0, "y": y, "w": 24, "h": 1 },
            }));
            y += 1;
            let (mut x, mut height) = (0, 0);
            for panel in &row.panels {
                if x + panel.width > 24 {
                    y += height;
                    (x, height) = (0, 0);
                }
                id += 1;
                panels.push(panel.json(id, x, y));
                x += panel.width;
                height = height.max(panel.height());
            }
            y += height;
        }
        let source = json!({
            "type": "datasource", "name": "DS_PROMETHEUS", "label": "Data source", "query": "prometheus",
            "refresh": 1, "regex": "", "hide": 0, "includeAll": false, "multi": false, "options": [],
            "current": {},
        });
        let variables: Vec<Value> =
            std::iter::once(source).chain(self.variables.iter().map(Variable::json)).collect();
        json!({
            "uid": self.uid,
            "title": self.title,
            "description": self.description,
            "tags": ["fairway"],
            "schemaVersion": SCHEMA_VERSION,
            "version": 1,
            "editable": true,
            "graphTooltip": 1,
            "refresh": "30s",
            "timezone": "browser",
            "time": { "from": "now-6h", "to": "now" },
            "templating": { "list": variables },
            "annotations": { "list": [{
                "name": "Deployments",
                "enable": true,
                "iconColor": "blue",
                "datasource": { "type": "prometheus", "uid": SOURCE },
                "expr": "changes(fairway_deployment_last_end_timestamp_seconds[1m]) > 0",
                "titleFormat": "{{environment}}: {{outcome}}",
                "step": "60s",
            }] },
            "links": [{ "type": "dashboards", "tags": ["fairway"], "title": "Fairway", "asDropdown": true, "includeVars": true, "keepTime": true }],
            "panels": panels,
        })
    }
}

/// A query as it is asked: Grafana's own variables by usual values, the others by `values`, or by everything
/// (`orders_total` for the counter that is chosen).
#[must_use]
pub fn bind(query: &str, values: &[(&str, &str)]) -> String {
    let mut bound =
        query.replace("$__rate_interval", "1m").replace("$__range", "1h").replace("$__interval", "15s");
    for (name, value) in values {
        bound = bound.replace(&format!("${name}"), value);
    }
    for (name, value) in [("environment", ".*"), ("service", ".*"), ("business_metric", "orders_total")] {
        bound = bound.replace(&format!("${name}"), value);
    }
    bound
}
