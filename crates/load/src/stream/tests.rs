use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};

use super::*;

/// A server that answers each connection with the next of `acts`, the last one for ever.
fn server(acts: Vec<fn(TcpStream)>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for (number, stream) in listener.incoming().enumerate() {
            let act = acts[number.min(acts.len() - 1)];
            let mut stream = stream.unwrap();
            std::thread::spawn(move || {
                let mut head = Vec::new();
                let mut byte = [0];
                while !head.ends_with(b"\r\n\r\n") && stream.read_exact(&mut byte).is_ok() {
                    head.push(byte[0]);
                }
                act(stream);
            });
        }
    });
    address
}

fn websockets(acts: Vec<fn(TcpStream)>, until: impl Fn(&StreamTally) -> bool) -> StreamReport {
    let mut plan = StreamPlan::new(server(acts), "/echo", "/events");
    (plan.websockets, plan.event_streams) = (1, 0);
    plan.message_every = Duration::from_millis(5);
    run(plan, |report| until(&report.websockets))
}

fn events(acts: Vec<fn(TcpStream)>, until: impl Fn(&StreamTally) -> bool) -> StreamReport {
    let mut plan = StreamPlan::new(server(acts), "/echo", "/events");
    (plan.websockets, plan.event_streams) = (0, 1);
    run(plan, |report| until(&report.events))
}

fn run(plan: StreamPlan, until: impl Fn(&StreamReport) -> bool) -> StreamReport {
    let streams = start_streams(plan).unwrap();
    let patience = Instant::now() + Duration::from_secs(20);
    while !until(&streams.snapshot()) {
        assert!(Instant::now() < patience, "{:?}", streams.snapshot());
        std::thread::sleep(Duration::from_millis(1));
    }
    streams.stop()
}

const SWITCHED: &[u8] = b"HTTP/1.1 101 Switching Protocols\r\n\r\n";
const STREAM: &[u8] = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";

/// Frames of ours, sent back without their mask, which is of zeros.
fn echo(stream: &mut TcpStream, frames: usize) {
    for _ in 0..frames {
        let mut header = [0; 6];
        if stream.read_exact(&mut header).is_err() {
            return;
        }
        let mut payload = vec![0; usize::from(header[1] & 0x7f)];
        stream.read_exact(&mut payload).unwrap();
        let frame = [&[header[0], header[1] & 0x7f][..], &payload].concat();
        if stream.write_all(&frame).is_err() {
            return;
        }
    }
}

fn echo_for_ever(mut stream: TcpStream) {
    stream.write_all(SWITCHED).unwrap();
    echo(&mut stream, usize::MAX);
}

fn goodbye_after_three(mut stream: TcpStream) {
    stream.write_all(SWITCHED).unwrap();
    echo(&mut stream, 3);
    stream.write_all(&[0x88, 2, 3, 0xe9]).unwrap();
    let _ = stream.read_to_end(&mut Vec::new());
}

fn cut_after_three(mut stream: TcpStream) {
    stream.write_all(SWITCHED).unwrap();
    echo(&mut stream, 3);
}

fn refused(mut stream: TcpStream) {
    stream.write_all(b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n").unwrap();
}

#[test]
fn a_close_frame_is_an_end_and_a_close_without_one_is_a_break() {
    let report = websockets(vec![goodbye_after_three, cut_after_three, refused, echo_for_ever], |tally| {
        tally.opened == 3 && tally.messages >= 8
    });
    let tally = report.websockets;
    assert_eq!((tally.opened, tally.ended, tally.broken), (3, 1, 2), "{report:?}");
    assert!(tally.shortest_us.is_some());
    let what: Vec<&str> = report.breaks.iter().map(|one| one.what.as_str()).collect();
    assert!(what[0].contains("without a close frame") || what[0].contains("reset"), "{what:?}");
    assert!(what[1].contains("503"), "{what:?}");
}

fn three_events(mut stream: TcpStream) {
    stream.write_all(STREAM).unwrap();
    for number in 5..8 {
        write!(stream, "9\r\ndata: {number}\n\n\r\n").unwrap();
    }
    stream.write_all(b"0\r\n\r\n").unwrap();
}

fn cut_events(mut stream: TcpStream) {
    stream.write_all(STREAM).unwrap();
    stream.write_all(b"9\r\ndata: 1\n\n\r\n").unwrap();
}

fn silent(mut stream: TcpStream) {
    stream.write_all(STREAM).unwrap();
    let _ = stream.read_to_end(&mut Vec::new());
}

#[test]
fn the_last_chunk_is_an_end_and_a_close_without_one_is_a_break() {
    let report = events(vec![three_events, cut_events, silent], |tally| tally.opened == 3);
    let tally = report.events;
    assert_eq!((tally.ended, tally.broken, tally.messages), (1, 1, 4), "{report:?}");
    assert!(report.breaks[0].what.contains("without the last chunk"), "{report:?}");
    assert_eq!(report.broken(), 1);
}

#[test]
fn a_stream_on_which_nothing_comes_is_broken() {
    let mut plan = StreamPlan::new(server(vec![silent]), "/echo", "/events");
    (plan.websockets, plan.event_streams) = (0, 1);
    plan.quiet_max = Duration::from_millis(20);
    let report = run(plan, |report| report.events.broken > 0);
    assert!(report.breaks[0].what.contains("nothing came"), "{report:?}");
}
