//! The table of framing and smuggling cases: the same bytes to Fairway, nginx and HAProxy, and what reaches the service
//! of them. Holds Fairway to the answer of each case, and to passing on nothing that has two readings. What the others do
//! is shown beside it. `FAIRWAY_BLESS=1` writes docs/reference/framing.md anew.

#![allow(clippy::unwrap_used, reason = "a test's helpers may panic like the test itself")]

mod origin;
mod peers;
mod reader;
mod requests;
mod responses;
#[allow(dead_code, reason = "shared with the other tests over sockets")]
#[path = "../proxy/support.rs"]
mod support;

use std::fmt::Write as _;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::time::Duration;

use origin::{Origin, Script};
use peers::Kind as PeerKind;
use reader::{Kind, Message, Read};
use support::{Proxy, service};

/// What a client sends, or a service answers, and what is to become of it.
#[derive(Debug, Clone)]
pub struct Case {
    group: &'static str,
    name: String,
    /// Number and section.
    rfc: &'static str,
    sends: Vec<u8>,
    script: Script,
    /// What the client gets.
    client: String,
    /// What the service gets.
    origin: String,
}

/// What became of a case.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Outcome {
    client: String,
    origin: String,
}

/// Longer than any proxy here waits for what does not come.
const ANSWER_MAX: Duration = Duration::from_secs(10);

/// Fields that show whether a hop was respected, where they are not as usual.
const WATCHED: &[&str] = &[
    "host",
    "connection",
    "upgrade",
    "expect",
    "te",
    "trailer",
    "keep-alive",
    "x-hop",
    "proxy-connection",
    "proxy-authorization",
    "http2-settings",
    "transfer_encoding",
    "content_length",
    "x_forwarded_for",
    "x_api_key",
];

fn run(case: &Case, addr: SocketAddr, origin: &Origin) -> Outcome {
    origin.follow(&case.script);
    let mut stream = TcpStream::connect(addr).unwrap();
    stream.set_nodelay(true).unwrap();
    stream.set_read_timeout(Some(ANSWER_MAX)).unwrap();
    // Whoever has seen enough may close before all of it is written.
    let _ = stream.write_all(&case.sends);
    let (mut got, mut buf) = (Vec::new(), [0; 16 * 1024]);
    let end = loop {
        match stream.read(&mut buf) {
            Ok(0) => break End::Closed,
            Ok(count) => {
                got.extend_from_slice(&buf[..count]);
                origin.was_seen();
            }
            Err(error) if error.kind() == ErrorKind::ConnectionReset => break End::Reset,
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                break End::Open;
            }
            Err(error) => panic!("{}: {error}", case.name),
        }
    };
    let is_head = case.sends.starts_with(b"HEAD ");
    let received = origin.received();
    Outcome { client: answers(&got, end, is_head, &case.script), origin: requests_in(&received) }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Closed,
    Reset,
    Open,
}

/// Statuses, and bodies where the service wrote them by hand.
fn answers(mut bytes: &[u8], end: End, mut to_head: bool, script: &Script) -> String {
    let mut all = Vec::new();
    while !bytes.is_empty() {
        match reader::read(bytes, Kind::Answer { to_head }, end == End::Closed) {
            Ok(Read::Whole(message, length)) => {
                let status = message.status();
                let body = String::from_utf8_lossy(&message.body).into_owned();
                let is_scripted = *script != Script::Usual && status == 200 && body != "/end";
                all.push(match is_scripted && !body.is_empty() {
                    true => format!("{status} {body:?}"),
                    false => status.to_string(),
                });
                to_head &= status < 200;
                bytes = &bytes[length..];
            }
            Ok(Read::Part(message)) => {
                all.push(format!("{} cut", message.status()));
                break;
            }
            Ok(Read::Nothing) => {
                all.push("half a head".to_owned());
                break;
            }
            Err(why) => {
                all.push(format!("ambiguous: {why}"));
                break;
            }
        }
    }
    match (end, all.is_empty()) {
        (End::Closed, true) => "closed".to_owned(),
        (End::Reset, true) => "reset".to_owned(),
        (End::Open, _) => format!("{}, open", all.join(", ")),
        (End::Closed | End::Reset, false) => all.join(", "),
    }
}

/// As a strict reader takes them.
fn requests_in(connections: &[Vec<u8>]) -> String {
    let mut all = Vec::new();
    for bytes in connections {
        let mut rest = bytes.as_slice();
        while !rest.is_empty() {
            match reader::read(rest, Kind::Request, true) {
                Ok(Read::Whole(message, length)) => {
                    all.push(shown(&message, ""));
                    rest = &rest[length..];
                }
                Ok(Read::Part(message)) => {
                    all.push(shown(&message, " cut"));
                    break;
                }
                Ok(Read::Nothing) => {
                    all.push("half a head".to_owned());
                    break;
                }
                Err(why) => {
                    all.push(format!("ambiguous: {why}"));
                    break;
                }
            }
        }
    }
    if all.is_empty() { "nothing".to_owned() } else { all.join("; ") }
}

fn shown(message: &Message, end: &str) -> String {
    let mut text = message.first_line.rsplit_once(' ').map_or("", |(line, _)| line).to_owned();
    if text.len() > 60 {
        text = format!("{}… ({} bytes)", &text[..text.floor_char_boundary(20)], text.len());
    }
    if !message.body.is_empty() {
        let _ = match message.body.len() {
            ..=60 => write!(text, " {:?}", String::from_utf8_lossy(&message.body)),
            bytes => write!(text, " {bytes} bytes"),
        };
    }
    text += end;
    for (name, value) in &message.fields {
        let is_usual = match name.as_str() {
            "host" => value == "a",
            "connection" => ["", "close", "keep-alive"].contains(&value.as_str()),
            _ => false,
        };
        if WATCHED.contains(&name.as_str()) && !is_usual {
            let _ = write!(text, " [{name}: {value}]");
        }
    }
    for name in &message.trailers {
        let _ = write!(text, " [trailer {name}]");
    }
    text
}

fn cases() -> Vec<Case> {
    let mut cases = requests::all();
    cases.extend(responses::all());
    cases
}

/// All cases, one after the other, over one proxy.
fn outcomes(cases: &[Case], addr: SocketAddr, origin: &Origin) -> Vec<Outcome> {
    cases.iter().map(|case| run(case, addr, origin)).collect()
}

/// A column of the table.
struct Column {
    name: String,
    outcomes: Vec<Outcome>,
}

fn peer(kind: PeerKind, cases: &[Case]) -> Option<Column> {
    let origin = Origin::start();
    let peer = kind.start(origin.addr)?;
    Some(Column { name: peer.name.clone(), outcomes: outcomes(cases, peer.addr, &origin) })
}

#[test]
fn every_case_gets_its_answer_and_nothing_ambiguous_goes_on() {
    let cases = &cases();
    let origin = Origin::start();
    let mut proxy = Proxy::start();
    proxy.serve(service(&[("i", origin.addr)]));
    let (ours, theirs) = std::thread::scope(|scope| {
        let theirs = [PeerKind::Nginx, PeerKind::Haproxy].map(|kind| scope.spawn(move || peer(kind, cases)));
        let ours = outcomes(cases, proxy.addr, &origin);
        (ours, theirs.into_iter().filter_map(|column| column.join().unwrap()).collect::<Vec<_>>())
    });
    let mut wrong = Vec::new();
    for (case, found) in cases.iter().zip(&ours) {
        let is_ambiguous = found.client.contains("ambiguous") || found.origin.contains("ambiguous");
        if found.client != case.client || found.origin != case.origin || is_ambiguous {
            wrong.push(format!(
                "{}, {}: {} / {} instead of {} / {}",
                case.group, case.name, found.client, found.origin, case.client, case.origin
            ));
        }
    }
    println!("{}", table(cases, &theirs));
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), cases.len(), wrong.join("\n"));
    assert!(cases.len() >= 80);
    // What others do differs; a column in which everything or nothing does was not measured.
    for column in &theirs {
        let same = cases.iter().zip(&column.outcomes).filter(|(case, found)| is_same(case, found)).count();
        assert!((20..cases.len()).contains(&same), "{}: {same} of {}", column.name, cases.len());
    }
    in_the_reference(cases, &theirs);
}

fn is_same(case: &Case, found: &Outcome) -> bool {
    case.client == found.client && case.origin == found.origin
}

/// The part of a row that does not depend on what others do.
fn row(case: &Case) -> String {
    let (number, section) = case.rfc.split_once(' ').expect("number and section");
    format!("| {} | RFC {number}, {section} | {} | {} |", case.name, code(&case.client), code(&case.origin))
}

/// As code in a cell.
fn code(text: &str) -> String {
    format!("`{}`", text.replace('|', "\\|"))
}

fn table(cases: &[Case], columns: &[Column]) -> String {
    let mut text = String::new();
    let mut group = "";
    for (index, case) in cases.iter().enumerate() {
        if case.group != group {
            group = case.group;
            let names: String = columns.iter().map(|column| format!(" {} |", column.name)).collect();
            let rule = "---|".repeat(4 + columns.len());
            let _ =
                write!(text, "\n## {group}\n\n| case | RFC | client gets | service gets |{names}\n|{rule}\n");
        }
        text += &row(case);
        for column in columns {
            let found = &column.outcomes[index];
            let _ = match is_same(case, found) {
                true => write!(text, " same |"),
                false => write!(text, " {} / {} |", code(&found.client), code(&found.origin)),
            };
        }
        text.push('\n');
    }
    text
}

const INTRODUCTION: &str = "# Framing

What becomes of messages that two readers can take in two ways, or that are only unusual. Written by the test
`crates/proxy/tests/framing`, which sends the same bytes to Fairway, nginx and HAProxy in front of a service that keeps
every byte it gets. Behind each case comes a second request, `GET /end`: whether it is answered, and reaches the service
as what it is, shows where the proxy saw the end of the first. *Client gets*: the statuses, in order; `cut`: an answer
that visibly did not end. *Service gets*: requests as a reader takes them that accepts one reading only, with fields of
interest in brackets.

Fairway refuses where the RFC leaves the choice between refusing and repairing. What it answers itself ends the
connection when nobody could say where the next request begins. Beside it is what nginx and HAProxy do with usual
settings: `same`, or what the client gets / what the service gets.
";

/// Every row of ours is in the reference as it is here.
fn in_the_reference(cases: &[Case], columns: &[Column]) {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../docs/reference/framing.md");
    if std::env::var_os("FAIRWAY_BLESS").is_some_and(|value| value == "1") && columns.len() == 2 {
        std::fs::write(&path, format!("{INTRODUCTION}{}", table(cases, columns))).unwrap();
    }
    let text = std::fs::read_to_string(&path).unwrap();
    let rows: Vec<&str> =
        text.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| case |")).collect();
    let is_told =
        rows.len() == cases.len() && cases.iter().zip(&rows).all(|(case, line)| line.starts_with(&row(case)));
    assert!(
        is_told,
        "docs/reference/framing.md is out of date: FAIRWAY_BLESS=1 with nginx and HAProxy writes it"
    );
}
