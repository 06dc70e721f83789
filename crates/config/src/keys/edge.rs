//! The keys of what happens to requests on their way, and of TLS.

use std::time::Duration;

use super::alerts::SECRET;
use super::format::{FILE, LINE, LISTEN, MATCH_VALUE, MEDIA_TYPE, NETWORK, ROUTE_PATH, TOKEN, URL};
use super::{DURATION, POSITIVE};
use crate::keys::format::EMAIL;
use crate::spec::Absent::{Default, Required, Words};
use crate::spec::{KeySpec, Kind, TableSpec, key};

/// Each request meets every one of them.
const RATE_LIMITS_MAX: usize = 20;
const CACHE_RULES_MAX: usize = 50;
const HEADERS_MAX: usize = 50;
const TYPES_MAX: usize = 100;
const NETWORKS_MAX: usize = 100;
const REQUESTS: Kind = Kind::Integer { min: 1, max: 1_000_000_000 };
/// A deadline below this fails requests that nothing is wrong with.
const TIMEOUT: Kind = Kind::Duration { min: Duration::from_millis(10) };

const TLS_KINDS: &[Kind] = &[Kind::Choice(&["off", "acme", "self-signed"]), Kind::Table(&TLS)];
const NETWORKS: Kind = Kind::List { of: &Kind::Text(&NETWORK), max: NETWORKS_MAX };

pub(super) const TLS_KEY: KeySpec = key(
    "tls",
    Kind::OneOf(TLS_KINDS),
    Words("off"),
    "\"acme\"",
    "How requests are encrypted: with certificates from an authority, with your own, or with one made here for trying out.",
);
pub(super) const PROXY_PROTOCOL_KEY: KeySpec = key(
    "proxy_protocol",
    Kind::Bool,
    Default("false"),
    "true",
    "Connections begin with a PROXY protocol header, version 1 or 2, of the balancer before Fairway. Others are closed.",
);
pub(super) const TRUSTED_PROXIES_KEY: KeySpec = key(
    "trusted_proxies",
    NETWORKS,
    Words("nobody is believed"),
    "[\"10.0.0.0/8\"]",
    "Who may say, by X-Forwarded-For, -Proto and -Host or by PROXY protocol, for whom a request is.",
);
pub(super) const CONNECTIONS_KEY: KeySpec = key(
    "connections",
    Kind::Table(&CONNECTIONS),
    Words("every default of connections"),
    "{ max_per_client = 200 }",
    "What clients may do with their connections.",
);
pub(super) const PROXY_KEY: KeySpec = key(
    "proxy",
    Kind::Table(&PROXY),
    Words("every default of proxy"),
    "{ access_log = true }",
    "What the whole proxy of the machine may take up, and whether it logs requests.",
);
pub(super) const EDGE_KEY: KeySpec = key(
    "edge",
    Kind::Table(&EDGE),
    Words("every default of edge"),
    "{ security_headers = true }",
    "What happens to requests on their way. At the top for all services with a route, in a service for that one: what it says there replaces what is said at the top, key by key.",
);

pub(crate) static CONNECTIONS: TableSpec = TableSpec {
    name: "connections",
    doc: "What clients may do with their connections. Of two environments on one address the stricter limit holds, where both say one; `fairway plan` and `fairway status` tell.",
    keys: &[
        key(
            "head",
            TIMEOUT,
            Default("10s"),
            "\"5s\"",
            "From the first byte of a request to the end of its head, then 408; and for a TLS handshake or a PROXY protocol header, then the connection is closed.",
        ),
        key(
            "idle",
            TIMEOUT,
            Default("75s"),
            "\"30s\"",
            "A connection without a request is closed after it. Before that when a core is full and others come: those who wait for longest go first.",
        ),
        key(
            "max_per_client",
            Kind::Integer { min: 1, max: 1_000_000 },
            Words("no limit: whole companies come from one address"),
            "200",
            "Connections of one IPv4 address or one /64 of IPv6; more are closed. trusted_proxies may have any number.",
        ),
        key(
            "max_streams",
            Kind::Integer { min: 1, max: 1000 },
            Default("100"),
            "50",
            "Requests at once on one HTTP/2 connection; more are refused before anything is done for them.",
        ),
        key(
            "http2",
            Kind::Bool,
            Default("true"),
            "false",
            "Offer HTTP/2 by TLS, and take it without. Off, clients come with HTTP/1.1. Of two environments on one address, off holds.",
        ),
        key(
            "window",
            Kind::Size,
            Default("256K"),
            "\"1M\"",
            "What a client may send on one HTTP/2 stream before it is taken, 64K to 16M; sixteen times that on its connection. 256K carry 5 MB/s over a line of 50 ms.",
        ),
        key(
            "idle_drain",
            TIMEOUT,
            Default("5s"),
            "\"2s\"",
            "As idle, once the proxy or the address is about to go: in this time a client may send one more request and is told to come again by another connection.",
        ),
        key(
            "linger",
            TIMEOUT,
            Default("2s"),
            "\"5s\"",
            "How long a connection that ends is read from, so that the last answer is not lost to a reset.",
        ),
        key(
            "ping",
            TIMEOUT,
            Default("30s"),
            "\"1m\"",
            "After so long without a byte an HTTP/2 client with open requests is asked whether it is there.",
        ),
        key("pong", TIMEOUT, Default("10s"), "\"20s\"", "How long it has to answer that; then it is gone."),
        key(
            "tail",
            TIMEOUT,
            Default("60s"),
            "\"2m\"",
            "How long an HTTP/2 client may take for the last piece of an answer.",
        ),
    ],
};

pub(crate) static PROXY: TableSpec = TableSpec {
    name: "proxy",
    doc: "The one proxy of the machine, which all environments of a server share: of what several say the largest holds, and the log is on where one asks for it.",
    keys: &[
        key(
            "drain",
            TIMEOUT,
            Default("60s"),
            "\"5m\"",
            "How long requests in flight may hold back the end of a proxy that another one has taken over from; then they are cut. systemd kills after 90s.",
        ),
        key(
            "handshake",
            TIMEOUT,
            Default("1s"),
            "\"3s\"",
            "How long an address that is given up is still answered on, for those who are connected already and do not know it.",
        ),
        key(
            "max_connections",
            Kind::Integer { min: 32, max: 1_000_000 },
            Default("16384"),
            "50000",
            "Open connections of clients on each core, and requests of HTTP/2. When there is no room those who wait for longest go first.",
        ),
        key(
            "cache",
            Kind::Size,
            Default("64M"),
            "\"512M\"",
            "Memory for kept answers of all environments. \"0\": none are kept.",
        ),
        key(
            "access_log",
            Kind::Bool,
            Default("false"),
            "true",
            "A line of JSON for each request, in proxy/access.log below the state directory. At 256M the file is renamed to access.log.1, and the one before is gone.",
        ),
    ],
};

pub(crate) static TLS: TableSpec = TableSpec {
    name: "tls",
    doc: "TLS 1.2 and 1.3 for public requests: exactly one of acme, certificate and self_signed.",
    keys: &[
        key(
            "listen",
            Kind::Text(&LISTEN),
            Words("127.0.0.1:8443 in dev, otherwise 0.0.0.0:443"),
            "\"0.0.0.0:443\"",
            "Address and port for encrypted requests.",
        ),
        key(
            "acme",
            Kind::OneOf(&[Kind::True, Kind::Table(&ACME)]),
            Words("not used"),
            "{ contact = \"ops@shop.example\" }",
            "Certificates from an authority (RFC 8555), for every host of the environment, renewed by themselves.",
        ),
        key(
            "certificate",
            Kind::Text(&FILE),
            Words("not used"),
            "\"/etc/ssl/shop.pem\"",
            "PEM file on the machine with the certificate and those that it rests on. Read again when it changes.",
        ),
        key(
            "key",
            Kind::Text(&FILE),
            Words("not used"),
            "\"/etc/ssl/shop.key\"",
            "PEM file with its private key.",
        ),
        key(
            "self_signed",
            Kind::True,
            Words("not used"),
            "true",
            "A certificate made on the machine. Browsers warn of it.",
        ),
        key(
            "redirect",
            Kind::Bool,
            Default("true"),
            "false",
            "Send requests without TLS to the same address with it (308).",
        ),
        key(
            "hsts",
            Kind::OneOf(&[DURATION, Kind::Table(&HSTS)]),
            Words("not sent"),
            "\"365d\"",
            "Tell browsers to come with TLS only from now on. Cannot be taken back before its time.",
        ),
    ],
};

pub(crate) static ACME: TableSpec = TableSpec {
    name: "acme",
    doc: "An authority that gives certificates.",
    keys: &[
        key(
            "directory",
            Kind::Text(&URL),
            Words("Let's Encrypt"),
            "\"https://acme-staging-v02.api.letsencrypt.org/directory\"",
            "Where the authority is.",
        ),
        key(
            "contact",
            Kind::Text(&EMAIL),
            Words("none"),
            "\"ops@shop.example\"",
            "Where the authority writes to.",
        ),
        key(
            "challenge",
            Kind::Choice(&["http-01", "tls-alpn-01"]),
            Default("http-01"),
            "\"tls-alpn-01\"",
            "How the hosts are proven: over port 80, or over port 443.",
        ),
        key(
            "roots",
            Kind::Text(&FILE),
            Words("those of the machine"),
            "\"/etc/ssl/our-authority.pem\"",
            "PEM file with the certificates that are believed when the authority is asked: for one of your own.",
        ),
        key(
            "preflight",
            Kind::Bool,
            Default("true"),
            "false",
            "Ask the hosts from here first, so that no attempt counts against the authority's limits in vain.",
        ),
        key(
            "eab_kid",
            Kind::Text(&LINE),
            Words("none: anybody may open an account"),
            "\"kid-1\"",
            "For authorities that want an account to be known beforehand (external account binding): the key id that they gave.",
        ),
        key(
            "eab_hmac",
            Kind::Table(&SECRET),
            Words("none"),
            "{ secret = \"acme_hmac\" }",
            "The MAC key that belongs to eab_kid, in base64 as the authority gave it.",
        ),
    ],
};

pub(crate) static HSTS: TableSpec = TableSpec {
    name: "hsts",
    doc: "The header strict-transport-security.",
    keys: &[
        key("max_age", DURATION, Required, "\"365d\"", "How long browsers remember."),
        key("subdomains", Kind::Bool, Default("false"), "true", "For all hosts below this one as well."),
        key(
            "preload",
            Kind::Bool,
            Default("false"),
            "true",
            "May be put on the lists that browsers ship with.",
        ),
    ],
};

pub(crate) static EDGE: TableSpec = TableSpec {
    name: "edge",
    doc: "What happens to requests on their way to a service.",
    keys: &[
        key(
            "compress",
            Kind::OneOf(&[Kind::Bool, Kind::Table(&COMPRESS)]),
            Words("true"),
            "{ min_size = \"2K\" }",
            "Compress answers with zstd, brotli or gzip, as the client prefers.",
        ),
        key(
            "security_headers",
            Kind::Bool,
            Words("false"),
            "true",
            "Where the service sends none of its own: x-content-type-options, x-frame-options, referrer-policy, permissions-policy, cross-origin-opener-policy.",
        ),
        key(
            "headers",
            Kind::Map {
                key: &TOKEN,
                of: &Kind::OneOf(&[Kind::Text(&MATCH_VALUE), Kind::Bool]),
                max: HEADERS_MAX,
            },
            Words("none"),
            "{ content-security-policy = \"default-src 'self'\", server = false }",
            "Header fields of every answer; false removes what the service sends.",
        ),
        key(
            "rate_limit",
            Kind::List { of: &Kind::Table(&RATE_LIMIT), max: RATE_LIMITS_MAX },
            Words("no limit"),
            "[{ requests = 100, within = \"1s\" }]",
            "Requests beyond it are answered 429 with retry-after.",
        ),
        key(
            "cache",
            Kind::List { of: &Kind::Table(&CACHE), max: CACHE_RULES_MAX },
            Words("nothing is kept"),
            "[{ path = \"/assets\", fresh = \"1h\" }]",
            "Answers to GET that are kept in memory and given again, until the next release.",
        ),
        key("max_body", Kind::Size, Words("no limit"), "\"10M\"", "Larger request bodies are answered 413."),
        key(
            "max_head",
            Kind::Size,
            Words("32K"),
            "\"8K\"",
            "Larger request heads are answered 431; 32K at most.",
        ),
        key(
            "max_url",
            Kind::Size,
            Words("8K"),
            "\"2K\"",
            "Longer paths with query are answered 414; 8K at most.",
        ),
        key(
            "min_rate",
            Kind::Integer { min: 0, max: 1_000_000 },
            Words("64"),
            "1000",
            "Bytes per second below which it is no progress for timeouts.body that a client sends a body for which a copy waits, or takes an answer that waits for it. 0: any byte is, as it is with gRPC.",
        ),
        key(
            "max_fields",
            Kind::Integer { min: 1, max: 100 },
            Words("100"),
            "50",
            "Requests with more header fields are answered 431.",
        ),
        key(
            "timeouts",
            Kind::Table(&TIMEOUTS),
            Words("every default of timeouts"),
            "{ response = \"10s\" }",
            "How long to wait for what.",
        ),
        key(
            "retry",
            Kind::Table(&RETRY),
            Words("every default of retry"),
            "{ attempts = 2 }",
            "When a failed attempt is repeated.",
        ),
        key(
            "eject",
            Kind::Table(&EJECT),
            Words("every default of eject"),
            "{ failures = 5 }",
            "When a copy that fails is left alone for a while. Never the last one; and while fewer than half of a version's copies are left, all of them get requests.",
        ),
        key(
            "hold",
            Kind::Table(&HOLD),
            Words("every default of hold"),
            "{ wait = \"10s\" }",
            "What happens to requests for which no copy is there at this moment.",
        ),
        key(
            "breaker",
            Kind::Table(&BREAKER),
            Words("every default of breaker"),
            "{ per_copy = 100 }",
            "How many requests may be under way.",
        ),
        key(
            "max_idle",
            Kind::Integer { min: 0, max: 10_000 },
            Words("256"),
            "32",
            "Unused connections that are kept to each copy, per core.",
        ),
    ],
};

pub(crate) static BREAKER: TableSpec = TableSpec {
    name: "breaker",
    doc: "How many requests may be under way; WebSockets and event streams count for as long as they are open. What is more waits as long as hold says, and is then answered 503 with retry-after. Without it there is no limit: none suits every service, and one that nobody asked for would refuse what the service could have done.",
    keys: &[
        key(
            "per_copy",
            Kind::Integer { min: 1, max: 1_000_000 },
            Words("no limit"),
            "100",
            "At one copy. Others with room are asked before anything waits.",
        ),
        key(
            "requests",
            Kind::Integer { min: 1, max: 10_000_000 },
            Words("no limit"),
            "1000",
            "At all copies of the service together.",
        ),
    ],
};

pub(crate) static COMPRESS: TableSpec = TableSpec {
    name: "compress",
    doc: "Compression of answers. Left alone are those that are encoded already, that say no-transform, and event streams.",
    keys: &[
        key("min_size", Kind::Size, Default("1K"), "\"2K\"", "Answers known to be smaller are left alone."),
        key(
            "types",
            Kind::List { of: &Kind::Text(&MEDIA_TYPE), max: TYPES_MAX },
            Words("text, JSON, XML, JavaScript, SVG, fonts that are not packed, WebAssembly"),
            "[\"text/*\", \"application/json\"]",
            "Media types that are compressed.",
        ),
    ],
};

pub(crate) static RATE_LIMIT: TableSpec = TableSpec {
    name: "rate_limit",
    doc: "A rate that requests must keep.",
    keys: &[
        key("requests", REQUESTS, Required, "100", "So many requests in the time of within."),
        key("within", POSITIVE, Default("1s"), "\"1m\"", "The time in which they may come."),
        key(
            "per",
            Kind::Choice(&["client", "route"]),
            Words("client"),
            "\"route\"",
            "Counted for each client address (IPv6 by /64), or for all together.",
        ),
        key(
            "header",
            Kind::Text(&TOKEN),
            Words("not used"),
            "\"x-api-key\"",
            "Counted for each value of this header field instead.",
        ),
        key(
            "path",
            Kind::Text(&ROUTE_PATH),
            Words("every path"),
            "\"/login\"",
            "Only requests below this path.",
        ),
        key("burst", REQUESTS, Words("requests"), "20", "So many may come at once."),
    ],
};

pub(crate) static CACHE: TableSpec = TableSpec {
    name: "cache",
    doc: "Answers that are kept, as a shared cache may (RFC 9111).",
    keys: &[
        key("path", Kind::Text(&ROUTE_PATH), Default("/"), "\"/assets\"", "Below this path."),
        key(
            "fresh",
            DURATION,
            Default("0s"),
            "\"1h\"",
            "How long an answer without cache-control of its own is good, for requests without cookies and keys. 0s: only those that say it themselves are kept.",
        ),
        key(
            "stale",
            DURATION,
            Default("0s"),
            "\"1m\"",
            "How long after that it may stand in, while a new one is fetched or the service fails.",
        ),
    ],
};

pub(crate) static TIMEOUTS: TableSpec = TableSpec {
    name: "timeouts",
    doc: "How long to wait for what.",
    keys: &[
        key(
            "connect",
            TIMEOUT,
            Words("2s"),
            "\"1s\"",
            "For a connection to a copy; then another one is tried.",
        ),
        key(
            "response",
            TIMEOUT,
            Words("60s"),
            "\"30s\"",
            "From the end of the request to the head of the answer; then 504.",
        ),
        key("body", TIMEOUT, Words("60s"), "\"30s\"", "Without any progress in a body."),
        key(
            "stream",
            TIMEOUT,
            Words("10m"),
            "\"1h\"",
            "Without a byte in either direction of a WebSocket or an event stream.",
        ),
        key(
            "idle",
            TIMEOUT,
            Words("4s"),
            "\"30s\"",
            "An unused connection to a copy is closed after it. Must be below the copy's own.",
        ),
        key("drain", TIMEOUT, Words("30s"), "\"5m\"", "How long a stream may outlive its copy's removal."),
        key("mirror", TIMEOUT, Words("10s"), "\"2s\"", "For a mirrored copy of a request."),
    ],
};

pub(crate) static RETRY: TableSpec = TableSpec {
    name: "retry",
    doc: "When a failed attempt is repeated. What provably never arrived is always sent again; of the rest only what does no harm twice.",
    keys: &[
        key(
            "attempts",
            Kind::Integer { min: 1, max: 10 },
            Default("3"),
            "1",
            "Attempts for one request, the first included.",
        ),
        key(
            "budget",
            Kind::Integer { min: 0, max: 100 },
            Default("20"),
            "10",
            "Repeats in percent of all requests.",
        ),
    ],
};

pub(crate) static EJECT: TableSpec = TableSpec {
    name: "eject",
    doc: "When a copy that fails is left alone for a while.",
    keys: &[
        key(
            "connects",
            Kind::Integer { min: 1, max: 1000 },
            Default("3"),
            "5",
            "Failed connections in a row.",
        ),
        key(
            "failures",
            Kind::Integer { min: 0, max: 1000 },
            Default("0"),
            "5",
            "Answers of 500 and above, or none, in a row. 0: answers eject nobody.",
        ),
        key(
            "first",
            POSITIVE,
            Default("5s"),
            "\"10s\"",
            "How long the first time; each time after doubles it.",
        ),
        key("longest", POSITIVE, Default("60s"), "\"5m\"", "How long at most; not less than first."),
    ],
};

pub(crate) static HOLD: TableSpec = TableSpec {
    name: "hold",
    doc: "What happens to requests for which no copy is there at this moment, or none that may have another one (see breaker).",
    keys: &[
        key(
            "requests",
            Kind::Integer { min: 0, max: 100_000 },
            Default("1024"),
            "100",
            "So many wait; others are answered 503 at once.",
        ),
        key("wait", POSITIVE, Default("5s"), "\"10s\"", "How long; then 503."),
    ],
};
