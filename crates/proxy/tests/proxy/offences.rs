//! HTTP/2, over more than one frame: windows, goodbyes, and streams that a client makes us reset.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::frames::*;
use crate::support::*;

fn settings(id: u16, value: u32) -> Vec<u8> {
    frame(SETTINGS, 0, 0, &[&id.to_be_bytes()[..], &value.to_be_bytes()].concat())
}

fn window(stream: u32, bytes: u32) -> Vec<u8> {
    frame(WINDOW_UPDATE, 0, stream, &bytes.to_be_bytes())
}

const INITIAL_WINDOW: u16 = 4;

/// Everything that was on its way before this question: data of a stream, and whether it has ended.
fn so_far(raw: &mut Raw) -> (Vec<u8>, bool) {
    raw.send(&frame(PING, 0, 0, b"so far??")).unwrap();
    let (mut data, mut is_over) = (Vec::new(), false);
    loop {
        let frame = raw.next().expect("the connection is open");
        match frame.kind {
            PING if frame.flags & ACK != 0 => return (data, is_over),
            DATA => {
                data.extend_from_slice(&frame.payload);
                is_over |= frame.flags & END_STREAM != 0;
            }
            RST_STREAM | GOAWAY => panic!("{}", frame.code()),
            _ => {}
        }
    }
}

/// Data until there are so many bytes.
fn data(raw: &mut Raw, bytes: usize) -> Vec<u8> {
    let mut data = Vec::new();
    while data.len() < bytes {
        let frame = raw.next().expect("the connection is open");
        if frame.kind == DATA {
            data.extend_from_slice(&frame.payload);
        }
    }
    data
}

/// RFC 9113, 6.9: a window of nothing, one that grows by frames and by settings, and one that falls below nothing.
#[test]
fn answers_keep_to_the_window_of_the_client() {
    let origin = Origin::start(|_| ok("0123456789"));
    let mut proxy = Proxy::start();
    proxy.serve(service(&[("i", origin.addr)]));
    let mut raw = Raw::silent(proxy.addr);
    raw.send(&[PREFACE, &settings(INITIAL_WINDOW, 0), &get(&[])].concat()).unwrap();
    while raw.next().unwrap().kind != HEADERS {}
    assert_eq!(so_far(&mut raw), (b"".to_vec(), false));
    raw.send(&window(1, 3)).unwrap();
    assert_eq!(data(&mut raw, 3), b"012");
    raw.send(&settings(INITIAL_WINDOW, 2)).unwrap();
    assert_eq!(data(&mut raw, 2), b"34");
    raw.send(&[settings(INITIAL_WINDOW, 0), window(1, 2)].concat()).unwrap();
    assert_eq!(so_far(&mut raw), (b"".to_vec(), false), "two less than nothing and two more are nothing");
    raw.send(&window(1, 1)).unwrap();
    assert_eq!(data(&mut raw, 1), b"5");
    raw.send(&window(1, 100)).unwrap();
    assert_eq!(data(&mut raw, 4), b"6789");
}

/// RFC 9113, 6.9.1. What a client may send is bounded by what we take from it, and not by its good will. Which window is
/// seen to overflow first is a matter of timing: that of the connection ends it, that of the stream resets the stream, and
/// what still comes for it is read and dropped.
#[test]
fn a_body_beyond_the_window_is_refused() {
    let origin = Origin::raw(free_addr(), |stream| {
        std::thread::sleep(HANG);
        drop(stream);
    });
    let mut proxy = Proxy::start();
    proxy.serve(service(&[("i", origin.addr)]));
    let mut raw = Raw::open(proxy.addr);
    raw.send(&post(&[])).unwrap();
    let part = frame(DATA, 0, 1, &[7; 16_384]);
    let sent = (0..8_192).take_while(|_| raw.send(&part).is_ok()).count();
    let outcome = raw.outcome();
    match outcome.as_str() {
        "connection FLOW_CONTROL_ERROR" | "closed" => assert!(sent < 8_192, "128 MiB were taken: {outcome}"),
        outcome => assert_eq!(outcome, "stream FLOW_CONTROL_ERROR"),
    }
    drop(raw);
    eventually("nothing is left of it", || proxy.stats().connections_open == 0);
}

/// "Made you reset" (CVE-2025-8671): the client gives no reset that could be counted, but makes us give one, and each
/// makes room for another request while the instance still works for the one before.
#[test]
fn streams_that_we_are_made_to_reset_end_their_connection() {
    let served = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&served);
    let origin = Origin::raw(free_addr(), move |mut stream| {
        use std::io::Read as _;
        if matches!(stream.read(&mut [0; 1024]), Ok(1..)) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    });
    type Offence = fn(u32) -> Vec<u8>;
    let offences: [(&str, Offence); 4] = [
        ("too much window", |id| window(id, 0x7fff_ffff)),
        ("trailers that do not end it", |id| frame(HEADERS, END_HEADERS, id, &block(&[("x", "y")]))),
        ("more than it said", |id| frame(DATA, 0, id, b"xyz")),
        ("no window", |id| window(id, 0)),
    ];
    let mut proxy = Proxy::start();
    proxy.serve(service(&[("i", origin.addr)]));
    for (name, offence) in offences {
        served.store(0, Ordering::Relaxed);
        let mut raw = Raw::open(proxy.addr);
        let mut reader = Raw::of(&raw);
        let reading = std::thread::spawn(move || reader.outcome_of_connection());
        let head = block(&[&POST[..], &[("content-length", "2")]].concat());
        let mut opened = 0;
        while opened < 10_000 {
            let id = 2 * opened + 1;
            if raw.send(&[frame(HEADERS, END_HEADERS, id, &head), offence(id)].concat()).is_err() {
                break;
            }
            opened += 1;
        }
        let outcome = reading.join().unwrap();
        let expected = ["connection ENHANCE_YOUR_CALM", GENERAL, "closed"];
        assert!(expected.contains(&outcome.as_str()), "{name}: {opened}: {outcome}");
        eventually("nothing is left of it", || proxy.stats().connections_open == 0);
        let served = served.load(Ordering::Relaxed);
        assert!(served < 600, "{name}: {served} requests reached the instance");
    }
}

/// RFC 9113, 6.8: a client that says goodbye opens no more streams, and waits for what it has asked.
#[test]
fn a_goodbye_of_the_client_lets_its_streams_finish() {
    let (go, wait) = std::sync::mpsc::channel::<()>();
    let wait = std::sync::Mutex::new(wait);
    let origin = Origin::start(move |_| {
        let _ = wait.lock().unwrap().recv();
        ok("late")
    });
    let mut proxy = Proxy::start();
    proxy.serve(service(&[("i", origin.addr)]));
    let mut raw = Raw::open(proxy.addr);
    raw.send(&get(&[])).unwrap();
    eventually("it is on its way", || proxy.in_flight("i") == 1);
    raw.send(&frame(GOAWAY, 0, 0, &[0; 8])).unwrap();
    go.send(()).unwrap();
    assert_eq!(raw.outcome(), "200");
    assert_eq!(data(&mut raw, 4), b"late");
    eventually("it is over", || proxy.stats().connections_open == 0);
}

/// RFC 9113, 5.1: what crosses the end of a stream on the way is no offence, and the next stream is served.
#[test]
fn what_may_come_when_a_stream_is_over_harms_nothing() {
    let origin = Origin::start(|_| ok("x"));
    let mut proxy = Proxy::start();
    proxy.serve(service(&[("i", origin.addr)]));
    let mut raw = Raw::open(proxy.addr);
    let priority = frame(PRIORITY, 0, 1, &[0, 0, 0, 3, 9]);
    // Half of it is over.
    raw.send(&[get(&[]), window(1, 5), priority.clone()].concat()).unwrap();
    assert_eq!(raw.outcome(), "200");
    assert_eq!(data(&mut raw, 1), b"x");
    // All of it is.
    raw.send(&[window(1, 5), priority, frame(RST_STREAM, 0, 1, &[0, 0, 0, 8])].concat()).unwrap();
    raw.send(&frame(HEADERS, WHOLE, 3, &block(&GET))).unwrap();
    assert_eq!(raw.outcome(), "200");
}
