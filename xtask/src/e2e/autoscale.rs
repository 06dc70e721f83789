//! Copies follow the load, up and down, and no request is lost on the way.

use std::path::Path;
use std::time::{Duration, Instant};

use fairway_load::{Kind, Plan, Share};

use crate::checks::Count;
use crate::fault::{Context, Done, Fault};
use crate::home::{Home, Shop, Show, free_address};

/// Of which each copy is to get 30.
const RATE_PER_S: f64 = 200.0;

const SETTINGS: &str = r#"
[env.demo.service.api.autoscale]
min = 2
max = 4
requests = 30

[env.demo.service.api.autoscale.behavior]
scaleDown = { stabilizationWindowSeconds = 0, policies = [{ type = "Pods", value = 4, periodSeconds = 15 }] }
"#;

/// Two looks, 15 s apart, and the start of copies.
const SCALED_WITHIN: Duration = Duration::from_secs(60);

pub fn run(fairway: &Path) -> Count {
    let mut count = Count::default();
    count.check("copies follow the load, up and down", || {
        let mut home = Home::new(fairway, Show::Nothing)?;
        let findings = up_and_down(&mut home).unwrap_or_else(|fault| vec![fault.to_string()]);
        if !findings.is_empty() {
            home.keep();
        }
        Ok(findings)
    });
    count
}

fn up_and_down(home: &mut Home) -> Done<Vec<String>> {
    let mut shop = Shop::new(home.path().join("shop"), free_address()?, "0s");
    shop.settings(SETTINGS);
    home.start_server()?;
    shop.check_out("v1")?;
    home.must(shop.directory(), &["deploy", "-e", "demo"])?;
    let mut plan = Plan::new(shop.address());
    plan.rate_per_s = RATE_PER_S;
    plan.mix = vec![Share::new(Kind::KeepAliveGet, 1, "/api/products")];
    let load = fairway_load::start(plan).context("the load")?;
    let up = until(home, &shop, 4)?;
    let report = load.stop();
    let down = until(home, &shop, 2)?;
    println!(
        "        4 copies after {:.0} s of load, 2 again {:.0} s after it",
        up.as_secs_f64(),
        down.as_secs_f64()
    );
    Ok(report.failures.iter().map(ToString::to_string).collect())
}

/// How long it takes until so many copies of the API are ready and none more.
fn until(home: &Home, shop: &Shop, copies: u64) -> Done<Duration> {
    let started = Instant::now();
    loop {
        let status = home.ask(shop.directory(), &["status", "-e", "demo"])?;
        let services = status["environments"][0]["services"].as_array().context("services")?;
        let api = services.iter().find(|service| service["name"] == "api").context("the API")?;
        let number = |key: &str| api[key].as_u64();
        if number("ready") == Some(copies) && number("wanted") == Some(copies) {
            return Ok(started.elapsed());
        }
        if started.elapsed() > SCALED_WITHIN {
            return Err(Fault::new(format!(
                "not {copies} copies: {} of {} ready",
                api["ready"], api["wanted"]
            )));
        }
        std::thread::sleep(Duration::from_millis(200));
    }
}
