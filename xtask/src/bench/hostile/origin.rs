//! What attackers ask: a service of their own, so that what they make of it is not what the good client asks.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};

use super::yield_to_others;
use crate::fault::{Context, Done};

/// Goes on until this process ends, like every thread that waits for a connection here. A thread each, which is a
/// stack of so much.
const STACK_BYTES: usize = 64 * 1024;

const SEND_BYTES: usize = 64 * 1024;

pub fn start() -> Done<SocketAddr> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).context("the origin of the attacks")?;
    // On another machine what its kernel keeps would be there: up to 4 MiB for each answer that is not read. Connections
    // have it from the socket that they come by.
    rustix::net::sockopt::set_socket_send_buffer_size(&listener, SEND_BYTES)
        .context("the origin of the attacks")?;
    rustix::net::listen(&listener, 4096).context("the origin of the attacks")?;
    let address = listener.local_addr().context("the origin of the attacks")?;
    std::thread::spawn(move || {
        yield_to_others();
        for stream in listener.incoming().flatten() {
            // Whoever cannot be served is one of thousands.
            let _ = std::thread::Builder::new().stack_size(STACK_BYTES).spawn(move || serve(stream));
        }
    });
    Ok(address)
}

/// Answers one request after the other, by the last letter of its path, until something breaks.
fn serve(stream: TcpStream) {
    let Ok(reading) = stream.try_clone() else { return };
    let (mut reader, mut stream) = (BufReader::with_capacity(4096, reading), stream);
    let answer = |length: usize| format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n").into_bytes();
    while let Some((what, is_post)) = head(&mut reader) {
        let written = match what {
            _ if is_post => {
                // Bodies are taken, and never answered.
                let mut piece = [0; 4096];
                while let Ok(1..) = reader.read(&mut piece) {}
                return;
            }
            b'b' => endless(&mut stream, &answer(1 << 40), &[b'x'; 16 * 1024]),
            b'e' => {
                let head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n";
                endless(
                    &mut stream,
                    head,
                    &b"data: 0123456789abcdef0123456789abcdef0123456789abcdef012345\n\n".repeat(256),
                )
            }
            b'w' => {
                let head =
                    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n";
                // Messages of 126 bytes.
                endless(&mut stream, head, &[&[0x82, 126, 0, 126][..], &[0; 126]].concat().repeat(128))
            }
            b'l' => stream.write_all(&[answer(64 * 1024), vec![b'x'; 64 * 1024]].concat()),
            _ => stream.write_all(&[answer(4), b"done".to_vec()].concat()),
        };
        if written.is_err() {
            return;
        }
    }
}

fn endless(stream: &mut TcpStream, head: &[u8], piece: &[u8]) -> std::io::Result<()> {
    stream.write_all(head)?;
    loop {
        stream.write_all(piece)?;
    }
}

/// Of a request the last letter of its path, and whether it is a POST.
fn head(reader: &mut BufReader<TcpStream>) -> Option<(u8, bool)> {
    let mut first = String::new();
    if reader.read_line(&mut first).ok()? == 0 {
        return None;
    }
    let mut words = first.split(' ');
    let is_post = words.next() == Some("POST");
    let what = words.next().and_then(|path| path.bytes().last());
    let mut line = String::new();
    while line != "\r\n" {
        line.clear();
        if reader.read_line(&mut line).ok()? == 0 {
            return None;
        }
    }
    Some((what.unwrap_or(b's'), is_post))
}
