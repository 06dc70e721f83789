//! `[slo.NAME]`: objectives.

use std::collections::BTreeMap;
use std::time::Duration;

use fairway_engine::LATENCY_BOUNDS_MS;
use fairway_engine::evidence::Number;
use fairway_engine::id::ServiceName;
use fairway_engine::monitoring::{Slo, SloGoal};

use crate::code;
use crate::diagnostic::Diagnostic;
use crate::keys;
use crate::reader::Reader;
use crate::value::duration;
use crate::variable::Roster;

/// What a query says where the range of a rate belongs: each burn rate asks over another one.
const WINDOW: &str = "$window";

/// Recordings are kept about this long; a budget over a longer time would be counted over less than it says.
const WINDOW_MAX: Duration = Duration::from_secs(90 * 86_400);

pub(crate) fn read(root: &Reader<'_>, roster: &Roster) -> BTreeMap<String, Slo> {
    let slos = root.map_of_tables("slo", &keys::SLO);
    slos.iter().filter_map(|(name, reader)| Some(((*name).to_owned(), slo(reader, roster)?))).collect()
}

fn slo(reader: &Reader<'_>, roster: &Roster) -> Option<Slo> {
    let chosen = reader.one_of(&["availability", "latency", "good"]);
    let window = window(reader);
    let (goal, objective) = match chosen {
        Some("availability") => {
            let objective = share(reader, "availability");
            let goal = service(reader, roster).map(|service| SloGoal::Availability { service });
            (goal, objective)
        }
        Some("latency") => {
            let table = reader.table("latency", &keys::SLO_LATENCY);
            let (within, objective) = (within(&table), share(&table, "objective"));
            let service = service(reader, roster);
            let goal = service.zip(within).map(|(service, within)| SloGoal::Latency { service, within });
            (goal, objective)
        }
        Some(_) => {
            let goal = query(reader, "good").zip(query(reader, "total"));
            if !reader.has("objective") {
                reader.lacks("objective", "add objective = 0.99");
            }
            (goal.map(|(good, total)| SloGoal::Query { good, total }), share(reader, "objective"))
        }
        None => {
            reader.lacks("availability, latency or good", "add availability = 0.999");
            (None, None)
        }
    };
    match chosen {
        Some("good") => {
            reader.refuse_beside("good", &["service"], "beside good, whose queries say what counts")
        }
        Some(chosen) => {
            reader.refuse_beside(chosen, &["total", "objective"], "without good");
        }
        None => {}
    }
    Some(Slo { goal: goal?, objective: objective?, window })
}

fn window(reader: &Reader<'_>) -> Duration {
    let window = reader.fixed("window");
    if window > WINDOW_MAX {
        let message = format!("{} is over {}", reader.path_of("window"), duration::show(WINDOW_MAX));
        refuse(reader, "window", code::OUT_OF_RANGE, message, "30d is what most people use");
    }
    window
}

/// A share that leaves something to miss and something to keep.
fn share(reader: &Reader<'_>, key: &str) -> Option<Number> {
    let share: f64 = reader.get(key)?;
    if share > 0.0 && share < 1.0 {
        return Some(Number(share));
    }
    // Beyond 0 to 1 was told by the first pass.
    if share == 1.0 {
        let message = format!("{} leaves no error budget", reader.path_of(key));
        refuse(reader, key, code::OUT_OF_RANGE, message, "99.9 % is 0.999");
    } else if share == 0.0 {
        let message = format!("{} promises nothing", reader.path_of(key));
        refuse(reader, key, code::OUT_OF_RANGE, message, "99.9 % is 0.999");
    }
    None
}

fn service(reader: &Reader<'_>, roster: &Roster) -> Option<ServiceName> {
    let Some(name) = reader.get::<String>("service") else {
        if !reader.has("service") {
            reader.lacks("service", "add service = \"api\"");
        }
        return None;
    };
    let known = roster.service(reader.cx, &name, reader.value_at("service"))?;
    if roster.0.get(&name).is_some_and(|shape| shape.backing || !shape.listens) {
        let message = format!("requests of {name} do not pass the proxy, so that nobody counts them");
        let hint = "name a service with a route or a port, or use good and total";
        refuse(reader, "service", code::CONFLICT, message, hint);
    }
    Some(known)
}

/// A time that the histogram can tell from others.
fn within(reader: &Reader<'_>) -> Option<Duration> {
    let within: Duration = reader.get("within")?;
    let ms = within.as_millis();
    if LATENCY_BOUNDS_MS.iter().any(|bound| u128::from(*bound) == ms) {
        return Some(within);
    }
    let shown = |bound: &u64| format!("{:?}", duration::show(Duration::from_millis(*bound)));
    let below = LATENCY_BOUNDS_MS.iter().rfind(|bound| u128::from(**bound) < ms).map(shown);
    let above = LATENCY_BOUNDS_MS.iter().find(|bound| u128::from(**bound) > ms).map(shown);
    let hint = match (below, above) {
        (Some(below), Some(above)) => format!("the nearest are {below} and {above}"),
        (Some(one), None) | (None, Some(one)) => format!("the nearest is {one}"),
        (None, None) => String::new(),
    };
    let message = format!("{} is no bound of the histogram of response times", reader.path_of("within"));
    refuse(reader, "within", code::BAD_VALUE, message, &hint);
    None
}

fn query(reader: &Reader<'_>, key: &str) -> Option<String> {
    let Some(text) = reader.get::<String>(key) else {
        if !reader.has(key) {
            reader.lacks(key, &format!("add {key} = \"sum(rate(jobs[$window]))\""));
        }
        return None;
    };
    if !text.contains(WINDOW) {
        let message = format!("{} does not say where the range belongs", reader.path_of(key));
        let hint = "for example sum(rate(jobs[$window])): each burn rate asks over another range";
        refuse(reader, key, code::BAD_VALUE, message, hint);
    }
    Some(text)
}

fn refuse(reader: &Reader<'_>, key: &str, code: &'static str, message: String, hint: &str) {
    reader.cx.push_at(Diagnostic::error(code, message).hint(hint), reader.value_at(key));
}
