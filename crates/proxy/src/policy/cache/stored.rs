//! An answer that is kept.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use super::Rule;
use super::asked::is_identifying;
use super::control::{Control, at_most_a_year, seconds};
use super::vary::Vary;
use crate::codec::{Delimiter, MinorVersion, Reply, RequestHead, ResponseHead, header_storage};
use crate::policy::coding::{Coding, Packing};
use crate::policy::etag::unmarked;
use crate::policy::headers::Change;

/// What one costs beyond its bytes: so much that the number of small ones is bounded too, with 64 MiB to 65,536.
const OVERHEAD_BYTES: usize = 1024;

#[derive(Debug)]
pub(crate) struct Stored {
    pub status: u16,
    /// As an instance would send it: with `content-length`, without `age` and what is for one hop or one request only.
    pub head: Box<[u8]>,
    /// The service's own bytes. Compression is by client, and so is the choice between the two.
    pub body: Arc<[u8]>,
    /// The body as our compressors made it.
    packed: [Option<Arc<[u8]>>; 3],
    pub vary: Vary,
    /// The service said itself how long it is good.
    pub is_explicit: bool,
    /// It may be given to those who say who they are.
    pub is_public: bool,
    etag: Option<Box<[u8]>>,
    last_modified: Option<Box<[u8]>>,
    life: Life,
}

/// How old an answer is and may get.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Life {
    since: Instant,
    /// Age at `since`.
    age: Duration,
    fresh: Duration,
    /// Beyond `fresh`, while somebody fetches a new one.
    stale_updating: Duration,
    /// Beyond `fresh`, when that fails.
    stale_failing: Duration,
}

/// Why an answer is not kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unstorable {
    Status,
    /// It says so, or it holds something for one visitor.
    Private,
    /// Nobody knows how long it would be good.
    NoLifetime,
    /// Its end is the end of the connection: a truncated one looks the same.
    NoLength,
    Stream,
    TooLarge,
    /// It depends on what no other request has.
    Varies,
}

/// What a head alone says about keeping its answer.
#[derive(Debug)]
pub(super) struct Judged {
    pub vary: Vary,
    pub is_explicit: bool,
    pub is_public: bool,
    pub life: Life,
}

/// When an answer was received.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Now {
    pub instant: Instant,
    pub system: SystemTime,
}

impl Now {
    pub(crate) fn read() -> Self {
        Self { instant: Instant::now(), system: SystemTime::now() }
    }
}

/// RFC 9111, section 3, for an answer to a GET.
pub(super) fn judge(
    head: &ResponseHead<'_, '_>,
    request: &RequestHead<'_, '_>,
    ours: Option<&str>,
    rule: &Rule,
    now: Now,
) -> Result<Judged, Unstorable> {
    let control = Control::of(head.named("cache-control"));
    if control.no_store || control.private || control.no_cache {
        return Err(Unstorable::Private);
    }
    let has = |name: &str| head.named(name).next().is_some();
    // Pragma in an answer has no meaning, but whoever sends it means that.
    if has("set-cookie") || (!control.present && has("pragma")) {
        return Err(Unstorable::Private);
    }
    let is_public = control.public || control.s_maxage.is_some() || control.must_revalidate;
    if says_who(request) && !is_public {
        return Err(Unstorable::Private);
    }
    let (life, is_explicit) = life(head, &control, rule, now);
    match head.status {
        200 | 203 | 204 | 301 | 308 | 404 | 410 => {}
        302 | 307 if is_explicit => {}
        _ => return Err(Unstorable::Status),
    }
    if has("content-range") {
        return Err(Unstorable::Status);
    }
    if head.is_stream {
        return Err(Unstorable::Stream);
    }
    if head.delimiter == Delimiter::Close {
        return Err(Unstorable::NoLength);
    }
    // An answer that is never fresh is only kept if it says what it is good for all the same.
    let stale = [control.stale_while_revalidate, control.stale_if_error].into_iter().flatten().max();
    let lasts = match stale {
        Some(stale) if !control.must_revalidate => life.fresh + stale,
        Some(_) | None => life.fresh,
    };
    if lasts <= life.age {
        return Err(Unstorable::NoLifetime);
    }
    if !is_explicit && has_cookies(request, ours) {
        return Err(Unstorable::Private);
    }
    let vary = Vary::of(head, request).ok_or(Unstorable::Varies)?;
    Ok(Judged { vary, is_explicit, is_public, life })
}

fn says_who(request: &RequestHead<'_, '_>) -> bool {
    request.headers.iter().any(|header| is_identifying(header.name))
}

fn has_cookies(request: &RequestHead<'_, '_>, ours: Option<&str>) -> bool {
    match super::asked::Asked::of(request, ours, true) {
        super::asked::Asked::Lookup(lookup) => lookup.has_cookies,
        super::asked::Asked::Bypass | super::asked::Asked::Method | super::asked::Asked::Unsafe => true,
    }
}

/// RFC 9111, 4.2; the second value: whether the service said it.
fn life(head: &ResponseHead<'_, '_>, control: &Control, rule: &Rule, now: Now) -> (Life, bool) {
    let date = |name: &str| head.named(name).next().map(date);
    let made = date("date").flatten();
    let expires = || {
        date("expires").map(|at| {
            let left = at.and_then(|at| at.duration_since(made.unwrap_or(now.system)).ok());
            at_most_a_year(left.unwrap_or_default())
        })
    };
    let said = control.s_maxage.or(control.max_age).or_else(expires);
    let fresh = match said {
        Some(said) => said,
        None if control.present => Duration::ZERO,
        None => at_most_a_year(rule.fresh),
    };
    // RFC 5861 leaves it to the answer; where that says nothing, to the rule. `s-maxage` means that nothing stale is
    // given unless the answer says otherwise.
    let by_rule = match control.s_maxage {
        Some(_) => Duration::ZERO,
        None => at_most_a_year(rule.stale),
    };
    let stale = |said: Option<Duration>| match control.must_revalidate {
        true => Duration::ZERO,
        false => said.unwrap_or(by_rule),
    };
    // 4.2.3: as old as it says or as its date says, whichever is more. Dates are in whole seconds.
    let apparent = made.and_then(|made| now.system.duration_since(made).ok()).unwrap_or_default();
    let apparent = Duration::from_secs(apparent.as_secs());
    let age = head.named("age").next().and_then(seconds).unwrap_or_default().max(at_most_a_year(apparent));
    let life = Life {
        since: now.instant,
        age,
        fresh,
        stale_updating: stale(control.stale_while_revalidate),
        stale_failing: stale(control.stale_if_error),
    };
    (life, said.is_some())
}

fn date(value: &[u8]) -> Option<SystemTime> {
    httpdate::parse_http_date(std::str::from_utf8(value).ok()?).ok()
}

/// The head as it is kept; where the instance chunked the body its length is still to be said.
pub(super) fn kept_head(head: &ResponseHead<'_, '_>) -> Vec<u8> {
    // From now on its age is ours to tell.
    written(head, &[Change::remove("age")])
}

fn written(head: &ResponseHead<'_, '_>, changes: &[Change]) -> Vec<u8> {
    let mut out = Vec::with_capacity(512);
    head.write(
        &mut out,
        &Reply {
            version: MinorVersion::One,
            keep_alive: true,
            added: b"",
            // Whoever gets it has an id of its own.
            request_id: b"-",
            changes,
            packing: Packing::Never,
        },
    );
    out
}

impl Stored {
    /// `head` as [`kept_head`] wrote it.
    pub(super) fn new(judged: Judged, head: &[u8], body: Arc<[u8]>) -> Option<Self> {
        const CHUNKED: &[u8] = b"transfer-encoding: chunked\r\n\r\n";
        let head: Box<[u8]> = match head.strip_suffix(CHUNKED) {
            None => head.into(),
            Some(fields) => {
                [fields, format!("content-length: {}\r\n\r\n", body.len()).as_bytes()].concat().into()
            }
        };
        let mut storage = header_storage();
        let parsed = ResponseHead::parse(&head, &mut storage, "GET").ok()?;
        let field = |name: &str| parsed.named(name).next().map(Box::from);
        let (status, etag, last_modified) = (parsed.status, field("etag"), field("last-modified"));
        let Judged { vary, is_explicit, is_public, life } = judged;
        let packed = [const { None }; 3];
        Some(Self { status, head, body, packed, vary, is_explicit, is_public, etag, last_modified, life })
    }

    /// As an instance would have sent it, after a 304 said that it still holds (RFC 9111, 3.2): its fields replace those
    /// of the same name.
    pub(super) fn merged_head(&self, not_modified: &ResponseHead<'_, '_>) -> Vec<u8> {
        let mut storage = header_storage();
        let kept = written(not_modified, &[]);
        let mut out = Vec::with_capacity(self.head.len() + kept.len());
        let status_line = self.head.iter().position(|b| *b == b'\n').map_or(0, |at| at + 1);
        out.extend_from_slice(&self.head[..status_line]);
        let mut line = |name: &str, value: &[u8]| {
            for part in [name.as_bytes(), b": ", value, b"\r\n"] {
                out.extend_from_slice(part);
            }
        };
        // What describes the body is about the one that is kept.
        let is_of_body =
            |name: &str| name.get(..8).is_some_and(|start| start.eq_ignore_ascii_case("content-"));
        if let Ok(new) = ResponseHead::parse(&kept, &mut header_storage(), "GET") {
            for header in new.headers.iter().filter(|header| !is_of_body(header.name)) {
                line(header.name, header.value);
            }
            if let Ok(old) = ResponseHead::parse(&self.head, &mut storage, "GET") {
                for header in old.headers {
                    if is_of_body(header.name) || new.named(header.name).next().is_none() {
                        line(header.name, header.value);
                    }
                }
            }
        }
        out.extend_from_slice(b"\r\n");
        out
    }

    /// The same with the body as a compressor made it.
    pub(super) fn with_packed(&self, coding: Coding, bytes: Arc<[u8]>) -> Self {
        let mut packed = self.packed.clone();
        packed[slot(coding)] = Some(bytes);
        Self {
            status: self.status,
            head: self.head.clone(),
            body: Arc::clone(&self.body),
            packed,
            vary: self.vary.clone(),
            is_explicit: self.is_explicit,
            is_public: self.is_public,
            etag: self.etag.clone(),
            last_modified: self.last_modified.clone(),
            life: self.life,
        }
    }

    pub(crate) fn packed(&self, coding: Coding) -> Option<&Arc<[u8]>> {
        self.packed[slot(coding)].as_ref()
    }

    /// What it costs to keep it.
    pub(crate) fn bytes(&self) -> usize {
        let packed: usize = self.packed.iter().flatten().map(|bytes| bytes.len()).sum();
        OVERHEAD_BYTES + self.head.len() + self.body.len() + packed + self.vary.bytes()
    }

    pub(crate) fn age(&self, now: Instant) -> Duration {
        self.life.age + now.saturating_duration_since(self.life.since)
    }

    /// Seconds that are left; negative: since it is stale.
    pub(crate) fn ttl_s(&self, now: Instant) -> i64 {
        let seconds = |time: Duration| i64::try_from(time.as_secs()).unwrap_or(i64::MAX);
        seconds(self.life.fresh) - seconds(self.age(now))
    }

    pub(crate) fn is_fresh(&self, now: Instant) -> bool {
        self.age(now) < self.life.fresh
    }

    /// Whether it may be given while somebody fetches a new one.
    pub(crate) fn stands_in_for_update(&self, now: Instant) -> bool {
        self.age(now) < self.life.fresh + self.life.stale_updating
    }

    /// Whether it may be given because a new one could not be fetched.
    pub(crate) fn stands_in_for_failure(&self, now: Instant) -> bool {
        self.age(now) < self.life.fresh + self.life.stale_failing
    }

    /// Whether it is good for nothing but to be asked about.
    pub(super) fn is_over(&self, now: Instant) -> bool {
        !self.stands_in_for_update(now) && !self.stands_in_for_failure(now)
    }

    /// What to ask the service with, whether it still holds.
    pub(crate) fn condition(&self) -> Option<Vec<u8>> {
        let (name, value): (&[u8], _) = match (&self.etag, &self.last_modified) {
            (Some(etag), _) => (b"if-none-match: ", etag),
            (None, Some(date)) => (b"if-modified-since: ", date),
            (None, None) => return None,
        };
        Some([name, value, b"\r\n"].concat())
    }

    /// Whether the client has it already (RFC 9110, 13.2.2).
    pub(crate) fn is_known_to(&self, request: &RequestHead<'_, '_>) -> bool {
        if self.status != 200 {
            return false;
        }
        let mut tags = request.named("if-none-match").peekable();
        if tags.peek().is_some() {
            let weak = |tag: &[u8]| tag.strip_prefix(b"W/").unwrap_or(tag).to_vec();
            // As the service would see it.
            let mut tags = tags.map(unmarked);
            let ours = self.etag.as_deref().map(weak);
            return tags.any(|value| {
                value.trim_ascii() == b"*"
                    || crate::codec::tokens(&value).any(|tag| ours.as_deref() == Some(&weak(tag)))
            });
        }
        let theirs = request.named("if-modified-since").next().and_then(date);
        let ours = self.last_modified.as_deref().and_then(date);
        matches!((ours, theirs), (Some(ours), Some(theirs)) if ours <= theirs)
    }

    /// The head that tells so.
    pub(crate) fn not_modified_head(&self) -> Vec<u8> {
        let mut out = b"HTTP/1.1 304 Not Modified\r\n".to_vec();
        let mut storage = header_storage();
        if let Ok(head) = ResponseHead::parse(&self.head, &mut storage, "GET") {
            for header in head.headers {
                let is = |other: &str| header.name.eq_ignore_ascii_case(other);
                // About a body that is not sent (RFC 9110, 15.4.5).
                if !(is("content-length") || is("content-type") || is("content-encoding")) {
                    for part in [header.name.as_bytes(), b": ", header.value, b"\r\n"] {
                        out.extend_from_slice(part);
                    }
                }
            }
        }
        out.extend_from_slice(b"\r\n");
        out
    }
}

fn slot(coding: Coding) -> usize {
    match coding {
        Coding::Zstd => 0,
        Coding::Brotli => 1,
        Coding::Gzip => 2,
    }
}

#[cfg(test)]
mod tests;
