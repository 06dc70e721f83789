//! A status as people read it.

use fairway_api::{
    ByHand, CertificateState, CertificateStatus, Ending, EnvironmentStatus, InstanceStatus, JobOutcome,
    ProxyStatus, PurgeState, PurgeStatus, ServerInfo, ServiceStatus, Status, TrafficStatus, UrlStatus,
};

use crate::ago;
use crate::duration;
use crate::evidence::{self, Frame};
use crate::ladder;
use crate::output::{Colours, Paint, Table, printable};

#[derive(Clone, Copy, Debug)]
pub struct Look {
    pub columns: usize,
    pub colours: Colours,
}

#[must_use]
pub fn status(status: &Status, detailed: bool, now_ms: u64, look: &Look) -> String {
    let colours = look.colours;
    let mut parts = Vec::new();
    if let ProxyStatus::Unreachable { why } = &status.server.proxy {
        let word = colours.paint(Paint::Warn, "proxy unknown:");
        parts.push(format!(
            "{word} it does not answer the server, and may serve all the same ({})",
            printable(why)
        ));
    }
    if status.environments.is_empty() {
        parts.push("nothing is deployed; `fairway deploy -e ENV` or `fairway up`".to_owned());
    }
    if detailed {
        parts.extend(status.environments.iter().map(|one| environment(one, now_ms, look)));
    } else if !status.environments.is_empty() {
        parts.push(overview(&status.environments, now_ms, colours));
    }
    parts.extend(versions(&status.server, detailed, colours));
    parts.join("\n\n")
}

/// Which Fairway it is; below the details of an environment only where there is something to be done about it.
fn versions(server: &ServerInfo, detailed: bool, colours: Colours) -> Option<String> {
    let proxy = match &server.proxy {
        ProxyStatus::Serving { version, .. } => Some(version),
        ProxyStatus::Unreachable { .. } => None,
    };
    let mut text = match proxy {
        Some(proxy) if *proxy != server.version => {
            let proxy = if proxy.is_empty() { "of an earlier version" } else { proxy };
            let differ = format!("server {}, proxy {proxy}", server.version);
            format!("{}: `fairway server upgrade`", colours.paint(Paint::Warn, &differ))
        }
        Some(_) | None if detailed => return None,
        Some(_) => format!("server and proxy {}", server.version),
        None => format!("server {}", server.version),
    };
    if server.older_shims > 0 && !detailed {
        text.push_str(&format!(", {} copies held by shims of an earlier program", server.older_shims));
    }
    Some(text)
}

fn overview(environments: &[EnvironmentStatus], now_ms: u64, colours: Colours) -> String {
    let mut table = Table::default();
    for one in environments {
        let (word, paint) = ladder::health_word(one.health);
        let serves = match &one.stable {
            Some(release) => format!("{} {}", release.name, since(one.stable_since_ms, now_ms)),
            None => "nothing".to_owned(),
        };
        let doing = match &one.rollout {
            Some(rollout) => ladder::line(one, rollout, now_ms),
            None => printable(&one.summary),
        };
        // Of several the one that somebody has to look at first.
        let worst = one.certificates.iter().filter(|one| one.ending.is_some()).max_by_key(|one| one.ending);
        let doing = match worst {
            Some(worst) => format!("{doing}; certificate {}", certificate(worst, now_ms, colours)),
            None => doing,
        };
        table.row([
            format!("{}/{}", one.project, one.environment),
            colours.paint(paint, word),
            serves,
            doing,
        ]);
    }
    table.render()
}

fn since(at_ms: Option<u64>, now_ms: u64) -> String {
    at_ms.map(|at| format!("for {}", duration::show_ms(at, now_ms))).unwrap_or_default()
}

fn certificate(one: &CertificateStatus, now_ms: u64, colours: Colours) -> String {
    let until = |word: &str| match one.until_ms {
        Some(until) => format!("{word} until {} UTC", ago::utc(until)),
        None => "none: it cannot be asked over TLS".to_owned(),
    };
    let state = match &one.state {
        CertificateState::Valid { renew_ms, .. } => {
            format!("{}, renewed from {} UTC on", until("good"), ago::utc(*renew_ms))
        }
        CertificateState::Ordering { step } => format!("{}; being ordered: {step}", until("good")),
        CertificateState::Failed { why, hint, retry_ms } => {
            let hint = hint.as_deref().map(|hint| format!(" ({})", printable(hint))).unwrap_or_default();
            let again = duration::show_ms(now_ms, *retry_ms);
            let failed = format!("{}; {}{hint}; tried again in {again}", until("good"), printable(why));
            colours.paint(Paint::Warn, &failed)
        }
        CertificateState::Manual => until("your own, good"),
        CertificateState::SelfSigned => until("self-signed, good"),
    };
    let near = match (one.ending, one.until_ms) {
        (Some(Ending::Over), _) => Some("it has ended: browsers refuse to connect".to_owned()),
        (Some(Ending::Soon | Ending::Now), Some(until)) => {
            Some(format!("it ends in {}", duration::show_ms(now_ms, until)))
        }
        (Some(Ending::Soon | Ending::Now) | None, _) => None,
    };
    let paint = crate::verb::certificate::ending(one.ending).unwrap_or(Paint::Warn);
    let near = near.map(|near| format!(" — {}", colours.paint(paint, &near))).unwrap_or_default();
    format!("{}: {state}{near}", printable(&one.name))
}

/// Where visitors go, in one line.
fn urls(urls: &[UrlStatus]) -> String {
    /// A shop with a host for each country has dozens.
    const SHOWN_MAX: usize = 4;
    let show = |one: &UrlStatus| {
        let sent = if one.redirects { " (sent to https)" } else { "" };
        format!("{}{sent}", printable(&one.url))
    };
    let mut shown: Vec<String> = urls.iter().take(SHOWN_MAX).map(show).collect();
    if urls.len() > SHOWN_MAX {
        shown.push(format!("and {} more", urls.len() - SHOWN_MAX));
    }
    shown.join(", ")
}

fn purged(purge: &PurgeStatus, now_ms: u64, colours: Colours) -> String {
    let (ago, release) = (duration::show_ms(purge.at_ms, now_ms), printable(&purge.release));
    match &purge.state {
        PurgeState::UnderWay => format!("the purge hook of {release} is asked, for {ago}"),
        PurgeState::Done { .. } => format!("emptied by the purge hook of {release} {ago} ago"),
        PurgeState::Failed { attempts, why } => {
            let failed = format!(
                "NOT emptied by the purge hook of {release} {ago} ago, after {attempts} attempts: {}; `fairway purge` tries again",
                printable(why)
            );
            colours.paint(Paint::Warn, &failed)
        }
    }
}

fn environment(one: &EnvironmentStatus, now_ms: u64, look: &Look) -> String {
    let colours = look.colours;
    let (word, paint) = ladder::health_word(one.health);
    let name = colours.paint(Paint::Bold, &format!("{}/{}", one.project, one.environment));
    let mut text = vec![format!("{name}  {}  {}", colours.paint(paint, word), printable(&one.summary))];
    let mut facts = Table::indented(2);
    if let Some(release) = &one.stable {
        let title =
            release.title.as_deref().map(|title| format!(" · {}", printable(title))).unwrap_or_default();
        let commit = release.commit.as_deref().map(|commit| {
            let short: String = commit.chars().take(9).collect();
            format!(" · {short}{}", if release.dirty { " with local changes" } else { "" })
        });
        facts.row([
            "serves".to_owned(),
            format!(
                "{} {}, made by {}{}{title}",
                release.name,
                since(one.stable_since_ms, now_ms),
                release.created_by,
                commit.unwrap_or_default()
            ),
        ]);
    }
    if !one.urls.is_empty() {
        facts.row(["visitors".to_owned(), urls(&one.urls)]);
    }
    if let Some(listen) = &one.listen {
        let host = one.host.as_deref().map(|host| format!(" for {host}")).unwrap_or_default();
        facts.row(["listens".to_owned(), format!("{listen}{host}")]);
    }
    for one in &one.certificates {
        facts.row(["certificate".to_owned(), certificate(one, now_ms, colours)]);
    }
    if let Some(purge) = &one.purge {
        facts.row(["cdn".to_owned(), purged(purge, now_ms, colours)]);
    }
    for one in &one.shared {
        facts.row(["shared".to_owned(), colours.paint(Paint::Warn, &printable(one))]);
    }
    if let Some(warm) = &one.warm {
        let left = duration::show_ms(now_ms, warm.until_ms);
        facts.row([
            "warm".to_owned(),
            format!("{} for {left}: a rollback to it is one change of the routes", warm.release),
        ]);
    }
    if let Some(target) = &one.rollback_target {
        facts.row(["rollback".to_owned(), format!("goes to {target}")]);
    }
    if let Some(message) = &one.maintenance {
        facts.row(["maintenance".to_owned(), colours.paint(Paint::Warn, &printable(message))]);
    }
    if one.queued > 0 {
        facts.row(["queue".to_owned(), format!("{} deploys wait", one.queued)]);
    }
    if let Some(due) = one.contract_due_ms {
        facts.row(["contract".to_owned(), format!("due at {} UTC", ago::utc(due))]);
    }
    if let Some(why) = &one.routes.refused {
        facts.row([
            "routes".to_owned(),
            colours.paint(Paint::Bad, &format!("refused by the proxy: {}", printable(why))),
        ]);
    } else if one.routes.applied != one.routes.generation {
        let (applied, wanted) = (one.routes.applied, one.routes.generation);
        facts.row(["routes".to_owned(), format!("table {applied} in force, {wanted} on its way")]);
    }
    if let Some(rollout) = &one.rollout {
        facts.row(["rollout".to_owned(), ladder::above_evidence(one, rollout, now_ms).join(" · ")]);
        let reason =
            rollout.reason.as_deref().map(|reason| format!(": {}", printable(reason))).unwrap_or_default();
        facts.row([String::new(), format!("{} by {}{reason}", rollout.strategy, rollout.requested_by)]);
        if !rollout.steps.is_empty() {
            facts.row([String::new(), ladder::steps(rollout, colours)]);
        }
        if let Some(cause) = &rollout.cause {
            facts.row([String::new(), colours.paint(Paint::Bad, &printable(cause))]);
        }
    }
    if let Some(last) = one.last.as_ref().filter(|_| one.rollout.is_none()) {
        let cause = last.cause.as_deref().map(|cause| format!(": {}", printable(cause))).unwrap_or_default();
        facts.row([
            "last".to_owned(),
            format!(
                "#{} {} to {} {} {}{cause}",
                last.number,
                last.kind,
                last.to,
                last.outcome,
                ago::ago(last.ended_ms, now_ms)
            ),
        ]);
    }
    if !facts.is_empty() {
        text.push(facts.render());
    }
    if let Some(rollout) = &one.rollout {
        let frame = Frame { environment: &one.environment, now_ms, columns: look.columns, colours };
        text.extend(evidence::block(rollout, &frame));
    }
    if !one.services.is_empty() {
        text.push(services(&one.services, now_ms, colours));
    }
    if one.traffic.iter().any(|traffic| traffic.requests > 0 || traffic.weight > 0) {
        text.push(traffic(&one.traffic, colours));
    }
    for job in one.jobs.iter().filter(|job| job.outcome == JobOutcome::Running) {
        text.push(format!("  job j{} {} runs {}", job.number, job.kind, since(Some(job.started_ms), now_ms)));
    }
    text.join("\n")
}

fn services(services: &[ServiceStatus], now_ms: u64, colours: Colours) -> String {
    let mut table = Table::indented(2);
    for service in services {
        let paint = if service.ready >= service.wanted { Paint::Good } else { Paint::Bad };
        let mut notes = Vec::new();
        notes.extend(service.by_hand.as_ref().map(|by_hand| match by_hand {
            ByHand::TakenBack { in_file } => format!("scaled by hand, {in_file} in fairway.toml"),
            ByHand::Time { at_ms } => {
                format!("scaled by hand for {} more", duration::show_ms(now_ms, *at_ms))
            }
        }));
        let retry = service.retry_ms.filter(|at_ms| *at_ms > now_ms);
        notes.extend(retry.map(|at_ms| format!("tried again in {}", duration::show_ms(now_ms, at_ms))));
        table.row([
            colours.paint(Paint::Bold, &service.name),
            colours.paint(paint, &format!("{}/{} ready", service.ready, service.wanted)),
            service.route.clone().unwrap_or_default(),
            notes.join(", "),
        ]);
        for one in &service.instances {
            table.row(instance(one, now_ms, colours));
        }
    }
    table.render()
}

fn instance(one: &InstanceStatus, now_ms: u64, colours: Colours) -> Vec<String> {
    let paint = match one.state.as_str() {
        "ready" => Paint::Good,
        "starting" | "draining" | "stopping" => Paint::Dim,
        _ => Paint::Bad,
    };
    let mut notes = Vec::new();
    notes.extend(one.pid.map(|pid| format!("pid {pid}")));
    match one.crashes {
        0 => {}
        1 => notes.push("1 crash".to_owned()),
        crashes => notes.push(format!("{crashes} crashes")),
    }
    notes.extend(one.why.as_deref().map(printable));
    notes.extend(one.not_enforced.iter().map(|limit| format!("not enforced: {}", printable(limit))));
    vec![
        format!("  {}", one.id),
        format!("{} {}", colours.paint(paint, &one.state), since(Some(one.since_ms), now_ms)),
        one.address.clone().unwrap_or_default(),
        notes.join(", "),
    ]
}

fn traffic(traffic: &[TrafficStatus], colours: Colours) -> String {
    let ms = |value: Option<f64>| value.map_or("-".to_owned(), |value| format!("{value:.1}ms"));
    let mut table = Table::indented(2);
    table.row(
        ["traffic", "release", "share", "requests", "errors", "p50", "p95", "p99", "now"]
            .map(|head| colours.paint(Paint::Dim, head)),
    );
    for one in traffic {
        let errors = if one.errors > 0 {
            let share = one.errors as f64 * 100.0 / (one.requests.max(1)) as f64;
            colours.paint(Paint::Bad, &format!("{} ({share:.2} %)", one.errors))
        } else {
            "0".to_owned()
        };
        table.row([
            one.service.clone(),
            one.release.clone(),
            format!("{} %", one.weight),
            one.requests.to_string(),
            errors,
            ms(one.p50_ms),
            ms(one.p95_ms),
            ms(one.p99_ms),
            one.in_flight.to_string(),
        ]);
    }
    table.render()
}

#[cfg(test)]
mod tests {
    use fairway_api::ReleaseInfo;

    use super::*;
    use crate::ladder::tests::{environment as an_environment, rollout};

    const PLAIN: Look = Look { columns: usize::MAX, colours: Colours::Off };

    fn whole(environments: Vec<EnvironmentStatus>) -> Status {
        Status {
            server: ServerInfo {
                version: "0.1.0".to_owned(),
                pid: 1,
                started_ms: 0,
                now_ms: 61_000,
                state_dir: "/s".to_owned(),
                seq: 9,
                proxy: ProxyStatus::Serving { pid: 2, generation: 4, version: "0.1.0".to_owned() },
                binary: "/usr/bin/fairway".to_owned(),
                upgraded: None,
                older_shims: 0,
            },
            environments,
        }
    }

    #[test]
    fn an_environment_tells_what_serves_what_goes_on_and_each_copy() {
        let mut one = an_environment();
        one.stable = Some(ReleaseInfo {
            name: "r11".to_owned(),
            created_ms: 0,
            created_by: "ann".to_owned(),
            title: Some("Add gifts".to_owned()),
            commit: Some("0123456789abcdef".to_owned()),
            dirty: true,
        });
        one.stable_since_ms = Some(1_000);
        one.rollout = Some(rollout());
        one.traffic = vec![TrafficStatus {
            service: "api".to_owned(),
            release: "r12".to_owned(),
            weight: 50,
            requests: 200,
            errors: 3,
            in_flight: 1,
            p50_ms: Some(1.25),
            p95_ms: Some(9.0),
            p99_ms: None,
        }];
        let expected = "\
shop/production  serving  all copies ready
  serves   r11 for 1m 00s, made by ann · 012345678 with local changes · Add gifts
  listens  0.0.0.0:80 for shop.example
  rollout  #7 r12 shifting · step 2 of 3, 50 % · api 1/2 · waits for the hold of this step to pass (2m 10s left) · 1m 00s so far
           canary by ann
           5 % → [50 %, then approve] → 100 %
  api            1/1 ready         /api
    api.r11.1    ready for 1m 00s  127.0.0.1:41001  pid 4242
    api.r12.1    ready for 1m 00s  127.0.0.1:41001  pid 4242
    api.r12.2    starting for 1m 00s  127.0.0.1:41001  pid 4242";
        let shown = status(&whole(vec![one]), true, 61_000, &PLAIN);
        let squeeze = |text: &str| {
            text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect::<Vec<_>>()
        };
        let (shown, expected) = (squeeze(&shown), squeeze(expected));
        assert_eq!(shown[..expected.len()], expected[..]);
        assert_eq!(shown.last().unwrap(), "api r12 50 % 200 3 (1.50 %) 1.2ms 9.0ms - 1");
    }

    #[test]
    fn a_number_given_by_hand_is_shown_beside_the_copies() {
        let mut one = an_environment();
        one.services[0].by_hand = Some(ByHand::TakenBack { in_file: 2 });
        one.services[0].retry_ms = Some(64_000);
        let shown = status(&whole(vec![one.clone()]), true, 61_000, &PLAIN);
        assert!(shown.contains("scaled by hand, 2 in fairway.toml, tried again in 3.0s"), "{shown}");
        one.services[0].by_hand = Some(ByHand::Time { at_ms: 121_000 });
        let shown = status(&whole(vec![one]), true, 61_000, &PLAIN);
        assert!(shown.contains("scaled by hand for 1m 00s more"), "{shown}");
    }

    #[test]
    fn visitors_are_shown_where_to_go_and_how_long_that_works() {
        let mut one = an_environment();
        let url = |url: &str, redirects| UrlStatus { url: url.to_owned(), redirects, until_ms: None };
        one.urls = vec![url("https://shop.example", false), url("http://shop.example", true)];
        let ending = Some(Ending::Now);
        let manual = crate::verb::certificate::tests::certificate("shop.example", CertificateState::Manual);
        one.certificates = vec![CertificateStatus { ending, ..manual }];
        let shown = status(&whole(vec![one.clone()]), true, 82_800_000, &PLAIN);
        let line = "https://shop.example, http://shop.example (sent to https)";
        assert!(shown.contains(line) && shown.contains(" — it ends in 1h 00m"), "{shown}");
        let shown = status(&whole(vec![one.clone()]), false, 82_800_000, &PLAIN);
        assert!(
            shown.contains("shop.example: your own, good until") && shown.contains("it ends in"),
            "{shown}"
        );
        one.urls = (0..9).map(|n| url(&format!("https://{n}.example"), false)).collect();
        let shown = status(&whole(vec![one]), true, 0, &PLAIN);
        assert!(shown.contains("https://3.example, and 5 more"), "{shown}");
    }

    #[test]
    fn the_evidence_stands_below_the_rollout() {
        let mut one = an_environment();
        one.rollout = Some(crate::evidence::tests::judged());
        let shown = status(&whole(vec![one]), true, 61_000, &PLAIN);
        let at = |text: &str| shown.find(text).unwrap_or_else(|| panic!("{text}: {shown}"));
        assert!(at("canary by ann") < at("50 % set, 49 % came") && at("49 % came") < at("api.r11.1"));
    }

    #[test]
    fn a_proxy_of_another_version_is_told() {
        let mut all = whole(vec![an_environment()]);
        assert!(status(&all, false, 0, &PLAIN).ends_with("\n\nserver and proxy 0.1.0"));
        assert!(!status(&all, true, 0, &PLAIN).contains("server and proxy"));
        all.server.version = "0.2.0".to_owned();
        all.server.older_shims = 2;
        let text = "\n\nserver 0.2.0, proxy 0.1.0: `fairway server upgrade`";
        assert!(status(&all, true, 0, &PLAIN).ends_with(text));
        let text = format!("{text}, 2 copies held by shims of an earlier program");
        assert!(status(&all, false, 0, &PLAIN).ends_with(&text));
    }

    #[test]
    fn a_proxy_that_does_not_answer_is_unknown_not_down() {
        let mut all = whole(vec![an_environment()]);
        all.server.proxy = ProxyStatus::Unreachable { why: "timed out".to_owned() };
        let shown = status(&all, false, 0, &PLAIN);
        assert!(
            shown.starts_with("proxy unknown: it does not answer the server, and may serve all the same"),
            "{shown}"
        );
        assert!(shown.contains("shop/production  serving  nothing"), "{shown}");
    }

    #[test]
    fn an_empty_server_says_how_to_begin() {
        assert_eq!(
            status(&whole(Vec::new()), false, 0, &PLAIN),
            "nothing is deployed; `fairway deploy -e ENV` or `fairway up`\n\nserver and proxy 0.1.0"
        );
    }
}
