//! Deploy and plan: `POST …/deploy`, `POST …/plan`. Artifacts are uploaded before, by content.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeployRequest {
    /// The text of fairway.toml; the server validates and resolves it.
    pub config: String,
    /// Name of the file, for error messages.
    pub config_path: String,
    /// Artifact key (as `config` lists them) → tree digest, already uploaded.
    pub artifacts: BTreeMap<String, String>,
    /// The rule files that the file names, read where the project is.
    #[serde(default)]
    pub rules: Vec<RuleText>,
    pub source: SourceInfo,
    /// In place of the configured strategy: `rolling`, `blue-green`, `canary`.
    pub strategy: Option<String>,
    pub reason: Option<String>,
    /// `r12`: refuse when another release serves.
    pub if_release: Option<String>,
    /// Queue behind a running rollout instead of superseding it.
    pub wait: bool,
    /// For `fairway up`: no bake, no approvals, no confirmation.
    pub development: bool,
}

/// A Prometheus rule file as it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuleText {
    /// Below the project's directory.
    pub path: String,
    pub text: String,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceInfo {
    pub commit: Option<String>,
    pub branch: Option<String>,
    pub title: Option<String>,
    pub dirty: bool,
    pub authors: Vec<String>,
}

/// What a deploy would do, in order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// `r12`, the release that the plan was made against.
    pub against: Option<String>,
    pub strategy: String,
    pub steps: Vec<PlanStep>,
    /// No step changes what runs.
    pub is_empty: bool,
    pub warnings: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlanStep {
    /// `+` added, `~` changed, `-` removed, `=` unchanged, `>` done.
    pub mark: String,
    /// `service api`, `migration`, `route /api`.
    pub subject: String,
    pub text: String,
    pub risk: Risk,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Risk {
    None,
    Low,
    High,
}
