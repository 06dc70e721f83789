//! Certificates that the user brings as files.

use rcgen::{CertificateParams, KeyPair};
use serde_json::json;

use super::place::{Place, expect, expect_in};
use crate::fault::{Context, Done};
use crate::home::Home;

const RATE_PER_S: u32 = 200;

/// A certificate that signs itself, for these names, and its key: both PEM.
pub fn identity(names: &[&str]) -> Done<(String, String)> {
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let key = KeyPair::generate().context("a key")?;
    let made = CertificateParams::new(names).context("a certificate")?.self_signed(&key);
    Ok((made.context("a certificate")?.pem(), key.serialize_pem()))
}

/// Files are looked at every few seconds, and when the server starts.
pub fn replaced(home: &mut Home) -> Done<Vec<String>> {
    let mut place = Place::new(home)?;
    let (chain_file, key_file) = (place.home.path().join("chain.pem"), place.home.path().join("key.pem"));
    let put = |chain: &str, key: &str| -> Done {
        std::fs::write(&chain_file, chain).context("chain.pem")?;
        std::fs::write(&key_file, key).context("key.pem")
    };
    let (first, second) = (identity(&["a.test"])?, identity(&["a.test"])?);
    put(&first.0, &first.1)?;
    let dev = format!(
        "host = \"a.test\"\ntls = {{ listen = \"HTTPS\", certificate = \"{}\", key = \"{}\" }}\n",
        chain_file.display(),
        key_file.display()
    );
    place.write("", "", &dev)?;
    place.deploy()?;
    let mut findings = Vec::new();
    // Each client believes one of the two alone.
    let by = |ca: &str| {
        let order = json!({ "host": "a.test", "authority": "a.test", "ca": ca });
        move |place: &mut Place<'_>| place.over_tls("/", order.clone())
    };
    place.until("the files are served", by(&first.0), |told| told.status() == 200)?;
    let status = place.status()?;
    expect_in(&mut findings, "the status", &status, &["a.test: your own, good until"]);

    let load = place.load(RATE_PER_S, json!({ "host": "a.test" }))?;
    put(&second.0, &second.1)?;
    place.until("the new files are served", by(&second.0), |told| told.status() == 200)?;
    put(&second.0, &first.1)?;
    restart(&mut place)?;
    let asked = |place: &mut Place<'_>| place.status();
    let status = place.until("the fault", asked, |status| status.contains("does not belong"))?;
    let file = chain_file.display().to_string();
    expect_in(&mut findings, "the status", &status, &["a.test: good until", &file, "tried again in"]);
    let told = by(&second.0)(&mut place)?;
    expect(&mut findings, "with broken files", (told.status(), told.error()), (200, None));
    let (told, failed) = place.end_load(load)?;
    findings.extend(failed);
    expect(&mut findings, "certificates under load", told.list("certificates").len(), 2);
    Ok(findings)
}

fn restart(place: &mut Place<'_>) -> Done {
    place.home.kill_server()?;
    place.home.start_server()
}
