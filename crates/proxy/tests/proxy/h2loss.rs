//! No request of an HTTP/2 client is lost or doubled by what Fairway does.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use fairway_proxy::ExitReason;
use fairway_proxy::control::Event;
use h2::server::SendResponse;
use h2::{Reason, RecvStream, client};
use http::Request;
use tokio::net::TcpStream;

use crate::h2c::{Origin2, answer, read};
use crate::http2::Browser;
use crate::support::{HANG, Origin, Proxy, Wire, eventually, ok, service, version};

/// How often each id arrived.
#[derive(Debug, Clone, Default)]
struct Seen(Arc<Mutex<BTreeMap<u64, u32>>>);

impl Seen {
    fn add(&self, body: &[u8]) {
        let id = std::str::from_utf8(body).unwrap().parse().unwrap();
        *self.0.lock().unwrap().entry(id).or_default() += 1;
    }

    fn times(&self, id: u64) -> u32 {
        self.0.lock().unwrap().get(&id).copied().unwrap_or(0)
    }

    /// An instance of its own that answers with what it got.
    fn instance(&self) -> Origin2 {
        let seen = self.clone();
        Origin2::start(move |request: Request<RecvStream>, respond: SendResponse<Bytes>| {
            let seen = seen.clone();
            async move {
                let body = read(&mut request.into_body()).await;
                seen.add(&body);
                tokio::time::sleep(Duration::from_micros(300)).await;
                answer(respond, 200, body).await;
            }
        })
    }
}

static NEXT: AtomicU64 = AtomicU64::new(0);

/// Posts until told to stop; every answer must be the right one.
async fn post_on(addr: SocketAddr, over: Arc<AtomicBool>) -> u64 {
    let browser = Browser::open(addr).await;
    let mut answered = 0;
    while !over.load(Ordering::Relaxed) {
        let id = NEXT.fetch_add(1, Ordering::Relaxed).to_string();
        let answer = browser.post("/", id.as_bytes()).await.unwrap();
        assert_eq!((answer.status, answer.text()), (200, id));
        answered += 1;
    }
    answered
}

#[test]
fn swaps_of_instances_lose_and_double_nothing() {
    let seen = Seen::default();
    let mut proxy = Proxy::start();
    let mut events = proxy.events();
    let mut old = seen.instance();
    let named = |origin: &Origin2, turn: u32| {
        let mut service = origin.service();
        service.versions.insert("r1".into(), version(100, &[(&format!("i{turn}"), origin.addr)]));
        service
    };
    proxy.serve(named(&old, 0));
    let over = Arc::new(AtomicBool::new(false));
    let clients: Vec<_> =
        (0..12).map(|_| proxy.runtime.spawn(post_on(proxy.addr, Arc::clone(&over)))).collect();
    let (addr, ends) = (proxy.addr, Arc::clone(&over));
    let one = std::thread::spawn(move || {
        let mut wire = Wire::open(addr);
        while !ends.load(Ordering::Relaxed) {
            let id = NEXT.fetch_add(1, Ordering::Relaxed).to_string();
            let answer = wire.post("/", id.as_bytes()).unwrap();
            assert_eq!((answer.status(), answer.text()), (200, id));
        }
    });
    for turn in 1..=30 {
        let new = seen.instance();
        proxy.serve(named(&new, turn));
        let instance = format!("i{}", turn - 1);
        assert_eq!(proxy.next_event(&mut events), Event::Drained { instance });
        // Killed, connections and all.
        old = new;
    }
    over.store(true, Ordering::Relaxed);
    let mut answered = 0;
    for client in clients {
        answered += proxy.runtime.block_on(client).unwrap();
    }
    one.join().unwrap();
    assert!(answered > 300, "{answered}");
    assert!(seen.0.lock().unwrap().values().all(|times| *times == 1));
    drop(old);
}

#[test]
fn a_drain_under_load_answers_what_it_took_and_takes_nothing_else() {
    let seen = Seen::default();
    let origin = {
        let seen = seen.clone();
        Origin::start(move |request| {
            seen.add(&request.body);
            ok(&request.body)
        })
    };
    for round in 0..4u64 {
        let mut proxy = Proxy::start();
        proxy.serve(service(&[("i", origin.addr)]));
        let answered = Arc::new(AtomicU64::new(0));
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let clients: Vec<_> = (0..8)
            .map(|_| {
                let (addr, seen, answered) = (proxy.addr, seen.clone(), Arc::clone(&answered));
                runtime.spawn(async move {
                    // Whoever is sent away comes again, until nobody listens any more.
                    while let Ok(stream) = TcpStream::connect(addr).await {
                        let Ok((send, connection)) = client::handshake(stream).await else { continue };
                        tokio::spawn(connection);
                        let browser = Browser(send);
                        let mut is_first = true;
                        loop {
                            let id = NEXT.fetch_add(1, Ordering::Relaxed);
                            match browser.post("/", id.to_string().as_bytes()).await {
                                Ok(answer) => {
                                    assert_eq!((answer.status, answer.text()), (200, id.to_string()));
                                    answered.fetch_add(1, Ordering::Relaxed);
                                    is_first = false;
                                }
                                Err(error) => {
                                    let is_sent_away = error.is_go_away()
                                        && error.is_remote()
                                        && error.reason() == Some(Reason::NO_ERROR);
                                    // The socket closed while this connection was in its queue.
                                    let never_began = error.is_io() && is_first;
                                    assert!(is_sent_away || never_began, "round {round}: {error:?}");
                                    assert_eq!(seen.times(id), 0, "round {round}: carried out, not answered");
                                    break;
                                }
                            }
                        }
                    }
                })
            })
            .collect();
        eventually("there is load", || answered.load(Ordering::Relaxed) > 30 + 40 * round);
        proxy.shutdown();
        assert_eq!(proxy.join(), ExitReason::Drained);
        for client in clients {
            runtime.block_on(async { tokio::time::timeout(HANG, client).await }).unwrap().unwrap();
        }
    }
    assert!(seen.0.lock().unwrap().values().all(|times| *times == 1));
}
