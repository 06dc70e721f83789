//! `cargo xtask demo`

mod report;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use fairway_load::{Body, Kind, Plan, Running, Share};
use serde_json::Value;

use crate::fault::{Context, Done, Fault};
use crate::home::{Home, Ran, Shop, Show, free_address};
use crate::{setup, workspace};
use report::{Act, Counted};

/// Every command waits for the rollout's end; longer than this is a hang, and the demo says so.
const ROLLOUT_MAX: Duration = Duration::from_secs(120);

/// For the canaries: short-tempered as well.
const CANARY: &str =
    "strategy = \"canary\"\nsteps = [{ weight = 10, hold = \"4s\" }, { weight = 50, hold = \"3s\" }]\n";

/// What the answers of the bad canary name.
const FLAKY: &str = "v5-flaky";

/// Deploy a real project under constant load, in every way that can go wrong, and count what was lost
///
/// Sets up what is missing, builds Fairway, starts a server with a state directory of its own and takes the example
/// shop through a first deploy, blue-green, rollback, rolling, a version that never becomes ready, a canary that goes
/// through, a canary that is called off on the evidence of its traffic, a `kill -9` of the control plane within a
/// rollout, and scaling. A load generator that never retries asks all the while, with kept and fresh connections, GET
/// and POST. Ends with a report: how long each act took, how long both versions answered, how many requests failed and
/// how many orders arrived twice. Exits with 0 when both numbers are 0; what a bad version answers is told apart.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Requests a second
    #[arg(long, default_value_t = 200.0, value_name = "N")]
    rate: f64,
    /// Print the report as JSON on standard output, everything else on standard error
    #[arg(long)]
    json: bool,
    /// Leave the directory with state and logs where it is
    #[arg(long)]
    keep: bool,
    /// This binary, instead of one built from this tree
    #[arg(long, value_name = "PATH")]
    fairway: Option<PathBuf>,
}

pub fn run(arguments: &Arguments) -> Done {
    setup::ensure(&[setup::NODE, setup::PYTHON])?;
    let fairway = arguments.fairway.clone().map_or_else(workspace::build_release, workspace::binary)?;
    let show = if arguments.json { Show::OnStderr } else { Show::OnStdout };
    let home = Home::new(&fairway, show)?;
    let shop = Shop::new(home.path().join("shop"), free_address()?, "2s");
    let mut stage = Stage { home, shop, acts: Vec::new(), load: None };
    let played = stage.play(arguments.rate);
    if arguments.keep || played.is_err() {
        stage.home.keep();
    }
    let (counted, acts) = played?;
    if arguments.json {
        println!("{}", report::json(&acts, &counted)?);
    } else {
        print!("{}", report::table(&acts, &counted));
    }
    report::verdict(&acts, &counted)
}

struct Stage {
    home: Home,
    shop: Shop,
    acts: Vec<Act>,
    load: Option<Running>,
}

impl Stage {
    fn play(&mut self, rate: f64) -> Done<(Counted, Vec<Act>)> {
        self.say("A server with a state directory of its own, and the shop as a developer has it.");
        self.home.start_server()?;
        self.shop.check_out("v1")?;
        self.say(&format!(
            "The shop's fairway.toml is as it is in examples/shop, with this added:\n{}",
            self.shop.environment()
        ));

        self.act("deploy v1, the first", Some("v1"), |stage| stage.fairway(&["deploy", "-e", "demo"]))?;
        self.start_load(rate)?;

        self.act("deploy v2, blue-green", Some("v2"), |stage| {
            stage.shop.check_out("v2")?;
            stage.fairway(&["deploy", "-e", "demo", "--strategy", "blue-green"])
        })?;
        self.act("roll back to v1, still warm", Some("v1"), |stage| {
            stage.fairway(&["rollback", "-e", "demo"])
        })?;
        self.act("deploy v3, rolling", Some("v3"), |stage| {
            stage.shop.check_out("v3")?;
            stage.fairway(&["deploy", "-e", "demo", "--strategy", "rolling"])
        })?;
        self.act("deploy a version that never is ready", None, Stage::refused)?;
        self.act("canary: v2, good, goes through", Some("v2"), |stage| {
            stage.shop.settings(CANARY);
            stage.shop.check_out("v2")?;
            stage.fairway(&["deploy", "-e", "demo"])
        })?;
        self.act("canary: a flaky version, called off", None, Stage::called_off)?;
        self.shop.settings("");
        self.act("kill -9 the control plane within a rollout", Some("v3"), Stage::killed)?;
        self.act("scale the API to 4, and back", None, |stage| {
            stage.fairway(&["scale", "api", "4", "-e", "demo"])?;
            stage.fairway(&["scale", "api", "2", "-e", "demo"])
        })?;
        self.fairway(&["status", "-e", "demo"])?;
        self.fairway(&["history", "-e", "demo"])?;

        let load = self.load.take().context("the load is not running")?.stop();
        let counted = Counted { doubled: self.shop.doubled()?, stored: self.shop.stored()?, load };
        self.say("The end: everything is taken down.");
        self.fairway(&["down", "-e", "demo", "--yes"])?;
        self.home.stop_server()?;
        self.home.is_empty_soon()?;
        Ok((counted, std::mem::take(&mut self.acts)))
    }

    /// One act: what it does is timed, and the load's requests from here on are counted for it.
    fn act(
        &mut self,
        name: &str,
        to: Option<&'static str>,
        play: impl FnOnce(&mut Stage) -> Done<Ran>,
    ) -> Done {
        self.say(name);
        let doubled_before = if self.load.is_some() { self.shop.doubled()? } else { 0 };
        if let Some(load) = &self.load {
            load.mark(name);
        }
        let started = Instant::now();
        play(self)?;
        let took = started.elapsed();
        if let Some(version) = to {
            let serving = self.shop.version()?;
            if serving != version {
                return Err(Fault::new(format!("{name}: {serving} answers instead of {version}")));
            }
        }
        let doubled = self.shop.doubled()?.saturating_sub(doubled_before);
        let bad = name.starts_with("canary: a flaky").then_some(FLAKY);
        self.acts.push(Act { name: name.to_owned(), to, took, doubled, loaded: self.load.is_some(), bad });
        if let Some(load) = &self.load {
            let so_far = load.snapshot();
            self.home.say(&format!("  … {} requests so far, {} failed", so_far.planned, so_far.failed));
            if let Some(failure) = so_far.last_failure {
                self.home.say(&format!("  last failure: {failure}"));
            }
        }
        Ok(())
    }

    fn start_load(&mut self, rate: f64) -> Done {
        self.say(&format!("From here on: {rate} requests a second, planned ahead, never repeated."));
        let mut plan = Plan::new(self.shop.address());
        plan.rate_per_s = rate;
        plan.mix = vec![
            Share { kind: Kind::KeepAliveGet, weight: 2, paths: vec!["/".into(), "/api/products".into()] },
            Share { kind: Kind::FreshGet, weight: 2, paths: vec!["/".into(), "/api/products".into()] },
            Share::new(Kind::KeepAlivePost, 1, "/api/orders"),
            Share::new(Kind::FreshPost, 1, "/api/orders"),
        ];
        plan.body =
            Body::from_fn(|id| format!(r#"{{"id":"{id}","product":"rope-10m","quantity":1}}"#).into_bytes());
        self.load = Some(fairway_load::start(plan).context("the load")?);
        Ok(())
    }

    /// The version that wants a setting nobody gives it: refused, with the cause, and the old one serves on.
    fn refused(&mut self) -> Done<Ran> {
        self.shop.check_out("broken")?;
        let ran = self.home.run(self.shop.directory(), &["deploy", "-e", "demo"])?;
        if ran.code != 1 && ran.code != 5 {
            return Err(Fault::new(format!("{} ended with {}: a bad version was taken", ran.line, ran.code)));
        }
        if !ran.stderr.contains("PAYMENT_GATEWAY_URL") {
            return Err(Fault::new("the refusal does not show why: the last log lines are missing"));
        }
        let serving = self.shop.version()?;
        if serving != "v3" {
            return Err(Fault::new(format!("{serving} answers, and v3 should have stayed")));
        }
        self.home.say(&format!("  exit code {}; {serving} serves on", ran.code));
        Ok(ran)
    }

    /// Healthy to every check, and bad: what visitors get says so, and Fairway acts on it.
    fn called_off(&mut self) -> Done<Ran> {
        self.shop.check_out("flaky")?;
        let ran = self.home.run(self.shop.directory(), &["deploy", "-e", "demo"])?;
        if ran.code != 5 {
            return Err(Fault::new(format!(
                "{} ended with {}: a bad canary was not called off",
                ran.line, ran.code
            )));
        }
        if !ran.stderr.contains("errors in") {
            return Err(Fault::new("the canary was called off and the evidence is not shown"));
        }
        let serving = self.shop.version()?;
        if serving != "v2" {
            return Err(Fault::new(format!("{serving} answers, and v2 should have stayed")));
        }
        self.home.say(&format!("  exit code {}; {serving} serves on", ran.code));
        self.fairway(&["history", "-e", "demo", "--limit", "1"])
    }

    /// The server dies as hard as it can while new copies start. The next one carries on from the log.
    fn killed(&mut self) -> Done<Ran> {
        self.shop.check_out("v3")?;
        self.fairway(&["deploy", "-e", "demo", "--detach"])?;
        let started = Instant::now();
        while self.rollout()?["phase"] != "starting" {
            if started.elapsed() > ROLLOUT_MAX {
                return Err(Fault::new("the rollout does not start new copies"));
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        self.home.kill_server()?;
        self.home.say("  new copies were starting; for one second nobody is in control");
        std::thread::sleep(Duration::from_secs(1));
        self.home.start_server()?;
        while !self.rollout()?.is_null() {
            if started.elapsed() > ROLLOUT_MAX {
                return Err(Fault::new("the rollout does not end after the restart"));
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        self.fairway(&["history", "-e", "demo", "--limit", "1"])
    }

    /// The rollout that is under way, or null.
    fn rollout(&self) -> Done<Value> {
        let status = self.home.ask(self.shop.directory(), &["status", "-e", "demo"])?;
        Ok(status["environments"][0]["rollout"].clone())
    }

    fn fairway(&self, arguments: &[&str]) -> Done<Ran> {
        self.home.must(self.shop.directory(), arguments)
    }

    fn say(&self, text: &str) {
        self.home.say(&format!("\n── {text}"));
    }
}
