//! What must hold of any bytes whatever: one function for each thing that reads what strangers wrote. The fuzzer calls
//! them with what it finds (`crates/proxy/fuzz`), and the tests below with bytes put together at random.

use std::collections::VecDeque;
use std::io::IoSlice;
use std::task::{Context, Poll, Waker};

use crate::codec::{
    Chunked, Framing, HeadScan, MinorVersion, REQUEST_HEAD_BYTES_MAX, RequestHead, ResponseHead,
    header_storage,
};
use crate::pipe::{PIPE_BYTES_MAX, Pipe};

/// Panics when something does not hold of the bytes.
pub type Target = fn(&[u8]);

/// Every target by the name of its file.
pub const TARGETS: [(&str, Target); 10] = [
    ("request_head", request_head),
    ("response_head", response_head),
    ("chunked", chunked),
    ("websocket", websocket),
    ("h2_fields", h2_fields),
    ("proxy_header", proxy_header),
    ("pipe", pipe),
    ("cache_control", cache_control),
    ("accept_encoding", accept_encoding),
    ("entity_tags", entity_tags),
];

/// The first byte says where the rest is split in two.
fn split(input: &[u8]) -> (&[u8], &[u8], &[u8]) {
    let Some((at, bytes)) = input.split_first() else { return (b"", b"", b"") };
    let (a, b) = bytes.split_at(usize::from(*at) * bytes.len() / 256);
    (bytes, a, b)
}

/// The verdict does not hang on how the bytes arrive, and what is accepted reads the same once it is written again.
pub fn request_head(input: &[u8]) {
    let (bytes, first, _) = split(input);
    let whole = HeadScan::default().request(bytes);
    let mut scan = HeadScan::default();
    let in_parts = match scan.request(first) {
        Ok(None) => scan.request(bytes),
        early => early,
    };
    assert_eq!(whole, in_parts);
    let Ok(Some((start, end))) = whole else { return };
    assert!(end <= REQUEST_HEAD_BYTES_MAX + 2, "a head of {end} bytes");
    let mut storage = header_storage();
    let Ok(head) = RequestHead::parse(&bytes[start..end], &mut storage) else { return };
    assert!(head.target.starts_with('/') || head.target == "*", "{:?}", head.target);
    let mut out = Vec::new();
    let forward = crate::codec::Forward {
        target_prefix: "",
        target: head.target,
        host: head.host,
        keep_trace: true,
        keep_mark: false,
    };
    head.write(&mut out, &forward, |_| ());
    assert_eq!(
        HeadScan::default().request(&out),
        Ok(Some((0, out.len()))),
        "{:?}",
        String::from_utf8_lossy(&out)
    );
    let mut storage = header_storage();
    // HTTP/1.0 may come without a host, and goes on as HTTP/1.1, which may not.
    if head.version == MinorVersion::Zero && head.host.is_empty() {
        return;
    }
    let again = RequestHead::parse(&out, &mut storage).expect("what is passed on can be read");
    assert_eq!((again.method, again.target, again.host), (head.method, head.target, head.host));
    assert_eq!((again.length, again.expects_continue), (head.length, head.expects_continue));
}

/// Never a panic, one verdict, and nothing that two readers could take for different lengths is passed on.
pub fn response_head(input: &[u8]) {
    let (bytes, first, _) = split(input);
    let whole = HeadScan::default().response(bytes);
    let mut scan = HeadScan::default();
    let in_parts = match scan.response(first) {
        Ok(None) => scan.response(bytes),
        early => early,
    };
    assert_eq!(whole, in_parts);
    let Ok(Some((start, end))) = whole else { return };
    for method in ["GET", "HEAD"] {
        let mut storage = header_storage();
        let Ok(head) = ResponseHead::parse(&bytes[start..end], &mut storage, method) else { continue };
        assert!((100..=999).contains(&head.status));
        let mut out = Vec::new();
        crate::h2::fuzzing::response_to_http2(&head);
        head.write(
            &mut out,
            &crate::codec::Reply {
                version: MinorVersion::One,
                keep_alive: true,
                added: b"",
                request_id: b"",
                changes: &[],
                packing: crate::policy::coding::Packing::Never,
            },
        );
        assert_eq!(
            HeadScan::default().response(&out),
            Ok(Some((0, out.len()))),
            "{:?}",
            String::from_utf8_lossy(&out)
        );
        let mut storage = header_storage();
        let again = ResponseHead::parse(&out, &mut storage, method).expect("what is passed on can be read");
        assert_eq!(again.status, head.status);
    }
}

/// The same data however it is split, whether the chunks stay or go.
pub fn chunked(input: &[u8]) {
    let (bytes, first, second) = split(input);
    let decode = |framing: Framing, parts: &[&[u8]]| {
        let mut chunked = Chunked::default();
        let mut passed = Vec::new();
        for part in parts {
            let mut part = part.to_vec();
            let (read, pass) = chunked.feed(&mut part, framing).ok()?;
            assert!(pass <= read && read <= part.len());
            passed.extend_from_slice(&part[..pass]);
        }
        Some((passed, chunked.is_done()))
    };
    let stripped = decode(Framing::Strip, &[bytes]);
    assert_eq!(stripped, decode(Framing::Strip, &[first, second]));
    let kept = decode(Framing::Keep, &[first, second]);
    assert_eq!(kept.is_some(), stripped.is_some());
    if let Some((kept, true)) = kept {
        assert_eq!(decode(Framing::Strip, &[&kept]), stripped);
    }
    if let Some((kept, true)) = decode(Framing::KeepTrailers, &[first, second]) {
        assert_eq!(decode(Framing::Strip, &[&kept]), stripped);
    }
}

/// Frames end where they end, however they arrive.
pub fn websocket(input: &[u8]) {
    let (bytes, first, second) = split(input);
    crate::conn::fuzzing::frames(bytes, first, second);
}

/// Whatever `h2` lets pass becomes one head of HTTP/1.1, which is refused or says the same.
pub fn h2_fields(input: &[u8]) {
    crate::h2::fuzzing::fields(input);
}

/// Read as it is read from a connection: what it takes is there.
pub fn proxy_header(input: &[u8]) {
    let (bytes, first, _) = split(input);
    let whole = crate::conn::fuzzing::proxy_header(bytes);
    if let Some(length) = whole {
        assert!(length <= bytes.len());
    }
    // A part of it either asks for more or is read as the whole is.
    if let Some(length) = crate::conn::fuzzing::proxy_header(first) {
        assert_eq!(whole, Some(length));
    }
}

/// Times are what a cache can reckon with.
pub fn cache_control(input: &[u8]) {
    crate::policy::fuzzing::cache_control(input);
}

/// Lines and lists are the same.
pub fn accept_encoding(input: &[u8]) {
    crate::policy::fuzzing::accept_encoding(input);
}

/// What is marked comes back as it was, and nothing grows.
pub fn entity_tags(input: &[u8]) {
    crate::policy::fuzzing::entity_tags(input);
}

/// Against a queue: nothing is lost, doubled or turned around, and there is never more in it than it may hold.
pub fn pipe(input: &[u8]) {
    let (near, far) = Pipe::pair();
    let mut cx = Context::from_waker(Waker::noop());
    let cx = &mut cx;
    let mut queues: [VecDeque<u8>; 2] = Default::default();
    let mut ended = [false; 2];
    let mut counter = 0_u8;
    let mut buf = vec![0; 2 * PIPE_BYTES_MAX];
    for step in input.as_chunks::<2>().0 {
        let [what, size] = *step;
        let side = usize::from(what & 1);
        let (one, other) = if side == 0 { (&near, &far) } else { (&far, &near) };
        let size = usize::from(size) * 64;
        match what >> 1 & 7 {
            0..=2 => {
                // Every write has its own number in all of its bytes, and an edge.
                let mut bytes = vec![counter; size];
                bytes.iter_mut().take(1).for_each(|first| *first = !counter);
                let (a, b) = bytes.split_at(size / 3);
                match one.poll_write(cx, &[IoSlice::new(a), IoSlice::new(b)]) {
                    Poll::Ready(Ok(count)) => {
                        assert!(!ended[side] && (count > 0 || size == 0));
                        queues[side].extend(&bytes[..count]);
                        counter = counter.wrapping_add(1);
                    }
                    Poll::Ready(Err(_)) => assert!(ended[side]),
                    Poll::Pending => assert_eq!(queues[side].len(), PIPE_BYTES_MAX),
                }
                assert!(queues[side].len() <= PIPE_BYTES_MAX);
            }
            3..=5 => match other.poll_read(cx, &mut buf[..size.max(1)]) {
                Poll::Ready(Ok(0)) => assert!(queues[side].is_empty() && ended[side]),
                Poll::Ready(Ok(count)) => {
                    assert!(queues[side].drain(..count).eq(buf[..count].iter().copied()));
                }
                Poll::Ready(Err(error)) => panic!("{error}"),
                Poll::Pending => assert!(queues[side].is_empty() && !ended[side]),
            },
            6 => {
                one.half_close();
                ended[side] = true;
            }
            _ => assert_eq!(other.is_quiet(), queues[side].is_empty() && !ended[side]),
        }
    }
}

#[cfg(test)]
mod tests;
