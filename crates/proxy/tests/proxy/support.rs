use std::io::{self, BufReader, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use fairway_proxy::control::{ApplyError, Client, Event, Events, Rejected, Stats};
use fairway_proxy::snapshot::{Hold, Instance, Listener, Policy, Purpose, Route, Service, Snapshot, Version};
use fairway_proxy::{ExitReason, RunError, RunOptions};

/// Nothing in a test takes this long unless it hangs.
pub const HANG: Duration = Duration::from_secs(20);

/// A free port that no other test of this process gets.
pub fn free_addr() -> SocketAddr {
    // Below the ephemeral range, so that no outgoing connection takes it meanwhile.
    static NEXT: AtomicU16 = AtomicU16::new(0);
    loop {
        let offset = NEXT.fetch_add(1, Ordering::Relaxed);
        let base = 10_000 + (std::process::id() % 180) as u16 * 100;
        let addr = SocketAddr::from((Ipv4Addr::LOCALHOST, base + offset % 2_000));
        if TcpListener::bind(addr).is_ok() {
            return addr;
        }
    }
}

/// A request as an origin or a test reads it.
#[derive(Debug, Clone, Default)]
pub struct Message {
    pub first_line: String,
    pub fields: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Message {
    pub fn field(&self, name: &str) -> Option<&str> {
        self.fields.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v.as_str())
    }

    pub fn status(&self) -> u16 {
        self.first_line.split(' ').nth(1).and_then(|s| s.parse().ok()).unwrap_or(0)
    }

    pub fn target(&self) -> &str {
        self.first_line.split(' ').nth(1).unwrap_or("")
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// Reads a head; `None` at a clean end.
fn read_head(reader: &mut impl io::BufRead) -> io::Result<Option<Message>> {
    let mut message = Message::default();
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 {
            return match message.first_line.is_empty() {
                true => Ok(None),
                false => Err(io::ErrorKind::UnexpectedEof.into()),
            };
        }
        let line = line.trim_end_matches(['\r', '\n']);
        if message.first_line.is_empty() {
            message.first_line = line.to_owned();
        } else if line.is_empty() {
            return Ok(Some(message));
        } else {
            let (name, value) = line.split_once(':').unwrap_or((line, ""));
            message.fields.push((name.to_owned(), value.trim().to_owned()));
        }
    }
}

fn read_body(reader: &mut impl io::BufRead, message: &mut Message, until_close: bool) -> io::Result<()> {
    if message.field("transfer-encoding") == Some("chunked") {
        loop {
            let mut line = String::new();
            reader.read_line(&mut line)?;
            let size = usize::from_str_radix(line.trim_end(), 16)
                .map_err(|_| io::Error::new(io::ErrorKind::UnexpectedEof, format!("chunk size {line:?}")))?;
            let mut chunk = vec![0; size + 2];
            reader.read_exact(&mut chunk)?;
            message.body.extend_from_slice(&chunk[..size]);
            if size == 0 {
                return Ok(());
            }
        }
    }
    match message.field("content-length").map(|v| v.parse::<usize>().unwrap()) {
        Some(length) => {
            message.body = vec![0; length];
            reader.read_exact(&mut message.body)
        }
        None if until_close => reader.read_to_end(&mut message.body).map(|_| ()),
        None => Ok(()),
    }
}

/// Reads an answer with its body.
pub fn read_message(reader: &mut impl io::BufRead) -> io::Result<Message> {
    let mut message = read_head(reader)?.ok_or_else(|| io::Error::from(io::ErrorKind::UnexpectedEof))?;
    read_body(reader, &mut message, true)?;
    Ok(message)
}

/// What an origin does after reading a request.
pub enum Reply {
    /// These bytes, then the next request.
    Bytes(Vec<u8>),
    /// These bytes, then close.
    Last(Vec<u8>),
    /// These bytes, then a reset.
    Reset(Vec<u8>),
    /// These bytes, then echo whatever comes.
    Echo(Vec<u8>),
}

pub fn ok(body: impl AsRef<[u8]>) -> Reply {
    let body = body.as_ref();
    let mut bytes = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", body.len()).into_bytes();
    bytes.extend_from_slice(body);
    Reply::Bytes(bytes)
}

/// A server with a thread per connection. It keeps accepting until the process ends; tests that need it to go
/// away drop the listener through [`Origin::stop`].
pub struct Origin {
    pub addr: SocketAddr,
    stop: Arc<std::sync::atomic::AtomicBool>,
}

impl Origin {
    pub fn start(handler: impl Fn(&Message) -> Reply + Send + Sync + 'static) -> Self {
        Self::start_at(free_addr(), handler)
    }

    pub fn start_at(addr: SocketAddr, handler: impl Fn(&Message) -> Reply + Send + Sync + 'static) -> Self {
        let handler = Arc::new(handler);
        Self::raw(addr, move |stream| {
            let mut reader = BufReader::new(stream.try_clone().unwrap());
            let mut stream = stream;
            while let Ok(Some(mut request)) = read_head(&mut reader) {
                if request.field("expect").is_some() {
                    stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").unwrap();
                }
                if read_body(&mut reader, &mut request, false).is_err() {
                    return;
                }
                match handler(&request) {
                    Reply::Bytes(bytes) => {
                        if stream.write_all(&bytes).is_err() {
                            return;
                        }
                    }
                    Reply::Last(bytes) => return drop(stream.write_all(&bytes)),
                    Reply::Reset(bytes) => {
                        let _ = stream.write_all(&bytes);
                        let linger = Some(Duration::ZERO);
                        return rustix::net::sockopt::set_socket_linger(&stream, linger).unwrap();
                    }
                    Reply::Echo(bytes) => {
                        stream.write_all(&bytes).unwrap();
                        let mut buf = [0; 4096];
                        while let Ok(n @ 1..) = reader.read(&mut buf) {
                            if stream.write_all(&buf[..n]).is_err() {
                                return;
                            }
                        }
                        return;
                    }
                }
            }
        })
    }

    /// Hands every connection to `handler` as it is.
    pub fn raw(addr: SocketAddr, handler: impl Fn(TcpStream) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind(addr).unwrap();
        let stop = Arc::new(std::sync::atomic::AtomicBool::new(false));
        let (stopped, handler) = (Arc::clone(&stop), Arc::new(handler));
        std::thread::spawn(move || {
            while let Ok((stream, _)) = listener.accept() {
                if stopped.load(Ordering::SeqCst) {
                    return;
                }
                stream.set_nodelay(true).unwrap();
                let handler = Arc::clone(&handler);
                std::thread::spawn(move || handler(stream));
            }
        });
        Self { addr, stop }
    }

    /// Refuses connections from now on; open ones go on.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(self.addr);
        while TcpStream::connect(self.addr).is_ok() {
            std::thread::yield_now();
        }
    }
}

/// A client connection.
pub struct Wire {
    pub stream: TcpStream,
    reader: BufReader<TcpStream>,
}

impl Wire {
    pub fn open(addr: SocketAddr) -> Self {
        let stream = TcpStream::connect(addr).unwrap();
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(HANG)).unwrap();
        let reader = BufReader::new(stream.try_clone().unwrap());
        Self { stream, reader }
    }

    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.write_all(bytes.as_ref()).unwrap();
    }

    pub fn read(&mut self) -> io::Result<Message> {
        self.read_to("GET")
    }

    pub fn read_to(&mut self, method: &str) -> io::Result<Message> {
        let mut message =
            read_head(&mut self.reader)?.ok_or_else(|| io::Error::from(io::ErrorKind::UnexpectedEof))?;
        let bodiless = method == "HEAD" || matches!(message.status(), 100..=199 | 204 | 304);
        if !bodiless {
            read_body(&mut self.reader, &mut message, true)?;
        }
        Ok(message)
    }

    pub fn get(&mut self, target: &str) -> io::Result<Message> {
        self.stream.write_all(format!("GET {target} HTTP/1.1\r\nHost: test\r\n\r\n").as_bytes())?;
        self.read()
    }

    pub fn post(&mut self, target: &str, body: &[u8]) -> io::Result<Message> {
        let head = format!("POST {target} HTTP/1.1\r\nHost: test\r\nContent-Length: {}\r\n\r\n", body.len());
        self.stream.write_all(&[head.as_bytes(), body].concat())?;
        self.read()
    }

    pub fn reader(&mut self) -> &mut impl io::BufRead {
        &mut self.reader
    }

    /// Raw bytes, exactly so many.
    pub fn bytes(&mut self, count: usize) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; count];
        self.reader.read_exact(&mut bytes)?;
        Ok(bytes)
    }

    /// Everything until the other side closes in good order.
    pub fn rest(&mut self) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        self.reader.read_to_end(&mut bytes)?;
        Ok(bytes)
    }
}

/// A proxy on a thread of this process.
pub struct Proxy {
    pub dir: tempfile::TempDir,
    pub addr: SocketAddr,
    pub client: Client,
    pub runtime: tokio::runtime::Runtime,
    thread: Option<JoinHandle<Result<ExitReason, RunError>>>,
    generation: u64,
}

impl Proxy {
    pub fn start() -> Self {
        Self::start_with(|_| {})
    }

    pub fn start_with(change: impl FnOnce(&mut RunOptions)) -> Self {
        Self::start_in(tempfile::tempdir().unwrap(), change)
    }

    pub fn start_in(dir: tempfile::TempDir, change: impl FnOnce(&mut RunOptions)) -> Self {
        panics_end_the_test();
        let mut options = RunOptions::new(dir.path());
        options.workers = NonZeroUsize::new(2);
        options.handle_signals = false;
        options.limits.handshake = Duration::from_millis(50);
        options.limits.idle_drain = Duration::from_millis(200);
        options.limits.linger = Duration::from_millis(500);
        change(&mut options);
        let socket = options.control_socket();
        let thread = std::thread::spawn(move || fairway_proxy::run(options));
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let client = runtime.block_on(async {
            let begun = Instant::now();
            loop {
                match Client::connect(&socket).await {
                    Ok(client) => return client,
                    Err(error) => assert!(begun.elapsed() < HANG && !thread.is_finished(), "{error}"),
                }
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        });
        let generation = client.hello().generation;
        Self { dir, addr: free_addr(), client, runtime, thread: Some(thread), generation }
    }

    /// Applies `services` behind one listener with one catch-all route each; the first gets `/`.
    pub fn serve(&mut self, service: Service) {
        self.serve_with(service, |_| {});
    }

    pub fn serve_with(&mut self, service: Service, change: impl FnOnce(&mut Snapshot)) {
        let mut snapshot = self.snapshot(service);
        change(&mut snapshot);
        self.apply(&snapshot).unwrap();
    }

    /// A snapshot with the next generation.
    pub fn snapshot(&mut self, service: Service) -> Snapshot {
        self.generation += 1;
        Snapshot {
            generation: self.generation,
            listeners: vec![listener("web", self.addr)],
            services: [("s".to_owned(), service)].into(),
            routes: vec![route("/", "s")],
            ..Snapshot::default()
        }
    }

    pub fn apply(&self, snapshot: &Snapshot) -> Result<(), Rejected> {
        match self.runtime.block_on(self.client.apply(snapshot)) {
            Ok(applied) => {
                assert_eq!(applied.generation, snapshot.generation);
                Ok(())
            }
            Err(ApplyError::Rejected(rejected)) => Err(rejected),
            Err(ApplyError::Client(error)) => panic!("{error}"),
        }
    }

    pub fn stats(&self) -> Stats {
        self.runtime.block_on(self.client.stats()).unwrap()
    }

    pub fn in_flight(&self, instance: &str) -> u64 {
        self.runtime.block_on(self.client.in_flight(instance)).unwrap()
    }

    pub fn events(&self) -> Events {
        self.client.events()
    }

    pub fn next_event(&self, events: &mut Events) -> Event {
        let next = async { tokio::time::timeout(HANG, events.next()).await };
        self.runtime.block_on(next).expect("an event in time").expect("the connection is open")
    }

    pub fn wire(&self) -> Wire {
        Wire::open(self.addr)
    }

    pub fn shutdown(&self) {
        self.runtime.block_on(self.client.shutdown()).unwrap();
    }

    pub fn join(&mut self) -> ExitReason {
        self.thread.take().unwrap().join().unwrap().unwrap()
    }

    /// Stops it and gives its directory back.
    pub fn stop(mut self) -> tempfile::TempDir {
        self.shutdown();
        self.join();
        let dir = std::mem::replace(&mut self.dir, tempfile::tempdir().unwrap());
        drop(self);
        dir
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        if let Some(thread) = self.thread.take() {
            let _ = self.runtime.block_on(self.client.shutdown());
            if !std::thread::panicking() {
                thread.join().unwrap().unwrap();
            }
        }
    }
}

/// A panic on a core ends one connection and would go unseen: here it ends everything.
fn panics_end_the_test() {
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            before(info);
            if std::thread::current().name().is_some_and(|name| name.starts_with("core-")) {
                std::process::abort();
            }
        }));
    });
}

pub fn listener(name: &str, addr: SocketAddr) -> Listener {
    Listener::new(name, addr, Purpose::Public)
}

pub fn route(path: &str, service: &str) -> Route {
    Route {
        listener: "web".into(),
        host: None,
        path: path.into(),
        strip_prefix: false,
        service: service.into(),
        pin: None,
        maintenance: None,
        policy: Policy::default(),
    }
}

pub fn version(weight: u32, instances: &[(&str, SocketAddr)]) -> Version {
    let instances = instances.iter().map(|(id, addr)| Instance { id: (*id).into(), addr: *addr }).collect();
    Version { weight, matches: Vec::new(), instances }
}

/// A service with one version `r1`.
pub fn service(instances: &[(&str, SocketAddr)]) -> Service {
    Service {
        versions: [("r1".to_owned(), version(100, instances))].into(),
        hold: Hold { max_requests: 100, max_wait_ms: 10_000 },
        ..Service::default()
    }
}

/// Waits until `condition` holds.
pub fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !condition() {
        assert!(begun.elapsed() < HANG, "{what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}
