use super::*;

/// Thu, 01 Jan 2026 00:00:00 GMT.
const NOW_S: u64 = 1_767_225_600;

fn now() -> Now {
    let system = SystemTime::UNIX_EPOCH + Duration::from_secs(NOW_S) + Duration::from_millis(900);
    Now { instant: Instant::now(), system }
}

fn with<T>(
    answer: &str,
    request: &str,
    check: impl FnOnce(&ResponseHead<'_, '_>, &RequestHead<'_, '_>) -> T,
) -> T {
    let (status, fields) = answer.split_once('|').unwrap();
    let lines = |fields: &str| fields.split('|').map(|field| format!("{field}\r\n")).collect::<String>();
    let body = if fields.contains("-encoding: chunked") { "" } else { "content-length: 3|" };
    let body = if fields.contains("close") { "" } else { body };
    let answer = format!("HTTP/1.1 {status} X\r\n{}", lines(&format!("{body}{fields}")));
    let request = format!("GET / HTTP/1.1\r\n{}", lines(&format!("host: a|{request}")));
    let (mut a, mut b) = (header_storage(), header_storage());
    let answer = answer.trim_end().to_owned() + "\r\n\r\n";
    let request = request.trim_end().to_owned() + "\r\n\r\n";
    let head = ResponseHead::parse(answer.as_bytes(), &mut a, "GET").unwrap();
    check(&head, &RequestHead::parse(request.as_bytes(), &mut b).unwrap())
}

fn rule(fresh_s: u64, stale_s: u64) -> Rule {
    let seconds = Duration::from_secs;
    Rule { path: "/".into(), fresh: seconds(fresh_s), stale: seconds(stale_s) }
}

fn stored(answer: &str, request: &str, rule: &Rule) -> Result<Stored, Unstorable> {
    with(answer, request, |head, request| {
        let judged = judge(head, request, Some("side"), rule, now())?;
        Ok(Stored::new(judged, &kept_head(head), b"abc"[..].into()).unwrap())
    })
}

/// RFC 9111, sections 3 and 4.2, case by case: seconds that the answer is fresh, or why it is not kept.
#[test]
fn what_is_kept_and_for_how_long() {
    use Unstorable::{NoLength, NoLifetime, Private, Status, Stream, Varies};
    let check = |answer: &str, request: &str, expect: Result<i64, Unstorable>| {
        let found = stored(answer, request, &rule(10, 0));
        let found = found.map(|stored| stored.ttl_s(stored.life.since));
        assert_eq!(found, expect, "{answer} to {request:?}");
    };
    // 4.2.1: s-maxage before max-age before Expires before what the rule says.
    check("200|", "", Ok(10));
    check("200|cache-control: max-age=60", "", Ok(60));
    check("200|cache-control: max-age=60, s-maxage=5", "", Ok(5));
    check("200|cache-control: s-maxage=5|cache-control: max-age=60", "", Ok(5));
    check("200|expires: Thu, 01 Jan 2026 00:01:00 GMT|date: Thu, 01 Jan 2026 00:00:00 GMT", "", Ok(60));
    check("200|expires: Thursday, 01-Jan-26 00:01:00 GMT", "", Ok(59));
    check("200|expires: Thu Jan  1 00:01:00 2026", "", Ok(59));
    check("200|expires: Thu, 01 Jan 2026 00:01:00 GMT|cache-control: max-age=7", "", Ok(7));
    check("200|expires: 0", "", Err(NoLifetime));
    check("200|expires: tomorrow", "", Err(NoLifetime));
    check("200|expires: Wed, 31 Dec 2025 00:01:00 GMT", "", Err(NoLifetime));
    check("200|cache-control: public", "", Err(NoLifetime));
    check("200|cache-control: max-age=0", "", Err(NoLifetime));
    check("200|cache-control: max-age=x", "", Err(NoLifetime));
    check("200|cache-control: max-age=99999999999", "", Ok(31_536_000));
    // 4.2.3: the age that it came with.
    check("200|cache-control: max-age=60|age: 20", "", Ok(40));
    check("200|cache-control: max-age=60|age: 60", "", Err(NoLifetime));
    check("200|cache-control: max-age=60|date: Wed, 31 Dec 2025 23:59:30 GMT", "", Ok(30));
    check("200|cache-control: max-age=60|age: 40|date: Wed, 31 Dec 2025 23:59:30 GMT", "", Ok(20));
    check("200|cache-control: max-age=60|date: Thu, 01 Jan 2026 23:59:30 GMT", "", Ok(60));
    check("200|cache-control: max-age=60|age: x", "", Ok(60));
    check("200|cache-control: max-age=60, stale-while-revalidate=30|age: 70", "", Ok(-10));
    check("200|cache-control: max-age=0, stale-if-error=30", "", Ok(0));
    check("200|cache-control: max-age=0, stale-if-error=30, must-revalidate", "", Err(NoLifetime));
    // 3: what says that it is not for a shared cache.
    check("200|cache-control: no-store, max-age=60", "", Err(Private));
    check("200|cache-control: private, max-age=60", "", Err(Private));
    check("200|cache-control: private=\"x\", max-age=60", "", Err(Private));
    check("200|cache-control: no-cache, max-age=60", "", Err(Private));
    check("200|cache-control: max-age=60, NO-STORE", "", Err(Private));
    check("200|pragma: no-cache", "", Err(Private));
    check("200|cache-control: max-age=60|set-cookie: a=b", "", Err(Private));
    check("200|cache-control: public, max-age=60|set-cookie: a=b", "", Err(Private));
    // 3.5: who says who it is.
    check("200|cache-control: max-age=60", "authorization: x", Err(Private));
    check("200|", "authorization: x", Err(Private));
    check("200|", "x-api-key: x", Err(Private));
    check("200|cache-control: public, max-age=60", "authorization: x", Ok(60));
    check("200|cache-control: s-maxage=60", "authorization: x", Ok(60));
    check("200|cache-control: max-age=60, must-revalidate", "authorization: x", Ok(60));
    // What does not say how long it is good is not shared by those who may be known.
    check("200|", "cookie: sid=1", Err(Private));
    check("200|", "cookie: side=r1", Ok(10));
    check("200|cache-control: max-age=60", "cookie: sid=1", Ok(60));
    // 4.1.
    check("200|vary: *", "", Err(Varies));
    check("200|vary: accept", "", Ok(10));
    // Status and body.
    for status in [203, 204, 301, 308, 404, 410] {
        check(&format!("{status}|"), "", Ok(10));
    }
    for status in [206, 302, 303, 307, 400, 401, 403, 500, 503] {
        check(&format!("{status}|"), "", Err(Status));
    }
    check("302|cache-control: max-age=60", "", Ok(60));
    check("206|cache-control: max-age=60", "", Err(Status));
    check("500|cache-control: max-age=60", "", Err(Status));
    check("200|content-range: bytes 0-2/3", "", Err(Status));
    check("200|connection: close", "", Err(NoLength));
    check("200|transfer-encoding: chunked", "", Ok(10));
    check("200|content-type: text/event-stream", "", Err(Stream));
}

#[test]
fn how_long_a_stale_answer_stands_in() {
    let check = |answer: &str, updating: u64, failing: u64| {
        let stored = stored(answer, "", &rule(10, 20)).unwrap();
        let at = |s: u64| stored.life.since + Duration::from_secs(s);
        let ends = |stands: &dyn Fn(Instant) -> bool| (0..1000).find(|s| !stands(at(*s))).unwrap();
        let found =
            (ends(&|at| stored.stands_in_for_update(at)), ends(&|at| stored.stands_in_for_failure(at)));
        assert_eq!(found, (updating, failing), "{answer}");
    };
    check("200|", 30, 30);
    check("200|cache-control: max-age=5", 25, 25);
    check("200|cache-control: max-age=5, stale-while-revalidate=1, stale-if-error=2", 6, 7);
    check("200|cache-control: max-age=5, must-revalidate, stale-if-error=2", 5, 5);
    check("200|cache-control: max-age=5, proxy-revalidate", 5, 5);
    check("200|cache-control: s-maxage=5", 5, 5);
    check("200|cache-control: s-maxage=5, stale-if-error=2", 5, 7);
}

#[test]
fn conditions_are_judged_as_the_service_would() {
    let check = |answer: &str, request: &str, expect: bool| {
        let stored = stored(answer, "", &rule(10, 0)).unwrap();
        let found = with("200|", request, |_, request| stored.is_known_to(request));
        assert_eq!(found, expect, "{answer} {request}");
    };
    check("200|etag: \"a\"", "if-none-match: \"a\"", true);
    check("200|etag: \"a\"", "if-none-match: W/\"a\"", true);
    check("200|etag: W/\"a\"", "if-none-match: \"b\", \"a\"", true);
    check("200|etag: \"a\"", "if-none-match: \"b\"|if-none-match: \"a\"", true);
    check("200|etag: \"a\"", "if-none-match: \"b\"", false);
    check("200|etag: \"a\"", "if-none-match: a", false);
    check("200|", "if-none-match: \"a\"", false);
    check("200|", "if-none-match: *", true);
    check("404|etag: \"a\"", "if-none-match: \"a\"", false);
    let date = "last-modified: Wed, 31 Dec 2025 00:00:00 GMT";
    let asks = |date: &str| format!("if-modified-since: {date}");
    check(&format!("200|{date}"), &asks("Wed, 31 Dec 2025 00:00:00 GMT"), true);
    check(&format!("200|{date}"), &asks("Wed, 31 Dec 2025 00:00:01 GMT"), true);
    check(&format!("200|{date}"), &asks("Tue, 30 Dec 2025 23:59:59 GMT"), false);
    check(&format!("200|{date}"), &asks("yesterday"), false);
    check("200|", &asks("Wed, 31 Dec 2025 00:00:00 GMT"), false);
    let both = format!("if-none-match: \"b\"|{}", asks("Wed, 31 Dec 2025 00:00:00 GMT"));
    check(&format!("200|etag: \"a\"|{date}"), &both, false);
}

#[test]
fn a_head_is_kept_without_what_was_for_one_hop_or_one_request() {
    let answer = "200|age: 3|x-request-id: 1|connection: x-hop|x-hop: 1|keep-alive: timeout=5|x: y|cache-control: max-age=9";
    let kept = stored(answer, "", &rule(0, 0)).unwrap();
    let text = String::from_utf8_lossy(&kept.head).into_owned();
    assert_eq!(text, "HTTP/1.1 200 X\r\nx: y\r\ncache-control: max-age=9\r\ncontent-length: 3\r\n\r\n");
    let chunked = stored("200|transfer-encoding: chunked|x: y", "", &rule(1, 0)).unwrap();
    assert_eq!(&*chunked.head, b"HTTP/1.1 200 X\r\nx: y\r\ncontent-length: 3\r\n\r\n");
}

#[test]
fn a_304_brings_its_fields_and_leaves_the_body_s() {
    let old = stored("200|etag: \"a\"|x: old|y: old|content-type: text/css", "", &rule(1, 0)).unwrap();
    let merged =
        with("304|etag: \"a\"|X: new|content-type: text/html|age: 3", "", |head, _| old.merged_head(head));
    let text = String::from_utf8(merged).unwrap();
    assert_eq!(
        text,
        "HTTP/1.1 200 X\r\netag: \"a\"\r\nX: new\r\nage: 3\r\ny: old\r\ncontent-type: text/css\r\ncontent-length: 3\r\n\r\n"
    );
}
