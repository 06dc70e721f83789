//! Arbitrary bytes as a request, as a response and as a chunked body: never a panic, the same verdict however the
//! bytes are split, and framing that is kept decodes to the same data as framing that is stripped.
#![no_main]

use fairway_proxy::codec::{Chunked, Framing, HeadScan, RequestHead, ResponseHead, header_storage};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (usize, Vec<u8>)| {
    let (split, bytes) = input;
    let split = split % (bytes.len() + 1);

    let whole = HeadScan::default().request(&bytes);
    let mut scan = HeadScan::default();
    let in_parts = match scan.request(&bytes[..split]) {
        Ok(None) => scan.request(&bytes),
        early => early,
    };
    assert_eq!(whole, in_parts);
    if let Ok(Some((start, end))) = whole {
        let mut storage = header_storage();
        if let Ok(head) = RequestHead::parse(&bytes[start..end], &mut storage) {
            assert!(!head.target.is_empty());
        }
    }

    if let Ok(Some((start, end))) = HeadScan::default().response(&bytes) {
        let mut storage = header_storage();
        let _ = ResponseHead::parse(&bytes[start..end], &mut storage, "GET");
    }

    let decode = |framing: Framing, parts: &[&[u8]]| {
        let mut chunked = Chunked::default();
        let mut passed = Vec::new();
        for part in parts {
            let mut part = part.to_vec();
            let (_, pass) = chunked.feed(&mut part, framing).ok()?;
            passed.extend_from_slice(&part[..pass]);
        }
        Some((passed, chunked.is_done()))
    };
    let (head, tail) = bytes.split_at(split);
    let stripped = decode(Framing::Strip, &[&bytes]);
    assert_eq!(stripped, decode(Framing::Strip, &[head, tail]));
    let kept = decode(Framing::Keep, &[head, tail]);
    assert_eq!(kept.is_some(), stripped.is_some());
    if let Some((kept, true)) = kept {
        assert_eq!(decode(Framing::Strip, &[&kept]), stripped);
    }
});
