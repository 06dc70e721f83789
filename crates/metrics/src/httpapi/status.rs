//! `/api/v1/status/…`: what can be said of the process.

use super::context::Context;
use super::envelope::{ApiError, Data};
use super::json::{put_field, put_key, put_text};
use super::request::Params;
use super::time::formatted;

/// No `features`: Grafana takes their presence for Mimir.
pub(super) fn build(context: &Context<'_>, _: &Params) -> Result<Data, ApiError> {
    let build = &context.status.build;
    let mut out = String::from("{");
    put_field(&mut out, "version", &build.version);
    put_field(&mut out, "revision", &build.revision);
    put_field(&mut out, "branch", "Fairway");
    put_field(&mut out, "buildUser", "Fairway");
    put_field(&mut out, "buildDate", &build.build_date);
    // Fairway is written in no Go; readers want the field.
    put_field(&mut out, "goVersion", "");
    out.push('}');
    Ok(Data::new(out))
}

pub(super) fn runtime(context: &Context<'_>, _: &Params) -> Result<Data, ApiError> {
    let status = context.status;
    let mut out = String::from("{");
    put_field(&mut out, "startTime", &formatted(Some(status.started_ms)));
    put_field(&mut out, "CWD", &status.working_directory);
    put_field(&mut out, "hostname", &status.hostname);
    put_field(&mut out, "serverTime", &formatted(Some(context.now_ms)));
    put_key(&mut out, "reloadConfigSuccess");
    out.push_str("true");
    put_field(&mut out, "lastConfigTime", &formatted(Some(status.started_ms)));
    for name in ["corruptionCount", "goroutineCount", "GOMAXPROCS", "GOMEMLIMIT"] {
        put_key(&mut out, name);
        out.push('0');
    }
    put_field(&mut out, "GOGC", "");
    put_field(&mut out, "GODEBUG", "");
    put_field(&mut out, "storageRetention", &status.retention);
    out.push('}');
    Ok(Data::new(out))
}

pub(super) fn config(context: &Context<'_>, _: &Params) -> Result<Data, ApiError> {
    let mut out = String::from("{");
    put_field(&mut out, "yaml", &context.status.config_yaml);
    out.push('}');
    Ok(Data::new(out))
}

pub(super) fn flags(context: &Context<'_>, _: &Params) -> Result<Data, ApiError> {
    let mut out = String::from("{");
    for (index, (name, value)) in context.status.flags.iter().enumerate() {
        out.push_str(if index > 0 { "," } else { "" });
        put_text(&mut out, name);
        out.push(':');
        put_text(&mut out, value);
    }
    out.push('}');
    Ok(Data::new(out))
}

/// Fairway delivers alerts itself.
pub(super) fn alertmanagers(_: &Context<'_>, _: &Params) -> Result<Data, ApiError> {
    Ok(Data::new("{\"activeAlertmanagers\":[],\"droppedAlertmanagers\":[]}".to_owned()))
}
