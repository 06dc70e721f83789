//! A body on its way through a compressor.

use std::io::{self, Write};

use super::coding::Coding;

/// Levels at which a core packs about as fast as a network takes it. The window of the larger two is cut to 256 KiB, so
/// that one answer holds well under 2 MiB.
const GZIP_LEVEL: u32 = 5;
const BROTLI_QUALITY: u32 = 4;
const ZSTD_LEVEL: i32 = 3;
const WINDOW_BITS: u32 = 18;

/// What the compressor takes in before it gives something out; brotli's own buffer.
const BROTLI_BUFFER_BYTES: usize = 16 * 1024;

pub(crate) struct Packer {
    state: State,
}

enum State {
    Gzip(flate2::write::GzEncoder<Vec<u8>>),
    Brotli(Box<brotli::CompressorWriter<Vec<u8>>>),
    Zstd(zstd::stream::write::Encoder<'static, Vec<u8>>),
    Finished,
}

impl std::fmt::Debug for Packer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let name = match self.state {
            State::Gzip(_) => "Gzip",
            State::Brotli(_) => "Brotli",
            State::Zstd(_) => "Zstd",
            State::Finished => "Finished",
        };
        f.debug_tuple("Packer").field(&name).finish()
    }
}

impl Packer {
    /// # Errors
    /// When there is no memory for it.
    pub(crate) fn new(coding: Coding) -> io::Result<Self> {
        let state = match coding {
            Coding::Gzip => {
                State::Gzip(flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::new(GZIP_LEVEL)))
            }
            Coding::Brotli => State::Brotli(Box::new(brotli::CompressorWriter::new(
                Vec::new(),
                BROTLI_BUFFER_BYTES,
                BROTLI_QUALITY,
                WINDOW_BITS,
            ))),
            Coding::Zstd => {
                let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), ZSTD_LEVEL)?;
                encoder.window_log(WINDOW_BITS)?;
                State::Zstd(encoder)
            }
        };
        Ok(Self { state })
    }

    /// Packs all of `data` into `out`: what the service has sent is never held back for better compression.
    ///
    /// # Errors
    /// As the library says; the answer cannot go on.
    pub(crate) fn pack(&mut self, data: &[u8], out: &mut Vec<u8>) -> io::Result<()> {
        fn through(encoder: &mut impl Write, data: &[u8]) -> io::Result<()> {
            encoder.write_all(data)?;
            encoder.flush()
        }
        let packed = match &mut self.state {
            State::Gzip(encoder) => {
                through(encoder, data)?;
                encoder.get_mut()
            }
            State::Brotli(encoder) => {
                through(encoder, data)?;
                encoder.get_mut()
            }
            State::Zstd(encoder) => {
                through(encoder, data)?;
                encoder.get_mut()
            }
            State::Finished => return Ok(()),
        };
        out.append(packed);
        Ok(())
    }

    /// What is to be said at the end.
    ///
    /// # Errors
    /// As [`Self::pack`].
    pub(crate) fn finish(&mut self, out: &mut Vec<u8>) -> io::Result<()> {
        let mut rest = match std::mem::replace(&mut self.state, State::Finished) {
            State::Gzip(encoder) => encoder.finish()?,
            State::Brotli(encoder) => encoder.into_inner(),
            State::Zstd(encoder) => encoder.finish()?,
            State::Finished => Vec::new(),
        };
        out.append(&mut rest);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    fn unpacked(coding: Coding, packed: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        match coding {
            Coding::Gzip => flate2::read::MultiGzDecoder::new(packed).read_to_end(&mut out),
            Coding::Brotli => brotli::Decompressor::new(packed, 4096).read_to_end(&mut out),
            Coding::Zstd => zstd::stream::read::Decoder::new(packed).unwrap().read_to_end(&mut out),
        }
        .unwrap();
        out
    }

    #[test]
    fn what_goes_in_comes_out_and_nothing_is_held_back() {
        for coding in [Coding::Gzip, Coding::Brotli, Coding::Zstd] {
            let (mut packer, mut all, mut expect) = (Packer::new(coding).unwrap(), Vec::new(), Vec::new());
            for piece in 0..20usize {
                let data = format!("piece {piece} ").repeat(piece * 300);
                let before = all.len();
                packer.pack(data.as_bytes(), &mut all).unwrap();
                expect.extend_from_slice(data.as_bytes());
                assert!(data.is_empty() || all.len() > before, "{coding:?}");
            }
            packer.finish(&mut all).unwrap();
            packer.finish(&mut all).unwrap();
            assert!(all.len() < expect.len() / 5, "{coding:?}: {} of {}", all.len(), expect.len());
            assert!(unpacked(coding, &all) == expect, "{coding:?}");
        }
    }

    #[test]
    fn an_empty_body_is_one_too() {
        for coding in [Coding::Gzip, Coding::Brotli, Coding::Zstd] {
            let mut out = Vec::new();
            Packer::new(coding).unwrap().finish(&mut out).unwrap();
            assert_eq!(unpacked(coding, &out), b"");
        }
    }
}
