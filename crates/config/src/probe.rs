//! Readiness and liveness.

use std::time::Duration;

use fairway_engine::service::{LiveProbe, Liveness, Readiness, ReadyProbe};

use crate::code;
use crate::diagnostic::Diagnostic;
use crate::keys;
use crate::reader::{Reader, Words};
use crate::tree::Value;

/// How long a process without a port and without a probe must live to count as ready: long enough to see one that
/// dies of a missing file or a bad option, short enough not to be noticed.
const ALIVE_DEFAULT: Duration = Duration::from_secs(1);

/// What the key `ready` of a service says. `listens`: the service has a port to probe.
pub(crate) fn readiness(service: &Reader<'_>, listens: bool) -> Readiness {
    let reader = service.table("ready", &keys::READY);
    let chosen = reader.one_of(&["http", "tcp", "exec", "notify", "log", "alive"]);
    if let Some(key @ ("http" | "tcp")) = chosen {
        needs_port(&reader, key, listens);
    }
    let declared = match chosen {
        Some("http") => http_path(&reader).map(|path| ReadyProbe::Http { path }),
        Some("tcp") => reader.get::<bool>("tcp").map(|_| ReadyProbe::Tcp),
        Some("exec") => reader.get("exec").map(|Words(command)| ReadyProbe::Exec { command }),
        Some("notify") => reader.get::<bool>("notify").map(|_| ReadyProbe::Notify),
        Some("log") => reader.get("log").map(|contains| ReadyProbe::LogLine { contains }),
        Some("alive") => reader.get("alive").map(|for_at_least| ReadyProbe::Alive { for_at_least }),
        Some(_) | None => None,
    };
    let probe = declared.unwrap_or_else(|| {
        if chosen.is_none() {
            let (key, value) = if listens { ("tcp", "true") } else { ("alive", "\"1s\"") };
            reader.cx.record_default(reader.path_of(key), value.to_owned());
        }
        if listens { ReadyProbe::Tcp } else { ReadyProbe::Alive { for_at_least: ALIVE_DEFAULT } }
    });
    let within: Duration = reader.fixed("within");
    if let ReadyProbe::Alive { for_at_least } = &probe
        && *for_at_least >= within
    {
        let message =
            format!("{} is never reached within {}", reader.path_of("alive"), reader.path_of("within"));
        reader.cx.push_at(
            Diagnostic::error(code::CONFLICT, message).hint("make within longer than alive"),
            reader.value_at(if reader.has("alive") { "alive" } else { "within" }),
        );
    }
    Readiness {
        probe,
        within,
        every: reader.fixed("every"),
        timeout: reader.fixed("timeout"),
        failures: reader.fixed("failures"),
    }
}

/// What the key `live` of a service says.
pub(crate) fn liveness(service: &Reader<'_>, listens: bool) -> Option<Liveness> {
    let reader = service.optional_table("live", &keys::LIVE)?;
    let chosen = reader.one_of(&["http", "tcp", "exec"]);
    let probe = match chosen {
        Some(key @ "http") => {
            needs_port(&reader, key, listens);
            LiveProbe::Http { path: http_path(&reader)? }
        }
        Some(key @ "tcp") => {
            needs_port(&reader, key, listens);
            reader.get::<bool>("tcp")?;
            LiveProbe::Tcp
        }
        Some("exec") => {
            let Words(command) = reader.get("exec")?;
            LiveProbe::Exec { command }
        }
        Some(_) | None => {
            if !reader.has_unknown() {
                let message = format!("{} does not say what to probe", reader.path());
                let hint = "add http = \"/livez\", tcp = true or exec = [\"bin/live\"]";
                reader.cx.push_at(Diagnostic::error(code::MISSING_KEY, message).hint(hint), reader.at);
            }
            return None;
        }
    };
    Some(Liveness {
        probe,
        every: reader.fixed("every"),
        timeout: reader.fixed("timeout"),
        failures: reader.fixed("failures"),
    })
}

fn http_path(reader: &Reader<'_>) -> Option<String> {
    match &reader.node("http")?.value {
        Value::Bool(_) => {
            reader.get::<bool>("http")?;
            Some("/".to_owned())
        }
        Value::Text(_) => reader.get("http"),
        Value::Integer(_) | Value::Float { .. } | Value::Datetime(_) | Value::Array(_) | Value::Table(_) => {
            None
        }
    }
}

fn needs_port(reader: &Reader<'_>, key: &str, listens: bool) {
    if !listens {
        let message = format!("{} probes a port, and the service has none", reader.path_of(key));
        let hint = "give the service a port, or use exec, notify, log or alive";
        reader.cx.push_at(Diagnostic::error(code::CONFLICT, message).hint(hint), reader.key_at(key));
    }
}
