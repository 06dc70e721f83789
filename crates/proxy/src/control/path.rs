//! Unix sockets at paths of any length.
//!
//! A socket address holds 107 bytes of path at most. State directories may be deeper than that, so both sides
//! open the directory and address the socket as `/proc/self/fd/<directory>/<name>`.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

/// `sun_path` without its terminating zero.
const SUN_PATH_BYTES_MAX: usize = 107;

/// Binds a listener, replacing a socket file that nobody answers on.
///
/// # Errors
/// `AddrInUse` when another process answers there; whatever the system says otherwise.
pub fn bind(path: &Path) -> io::Result<UnixListener> {
    match connect(path) {
        Ok(_) => {
            return Err(io::Error::new(io::ErrorKind::AddrInUse, format!("{} is in use", path.display())));
        }
        Err(e) if e.kind() == io::ErrorKind::ConnectionRefused => std::fs::remove_file(path)?,
        Err(e) if e.kind() == io::ErrorKind::NotFound => {}
        Err(e) => return Err(e),
    }
    let (_directory, short) = shorten(path)?;
    UnixListener::bind(short)
}

/// A listener under a name that nobody connects to, until it is put in its place.
#[derive(Debug)]
pub struct Beside {
    pub listener: UnixListener,
    /// Where it can be reached meanwhile.
    pub beside: PathBuf,
    path: PathBuf,
}

/// Binds a listener beside the one that may still be listened on at `path`.
///
/// # Errors
/// Whatever the system says.
pub fn bind_beside(path: &Path) -> io::Result<Beside> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    let beside = path.with_file_name(name);
    if let Err(error) = std::fs::remove_file(&beside)
        && error.kind() != io::ErrorKind::NotFound
    {
        return Err(error);
    }
    let listener = bind(&beside)?;
    Ok(Beside { listener, beside, path: path.to_owned() })
}

impl Beside {
    /// Whoever connects from now on gets this one.
    ///
    /// # Errors
    /// Whatever the system says.
    pub fn put_in_place(self) -> io::Result<UnixListener> {
        std::fs::rename(&self.beside, &self.path)?;
        Ok(self.listener)
    }
}

/// Connects to a listener.
///
/// # Errors
/// Whatever the system says.
pub fn connect(path: &Path) -> io::Result<UnixStream> {
    let (_directory, short) = shorten(path)?;
    UnixStream::connect(short)
}

/// The directory must stay open while the short path is in use.
fn shorten(path: &Path) -> io::Result<(Option<File>, PathBuf)> {
    if path.as_os_str().len() <= SUN_PATH_BYTES_MAX {
        return Ok((None, path.to_owned()));
    }
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "the socket path has no file name"));
    };
    let directory = File::open(parent)?;
    let short = Path::new("/proc/self/fd").join(directory.as_raw_fd().to_string()).join(name);
    Ok((Some(directory), short))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_of_300_bytes_works() {
        let root = tempfile::tempdir().unwrap();
        let deep = root.path().join("d".repeat(150)).join("e".repeat(150));
        std::fs::create_dir_all(&deep).unwrap();
        let path = deep.join("proxy.sock");
        let listener = bind(&path).unwrap();
        connect(&path).unwrap();
        assert!(path.exists());
        assert_eq!(bind(&path).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        drop(listener);
        bind(&path).expect("a socket that nobody answers on is replaced");
    }
}
