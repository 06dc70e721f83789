use super::TARGETS;

/// Small and known by its numbers (Steele and others, 2014), so that a failing seed can be repeated anywhere.
struct SplitMix(u64);

impl SplitMix {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }
}

/// What the readers look for.
const PIECES: &[&[u8]] = &[
    b"GET / HTTP/1.1\r\nHost: a\r\n",
    b"POST /x?y HTTP/1.1\r\nHost: a\r\n",
    b"GET http://b:80/ HTTP/1.0\r\n",
    b"HTTP/1.1 200 OK\r\n",
    b"HTTP/1.0 404 \r\n",
    b"HTTP/1.1 101 X\r\n",
    b"HTTP/1.1 ",
    b"Content-Length: 3\r\n",
    b"content-length:",
    b"Transfer-Encoding: chunked\r\n",
    b"transfer-encoding: gzip, ",
    b"Connection: close, x, upgrade\r\n",
    b"Upgrade: websocket\r\n",
    b"Expect: 100-continue\r\n",
    b"Trailer: x\r\nTE: trailers\r\n",
    b"X-Forwarded-For: 1.1.1.1\r\n",
    b"Cookie: a=b\r\n",
    b": ",
    b"\r\n",
    b"\r\n\r\n",
    b"\n",
    b"\r",
    b" ",
    b"\t",
    b"3\r\nabc\r\n",
    b"0\r\n\r\n",
    b"0\r\nX: y\r\n\r\n",
    b"ffffffff",
    b";ext=\"x\"",
    b"PROXY TCP4 203.0.113.7 127.0.0.1 5000 80\r\n",
    b"PROXY TCP6 ::1 ::1 1 2\r\n",
    b"PROXY UNKNOWN\r\n",
    b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\x01\x02\x03\x04\x05\x06\x07\x08\x10\0\0\x50",
    b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0",
    b"\r\n\r\n\0\r\nQUIT\n\x21\x21\0\x24",
    b"\x82\x7e\x01\0",
    b"\x82\xff\xff\xff\xff\xff\xff\xff\xff\xff\0\0\0\0",
    b"\x81\x85\0\0\0\0hello",
    b":method",
    b":authority",
    b"host",
    b"content-type\0application/grpc\0",
    b"max-age=31536001, stale-if-error=18446744073709551615",
    b"private=\"a, b\", no-cache",
    b"gzip;q=0.5, br;q=, *;q=1e9",
    b"W/\"x~fw\"",
    b"\"v1\"",
    b"*",
    b"/../",
    b"http://",
    b"\xff",
    b"\0",
];

fn input(random: &mut SplitMix) -> Vec<u8> {
    let mut bytes = vec![random.next() as u8];
    for _ in 0..random.below(24) {
        match random.below(5) {
            0 => bytes.extend((0..random.below(9)).map(|_| random.next() as u8)),
            _ => bytes.extend_from_slice(PIECES[random.below(PIECES.len())]),
        }
    }
    for _ in 0..random.below(3) {
        let at = random.below(bytes.len());
        match random.below(3) {
            0 => bytes[at] = random.next() as u8,
            1 => bytes.truncate(at + 1),
            _ => bytes[at] ^= 1 << random.below(8),
        }
    }
    bytes
}

/// As many rounds as there is time for in every test run; `FAIRWAY_FUZZ_ROUNDS` asks for more, from another beginning
/// with `FAIRWAY_FUZZ_SEED`.
#[test]
fn what_must_hold_of_any_bytes_holds_of_these() {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let first = number("FAIRWAY_FUZZ_SEED").unwrap_or(0);
    let rounds = number("FAIRWAY_FUZZ_ROUNDS").unwrap_or(500);
    for seed in first..first + rounds {
        let bytes = input(&mut SplitMix(seed));
        for (name, target) in TARGETS {
            let held = std::panic::catch_unwind(|| target(&bytes));
            assert!(held.is_ok(), "{name}, seed {seed}: {:?}", String::from_utf8_lossy(&bytes));
        }
    }
}

/// Each target has its file for the fuzzer, and is called by it.
#[test]
fn every_target_can_be_fuzzed() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz");
    let manifest = std::fs::read_to_string(folder.join("Cargo.toml")).unwrap();
    for (name, _) in TARGETS {
        assert!(manifest.contains(&format!("path = \"fuzz_targets/{name}.rs\"")), "{name}");
        let text = std::fs::read_to_string(folder.join(format!("fuzz_targets/{name}.rs"))).unwrap();
        assert!(text.contains(&format!("fairway_proxy::fuzzing::{name}(bytes)")), "{name}");
    }
}
