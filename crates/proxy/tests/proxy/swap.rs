//! Hundreds of swaps under load. The number that passes is 0.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use fairway_proxy::control::{Event, SeriesStats};

use crate::support::{Origin, Proxy, Wire, ok, service, version};

const SWAPS: usize = 200;

/// Each swap starts a new instance, applies a snapshot without the oldest one, waits for its drain and only then
/// stops it: what a rolling deploy does.
#[test]
fn two_hundred_swaps_lose_nothing() {
    let posts: Arc<Mutex<BTreeMap<String, u32>>> = Arc::default();
    let start = {
        let posts = Arc::clone(&posts);
        move || {
            let posts = Arc::clone(&posts);
            let alive = Arc::new(AtomicBool::new(true));
            let watched = Arc::clone(&alive);
            let origin = Origin::start(move |request| {
                assert!(watched.load(Ordering::SeqCst), "a request after the drain was reported");
                if request.first_line.starts_with("POST") {
                    *posts.lock().unwrap().entry(request.text()).or_default() += 1;
                }
                ok(&request.body)
            });
            (origin, alive)
        }
    };
    let mut proxy = Proxy::start();
    let mut running: Vec<(String, (Origin, Arc<AtomicBool>))> =
        (0..2).map(|n| (format!("i{n}"), start())).collect();
    let current = |running: &[(String, (Origin, Arc<AtomicBool>))]| {
        let mut both = service(&[]);
        for (n, (id, (origin, _))) in running.iter().enumerate() {
            both.versions.insert(format!("r{n}"), version(50, &[(id, origin.addr)]));
        }
        both
    };
    proxy.serve(current(&running));
    let stop = Arc::new(AtomicBool::new(false));
    let sent = Arc::new(AtomicU64::new(0));
    let addr = proxy.addr;
    let clients: Vec<_> = (0..6)
        .map(|client| {
            let (stop, sent) = (Arc::clone(&stop), Arc::clone(&sent));
            std::thread::spawn(move || {
                let mut wire = Wire::open(addr);
                let mut n = 0u64;
                while !stop.load(Ordering::SeqCst) {
                    n += 1;
                    if client % 2 == 0 {
                        wire = Wire::open(addr);
                    }
                    let answer = if client < 3 {
                        let body = format!("{client}-{n}");
                        let answer = wire.post("/", body.as_bytes()).unwrap();
                        assert_eq!(answer.text(), body);
                        answer
                    } else {
                        wire.get("/").unwrap()
                    };
                    assert_eq!(answer.status(), 200, "{}", answer.text());
                    sent.fetch_add(1, Ordering::SeqCst);
                }
            })
        })
        .collect();
    let mut events = proxy.events();
    for swap in 0..SWAPS {
        running.push((format!("i{}", swap + 2), start()));
        let (gone, (origin, alive)) = running.remove(0);
        proxy.serve(current(&running));
        assert_eq!(proxy.next_event(&mut events), Event::Drained { instance: gone.clone() });
        assert_eq!(proxy.in_flight(&gone), 0);
        alive.store(false, Ordering::SeqCst);
        origin.stop();
        if clients.iter().any(std::thread::JoinHandle::is_finished) {
            break;
        }
    }
    stop.store(true, Ordering::SeqCst);
    for client in clients {
        client.join().unwrap();
    }
    let sent = sent.load(Ordering::SeqCst);
    assert!(sent > SWAPS as u64, "{sent} requests is no load");
    let posts = posts.lock().unwrap();
    assert!(posts.values().all(|n| *n == 1), "a POST was doubled");
    let total = || proxy.stats().series.iter().map(SeriesStats::requests_total).sum::<u64>();
    crate::support::eventually("all are counted", || total() == sent);
    let stats = proxy.stats();
    assert!(stats.series.iter().all(|s| s.in_flight == 0), "{:?}", stats.series);
}
