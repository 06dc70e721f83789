//! A client that speaks HTTP/2: every stream is served as a connection with one request.

use std::pin::Pin;
use std::rc::Rc;

use bytes::Bytes;

use super::{Client, Conn};
use crate::deadline::Registered;
use crate::h2::server::{self, Host};
use crate::pipe::Pipe;
use crate::stream::Stream;
use crate::worker::{Accepting, Worker};

/// From the first request of a connection that turned out to be the beginning of HTTP/2. In a box, because few
/// connections need the room.
pub(super) fn switch(mut conn: Conn) -> Pin<Box<dyn Future<Output = ()>>> {
    let before = conn.request.take().map_or_else(Bytes::new, |request| Bytes::copy_from_slice(request.all()));
    Box::pin(serve(conn.worker, conn.listener, conn.stream, before, conn.client, conn.deadline))
}

/// `before`: what was read already.
pub(super) async fn serve(
    worker: Rc<Worker>,
    listener: Rc<Accepting>,
    stream: Stream,
    before: Bytes,
    client: Client,
    deadline: Registered,
) {
    let limits = client.limits(&worker.shared.limits).clone();
    let host = Streams { worker, listener, client };
    server::serve(host, stream, before, &deadline, &limits).await;
}

#[derive(Debug)]
struct Streams {
    worker: Rc<Worker>,
    listener: Rc<Accepting>,
    client: Client,
}

impl Host for Streams {
    fn is_draining(&self) -> bool {
        self.worker.is_draining(&self.listener)
    }

    fn has_room(&self) -> bool {
        self.worker.has_room()
    }

    fn serve(&self, pipe: Pipe) -> impl Future<Output = ()> + 'static {
        let deadline = self.worker.deadlines.register(self.listener.uid);
        let counted = Counted::new(&self.worker);
        let (worker, listener) = (Rc::clone(&self.worker), Rc::clone(&self.listener));
        let client = self.client.clone();
        async move {
            super::serve(worker, listener, Stream::Pipe(pipe), client, deadline).await;
            drop(counted);
        }
    }

    fn refused(&self, status: u16) {
        self.worker.count_refusal(status);
    }
}

/// A stream, for as long as it is served.
struct Counted(Rc<Worker>);

impl Counted {
    fn new(worker: &Rc<Worker>) -> Self {
        worker.begin_stream();
        Self(Rc::clone(worker))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.end_stream();
    }
}
