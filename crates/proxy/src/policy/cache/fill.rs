//! An answer on its way to a client, and into the cache.

use std::sync::Arc;

use super::Rule;
use super::flights::Lead;
use super::key::Key;
use super::store::{Cache, Epoch};
use super::stored::{Judged, Now, Stored, Unstorable, judge, kept_head};
use crate::buffer::HeadBuffer;
use crate::codec::{Body, Delimiter, Framing, RequestHead, ResponseHead, header_storage};

/// Larger answers are not kept: what is asked for again and again is small, and one of them must not push out a
/// thousand others.
pub(crate) const ANSWER_BYTES_MAX: usize = 1024 * 1024;

/// What an exchange does for the cache.
#[derive(Debug)]
pub(crate) enum Watch {
    Fill(Box<Fill>),
    /// A request that changes something: if it succeeds, these are not true any more.
    Invalidate(Arc<Cache>, Vec<Key>),
}

impl Watch {
    /// Whether the answer's head matters to others than the client that asked: those who wait for the same, or would get
    /// what is not true any more.
    pub(crate) fn is_for_others(&self) -> bool {
        match self {
            Self::Fill(fill) => fill.lead.is_some(),
            Self::Invalidate(..) => true,
        }
    }
}

/// What becomes of an answer's head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    ToClient,
    /// The client gets something else.
    Withheld,
}

#[derive(Debug)]
pub(crate) struct Fill {
    pub cache: Arc<Cache>,
    pub key: Key,
    pub epoch: Epoch,
    pub rule: Rule,
    /// The cookie that is not the service's.
    pub ours: Option<String>,
    /// Whether the whole answer is asked for, whatever the client has already. Not where it would probably not be kept.
    pub whole: bool,
    /// While it is held others wait.
    pub lead: Option<Lead>,
    /// What is asked to be renewed.
    pub old: Option<Arc<Stored>>,
    /// The old one, renewed.
    pub renewed: Option<Arc<Stored>>,
    pub state: State,
}

#[derive(Debug)]
pub(crate) enum State {
    Waiting,
    Taking(Box<Taking>),
    /// Kept, or not to be kept.
    Over,
}

#[derive(Debug)]
pub(crate) struct Taking {
    judged: Judged,
    head: Vec<u8>,
    body: Vec<u8>,
    /// Takes chunk sizes out.
    decoder: Body,
    room: Room,
    now: Now,
}

/// Memory for what is being received.
#[derive(Debug)]
struct Room {
    cache: Arc<Cache>,
    bytes: usize,
}

impl Room {
    fn grow(&mut self, bytes: usize) -> bool {
        let has = self.bytes + bytes <= ANSWER_BYTES_MAX && self.cache.reserve(bytes);
        if has {
            self.bytes += bytes;
        }
        has
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        self.cache.release(self.bytes);
    }
}

impl Watch {
    /// The head for the instance, where another one is needed than for other requests.
    pub(crate) fn rewritten(&self, head: &[u8]) -> Option<HeadBuffer> {
        match self {
            Self::Fill(fill) => fill.whole.then(|| fill.rewritten(head)),
            Self::Invalidate(..) => None,
        }
    }

    /// A final answer's head has come. Ours are withheld: that the kept answer still holds, and that there is none to
    /// take its place.
    pub(crate) fn head(&mut self, head: &ResponseHead<'_, '_>, request: &[u8]) -> Way {
        match self {
            Self::Fill(fill) => fill.head(head, request),
            Self::Invalidate(cache, keys) => {
                if (200..400).contains(&head.status) {
                    // Before the client learns that it succeeded, and asks to see it.
                    keys.iter().for_each(|key| cache.invalidate(key));
                }
                Way::ToClient
            }
        }
    }

    /// Bytes that the client gets. `framed`: with chunk sizes.
    pub(crate) fn body(&mut self, bytes: &[u8], framed: bool, is_done: bool) {
        if let Self::Fill(fill) = self {
            fill.body(bytes, framed, is_done);
        }
    }
}

impl Fill {
    /// Without the client's conditions, as the whole answer is wanted, but with ours.
    fn rewritten(&self, head: &[u8]) -> HeadBuffer {
        let mut out = HeadBuffer::take();
        for line in head.split_inclusive(|b| *b == b'\n') {
            let name = line.split(|b| *b == b':').next().unwrap_or_default();
            let is = |other: &str| name.eq_ignore_ascii_case(other.as_bytes());
            if line == b"\r\n"
                && let Some(condition) = self.old.as_ref().and_then(|old| old.condition())
            {
                out.extend_from_slice(&condition);
            }
            if !is("if-none-match") && !is("if-modified-since") {
                out.extend_from_slice(line);
            }
        }
        out
    }

    fn head(&mut self, head: &ResponseHead<'_, '_>, request: &[u8]) -> Way {
        let mut storage = header_storage();
        let Ok(request) = RequestHead::parse(request, &mut storage) else {
            self.end();
            return Way::ToClient;
        };
        let now = Now::read();
        match (&self.old, head.status) {
            (Some(old), 304) => {
                let old = Arc::clone(old);
                self.renew(&old, head, &request, now);
                return Way::Withheld;
            }
            // RFC 5861, section 4.
            (Some(old), 500 | 502 | 503 | 504) if old.stands_in_for_failure(now.instant) => {
                self.end();
                return Way::Withheld;
            }
            (Some(_) | None, _) => {}
        }
        let known_large =
            matches!(head.delimiter, Delimiter::Length(bytes) if bytes > ANSWER_BYTES_MAX as u64);
        let judged = match judge(head, &request, self.ours.as_deref(), &self.rule, now) {
            Ok(_) if known_large => Err(Unstorable::TooLarge),
            judged => judged,
        };
        match judged {
            Ok(judged) => {
                let mut taking = Taking {
                    judged,
                    head: kept_head(head),
                    body: Vec::new(),
                    decoder: head.delimiter.body(),
                    room: Room { cache: Arc::clone(&self.cache), bytes: 0 },
                    now,
                };
                if taking.room.grow(taking.head.len()) {
                    self.state = State::Taking(Box::new(taking));
                    if head.delimiter.body().is_done() {
                        self.finish();
                    }
                } else {
                    self.end();
                }
            }
            Err(why) => {
                // Failures pass; whatever else is not kept will not be next time either.
                if !(why == Unstorable::Status && (head.status >= 500 || head.status == 304)) {
                    self.cache.pass(&self.key, now.instant);
                }
                self.end();
            }
        }
        Way::ToClient
    }

    fn renew(
        &mut self,
        old: &Arc<Stored>,
        not_modified: &ResponseHead<'_, '_>,
        request: &RequestHead<'_, '_>,
        now: Now,
    ) {
        let merged = old.merged_head(not_modified);
        let mut storage = header_storage();
        let head = ResponseHead::parse(&merged, &mut storage, "GET");
        let judged = head.ok().and_then(|head| {
            let judged = judge(&head, request, self.ours.as_deref(), &self.rule, now).ok()?;
            Some((judged, kept_head(&head)))
        });
        let renewed = judged.and_then(|(judged, head)| Stored::new(judged, &head, Arc::clone(&old.body)));
        self.renewed = Some(match renewed {
            Some(renewed) => {
                let renewed = Arc::new(renewed);
                self.cache.keep(&self.key, Arc::clone(&renewed), self.epoch, now.instant);
                renewed
            }
            // It is not to be kept any longer, but this visitor's answer it is.
            None => {
                self.cache.invalidate(&self.key);
                Arc::clone(old)
            }
        });
        self.end();
    }

    fn body(&mut self, bytes: &[u8], framed: bool, is_done: bool) {
        let State::Taking(taking) = &mut self.state else { return };
        if !taking.room.grow(bytes.len()) {
            self.cache.pass(&self.key, taking.now.instant);
            return self.end();
        }
        let at = taking.body.len();
        taking.body.extend_from_slice(bytes);
        if framed {
            match taking.decoder.feed(&mut taking.body[at..], Framing::Strip) {
                Ok(fed) => taking.body.truncate(at + fed.pass),
                Err(_) => return self.end(),
            }
        }
        if is_done {
            self.finish();
        }
    }

    /// The answer is complete.
    fn finish(&mut self) {
        if let State::Taking(taking) = std::mem::replace(&mut self.state, State::Over)
            && let Some(stored) = Stored::new(taking.judged, &taking.head, taking.body.into())
        {
            self.cache.keep(&self.key, Arc::new(stored), self.epoch, taking.now.instant);
        }
        self.lead = None;
    }

    fn end(&mut self) {
        self.state = State::Over;
        self.lead = None;
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;
    use crate::policy::cache::{Address, Found, Space, Turn};

    const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";

    fn filling(cache: &Arc<Cache>) -> Fill {
        let key = Address { listener: b"", scheme: b"", host: b"a", target: b"/" }.key(Space(1));
        let Turn::Lead(lead) = cache.turn(&key) else { panic!("somebody else leads") };
        let rule = Rule { path: "/".into(), fresh: Duration::from_secs(60), stale: Duration::ZERO };
        Fill {
            cache: Arc::clone(cache),
            epoch: cache.epoch(&key),
            key,
            rule,
            ours: None,
            whole: true,
            lead: Some(lead),
            old: None,
            renewed: None,
            state: State::Waiting,
        }
    }

    fn takes_head(fill: &mut Fill, fields: &str) {
        let text = format!("HTTP/1.1 200 OK\r\n{fields}\r\n");
        let mut storage = header_storage();
        let head = ResponseHead::parse(text.as_bytes(), &mut storage, "GET").unwrap();
        assert_eq!(fill.head(&head, REQUEST), Way::ToClient);
    }

    fn kept(cache: &Cache, fill: &Fill) -> Option<Vec<u8>> {
        let mut storage = header_storage();
        let request = RequestHead::parse(REQUEST, &mut storage).unwrap();
        match cache.find(&fill.key, &request, Instant::now()) {
            Found::Stored(stored) => Some(stored.body.to_vec()),
            Found::Nothing | Found::Pass => None,
        }
    }

    #[test]
    fn a_chunked_body_is_the_same_however_it_comes() {
        let body = b"3\r\nabc\r\n0000a\r\n0123456789\r\n0\r\nx: trailer\r\n\r\n";
        for first in 0..body.len() {
            for second in first..body.len() {
                let cache = Arc::new(Cache::new(1 << 20));
                let mut fill = filling(&cache);
                takes_head(&mut fill, "transfer-encoding: chunked\r\n");
                fill.body(&body[..first], true, false);
                fill.body(&body[first..second], true, false);
                assert_eq!(kept(&cache, &fill), None, "it is not complete");
                fill.body(&body[second..], true, true);
                assert_eq!(kept(&cache, &fill).as_deref(), Some(&b"abc0123456789"[..]), "{first} {second}");
                assert!(fill.lead.is_none());
            }
        }
    }

    #[test]
    fn whatever_ends_a_fetch_gives_its_memory_and_its_lead_back() {
        let cache = Arc::new(Cache::new(1 << 20));
        for end in ["dropped", "malformed", "too large", "private"] {
            let mut fill = filling(&cache);
            let private = if end == "private" { "cache-control: private\r\n" } else { "" };
            takes_head(&mut fill, &format!("{private}transfer-encoding: chunked\r\n"));
            match end {
                "malformed" => fill.body(b"x\r\n", true, false),
                "too large" => (0..20).for_each(|_| fill.body(&vec![b'x'; 100_000], false, false)),
                _ => fill.body(b"3\r\nab", true, false),
            }
            assert_eq!(fill.lead.is_none(), end != "dropped", "{end}");
            assert_eq!(kept(&cache, &fill), None, "{end}");
            drop(fill);
            assert!(cache.reserve(1 << 18), "{end} kept memory");
            cache.release(1 << 18);
        }
        let mut next = filling(&cache);
        takes_head(&mut next, "content-length: 0\r\n");
        assert_eq!(kept(&cache, &next).as_deref(), Some(&b""[..]));
    }
}
