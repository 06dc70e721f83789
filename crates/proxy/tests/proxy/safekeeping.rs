//! What others hold of a proxy, and what the next one makes of it.

use std::net::TcpListener;
use std::os::fd::{AsRawFd as _, IntoRawFd as _};

use fairway_proxy::safekeeping::Keeper;

use crate::support::{Origin, Proxy, Wire, free_addr, ok, service};

fn next(proxy: &Proxy, keeper: &mut Keeper) -> std::io::Result<Vec<TcpListener>> {
    let within = tokio::time::Duration::from_secs(20);
    proxy.runtime.block_on(async { tokio::time::timeout(within, keeper.next()).await.expect("it hangs") })
}

#[test]
fn what_is_listened_on_is_shown_until_a_good_end() {
    let origin = Origin::start(|_| ok("x"));
    let mut proxy = Proxy::start();
    let mut keeper = proxy.runtime.block_on(async { Keeper::connect(proxy.dir.path()).unwrap() });
    assert!(next(&proxy, &mut keeper).unwrap().is_empty());
    proxy.serve(service(&[("i", origin.addr)]));
    let shown = next(&proxy, &mut keeper).unwrap();
    assert_eq!(shown.iter().map(|socket| socket.local_addr().unwrap()).collect::<Vec<_>>(), [proxy.addr]);
    drop(shown);
    proxy.shutdown();
    assert!(next(&proxy, &mut keeper).unwrap().is_empty());
    next(&proxy, &mut keeper).unwrap_err();
}

/// It was told to end, and the keeper had not heard of it: its socket takes nobody new until the next one has it.
#[test]
fn the_next_one_goes_on_with_what_was_kept_and_with_nothing_else() {
    let origin = Origin::start(|_| ok("x"));
    let mut proxy = Proxy::start();
    proxy.serve(service(&[("i", origin.addr)]));
    let mut keeper = proxy.runtime.block_on(async { Keeper::connect(proxy.dir.path()).unwrap() });
    let kept = next(&proxy, &mut keeper).unwrap().remove(0);
    let inode =
        |socket: &TcpListener| std::fs::read_link(format!("/proc/self/fd/{}", socket.as_raw_fd())).unwrap();
    let before = inode(&kept);
    let addr = proxy.addr;
    let dir = proxy.stop();
    let other = TcpListener::bind(free_addr()).unwrap();
    let unneeded = other.local_addr().unwrap();
    let no_listener = std::fs::File::open("/dev/null").unwrap();
    let sockets = vec![kept.into_raw_fd(), other.into_raw_fd(), no_listener.as_raw_fd()];
    let proxy = Proxy::start_in(dir, |options| options.sockets = sockets);
    assert_eq!(Wire::open(addr).get("/").unwrap().text(), "x");
    TcpListener::bind(unneeded).expect("what no listener needs was closed");
    let mut keeper = proxy.runtime.block_on(async { Keeper::connect(proxy.dir.path()).unwrap() });
    assert_eq!(inode(&next(&proxy, &mut keeper).unwrap()[0]), before);
}

/// Each descriptor that somebody forgot would keep an address taken that is not listened on any more.
#[test]
fn only_the_newest_keeper_is_shown_anything() {
    let origin = Origin::start(|_| ok("x"));
    let mut proxy = Proxy::start();
    proxy.serve(service(&[("i", origin.addr)]));
    let mut before: Option<Keeper> = None;
    for _ in 0..10 {
        let mut keeper = proxy.runtime.block_on(async { Keeper::connect(proxy.dir.path()).unwrap() });
        assert_eq!(next(&proxy, &mut keeper).unwrap().len(), 1);
        if let Some(mut before) = before.replace(keeper) {
            next(&proxy, &mut before).unwrap_err();
        }
    }
}
