//! The output of instances and jobs: written by shims, read and followed by the server.

pub mod line;
pub(crate) mod stamp;
pub(crate) mod writer;
