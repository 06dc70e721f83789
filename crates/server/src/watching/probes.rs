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
use fairway_metrics::sample::Sample;
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

pub async fn run(watching: Arc<Watching>) {
    let mut news = watching.pump.follow();
    let mut next: HashMap<Labels, Instant> = HashMap::new();
    loop {
        let known = watching.pump.shared.read(probes);
        next.retain(|labels, _| known.contains_key(labels));
        if known.is_empty() {
            // Missed or read: there is news.
            drop(news.recv().await);
            while news.try_recv().is_ok() {}
            continue;
        }
        let now = Instant::now();
        let mut asking = JoinSet::new();
        let mut samples = Vec::new();
        for (labels, probe) in known {
            let at = next.entry(labels.clone()).or_insert(now);
            if *at > now {
                continue;
            }
            *at = now + probe.every;
            if asking.len() >= AT_ONCE_MAX {
                samples.extend(asking.join_next().await.and_then(Result::ok).into_iter().flatten());
            }
            let watching = Arc::clone(&watching);
            asking.spawn(async move { one(&watching, &labels, &probe).await });
        }
        while let Some(done) = asking.join_next().await {
            samples.extend(done.into_iter().flatten());
        }
        watching.keep(samples).await;
        let soonest = next.values().min().copied().unwrap_or(now + LOOK_EVERY);
        tokio::select! {
            () = tokio::time::sleep_until(soonest.min(now + LOOK_EVERY).into()) => {}
            // A release may bring other probes.
            _ = news.recv() => while news.try_recv().is_ok() {},
        }
    }
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
