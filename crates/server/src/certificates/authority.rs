//! The way to the authority: `instant-acme` speaks ACME, our own client carries it, and what comes back as an error
//! becomes a cause.

use std::path::Path;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use fairway_engine::service::EnvValue;
use fairway_engine::time::Timestamp;
use http_body_util::{BodyExt as _, Full};
use hyper::header::{HeaderMap, RETRY_AFTER, USER_AGENT};
use instant_acme::{
    Account, AccountCredentials, BodyWrapper, BytesResponse, Error, ExternalAccountKey, HttpClient,
    NewAccount, Problem,
};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;

use super::SecretOf;
use super::cause::Cause;
use super::shelf::{self, Shelf};
use super::wanted::{Acme, ExternalAccount, host_of, readable, short};
use crate::outgoing::{Outgoing, OutgoingError, Request, Roots};

/// An authority under load takes seconds for a signature.
const ANSWER_WITHIN: Duration = Duration::from_secs(30);

/// Chains and orders are a few kilobytes.
const ANSWER_BYTES_MAX: usize = 1 << 20;

const ERROR_PREFIX: &str = "urn:ietf:params:acme:error:";

/// One authority during one attempt.
#[derive(Clone)]
pub(super) struct Authority {
    outgoing: Outgoing,
    now: Timestamp,
    /// What the last refusal said of when to come back: a header, which the library does not show.
    come_back: Arc<Mutex<Option<Timestamp>>>,
}

/// An error that is none of ACME, as a page of whatever stands before the authority.
#[derive(Debug, thiserror::Error)]
#[error("it answered {status}: {excerpt}")]
struct NotAcme {
    status: u16,
    excerpt: String,
}

impl Authority {
    /// # Errors
    /// When the file with the roots cannot be used.
    pub(super) fn new(acme: &Acme, now: Timestamp) -> Result<Self, Cause> {
        let roots = match &acme.roots {
            None => Roots::System,
            Some(path) => Roots::These(roots(path)?),
        };
        Ok(Self { outgoing: Outgoing::new(roots), now, come_back: Arc::default() })
    }

    /// The account of this authority and contact: the one on disk, or a new one.
    pub(super) async fn account(
        &self,
        shelf: &Shelf,
        acme: &Acme,
        secret_of: &SecretOf,
    ) -> Result<Account, Cause> {
        let _one_at_a_time = shelf.accounts.lock().await;
        let builder = || Account::builder_with_http(Box::new(self.clone()));
        let path = shelf.account(&account_name(acme))?;
        let stored = shelf::read(&path).ok();
        if let Some(credentials) = stored.and_then(|bytes| serde_json::from_slice(&bytes).ok()) {
            let account: AccountCredentials = credentials;
            return builder().from_credentials(account).await.map_err(|error| self.cause(&error));
        }
        let contact = acme.contact.as_ref().map(|mail| format!("mailto:{mail}"));
        let contact: Vec<&str> = contact.as_deref().into_iter().collect();
        let account =
            NewAccount { contact: &contact, terms_of_service_agreed: true, only_return_existing: false };
        let external = acme.account.as_ref().map(|account| external_key(account, secret_of)).transpose()?;
        let (account, credentials) = builder()
            .create(&account, acme.directory.clone(), external.as_ref())
            .await
            .map_err(|error| self.cause(&error))?;
        let bytes = serde_json::to_vec(&credentials).map_err(|error| Cause::disk(&path, &error.into()))?;
        shelf::write(&path, &bytes)?;
        Ok(account)
    }

    /// The authority does not know the account: the next one is a new one.
    pub(super) fn forget_account(&self, shelf: &Shelf, acme: &Acme) {
        if let Ok(path) = shelf.account(&account_name(acme)) {
            drop(std::fs::remove_file(path));
        }
    }

    /// Why an order that was placed earlier cannot be looked at.
    pub(super) fn cause_of_order(&self, error: &Error) -> Cause {
        if let Error::Other(other) = error
            && let Some(NotAcme { status: 404 | 410, .. }) = other.downcast_ref()
        {
            return Cause::OrderGone;
        }
        let cause = self.cause(error);
        if matches!(cause, Cause::Refused { .. }) { Cause::OrderGone } else { cause }
    }

    pub(super) fn cause(&self, error: &Error) -> Cause {
        let come_back = *self.come_back.lock().unwrap_or_else(PoisonError::into_inner);
        if let Error::Api(problem) = error {
            return cause_of(problem, come_back);
        }
        let why = if let Error::Json(error) = error {
            format!("it does not answer as an ACME server does ({error})")
        } else if let Error::Other(other) = error {
            other.to_string()
        } else {
            error.to_string()
        };
        Cause::Unreachable { why, retry_at: come_back }
    }
}

impl HttpClient for Authority {
    fn request(
        &self,
        request: hyper::Request<BodyWrapper<Bytes>>,
    ) -> Pin<Box<dyn Future<Output = Result<BytesResponse, Error>> + Send>> {
        let authority = self.clone();
        Box::pin(async move { authority.exchange(request).await })
    }
}

impl Authority {
    async fn exchange(&self, request: hyper::Request<BodyWrapper<Bytes>>) -> Result<BytesResponse, Error> {
        let (head, body) = request.into_parts();
        let body = body.collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
        // Ours says who asks.
        let headers = head.headers.iter().filter(|(name, _)| **name != USER_AGENT);
        let headers =
            headers.map(|(name, value)| (name.clone(), value.to_str().unwrap_or_default().to_owned()));
        let asked = Request {
            method: head.method,
            headers: headers.collect(),
            body,
            within: ANSWER_WITHIN,
            answer_bytes_max: ANSWER_BYTES_MAX,
            gzip: false,
            ..Request::get(head.uri.to_string())
        };
        let answer = self.outgoing.send(asked).await.map_err(|error: OutgoingError| boxed(error))?;
        let refused = answer.status >= 400;
        let come_back = if refused { come_back(&answer.headers, self.now) } else { None };
        *self.come_back.lock().unwrap_or_else(PoisonError::into_inner) = come_back;
        if refused {
            let Ok(problem) = serde_json::from_slice::<Problem>(&answer.body) else {
                return Err(boxed(NotAcme { status: answer.status, excerpt: answer.excerpt() }));
            };
            // The library looks at 400 itself, for the nonce; other refusals it takes for a directory, where it
            // asked for one.
            if answer.status != 400 {
                return Err(Error::Api(problem));
            }
        }
        let mut response = hyper::Response::new(Full::new(answer.body));
        *response.status_mut() = hyper::StatusCode::from_u16(answer.status).unwrap_or_default();
        *response.headers_mut() = answer.headers;
        Ok(BytesResponse::from(response))
    }
}

fn boxed(error: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::Other(Box::new(error))
}

/// The key by which an account shows that it belongs to one that the authority knows.
fn external_key(account: &ExternalAccount, secret_of: &SecretOf) -> Result<ExternalAccountKey, Cause> {
    let bad = |why: String| Cause::ExternalAccount { why };
    let text = match &account.hmac {
        EnvValue::Literal(text) => text.clone(),
        EnvValue::Secret { name, version } => secret_of(&account.environment, name, *version)
            .map_err(|why| bad(format!("the secret {name} cannot be read: {why}")))?,
        EnvValue::Ref(_) => return Err(bad("it is no secret".to_owned())),
    };
    // Both alphabets are about, and padding where there should be none.
    let plain: String = text.trim().trim_end_matches('=').replace('+', "-").replace('/', "_");
    let key = URL_SAFE_NO_PAD.decode(plain).map_err(|_| bad("it is not base64".to_owned()))?;
    if key.is_empty() {
        return Err(bad("it is empty".to_owned()));
    }
    Ok(ExternalAccountKey::new(account.key_id.clone(), &key))
}

/// An account for each authority and contact, so that two environments with two contacts do not change it in turns; and
/// for each account that the authority knows it by.
pub(super) fn account_name(acme: &Acme) -> String {
    let contact = acme.contact.as_deref().unwrap_or_default();
    let mut hasher = blake3::Hasher::new();
    hasher.update(acme.directory.as_bytes()).update(b"\0").update(contact.as_bytes());
    if let Some(account) = &acme.account {
        hasher.update(b"\0").update(account.key_id.as_bytes());
    }
    let hash = hasher.finalize();
    format!("{}-{}", readable(host_of(&acme.directory)), short(&hash))
}

fn roots(path: &Path) -> Result<Vec<CertificateDer<'static>>, Cause> {
    let unreadable = |why: String| Cause::Unreadable { path: path.to_owned(), why };
    let bytes = shelf::read(path).map_err(|error| Cause::unreadable(path, &error))?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&bytes).collect();
    let found = found.map_err(|error| unreadable(error.to_string()))?;
    if found.is_empty() {
        return Err(unreadable("it has no certificate in PEM form".to_owned()));
    }
    Ok(found)
}

/// RFC 8555, section 6.7.
pub(super) fn cause_of(problem: &Problem, come_back: Option<Timestamp>) -> Cause {
    let kind = problem.r#type.as_deref().unwrap_or("about:blank");
    let kind = kind.strip_prefix(ERROR_PREFIX).unwrap_or(kind);
    let detail = detail_of(problem);
    match kind {
        "badNonce" => Cause::Nonce,
        "accountDoesNotExist" => Cause::AccountGone,
        "rateLimited" => {
            let retry_at = come_back.or_else(|| time_in(&detail));
            Cause::RateLimited { detail, retry_at }
        }
        "serverInternal" => Cause::Unreachable { why: detail, retry_at: come_back },
        // Before its time, as when an authority is being serviced.
        _ if problem.status == Some(503) => Cause::Unreachable { why: detail, retry_at: come_back },
        kind => Cause::Refused { kind: kind.to_owned(), detail },
    }
}

/// The detail with those of the names that it is about, in one bounded line: it is shown in a status.
pub(super) fn detail_of(problem: &Problem) -> String {
    /// Boulder's longest messages have about 300.
    const CHARS_MAX: usize = 600;
    let mut text = problem.detail.clone().unwrap_or_else(|| "without a reason".to_owned());
    for one in &problem.subproblems {
        text.push_str("; ");
        text.push_str(&one.to_string());
    }
    let line: Vec<&str> = text.split(|c: char| c.is_whitespace() || c.is_control()).collect();
    line.join(" ").chars().take(CHARS_MAX).collect()
}

/// `Retry-After`: seconds, or a date.
fn come_back(headers: &HeaderMap, now: Timestamp) -> Option<Timestamp> {
    let value = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = value.parse() {
        return Some(now + Duration::from_secs(seconds));
    }
    let date: SystemTime = httpdate::parse_http_date(value).ok()?;
    Some(Timestamp(0) + date.duration_since(UNIX_EPOCH).ok()?)
}

/// Let's Encrypt says it in words: "… retry after 2026-01-01 00:18:15 UTC: see https://…".
fn time_in(detail: &str) -> Option<Timestamp> {
    let (_, rest) = detail.split_once("retry after ")?;
    let rfc3339 = format!("{}T{}Z", rest.get(..10)?, rest.get(11..19)?);
    let date: der::DateTime = rfc3339.parse().ok()?;
    Some(Timestamp(0) + date.unix_duration())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outgoing::peer::{Peer, answer};

    const NOW: Timestamp = Timestamp(1_800_000_000_000);

    fn no_secrets() -> SecretOf {
        Arc::new(|_, _, _| Err("there is none".to_owned()))
    }

    fn problem(json: &str) -> Problem {
        serde_json::from_str(json).unwrap()
    }

    async fn ask(reply: Vec<u8>) -> Cause {
        let peer = Peer::start(move |_| reply.clone()).await;
        let directory = format!("http://127.0.0.1:{}/directory", peer.port);
        let acme = Acme { directory, ..Acme::default() };
        let state = tempfile::tempdir().unwrap();
        let authority = Authority::new(&acme, NOW).unwrap();
        let account = authority.account(&Shelf::open(state.path()).unwrap(), &acme, &no_secrets()).await;
        account.err().expect("no such answer opens an account")
    }

    #[tokio::test]
    async fn an_error_page_is_told_as_what_it_is() {
        let page = b"HTTP/1.1 503 X\r\nretry-after: 120\r\ncontent-length: 12\r\n\r\n<p>Busy.</p>";
        let Cause::Unreachable { why, retry_at } = ask(page.to_vec()).await else { panic!() };
        assert_eq!(why, "it answered 503: <p>Busy.</p>");
        assert_eq!(retry_at, Some(NOW + Duration::from_secs(120)));
    }

    #[tokio::test]
    async fn what_is_no_directory_is_told_so() {
        for body in ["<html>", "{}", "[]", ""] {
            let Cause::Unreachable { why, .. } = ask(answer(200, body)).await else { panic!() };
            assert!(why.starts_with("it does not answer as an ACME server does"), "{why}");
        }
    }

    #[tokio::test]
    async fn nobody_there_is_told_with_the_host() {
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let acme = Acme { directory: format!("http://127.0.0.1:{port}/d"), ..Acme::default() };
        let state = tempfile::tempdir().unwrap();
        let authority = Authority::new(&acme, NOW).unwrap();
        let error =
            authority.account(&Shelf::open(state.path()).unwrap(), &acme, &no_secrets()).await.err().unwrap();
        assert!(matches!(&error, Cause::Unreachable { why, .. } if why.contains("refused")), "{error}");
    }

    #[test]
    fn a_limit_is_kept_by_header_and_by_words() {
        let detail =
            "too many certificates already issued, retry after 2027-01-15 09:00:01 UTC: see https://";
        let kind = "urn:ietf:params:acme:error:rateLimited";
        let limited = problem(&serde_json::json!({ "type": kind, "detail": detail }).to_string());
        let at = |come_back| {
            let Cause::RateLimited { retry_at, .. } = cause_of(&limited, come_back) else { panic!() };
            retry_at
        };
        assert_eq!(at(None), Some(Timestamp(1_800_003_601_000)));
        assert_eq!(at(Some(NOW)), Some(NOW));
    }

    #[test]
    fn dates_in_headers_are_read_and_nonsense_is_none() {
        let read = |value: &str| {
            let headers = [(RETRY_AFTER, value.parse().unwrap())].into_iter().collect();
            come_back(&headers, NOW)
        };
        assert_eq!(read("Fri, 15 Jan 2027 08:00:00 GMT"), Some(NOW));
        assert_eq!(read(" 60 "), Some(NOW + Duration::from_secs(60)));
        assert_eq!(read("18446744073709551615"), Some(Timestamp(u64::MAX)));
        assert_eq!([read("soon"), read("-1"), read("")], [None; 3]);
        for words in ["retry after é2027-01-15 09:00:01", "retry after ", "retry after 9999-99-99 99:99:99"]
        {
            assert_eq!(time_in(words), None);
        }
    }

    #[test]
    fn details_are_one_bounded_line() {
        let long = "a\nb".repeat(4000);
        let told = cause_of(&problem(&serde_json::json!({ "detail": long }).to_string()), None);
        let Cause::Refused { kind, detail } = told else { panic!() };
        assert_eq!(kind, "about:blank");
        assert!(detail.starts_with("a ba b") && detail.len() == 600);
    }

    #[test]
    fn roots_are_read_or_told() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("roots.pem");
        let with = |bytes: &[u8]| {
            std::fs::write(&path, bytes).unwrap();
            Authority::new(&Acme { roots: Some(path.clone()), ..Acme::default() }, NOW).map(drop)
        };
        assert!(matches!(with(b"none"), Err(Cause::Unreadable { .. })));
        let names = ["ca.example".to_owned()].into_iter().collect();
        with(&super::super::self_signed::make(&names, NOW).unwrap().chain_pem).unwrap();
    }
}
