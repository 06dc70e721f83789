//! One request, for the few answers that we read ourselves. Everything else goes through the load generator.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use crate::fault::{Context, Done, Fault};

const TIMEOUT: Duration = Duration::from_secs(10);

/// An answer that is larger is not one that we asked for.
const BYTES_MAX: u64 = 16 << 20;

#[derive(Debug, PartialEq, Eq)]
pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: String,
}

impl Answer {
    /// The value of a header, if it is there.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().skip(1).find_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name).then_some(value.trim())
        })
    }
}

pub fn get(address: SocketAddr, path: &str) -> Done<Answer> {
    send(address, "GET", path, &[], b"")
}

/// One request on a connection of its own.
pub fn send(
    address: SocketAddr,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> Done<Answer> {
    let what = format!("{method} http://{address}{path}");
    let mut stream = TcpStream::connect_timeout(&address, TIMEOUT).context(&what)?;
    stream.set_read_timeout(Some(TIMEOUT)).context(&what)?;
    let mut head = format!("{method} {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n");
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    if !body.is_empty() {
        head.push_str(&format!("content-length: {}\r\n", body.len()));
    }
    head.push_str("\r\n");
    stream.write_all(&[head.as_bytes(), body].concat()).context(&what)?;
    let mut bytes = Vec::new();
    stream.take(BYTES_MAX).read_to_end(&mut bytes).context(&what)?;
    parse(&String::from_utf8_lossy(&bytes)).with(&what)
}

trait With<T> {
    fn with(self, what: &str) -> Done<T>;
}

impl<T> With<T> for Option<T> {
    fn with(self, what: &str) -> Done<T> {
        self.ok_or_else(|| Fault::new(format!("{what}: the answer is not complete")))
    }
}

fn parse(text: &str) -> Option<Answer> {
    let (head, rest) = text.split_once("\r\n\r\n")?;
    let status = head.split(' ').nth(1)?.parse().ok()?;
    let mut answer = Answer { status, head: head.to_owned(), body: String::new() };
    answer.body =
        if answer.header("transfer-encoding").is_some_and(|value| value.eq_ignore_ascii_case("chunked")) {
            unchunked(rest)?
        } else if let Some(length) = answer.header("content-length") {
            rest.get(..length.parse().ok()?)?.to_owned()
        } else {
            rest.to_owned()
        };
    Some(answer)
}

fn unchunked(mut rest: &str) -> Option<String> {
    let mut body = String::new();
    loop {
        let (size, after) = rest.split_once("\r\n")?;
        let size = usize::from_str_radix(size.split(';').next()?.trim(), 16).ok()?;
        if size == 0 {
            return Some(body);
        }
        body.push_str(after.get(..size)?);
        rest = after.get(size..)?.strip_prefix("\r\n")?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_three_ways_to_end_a_body() {
        let answer = parse("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nab").unwrap();
        assert_eq!((answer.status, answer.body.as_str()), (200, "ab"));
        let answer =
            parse("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n1;x\r\nd\r\n0\r\n\r\n");
        assert_eq!(answer.unwrap().body, "abcd");
        assert_eq!(parse("HTTP/1.0 404 Not Found\r\n\r\nall").unwrap().body, "all");
    }

    #[test]
    fn a_cut_off_answer_is_no_answer() {
        assert_eq!(parse("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nab"), None);
        assert_eq!(parse("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n"), None);
        assert_eq!(parse("HTTP/1.1 200 OK\r\n"), None);
    }
}
