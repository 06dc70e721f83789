//! As much of HTTP/1.1 as two programs of one machine need to talk to each other.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use crate::fault::{Context, Done};

/// Nothing that is asked here takes longer, unless it hangs.
const ANSWER_MAX: Duration = Duration::from_secs(120);

/// A line of a head; ours and Prometheus' are far shorter.
const LINE_BYTES_MAX: u64 = 64 << 10;

/// One connection, which stays open.
#[derive(Debug)]
pub struct Client {
    port: u16,
    connection: Option<BufReader<TcpStream>>,
}

impl Client {
    pub fn new(port: u16) -> Client {
        Client { port, connection: None }
    }

    /// Status and body.
    pub fn send(
        &mut self,
        method: &str,
        target: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Done<(u16, Vec<u8>)> {
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => {
                let stream = TcpStream::connect(("127.0.0.1", self.port)).context(target)?;
                stream.set_nodelay(true).context(target)?;
                stream.set_read_timeout(Some(ANSWER_MAX)).context(target)?;
                BufReader::new(stream)
            }
        };
        let mut request = format!("{method} {target} HTTP/1.1\r\nHost: localhost\r\n").into_bytes();
        for (name, value) in headers {
            request.extend(format!("{name}: {value}\r\n").bytes());
        }
        request.extend(format!("Content-Length: {}\r\n\r\n", body.len()).bytes());
        request.extend_from_slice(body);
        connection.get_mut().write_all(&request).context(target)?;
        let head = Head::read(&mut connection).context(target)?;
        let status = head.first.split(' ').nth(1).and_then(|status| status.parse().ok()).context(target)?;
        let answer = head.body(&mut connection).context(target)?;
        self.connection = Some(connection);
        Ok((status, answer))
    }
}

/// The head of a request or of an answer.
#[derive(Debug)]
pub struct Head {
    pub first: String,
    fields: Vec<(String, String)>,
}

impl Head {
    /// `None` at the end of the connection.
    pub fn read(from: &mut impl BufRead) -> std::io::Result<Head> {
        let first = line(from)?;
        let mut fields = Vec::new();
        loop {
            let line = line(from)?;
            if line.is_empty() {
                return Ok(Head { first, fields });
            }
            if let Some((name, value)) = line.split_once(':') {
                fields.push((name.to_ascii_lowercase(), value.trim().to_owned()));
            }
        }
    }

    /// Empty when there is none.
    pub fn field(&self, name: &str) -> &str {
        let found = self.fields.iter().find(|(known, _)| known == name);
        found.map(|(_, value)| value.as_str()).unwrap_or_default()
    }

    pub fn body(&self, from: &mut impl BufRead) -> std::io::Result<Vec<u8>> {
        let mut body = Vec::new();
        if self.field("transfer-encoding") != "chunked" {
            let length = self.field("content-length").parse().unwrap_or(0);
            from.take(length).read_to_end(&mut body)?;
            return Ok(body);
        }
        loop {
            let size = u64::from_str_radix(&line(from)?, 16).map_err(std::io::Error::other)?;
            from.take(size).read_to_end(&mut body)?;
            line(from)?;
            if size == 0 {
                return Ok(body);
            }
        }
    }
}

fn line(from: &mut impl BufRead) -> std::io::Result<String> {
    let mut line = String::new();
    if from.take(LINE_BYTES_MAX).read_line(&mut line)? == 0 {
        return Err(std::io::ErrorKind::UnexpectedEof.into());
    }
    Ok(line.trim_end().to_owned())
}

/// What may not stand in a URL, escaped.
pub fn escaped(text: &str) -> String {
    let mut out = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body(text: &str) -> Option<String> {
        let mut from = BufReader::new(text.as_bytes());
        let head = Head::read(&mut from).ok()?;
        Some(String::from_utf8(head.body(&mut from).ok()?).unwrap())
    }

    #[test]
    fn bodies_have_a_length_or_come_in_pieces() {
        assert_eq!(body("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabcd").as_deref(), Some("abc"));
        let pieces = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n1\r\nd\r\n0\r\n\r\n";
        assert_eq!(body(pieces).as_deref(), Some("abcd"));
        assert_eq!(body("HTTP/1.1 204 No Content\r\n\r\n").as_deref(), Some(""));
        assert_eq!(body("HTTP/1.1 200 OK\r\nContent-"), None);
    }

    #[test]
    fn a_query_fits_into_a_url() {
        assert_eq!(escaped("rate(a_b[5m])"), "rate%28a_b%5B5m%5D%29");
    }
}
