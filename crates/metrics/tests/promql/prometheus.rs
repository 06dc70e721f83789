//! A real Prometheus, started for a test.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::memory::Memory;

/// How long Prometheus may take to start.
const START_MAX: Duration = Duration::from_secs(30);

#[derive(Debug)]
pub struct Prometheus {
    process: Child,
    port: u16,
    connection: Option<BufReader<TcpStream>>,
    _home: tempfile::TempDir,
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Prometheus {
    pub fn start(binary: &Path, features: &str) -> Self {
        let home = tempfile::tempdir().unwrap();
        std::fs::write(home.path().join("prometheus.yml"), "global: {}\n").unwrap();
        // Nothing holds the port between here and Prometheus' own bind; were it taken, the start would fail and say so.
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let process = Command::new(binary)
            .arg(format!("--config.file={}", home.path().join("prometheus.yml").display()))
            .arg(format!("--storage.tsdb.path={}", home.path().join("data").display()))
            .arg(format!("--web.listen-address=127.0.0.1:{port}"))
            .arg(format!("--enable-feature={features}"))
            .args([
                "--web.enable-remote-write-receiver",
                "--storage.tsdb.retention.time=100y",
                "--log.level=error",
            ])
            .stdout(Stdio::null())
            .stderr(Stdio::inherit())
            .spawn()
            .unwrap_or_else(|error| panic!("{}: {error}", binary.display()));
        let mut prometheus = Self { process, port, connection: None, _home: home };
        let begun = Instant::now();
        while prometheus.try_request("GET", "/-/ready", "", &[]).is_none_or(|(status, _)| status != 200) {
            assert!(begun.elapsed() < START_MAX, "Prometheus does not get ready");
            assert!(prometheus.process.try_wait().unwrap().is_none(), "Prometheus ended");
            std::thread::sleep(Duration::from_millis(50));
        }
        prometheus
    }

    pub fn ask(&mut self, path: &str, form: &[(&str, &str)]) -> serde_json::Value {
        let body: Vec<String> =
            form.iter().map(|(name, value)| format!("{name}={}", encoded(value))).collect();
        let (_, body) =
            self.request("POST", path, "application/x-www-form-urlencoded", body.join("&").as_bytes());
        serde_json::from_slice(&body)
            .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&body)))
    }

    /// Sends all series by remote write, oldest samples first and, within a request, in the order of the labels.
    pub fn load(&mut self, memory: &Memory) {
        const SLICE_MS: i64 = 600_000;
        let times = || memory.series.values().flat_map(|samples| samples.keys().copied());
        let (Some(first), Some(last)) = (times().min(), times().max()) else { return };
        let mut from = first;
        while from <= last {
            let to = from + SLICE_MS;
            let mut request = Vec::new();
            for (labels, samples) in &memory.series {
                let mut series = Vec::new();
                for (name, value) in labels.iter() {
                    let mut pair = Vec::new();
                    bytes_field(&mut pair, 1, name.as_bytes());
                    bytes_field(&mut pair, 2, value.as_bytes());
                    bytes_field(&mut series, 1, &pair);
                }
                let mut any = false;
                for (at_ms, value) in samples.range(from..to) {
                    let mut sample = vec![1 << 3 | 1];
                    sample.extend(value.to_bits().to_le_bytes());
                    sample.push(2 << 3);
                    varint(&mut sample, *at_ms as u64);
                    bytes_field(&mut series, 2, &sample);
                    any = true;
                }
                if any {
                    bytes_field(&mut request, 1, &series);
                }
            }
            let (status, body) =
                self.request("POST", "/api/v1/write", "application/x-protobuf", &snappy(&request));
            assert!(status / 100 == 2, "{status}: {}", String::from_utf8_lossy(&body));
            from = to;
        }
    }

    fn request(&mut self, method: &str, path: &str, content_type: &str, body: &[u8]) -> (u16, Vec<u8>) {
        // A connection that was kept open may have been closed meanwhile.
        for _ in 0..3 {
            if let Some(answer) = self.try_request(method, path, content_type, body) {
                return answer;
            }
        }
        panic!("Prometheus does not answer");
    }

    fn try_request(
        &mut self,
        method: &str,
        path: &str,
        content_type: &str,
        body: &[u8],
    ) -> Option<(u16, Vec<u8>)> {
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => {
                let stream = TcpStream::connect(("127.0.0.1", self.port)).ok()?;
                stream.set_read_timeout(Some(Duration::from_secs(30))).ok()?;
                stream.set_nodelay(true).ok()?;
                BufReader::new(stream)
            }
        };
        let mut head = format!(
            "{method} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: {content_type}\r\nContent-Encoding: snappy\r\n\
             X-Prometheus-Remote-Write-Version: 0.1.0\r\nContent-Length: {}\r\n\r\n",
            body.len()
        )
        .into_bytes();
        if content_type != "application/x-protobuf" {
            head = String::from_utf8(head).unwrap().replace("Content-Encoding: snappy\r\n", "").into_bytes();
        }
        head.extend_from_slice(body);
        connection.get_mut().write_all(&head).ok()?;
        let mut line = String::new();
        connection.read_line(&mut line).ok()?;
        let status: u16 = line.split(' ').nth(1)?.parse().ok()?;
        let (mut length, mut chunked) = (0, false);
        loop {
            line.clear();
            connection.read_line(&mut line).ok()?;
            let field = line.trim_end().to_ascii_lowercase();
            if field.is_empty() {
                break;
            }
            if let Some(value) = field.strip_prefix("content-length: ") {
                length = value.parse().ok()?;
            }
            chunked |= field == "transfer-encoding: chunked";
        }
        let mut answer = Vec::new();
        if chunked {
            loop {
                line.clear();
                connection.read_line(&mut line).ok()?;
                let size = u64::from_str_radix(line.trim(), 16).ok()?;
                (&mut connection).take(size).read_to_end(&mut answer).ok()?;
                line.clear();
                connection.read_line(&mut line).ok()?;
                if size == 0 {
                    break;
                }
            }
        } else {
            (&mut connection).take(length).read_to_end(&mut answer).ok()?;
        }
        self.connection = Some(connection);
        Some((status, answer))
    }
}

fn encoded(text: &str) -> String {
    let mut out = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) {
            out.push(byte as char);
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 128 {
        out.push(value as u8 | 128);
        value >>= 7;
    }
    out.push(value as u8);
}

fn bytes_field(out: &mut Vec<u8>, number: u8, bytes: &[u8]) {
    out.push(number << 3 | 2);
    varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// The block format with literals alone: nothing is compressed.
fn snappy(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len() + 16);
    varint(&mut out, bytes.len() as u64);
    for chunk in bytes.chunks(1 << 16) {
        let length = (chunk.len() - 1) as u16;
        out.push(61 << 2);
        out.extend(length.to_le_bytes());
        out.extend_from_slice(chunk);
    }
    out
}
