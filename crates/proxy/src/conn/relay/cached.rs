//! Requests of routes that have a cache: answered from it, or sent on to fill it.

use std::future::poll_fn;
use std::io::{IoSlice, Write as _};
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use super::Relay;
use super::plan::Plan;
use crate::balance::{Choice, Routing};
use crate::buffer::HeadBuffer;
use crate::codec::{Field, MinorVersion, Reply, RequestHead, ResponseHead, header_storage};
use crate::conn::After;
use crate::conn::request_buffer::RequestBuffer;
use crate::conn::taking::Taking;
use crate::deadline::Passed;
use crate::policy::cache::{
    Address, Asked, Fill, Flight, Found, Key, Lead, Lookup, Outcome, Rule, Space, State, Stored, Turn, Watch,
};
use crate::policy::coding::{Coding, Packing};
use crate::policy::packer::Packer;
use crate::table::is_below;

/// How long a request waits for the answer to another one: beyond that, what it waits for is no answer that a cache can
/// help with. nginx waits as long.
const WAIT_MAX: Duration = Duration::from_secs(5);

/// What the cache has to do with a request that goes to the service.
#[derive(Debug)]
pub(super) struct Caching {
    /// For the client: why it went there (RFC 9211).
    status: &'static str,
    watch: Option<Watch>,
    /// The version that the cache was asked for.
    space: Space,
    /// What to give if the service fails.
    stand: Option<Stand>,
}

/// A kept answer, with all that giving it needs.
#[derive(Debug)]
pub(super) struct Stand {
    stored: Arc<Stored>,
    key: Key,
    routing: Rc<Routing>,
    route: usize,
    choice: Choice,
    accepts: Option<Coding>,
    /// Header lines that every answer to this request gets.
    lines: HeadBuffer,
    idle_ms: u64,
    bytes_per_s_min: u64,
}

/// What a look into the cache leads to.
enum Look {
    Uncached,
    Forward(Caching, Outcome),
    Give(Stand, String, Outcome),
    /// 504: it was not to be asked for.
    Nothing,
    Wait(Arc<Flight>),
}

/// Whether a request has waited for another one's answer already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Waited {
    No,
    Yes,
}

const BYPASS: &str = "cache-status: fairway; fwd=bypass\r\n";
const METHOD: &str = "cache-status: fairway; fwd=method\r\n";
const REQUEST: &str = "cache-status: fairway; fwd=request\r\n";
const MISS: &str = "cache-status: fairway; fwd=uri-miss\r\n";
const STALE: &str = "cache-status: fairway; fwd=stale\r\n";

/// An answer, ready to be written.
struct Composed {
    status: u16,
    head: HeadBuffer,
    body: Option<Arc<[u8]>>,
    tail: &'static [u8],
}

impl Relay<'_> {
    /// The end of the request, if the cache has an answer to it. Otherwise it goes to the service.
    pub(super) async fn cached(&mut self, request: &mut RequestBuffer, plan: &Plan) -> Option<After> {
        match self.look(request, plan, Waited::No) {
            Look::Wait(flight) => {
                // Whoever waited in vain goes on by itself.
                let _ = tokio::time::timeout(WAIT_MAX, flight.ended()).await;
                let look = self.look(request, plan, Waited::Yes);
                self.follow(request, look).await
            }
            look @ (Look::Uncached | Look::Forward(..) | Look::Give(..) | Look::Nothing) => {
                self.follow(request, look).await
            }
        }
    }

    async fn follow(&mut self, request: &mut RequestBuffer, look: Look) -> Option<After> {
        match look {
            Look::Uncached | Look::Wait(_) => None,
            Look::Forward(caching, outcome) => {
                self.report.cached = Some(outcome);
                self.caching = Some(caching);
                None
            }
            Look::Give(stand, status, outcome) => {
                self.report.cached = Some(outcome);
                self.report.is_from_cache = true;
                Some(self.give(request, stand, &status).await)
            }
            Look::Nothing => {
                self.report.cached = Some(Outcome::Miss);
                self.report.is_from_cache = true;
                Some(self.answer(request, 504, "nothing is kept, and nothing else was asked for", None).await)
            }
        }
    }

    fn look(&self, request: &RequestBuffer, plan: &Plan, waited: Waited) -> Look {
        let mut storage = header_storage();
        let Ok(head) = RequestHead::parse(request.head(), &mut storage) else { return Look::Uncached };
        let rules = &plan.route().policy.cache;
        let Some(rule) = rules.iter().find(|rule| is_below(head.path(), &rule.path)) else {
            return Look::Uncached;
        };
        let cache = &self.conn.worker.shared.cache;
        let version = plan.choice.version;
        let space = plan.service().versions[version].space;
        let ours = plan.service().sticky.as_ref().map(|sticky| sticky.cookie.as_str());
        let forward =
            |status, watch, stand, outcome| Look::Forward(Caching { status, watch, space, stand }, outcome);
        let lookup = match Asked::of(&head, ours, self.conn.client.trusted) {
            Asked::Lookup(lookup) => lookup,
            Asked::Bypass => return forward(BYPASS, None, None, Outcome::Bypass),
            Asked::Method => return forward(METHOD, None, None, Outcome::Bypass),
            Asked::Unsafe => {
                // Versions share what they change.
                let spaces = plan.service().versions.iter().map(|version| version.space);
                let keys = spaces.map(|space| self.key(&head, space)).collect();
                let watch = Watch::Invalidate(Arc::clone(cache), keys);
                return forward(METHOD, Some(watch), None, Outcome::Bypass);
            }
        };
        let (key, now) = (self.key(&head, space), Instant::now());
        // Before anything is read: what is invalidated from here on is not to be kept.
        let epoch = cache.epoch(&key);
        let stand = |stored: &Arc<Stored>| Stand {
            stored: Arc::clone(stored),
            key: Arc::clone(&key),
            routing: Rc::clone(&plan.routing),
            route: plan.route,
            choice: plan.choice,
            accepts: plan.accepts,
            lines: self.response_lines(plan, version),
            idle_ms: plan.service().timeouts.body_idle_ms,
            bytes_per_s_min: plan.service().timeouts.body_bytes_per_s_min,
        };
        let fill = |whole, lead, old: Option<&Arc<Stored>>| {
            lookup.may_store.then(|| {
                Watch::Fill(Box::new(Fill {
                    cache: Arc::clone(cache),
                    key: Arc::clone(&key),
                    epoch,
                    rule: Rule::clone(rule),
                    ours: ours.map(str::to_owned),
                    whole,
                    lead,
                    old: old.cloned(),
                    renewed: None,
                    state: State::Waiting,
                }))
            })
        };
        let give_fresh = |stored: &Arc<Stored>| {
            let collapsed = if waited == Waited::Yes { "; collapsed" } else { "" };
            let status = format!("hit; ttl={}{collapsed}", stored.ttl_s(now));
            Look::Give(stand(stored), status, Outcome::Hit)
        };
        let old = match cache.find(&key, &head, now) {
            Found::Stored(stored) if !lookup.takes(&stored) => {
                return forward(REQUEST, fill(false, None, None), None, Outcome::Bypass);
            }
            Found::Stored(stored) if stored.is_fresh(now) => return give_fresh(&stored),
            Found::Stored(stored) => Some(stored),
            Found::Nothing => None,
            Found::Pass if lookup.only_if_cached => return Look::Nothing,
            Found::Pass => return forward(MISS, fill(false, None, None), None, Outcome::Miss),
        };
        let give_stale = |stored: &Arc<Stored>| {
            Look::Give(stand(stored), format!("hit; ttl={}", stored.ttl_s(now)), Outcome::Stale)
        };
        let stands_in = old.as_ref().filter(|old| old.stands_in_for_update(now));
        let Lookup { only_if_cached, may_store, .. } = lookup;
        if only_if_cached || !may_store {
            return match stands_in {
                Some(old) => give_stale(old),
                None if only_if_cached => Look::Nothing,
                None => forward(MISS, None, old.as_ref().map(stand), Outcome::Miss),
            };
        }
        let (status, stand_by) = match &old {
            Some(old) => (STALE, Some(stand(old))),
            None => (MISS, None),
        };
        match (cache.turn(&key), stands_in, waited) {
            (Turn::Lead(lead), _, _) => {
                // Between the look and this line somebody else's fetch may have ended: then its answer is there now.
                match cache.find(&key, &head, now) {
                    Found::Stored(stored) if stored.is_fresh(now) && lookup.takes(&stored) => {
                        give_fresh(&stored)
                    }
                    Found::Stored(_) | Found::Nothing | Found::Pass => {
                        forward(status, fill(true, Some(lead), old.as_ref()), stand_by, Outcome::Miss)
                    }
                }
            }
            (Turn::Wait(_), Some(old), _) => give_stale(old),
            (Turn::Wait(flight), None, Waited::No) => Look::Wait(flight),
            (Turn::Wait(_), None, Waited::Yes) => {
                forward(status, fill(true, None, old.as_ref()), stand_by, Outcome::Miss)
            }
        }
    }

    fn key(&self, head: &RequestHead<'_, '_>, space: Space) -> Key {
        let client = &self.conn.client;
        let claimed = |field: Field| head.field(field).filter(|value| client.trusted && !value.is_empty());
        Address {
            listener: self.conn.listener.addr.to_string().as_bytes(),
            scheme: claimed(Field::ForwardedProto).unwrap_or(client.scheme()),
            host: claimed(Field::ForwardedHost).unwrap_or(head.host.as_bytes()),
            target: head.target.as_bytes(),
        }
        .key(space)
    }

    /// What the cache wants of an attempt; and what its answer says about the cache.
    pub(super) fn take_watch(&mut self, plan: &Plan, version: usize, added: &mut Vec<u8>) -> Option<Watch> {
        let caching = self.caching.as_mut()?;
        added.extend_from_slice(caching.status.as_bytes());
        let is_other = plan.service().versions[version].space != caching.space;
        // Another version's answer is not what was looked for; what it changes is.
        match &caching.watch {
            Some(Watch::Fill(_)) if is_other => None,
            Some(_) | None => caching.watch.take(),
        }
    }

    /// Whether other requests wait for the answer, now.
    pub(super) fn is_awaited(&self) -> bool {
        match self.caching.as_ref().and_then(|caching| caching.watch.as_ref()) {
            Some(Watch::Fill(fill)) => fill.lead.as_ref().is_some_and(Lead::is_awaited),
            Some(Watch::Invalidate(..)) | None => false,
        }
    }

    /// After an attempt: the next one, if there is one, does the same.
    pub(super) fn put_watch(&mut self, exchange_watch: Option<Watch>) {
        if let (Some(caching), Some(watch)) = (&mut self.caching, exchange_watch) {
            caching.watch = Some(watch);
        }
    }

    /// The service's answer was not for the client: that what is kept still holds, or a failure.
    pub(super) async fn withheld(&mut self, request: &mut RequestBuffer, status: u16) -> After {
        let renewed = match self.caching.as_mut().and_then(|caching| caching.watch.take()) {
            Some(Watch::Fill(mut fill)) => fill.renewed.take(),
            Some(Watch::Invalidate(..)) | None => None,
        };
        let stand = self.caching.as_mut().and_then(|caching| caching.stand.take());
        let Some(mut stand) = stand else {
            // Only what stands by is asked about.
            return self
                .answer(request, 502, "the instance answered to a question that was not asked", None)
                .await;
        };
        if let Some(renewed) = renewed {
            stand.stored = renewed;
        } else {
            self.report.withheld = Some(status);
            self.report.cached = Some(Outcome::Stale);
        }
        let said = format!("fwd=stale; fwd-status={status}; ttl={}", stand.stored.ttl_s(Instant::now()));
        self.give(request, stand, &said).await
    }

    /// Gives what is kept in the place of a failure of ours: `status`, or none yet.
    pub(super) async fn stand_in(
        &mut self,
        request: &mut RequestBuffer,
        status: Option<u16>,
    ) -> Option<After> {
        let now = Instant::now();
        let caching = self.caching.as_mut()?;
        let is_there = self.conn.worker.routing().table.has_space(caching.space);
        let stand = caching.stand.take_if(|stand| is_there && stand.stored.stands_in_for_failure(now))?;
        // Whoever waits for this answer gets the same.
        caching.watch = None;
        self.report.cached = Some(Outcome::Stale);
        self.report.withheld = status;
        self.report.is_from_cache = status.is_none();
        let said = format!("fwd=stale; ttl={}", stand.stored.ttl_s(now));
        Some(self.give(request, stand, &said).await)
    }

    async fn give(&mut self, request: &mut RequestBuffer, stand: Stand, said: &str) -> After {
        // Whether the body is here must be known before the answer says that the connection stays open.
        let keep_alive = self.known.facts.wants_keep_alive
            && !self.conn.worker.is_draining(&self.conn.listener)
            && request.absorb(u64::MAX).is_ok()
            && request.body_is_complete();
        let table = &stand.routing.table;
        let route = &table.routes[stand.route];
        if self.report.series.is_none() {
            let version = stand.choice.version;
            self.report.series = Some(Arc::clone(route.series(version, stand.choice.decided)));
            self.report.version.clone_from(&table.services[route.service].versions[version].name);
        }
        let Some(composed) = self.compose(request, &stand, said, keep_alive) else {
            return self.answer(request, 502, "the kept answer cannot be read", None).await;
        };
        self.report.status = composed.status;
        let body: &[u8] = composed.body.as_deref().unwrap_or_default();
        let (mut sent, conn) = (0, &*self.conn);
        let parts = [&composed.head[..], body, composed.tail];
        let mut taking = Taking::new(stand.bytes_per_s_min);
        conn.deadline.arm_ms(stand.idle_ms);
        let writing = poll_fn(|cx| {
            loop {
                let mut skip = sent;
                let slices = parts.map(|part| {
                    let from = skip.min(part.len());
                    skip -= from;
                    IoSlice::new(&part[from..])
                });
                if slices.iter().all(|slice| slice.is_empty()) {
                    return Poll::Ready(true);
                }
                match conn.stream.poll_write(cx, &slices) {
                    Poll::Ready(Ok(bytes)) => {
                        sent += bytes;
                        taking.moved();
                        conn.deadline.arm_ms(stand.idle_ms);
                    }
                    Poll::Ready(Err(_)) => return Poll::Ready(false),
                    Poll::Pending => {
                        taking.waits(&conn.stream);
                        if conn.deadline.poll_passed(cx).is_ready()
                            && taking.is_enough(&conn.stream, stand.idle_ms)
                        {
                            conn.deadline.arm_ms(stand.idle_ms);
                        }
                        return Poll::Pending;
                    }
                }
            }
        });
        let written = conn.deadline.within(writing).await;
        self.report.bytes_out = sent.saturating_sub(composed.head.len()).min(body.len()) as u64;
        match (written, keep_alive) {
            (Ok(true), true) => After::KeepAlive,
            (Ok(true), false) => After::Close,
            (Ok(false), _) => After::Gone,
            // It is incomplete, and the client may still read.
            (Err(Passed), _) => After::Reset,
        }
    }

    fn compose(
        &self,
        request: &RequestBuffer,
        stand: &Stand,
        said: &str,
        keep_alive: bool,
    ) -> Option<Composed> {
        let (mut storage, mut stored_storage) = (header_storage(), header_storage());
        let asked = RequestHead::parse(request.head(), &mut storage).ok()?;
        let (stored, facts) = (&stand.stored, &self.known.facts);
        let policy = &stand.routing.table.routes[stand.route].policy;
        let not_modified = stored.is_known_to(&asked).then(|| stored.not_modified_head());
        let bytes = not_modified.as_deref().unwrap_or(&stored.head);
        let method = if facts.is_head { "HEAD" } else { "GET" };
        let head = ResponseHead::parse(bytes, &mut stored_storage, method).ok()?;
        // Clients of HTTP/1.0 do not know chunks.
        let accepts = stand.accepts.filter(|_| facts.version == MinorVersion::One);
        let wanted = policy.compress.as_ref().map_or(Packing::Never, |types| {
            let packing = |head: &_| types.packing(head, request.head(), accepts);
            // A 304 does not say what it is about; what is kept does.
            let mut storage = header_storage();
            match ResponseHead::parse(&stored.head, &mut storage, method) {
                Ok(whole) if not_modified.is_some() && packing(&whole) == Packing::Never => Packing::Never,
                Ok(_) | Err(_) => packing(&head),
            }
        });
        let has_body = !facts.is_head && not_modified.is_none();
        let (packing, body) = match wanted {
            Packing::With(coding) if has_body => match self.packed(stand, coding) {
                Some(packed) => (wanted, Some(packed)),
                // No memory for a compressor: it goes as it is.
                None => (Packing::Varies, Some(Arc::clone(&stored.body))),
            },
            Packing::With(_) | Packing::Varies | Packing::Unchanged | Packing::Never => {
                (wanted, has_body.then(|| Arc::clone(&stored.body)))
            }
        };
        let mut added = stand.lines.to_vec();
        let age_s = stored.age(Instant::now()).as_secs();
        added.extend_from_slice(format!("age: {age_s}\r\ncache-status: fairway; {said}\r\n").as_bytes());
        let mut out = HeadBuffer::take();
        let reply = Reply {
            version: facts.version,
            keep_alive,
            added: &added,
            request_id: &added,
            changes: &policy.changes,
            packing,
        };
        head.write(&mut out, &reply);
        let mut tail: &'static [u8] = b"";
        if let (Packing::With(_), Some(body)) = (packing, &body) {
            write!(*out, "{:x}\r\n", body.len()).expect("memory can be written to");
            tail = b"\r\n0\r\n\r\n";
        }
        Some(Composed { status: head.status, head: out, body, tail })
    }

    /// The body as the client likes it, made once.
    fn packed(&self, stand: &Stand, coding: Coding) -> Option<Arc<[u8]>> {
        if let Some(packed) = stand.stored.packed(coding) {
            return Some(Arc::clone(packed));
        }
        let mut out = Vec::new();
        let mut packer = Packer::new(coding).ok()?;
        packer.pack(&stand.stored.body, &mut out).and_then(|()| packer.finish(&mut out)).ok()?;
        let packed: Arc<[u8]> = out.into();
        let cache = &self.conn.worker.shared.cache;
        cache.keep_packed(&stand.key, &stand.stored, coding, Arc::clone(&packed));
        Some(packed)
    }
}
