//! What only a parser can judge of a release's evidence and monitoring: queries, rule files, names of built-in alerts.
//! A slip in one of them would be found in the middle of a rollout, or never.

use fairway_api::{ApiError, Related, SourceSpan};
use fairway_config::{Diagnostic, Origin, Project, Span};
use fairway_engine::evidence::{Check, ScaleSource};
use fairway_engine::id::EnvironmentKey;
use fairway_engine::monitoring::{MetricsSource, RuleFile, SloGoal};
use fairway_engine::release::ReleaseSpec;
use fairway_metrics::promql::{self, Dialect, ParseError, Type};
use fairway_metrics::{builtin, rules};

const BAD_QUERY: &str = "deploy/bad-query";
const BAD_RULES: &str = "deploy/bad-rules";
const UNKNOWN_ALERT: &str = "deploy/unknown-alert";

/// Problems of rule files that are told at once; the rest is seen when these are mended.
const RULE_PROBLEMS_MAX: usize = 20;

/// Of another length than any range a query is really asked over, and as good to parse.
const SOME_WINDOW: &str = "5m";

/// # Errors
/// Everything that cannot be read, with its place in fairway.toml or in the rule file.
pub fn check(project: &Project, environment: &EnvironmentKey, spec: &ReleaseSpec) -> Result<(), ApiError> {
    let looking = Looking { project, environment, spec };
    let mut found = Vec::new();
    looking.gates(&mut found);
    looking.autoscale(&mut found);
    looking.slos(&mut found);
    looking.without(&mut found);
    let rules = bad_rules(&spec.monitoring.rules);
    if found.is_empty() {
        let mut rules = rules.into_iter();
        let Some(first) = rules.next() else { return Ok(()) };
        let mut error = ApiError::new(BAD_RULES, first.message).exit(2);
        error.span = Some(first.span);
        error.related = rules.collect();
        return Err(error);
    }
    let mut error = super::to_api(&found, project.warnings(), project.source().text());
    error.related.extend(rules);
    Err(error)
}

fn bad_rules(files: &[RuleFile]) -> Vec<Related> {
    let of_file = |file: &RuleFile| {
        let problems = match rules::RuleFile::parse(&file.path, &file.text) {
            Ok(_) => Vec::new(),
            Err(error) => error.problems,
        };
        let related = |problem: rules::Problem| {
            let line = file.text.lines().nth(problem.place.line.saturating_sub(1)).unwrap_or_default();
            Related {
                message: problem.message,
                span: SourceSpan {
                    file: file.path.clone(),
                    line: u32::try_from(problem.place.line).unwrap_or(u32::MAX),
                    column: u32::try_from(problem.place.column).unwrap_or(u32::MAX),
                    text: line.to_owned(),
                    length: 1,
                },
            }
        };
        problems.into_iter().map(related).collect::<Vec<_>>()
    };
    files.iter().flat_map(of_file).take(RULE_PROBLEMS_MAX).collect()
}

struct Looking<'a> {
    project: &'a Project,
    environment: &'a EnvironmentKey,
    spec: &'a ReleaseSpec,
}

impl Looking<'_> {
    fn gates(&self, found: &mut Vec<Diagnostic>) {
        for (index, gate) in self.spec.deploy.evidence.gates.iter().enumerate() {
            let promql = match &gate.check {
                Check::Query { promql } => promql,
                Check::ErrorRate | Check::Latency { .. } | Check::Command { .. } | Check::Webhook { .. } => {
                    continue;
                }
            };
            let asked =
                promql.replace("$version", "r1").replace("$environment", &self.environment.to_string());
            let key = format!("deploy.gates[{index}].query");
            let what = format!("the query of gate {}", index + 1);
            found.extend(self.query(&key, &what, promql, &asked));
        }
    }

    fn autoscale(&self, found: &mut Vec<Diagnostic>) {
        for (name, service) in &self.spec.services {
            for metric in service.autoscale.iter().flat_map(|autoscale| &autoscale.metrics) {
                let promql = match &metric.source {
                    ScaleSource::Query { promql } => promql,
                    ScaleSource::Cpu
                    | ScaleSource::Memory
                    | ScaleSource::Requests
                    | ScaleSource::Latency { .. } => continue,
                };
                let what = format!("the query that {name} is scaled by");
                found.extend(self.query(&format!("service.{name}.autoscale"), &what, promql, promql));
            }
        }
    }

    fn slos(&self, found: &mut Vec<Diagnostic>) {
        for (name, slo) in &self.spec.monitoring.slos {
            let (good, total) = match &slo.goal {
                SloGoal::Query { good, total } => (good, total),
                SloGoal::Availability { .. } | SloGoal::Latency { .. } => continue,
            };
            for (key, promql) in [("good", good), ("total", total)] {
                let what = format!("the query {key} of the objective {name}");
                let asked = promql.replace("$window", SOME_WINDOW);
                found.extend(self.query(&format!("slo.{name}.{key}"), &what, promql, &asked));
            }
        }
    }

    fn without(&self, found: &mut Vec<Diagnostic>) {
        let Err(unknown) = builtin::alerts(&self.spec.monitoring.without) else { return };
        // It is our own file: without names to leave out nothing can be wrong with it.
        let known = builtin::alerts(&[]).map(|file| file.groups).unwrap_or_default();
        let known: Vec<&str> = known.iter().flat_map(|group| &group.rules).map(|rule| rule.name()).collect();
        for name in unknown {
            let shown: String = name.chars().take(60).collect();
            let message = format!("metrics.without names {shown:?}, which is no built-in alert");
            let hint = match nearest(&name, &known) {
                Some(near) => format!("did you mean {near:?}?"),
                None => format!("there are {}", known.join(", ")),
            };
            let diagnostic = Diagnostic::error(UNKNOWN_ALERT, message).hint(hint);
            found.push(place(diagnostic, self.place("metrics.without", &format!("{name:?}"))));
        }
    }

    /// What is wrong with a query that is `written` so, and `asked` with its variables filled in.
    fn query(&self, key: &str, what: &str, written: &str, asked: &str) -> Option<Diagnostic> {
        let dialect = match self.spec.monitoring.source {
            MetricsSource::BuiltIn => Dialect::Stable,
            // Whether its experimental functions are switched on is known there.
            MetricsSource::Prometheus { .. } => Dialect::Experimental,
        };
        let (message, error) = match promql::parse_as(asked, dialect) {
            Ok(query) => match query.ty() {
                Type::Scalar | Type::InstantVector => return None,
                kind @ (Type::String | Type::RangeVector) => {
                    let kind = if kind == Type::String { "a text" } else { "a range of samples" };
                    (format!("{what} gives {kind}; one number is wanted"), None)
                }
            },
            Err(error) => (format!("{what} cannot be read: {error}"), Some(error)),
        };
        let whole = self.place(key, written);
        let span = match (error, whole) {
            (Some(error), Some(whole)) if written == asked => Some(self.narrow(&error, whole, written)),
            (_, whole) => whole,
        };
        Some(place(Diagnostic::error(BAD_QUERY, message), span))
    }

    /// Where `text` stands in the value of `key`, or of a key below it; else the value.
    fn place(&self, key: &str, text: &str) -> Option<Span> {
        let settings = self.project.resolved_with_origin(self.environment.environment.as_str()).ok()?;
        let source = self.project.source();
        let spans =
            settings.iter().filter(|setting| setting.key.starts_with(key)).filter_map(
                |setting| match &setting.origin {
                    Origin::File(span) | Origin::Overlay { span, .. } => Some(span),
                    Origin::Default => None,
                },
            );
        let narrow = |span: &Span| {
            let value = source.text().get(span.bytes.start..span.bytes.end)?;
            let at = span.bytes.start + value.find(text)?;
            Some(source.span(at..at + text.len()))
        };
        let spans: Vec<&Span> = spans.collect();
        spans.iter().find_map(|span| narrow(span)).or_else(|| spans.first().map(|span| (*span).clone()))
    }

    /// The place of the mistake within the query, where the query stands in the file as it is.
    fn narrow(&self, error: &ParseError, whole: Span, written: &str) -> Span {
        let source = self.project.source();
        if source.text().get(whole.bytes.start..whole.bytes.end) != Some(written) {
            return whole;
        }
        // At the end of the query there is nothing to point at but its last character.
        let start = error.span.start.min(written.len().saturating_sub(1));
        let end = error.span.end.clamp(start, written.len());
        source.span(whole.bytes.start + start..whole.bytes.start + end)
    }
}

fn place(diagnostic: Diagnostic, span: Option<Span>) -> Diagnostic {
    match span {
        Some(span) => diagnostic.at(span),
        None => diagnostic,
    }
}

/// The known name that was most likely meant: at most a third of the letters differ.
fn nearest<'a>(given: &str, known: &[&'a str]) -> Option<&'a str> {
    let given: String = given.chars().take(64).collect::<String>().to_lowercase();
    let allowed = (given.chars().count() / 3).max(1);
    known
        .iter()
        .map(|name| (strsim::damerau_levenshtein(&given, &name.to_lowercase()), *name))
        .filter(|(distance, _)| *distance <= allowed)
        .min()
        .map(|(_, name)| name)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use fairway_config::Inputs;
    use fairway_engine::id::TreeDigest;
    use fairway_engine::release::Source;

    use super::*;

    fn checked(settings: &str, rules: &[(&str, &str)]) -> Result<(), ApiError> {
        let text = format!(
            "version = 1\nproject = \"shop\"\n[service.api]\ncommand = [\"./serve\"]\nport = 80\nroute = \"/\"\n\
             [env.demo]\n{settings}"
        );
        let project = Project::parse("fairway.toml", &text).unwrap();
        let artifacts: BTreeMap<_, _> = project
            .artifacts("demo")
            .unwrap()
            .into_iter()
            .map(|one| (one.key, TreeDigest("a".repeat(64).into())))
            .collect();
        let inputs = Inputs { artifacts, secrets: &|_| Some(1), source: Source::default(), strategy: None };
        let mut spec = project.resolve("demo", &inputs).unwrap();
        let file = |(path, text): &(&str, &str)| RuleFile { path: (*path).into(), text: (*text).into() };
        spec.monitoring.rules = rules.iter().map(file).collect();
        let environment =
            EnvironmentKey { project: "shop".parse().unwrap(), environment: "demo".parse().unwrap() };
        check(&project, &environment, &spec)
    }

    fn gate(query: &str) -> String {
        format!(
            "[env.demo.deploy]\ngates = [{{ metric = \"p95\", max = \"1s\" }}, {{ query = '{query}', max = 1 }}]\n"
        )
    }

    #[test]
    fn a_gate_whose_query_does_not_parse_is_refused_at_its_place() {
        checked(&gate("sum(rate(errors{version=\"$version\",environment=\"$environment\"}[1m]))"), &[])
            .unwrap();
        let error = checked(&gate("sum(rate(errors[1m])"), &[]).unwrap_err();
        assert_eq!((error.code.as_str(), error.exit), ("deploy/bad-query", 2));
        assert!(error.message.starts_with("the query of gate 2 cannot be read: 1:"), "{}", error.message);
        let span = error.span.unwrap();
        assert!(span.text.contains("sum(rate(errors") && span.column > 60, "{span:?}");
        let error = checked(&gate("sum(errors{version=\"$version\"}"), &[]).unwrap_err();
        let span = error.span.unwrap();
        let start: String = span.text.chars().skip(span.column as usize - 1).collect();
        assert!(start.starts_with("sum(errors{"), "{start}");
        let error = checked(&gate("errors[5m]"), &[]).unwrap_err();
        assert_eq!(error.message, "the query of gate 2 gives a range of samples; one number is wanted");
    }

    #[test]
    fn objectives_and_autoscaling_are_read_as_well() {
        let error = checked(
            "[slo.jobs]\ngood = \"sum(rate(done[$window])\"\ntotal = \"sum(rate(all[$window]))\"\nobjective = 0.9\n",
            &[],
        )
        .unwrap_err();
        assert!(error.message.starts_with("the query good of the objective jobs"), "{}", error.message);
        assert!(error.span.unwrap().text.starts_with("good ="));
        let error = checked(
            "[env.demo.service.api.autoscale]\nmin = 1\nmax = 4\nquery = { promql = \"sum(x\", target = 3 }\n",
            &[],
        )
        .unwrap_err();
        assert!(error.message.starts_with("the query that api is scaled by"), "{}", error.message);
    }

    #[test]
    fn a_rule_file_is_refused_with_file_line_and_column() {
        let good = "groups:\n- name: own\n  rules:\n  - alert: Slow\n    expr: up == 0\n";
        checked("", &[("ops/good.yml", good)]).unwrap();
        let bad = good.replace("up == 0", "up ==");
        let error = checked("", &[("ops/good.yml", good), ("ops/bad.yml", &bad)]).unwrap_err();
        assert_eq!(error.code, "deploy/bad-rules");
        let span = error.span.unwrap();
        assert_eq!((span.file.as_str(), span.line, span.text.trim()), ("ops/bad.yml", 5, "expr: up =="));
    }

    #[test]
    fn an_alert_that_cannot_be_left_out_is_told_with_the_one_that_was_meant() {
        checked("[metrics]\nwithout = [\"HighCpu\"]\n", &[]).unwrap();
        let error = checked("[metrics]\nwithout = [\"HighCpu\", \"HihgLatency\"]\n", &[]).unwrap_err();
        assert_eq!(error.code, "deploy/unknown-alert");
        assert_eq!(error.hint.unwrap(), "did you mean \"HighLatency\"?");
        assert_eq!(error.span.unwrap().column, 23);
    }
}
