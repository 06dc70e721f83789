//! `kill -9` of Fairway's own processes at random moments, and what must hold afterwards.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use super::dice::Dice;
use super::notes::Notes;
use crate::checks::Count;
use crate::fault::{Context, Done, Fault};
use crate::home::{Home, Show, free_address, get};

/// Start, readiness, drain and the pauses between restarts, with room for a loaded machine.
const SETTLE_MAX: Duration = Duration::from_secs(60);

/// The end of a process is told by its shim or seen on its socket, not found by polling.
const NOTICED_WITHIN: Duration = Duration::from_millis(500);

/// A round begins a deploy and kills something within this time of it; most of a deploy lies in it.
const KILL_WITHIN_MS: u64 = 1500;

#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// How many kills
    #[arg(long, default_value_t = 50)]
    rounds: u32,
    /// Repeat the same choices
    #[arg(long)]
    seed: Option<u64>,
}

impl Arguments {
    pub fn short() -> Arguments {
        Arguments { rounds: 8, seed: None }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Victim {
    Server,
    Proxy,
    Shim,
    Application,
}

const VICTIMS: [Victim; 4] = [Victim::Server, Victim::Proxy, Victim::Shim, Victim::Application];

pub fn run(fairway: &Path, arguments: &Arguments) -> Count {
    let seed = arguments.seed.unwrap_or_else(crate::home::now_ms);
    let name = format!("{} kills at random moments (--seed {seed})", arguments.rounds);
    let mut count = Count::default();
    count.check(&name, || rounds(fairway, arguments.rounds, seed));
    count
}

fn rounds(fairway: &Path, rounds: u32, seed: u64) -> Done<Vec<String>> {
    let mut dice = Dice::new(seed);
    let mut home = Home::new(fairway, Show::Nothing)?;
    home.start_server()?;
    let notes = Notes::write(home.path().join("notes"), free_address()?)?;
    home.must(notes.directory(), &["deploy", "-e", "dev"])?;
    for round in 1..=rounds {
        let words = format!("round {round}");
        let busy = dice.below(3) > 0;
        if busy {
            notes.change("[env.dev]", &format!("[vars]\nWORDS = \"{words}\"\n[env.dev]"))?;
            home.must(notes.directory(), &["deploy", "-e", "dev", "--detach"])?;
        }
        std::thread::sleep(Duration::from_millis(dice.below(KILL_WITHIN_MS)));
        let victim = *dice.pick(&VICTIMS).context("there are victims")?;
        let killed = kill(&mut home, victim, &mut dice)?;
        let what =
            format!("round {round}, {victim:?} killed {}", if busy { "within a deploy" } else { "at rest" });
        if victim == Victim::Server {
            std::thread::sleep(Duration::from_millis(dice.below(300)));
            home.start_server()?;
        }
        let findings = settled(&home, &notes, killed).unwrap_or_else(|fault| vec![fault.to_string()]);
        if !findings.is_empty() {
            home.keep();
            return Ok([vec![what], findings, vec![home.server_log()]].concat());
        }
    }
    Ok(Vec::new())
}

/// Kills one process of the kind, if there is one just now.
fn kill(home: &mut Home, victim: Victim, dice: &mut Dice) -> Done<Option<u32>> {
    let roles = roles(home);
    let pid = match victim {
        Victim::Server => {
            let pid = home.server_pid();
            home.kill_server()?;
            return Ok(pid);
        }
        Victim::Proxy => dice.pick(&roles.proxies).copied(),
        Victim::Shim => dice.pick(&roles.shims).copied(),
        Victim::Application => dice.pick(&roles.applications).copied(),
    };
    if let Some(pid) = pid.and_then(|pid| Pid::from_raw(i32::try_from(pid).ok()?)) {
        // It may have ended by itself just now.
        let _ = kill_process(pid, Signal::KILL);
    }
    Ok(pid)
}

#[derive(Debug, Default)]
struct Roles {
    proxies: Vec<u32>,
    shims: Vec<u32>,
    applications: Vec<u32>,
}

fn roles(home: &Home) -> Roles {
    let mut roles = Roles::default();
    for pid in home.processes() {
        let command = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let words: Vec<&[u8]> = command.split(|byte| *byte == 0).collect();
        match words.get(1) {
            Some(&b"proxy") => roles.proxies.push(pid),
            Some(&b"shim") => roles.shims.push(pid),
            Some(&b"notes.py") => roles.applications.push(pid),
            Some(_) | None => {}
        }
    }
    roles
}

/// Waits until the environment is what was asked for, then looks for what must never be.
fn settled(home: &Home, notes: &Notes, killed: Option<u32>) -> Done<Vec<String>> {
    let started = Instant::now();
    let mut last = Value::Null;
    let mut steady_since = None;
    loop {
        if let Ok(status) = home.ask(home.path(), &["status"]) {
            last = status["environments"][0].clone();
            let all_ready = last["services"].as_array().is_some_and(|services| {
                services.iter().all(|service| {
                    let steady = service["instances"].as_array().is_some_and(|all| {
                        all.iter().all(|one| one["state"] == "ready" || one["state"] == "down")
                    });
                    service["wanted"] == service["ready"] && steady
                })
            });
            if last["rollout"].is_null()
                && last["health"] == "serving"
                && all_ready
                && get(notes.address(), "/").is_ok()
            {
                // What was killed a moment ago may not have been noticed yet.
                if steady_since.get_or_insert_with(Instant::now).elapsed() > NOTICED_WITHIN {
                    break;
                }
            } else {
                steady_since = None;
            }
        }
        if started.elapsed() > SETTLE_MAX {
            return Err(Fault::new(format!(
                "not settled after {SETTLE_MAX:?} ({killed:?} was killed): {last}"
            )));
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    let mut findings = Vec::new();
    let roles = roles(home);
    if roles.proxies.len() != 1 {
        findings.push(format!("{} proxies", roles.proxies.len()));
    }
    // Every process of the project is known, once: nothing was started twice, nobody is forgotten.
    let mut known: BTreeMap<u64, String> = BTreeMap::new();
    for instance in last["services"]
        .as_array()
        .into_iter()
        .flatten()
        .flat_map(|service| service["instances"].as_array().into_iter().flatten())
    {
        if let (Some(pid), Some(id)) = (instance["pid"].as_u64(), instance["id"].as_str()) {
            known.insert(pid, id.to_owned());
        }
    }
    for pid in &roles.applications {
        if !known.contains_key(&u64::from(*pid)) {
            findings
                .push(format!("process {pid} runs the project and is no copy that status knows: {known:?}"));
        }
    }
    let words = get(notes.address(), "/")?.body;
    let api = get(notes.address(), "/api")?.body;
    if words != api {
        findings.push(format!("two releases serve at once: {words:?} and {api:?}"));
    }
    Ok(findings)
}
