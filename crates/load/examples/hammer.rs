//! Loads one address and prints the report as JSON; exits 1 when the verdict is not passed.
//!
//! `cargo run -p fairway-load --example hammer -- 127.0.0.1:8080 300 10 / /api/orders`
//! = address, requests a second, seconds, path for GET, path for POST.

use std::process::ExitCode;
use std::time::Duration;

use fairway_load::{Body, Kind, Plan, Share, Until, start};

fn main() -> ExitCode {
    match run(&std::env::args().skip(1).collect::<Vec<_>>()) {
        Ok(passed) => ExitCode::from(u8::from(!passed)),
        Err(error) => {
            eprintln!("{error}");
            ExitCode::from(2)
        }
    }
}

fn run(arguments: &[String]) -> Result<bool, Box<dyn std::error::Error>> {
    let [address, rate, seconds, get, post] = arguments else {
        return Err("usage: hammer ADDRESS RATE SECONDS GET_PATH POST_PATH".into());
    };
    let mut plan = Plan::new(address.parse()?);
    plan.rate_per_s = rate.parse()?;
    plan.until = Until::Elapsed(Duration::try_from_secs_f64(seconds.parse()?)?);
    plan.mix = vec![
        Share::new(Kind::KeepAliveGet, 1, get),
        Share::new(Kind::FreshGet, 1, get),
        Share::new(Kind::KeepAlivePost, 1, post),
        Share::new(Kind::FreshPost, 1, post),
    ];
    plan.body =
        Body::from_fn(|id| format!(r#"{{"id":"{id}","product":"rope-10m","quantity":1}}"#).into_bytes());
    let report = start(plan)?.wait();
    println!("{}", serde_json::to_string_pretty(&report)?);
    Ok(report.verdict.passed)
}
