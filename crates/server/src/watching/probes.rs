//! Asks from outside, again and again, whether something answers. The results are ordinary series, so that rules,
//! dashboards and objectives see them as they see everything else.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use der::asn1::{AnyRef, GeneralizedTime, UtcTime};
use der::{Decode as _, SliceReader, Tag, TagNumber, Tagged as _};
use fairway_engine::State;
use fairway_engine::monitoring::{Probe, ProbeCheck};
use fairway_metrics::labels::{Labels, NAME};
use fairway_metrics::sample::{Sample, stale};
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, Error, SignatureScheme};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;

use super::{Watching, serving};
use crate::outgoing::Request;

/// The page itself is of no interest.
const BODY_BYTES_MAX: usize = 1 << 20;

/// Probes under way. Each holds a connection for at most its timeout.
const AT_ONCE_MAX: usize = 32;

/// When no probe is due sooner and no event says otherwise.
const LOOK_EVERY: Duration = Duration::from_secs(60);

/// Whatever was wished for: the samples of each round are a write to disk.
const EVERY_MIN: Duration = Duration::from_secs(1);

/// Between two looks at what is due, where no place is free for it.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// By environment and name: labels of its series.
type Probes = HashMap<Labels, Probe>;

fn probes(state: &State) -> Probes {
    let mut probes = Probes::new();
    for env in state.environments.values() {
        for (name, probe) in serving(env).into_iter().flat_map(|release| &release.spec.monitoring.probes) {
            let labels = Labels::new([("environment", env.key.to_string()), ("probe", name.clone())]);
            probes.insert(labels, probe.clone());
        }
    }
    probes
}

/// What one asking came to.
#[derive(Debug, Default)]
struct Seen {
    success: bool,
    status: Option<u16>,
    /// Unix seconds: the first of the shown certificates to end.
    certificate_ends_s: Option<f64>,
}

#[derive(Debug)]
struct Known {
    next: Instant,
    is_asked: bool,
    /// Its series, as of its last asking.
    shown: Vec<Labels>,
}

pub async fn run(watching: Arc<Watching>) {
    let mut news = watching.pump.follow();
    let mut known: HashMap<Labels, Known> = HashMap::new();
    let mut asking: JoinSet<(Labels, Vec<(Labels, Sample)>)> = JoinSet::new();
    loop {
        let wanted = watching.pump.shared.read(probes);
        let is_idle = wanted.is_empty() && asking.is_empty();
        let ended = forget(&mut known, &wanted, watching.now_ms());
        let now = Instant::now();
        for (labels, probe) in due(&mut known, wanted, now, AT_ONCE_MAX.saturating_sub(asking.len())) {
            let watching = Arc::clone(&watching);
            asking.spawn(async move {
                let samples = one(&watching, &labels, &probe).await;
                (labels, samples)
            });
        }
        watching.keep(ended).await;
        if is_idle {
            // Missed or read: there is news.
            drop(news.recv().await);
            while news.try_recv().is_ok() {}
            continue;
        }
        let waiting = known.values().filter(|one| !one.is_asked).map(|one| one.next);
        let soonest = waiting.min().unwrap_or(now + LOOK_EVERY).clamp(now + LOOK_AGAIN, now + LOOK_EVERY);
        tokio::select! {
            Some(done) = asking.join_next() => {
                let mut samples = Vec::new();
                for done in std::iter::once(done).chain(std::iter::from_fn(|| asking.try_join_next())) {
                    match done {
                        Ok((labels, seen)) => samples.extend(take(&mut known, &labels, seen)),
                        // Only a defect panics there; whatever it was may be asked again.
                        Err(_) => known.values_mut().for_each(|one| one.is_asked = false),
                    }
                }
                watching.keep(samples).await;
            }
            () = tokio::time::sleep_until(soonest.into()) => {}
            // A release may bring other probes.
            _ = news.recv() => while news.try_recv().is_ok() {},
        }
    }
}

/// Markers for the series of probes that are gone: nobody is told of what nobody asks any more.
fn forget(known: &mut HashMap<Labels, Known>, wanted: &Probes, at_ms: i64) -> Vec<(Labels, Sample)> {
    let mut ended = Vec::new();
    known.retain(|labels, one| {
        let is_wanted = wanted.contains_key(labels);
        if !is_wanted {
            let marker = Sample { at_ms, value: stale() };
            ended.extend(one.shown.drain(..).map(|series| (series, marker)));
        }
        is_wanted
    });
    ended
}

/// What is to be asked now, as far as there is room. A probe that waits for its timeout holds up no other.
fn due(
    known: &mut HashMap<Labels, Known>,
    wanted: Probes,
    now: Instant,
    room: usize,
) -> Vec<(Labels, Probe)> {
    let mut due = Vec::new();
    for (labels, probe) in wanted {
        let new = || Known { next: now, is_asked: false, shown: Vec::new() };
        let one = known.entry(labels.clone()).or_insert_with(new);
        if due.len() < room && !one.is_asked && one.next <= now {
            one.is_asked = true;
            one.next = now + probe.every.max(EVERY_MIN);
            due.push((labels, probe));
        }
    }
    due
}

/// What came of one; nothing where it is wanted no more.
fn take(
    known: &mut HashMap<Labels, Known>,
    labels: &Labels,
    seen: Vec<(Labels, Sample)>,
) -> Vec<(Labels, Sample)> {
    let Some(one) = known.get_mut(labels) else { return Vec::new() };
    one.is_asked = false;
    one.shown = seen.iter().map(|(series, _)| series.clone()).collect();
    seen
}

async fn one(watching: &Watching, labels: &Labels, probe: &Probe) -> Vec<(Labels, Sample)> {
    let (at_ms, began) = (watching.now_ms(), Instant::now());
    let seen = tokio::time::timeout(probe.timeout, ask(watching, probe)).await.unwrap_or_default();
    let mut samples = Vec::new();
    let mut add = |name: &str, value: f64| samples.push((labels.with(NAME, name), Sample { at_ms, value }));
    add("probe_success", f64::from(u8::from(seen.success)));
    add("probe_duration_seconds", began.elapsed().as_secs_f64());
    if let Some(status) = seen.status {
        add("probe_http_status_code", f64::from(status));
    }
    if let Some(ends) = seen.certificate_ends_s {
        add("probe_ssl_earliest_cert_expiry", ends);
    }
    samples
}

async fn ask(watching: &Watching, probe: &Probe) -> Seen {
    match &probe.check {
        ProbeCheck::Http { url, status } => {
            let request =
                Request { within: probe.timeout, answer_bytes_max: BODY_BYTES_MAX, ..Request::get(url) };
            match watching.outgoing.send(request).await {
                Ok(answer) => Seen {
                    success: if status.is_empty() {
                        (200..300).contains(&answer.status)
                    } else {
                        status.contains(&answer.status)
                    },
                    status: Some(answer.status),
                    certificate_ends_s: None,
                },
                Err(_) => Seen::default(),
            }
        }
        ProbeCheck::Tcp { address } => {
            Seen { success: TcpStream::connect(address).await.is_ok(), ..Seen::default() }
        }
        ProbeCheck::Dns { name } => {
            let found = tokio::net::lookup_host((name.as_str(), 0)).await;
            Seen { success: found.is_ok_and(|mut addresses| addresses.next().is_some()), ..Seen::default() }
        }
        ProbeCheck::Certificate { address, server_name } => {
            certificate(address, server_name).await.unwrap_or_default()
        }
    }
}

/// A certificate that cannot be trusted still says when it ends.
async fn certificate(address: &str, server_name: &str) -> Option<Seen> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut roots = rustls::RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    let trust =
        WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider)).build().ok();
    let looker = Arc::new(Looker { trust, provider: Arc::clone(&provider), ends_s: Mutex::default() });
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .ok()?
        .dangerous()
        .with_custom_certificate_verifier(Arc::clone(&looker) as Arc<dyn ServerCertVerifier>)
        .with_no_client_auth();
    let name = ServerName::try_from(server_name.to_owned()).ok()?;
    let stream = TcpStream::connect(address).await.ok()?;
    let shaken = TlsConnector::from(Arc::new(config)).connect(name, stream).await;
    let certificate_ends_s = *looker.ends_s.lock().unwrap_or_else(PoisonError::into_inner);
    Some(Seen { success: shaken.is_ok(), status: None, certificate_ends_s })
}

/// Notes when certificates end, and leaves to the usual verifier whether they are to be trusted.
#[derive(Debug)]
struct Looker {
    /// None where the machine has no roots: then nothing is trusted.
    trust: Option<Arc<WebPkiServerVerifier>>,
    provider: Arc<rustls::crypto::CryptoProvider>,
    ends_s: Mutex<Option<f64>>,
}

impl ServerCertVerifier for Looker {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let ends = std::iter::once(end_entity).chain(intermediates).filter_map(ends_s);
        *self.ends_s.lock().unwrap_or_else(PoisonError::into_inner) = ends.reduce(f64::min);
        match &self.trust {
            Some(trust) => {
                trust.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
            }
            None => Err(Error::General("this machine trusts nobody".to_owned())),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let schemes = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, cert, dss, schemes)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let schemes = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, cert, dss, schemes)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// The fields of a certificate before its end, by RFC 5280, section 4.1: of all that is in one, only that is needed.
fn ends_s(certificate: &CertificateDer<'_>) -> Option<f64> {
    let not_after = || -> der::Result<Duration> {
        let mut certificate = SliceReader::new(certificate.as_ref())?;
        let mut certificate = inside(&mut certificate)?;
        let mut to_be_signed = inside(&mut certificate)?;
        if Tag::peek(&to_be_signed)? == (Tag::ContextSpecific { constructed: true, number: TagNumber(0) }) {
            // The version, which the first one does not have.
            AnyRef::decode(&mut to_be_signed)?;
        }
        for _ in ["serial number", "signature", "issuer"] {
            AnyRef::decode(&mut to_be_signed)?;
        }
        let mut validity = inside(&mut to_be_signed)?;
        AnyRef::decode(&mut validity)?;
        // Until 2049, and after that.
        if Tag::peek(&validity)? == Tag::UtcTime {
            Ok(UtcTime::decode(&mut validity)?.to_unix_duration())
        } else {
            Ok(GeneralizedTime::decode(&mut validity)?.to_unix_duration())
        }
    };
    Some(not_after().ok()?.as_secs_f64())
}

/// A reader of the sequence that comes next.
fn inside<'a>(reader: &mut SliceReader<'a>) -> der::Result<SliceReader<'a>> {
    let sequence = AnyRef::decode(reader)?;
    sequence.tag().assert_eq(Tag::Sequence)?;
    SliceReader::new(sequence.value())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Tag and content; short enough for a length of one byte.
    fn value(tag: u8, content: &[u8]) -> Vec<u8> {
        let length = u8::try_from(content.len()).ok().filter(|length| *length < 128).unwrap();
        [&[tag, length], content].concat()
    }

    fn certificate(version: &[u8], not_after: &[u8]) -> Vec<u8> {
        let validity = value(0x30, &[value(0x17, b"200101000000Z"), not_after.to_vec()].concat());
        let before = [version.to_vec(), value(2, &[1]), value(0x30, &[]), value(0x30, &[])].concat();
        let to_be_signed = value(0x30, &[before, validity, value(0x30, &[])].concat());
        value(0x30, &[to_be_signed, value(0x30, &[])].concat())
    }

    fn wanted(names: &[&str]) -> Probes {
        let probe = Probe {
            check: ProbeCheck::Dns { name: "localhost".to_owned() },
            every: Duration::ZERO,
            timeout: Duration::from_secs(60),
        };
        names.iter().map(|name| (Labels::new([("probe", *name)]), probe.clone())).collect()
    }

    #[test]
    fn a_probe_that_waits_holds_up_no_other_and_is_not_asked_twice() {
        let (mut known, now) = (HashMap::new(), Instant::now());
        assert_eq!(due(&mut known, wanted(&["slow"]), now, 2).len(), 1);
        let later = now + Duration::from_secs(30);
        let asked = due(&mut known, wanted(&["slow", "quick"]), later, 1);
        assert_eq!(asked.first().and_then(|(labels, _)| labels.get("probe")), Some("quick"));
        assert!(due(&mut known, wanted(&["slow", "quick"]), later, 1).is_empty());
        let (quick, _) = &asked[0];
        take(&mut known, quick, Vec::new());
        assert!(due(&mut known, wanted(&["quick"]), later, 1).is_empty(), "not at once, whatever was wished");
        assert_eq!(due(&mut known, wanted(&["quick"]), later + EVERY_MIN, 1).len(), 1);
    }

    #[test]
    fn the_series_of_a_probe_end_with_it() {
        let (mut known, now) = (HashMap::new(), Instant::now());
        let (labels, _) = due(&mut known, wanted(&["one"]), now, 1).pop().unwrap();
        let series = labels.with(NAME, "probe_success");
        let seen = vec![(series.clone(), Sample { at_ms: 1, value: 0.0 })];
        assert_eq!(take(&mut known, &labels, seen.clone()).len(), 1);
        let ended = forget(&mut known, &wanted(&[]), 2);
        assert_eq!(ended.iter().map(|(labels, _)| labels).collect::<Vec<_>>(), [&series]);
        assert!(ended[0].1.value.is_nan());
        assert!(take(&mut known, &labels, seen).is_empty(), "an answer after the end is none");
    }

    #[test]
    fn the_end_of_a_certificate_is_found_in_either_form() {
        let version = value(0xa0, &value(2, &[2]));
        let (utc, later) = (value(0x17, b"261121055730Z"), value(0x18, b"20501231235959Z"));
        let end = |bytes: Vec<u8>| ends_s(&CertificateDer::from(bytes));
        assert_eq!(end(certificate(&version, &utc)), Some(1_795_240_650.0));
        assert_eq!(end(certificate(&[], &later)), Some(2_556_143_999.0));
    }

    #[test]
    fn what_is_no_certificate_has_no_end() {
        let whole = certificate(&[], &value(0x17, b"261121055730Z"));
        for length in 0..whole.len() {
            assert_eq!(ends_s(&CertificateDer::from(whole[..length].to_vec())), None);
        }
        assert_eq!(ends_s(&CertificateDer::from(certificate(&[], &value(0x17, b"269921055730Z")))), None);
        assert_eq!(ends_s(&CertificateDer::from(certificate(&[], &value(4, b"x")))), None);
    }
}
