//! Alerts, routes and dashboards as files for other programs. `GET …/export/WHAT`

use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exported {
    pub files: Vec<ExportedFile>,
    /// What the files refer to and must be put there by hand.
    pub secrets: Vec<ExportedSecret>,
    /// How to load them, a step each.
    pub steps: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExportedFile {
    /// Relative, with `/`.
    pub path: String,
    pub text: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExportedSecret {
    pub path: String,
    /// `the SMTP password of channel ops`
    pub what: String,
}
