//! XChaCha20-Poly1305. Its nonce of 24 bytes is long enough to be drawn at random for ever.

use chacha20poly1305::aead::{Aead, KeyInit, Payload};
use chacha20poly1305::{Key, XChaCha20Poly1305, XNonce};
use zeroize::Zeroizing;

use super::key_file::{KeyFileError, random};

const NONCE_BYTES: usize = 24;

/// Where a secret belongs. Part of the authenticated data of everything that is encrypted for it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place<'a> {
    pub(super) environment: &'a str,
    pub(super) name: &'a str,
    pub(super) version: u32,
}

/// Which of the two encryptions: one must never be taken for the other.
#[derive(Clone, Copy, Debug)]
pub(super) enum Layer {
    Key,
    Value,
}

fn associated_data(place: Place<'_>, layer: Layer) -> Vec<u8> {
    let tag: &[u8] = match layer {
        Layer::Key => b"fairway secret key 1\0",
        Layer::Value => b"fairway secret value 1\0",
    };
    let mut data = tag.to_vec();
    for text in [place.environment, place.name] {
        data.extend_from_slice(&(text.len() as u64).to_le_bytes());
        data.extend_from_slice(text.as_bytes());
    }
    data.extend_from_slice(&place.version.to_le_bytes());
    data
}

/// Nonce and ciphertext.
pub(super) fn seal(
    key: &[u8; 32],
    place: Place<'_>,
    layer: Layer,
    plain: &[u8],
) -> Result<Vec<u8>, KeyFileError> {
    let nonce: [u8; NONCE_BYTES] = random()?;
    let payload = Payload { msg: plain, aad: &associated_data(place, layer) };
    let sealed = XChaCha20Poly1305::new(&Key::from(*key))
        .encrypt(&XNonce::from(nonce), payload)
        .expect("the cipher refuses only messages of 256 GiB");
    let mut bytes = nonce.to_vec();
    bytes.extend_from_slice(&sealed);
    Ok(bytes)
}

/// None when anything differs: key, place, layer or a bit of the ciphertext.
pub(super) fn open(
    key: &[u8; 32],
    place: Place<'_>,
    layer: Layer,
    sealed: &[u8],
) -> Option<Zeroizing<Vec<u8>>> {
    let (nonce, sealed) = sealed.split_first_chunk::<NONCE_BYTES>()?;
    let payload = Payload { msg: sealed, aad: &associated_data(place, layer) };
    XChaCha20Poly1305::new(&Key::from(*key)).decrypt(&XNonce::from(*nonce), payload).ok().map(Zeroizing::new)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLACE: Place<'static> = Place { environment: "shop/production", name: "DB", version: 3 };

    #[test]
    fn only_the_same_key_place_and_layer_open_it() {
        let sealed = seal(&[7; 32], PLACE, Layer::Value, b"hunter2").unwrap();
        assert_eq!(open(&[7; 32], PLACE, Layer::Value, &sealed).unwrap().as_slice(), b"hunter2");
        assert!(open(&[8; 32], PLACE, Layer::Value, &sealed).is_none());
        assert!(open(&[7; 32], PLACE, Layer::Key, &sealed).is_none());
        for other in [
            Place { version: 4, ..PLACE },
            Place { name: "DC", ..PLACE },
            Place { environment: "shop/staging", ..PLACE },
            Place { environment: "shop/productionD", name: "B", version: 3 },
        ] {
            assert!(open(&[7; 32], other, Layer::Value, &sealed).is_none(), "{other:?}");
        }
        for at in 0..sealed.len() {
            let mut flipped = sealed.clone();
            flipped[at] ^= 1;
            assert!(open(&[7; 32], PLACE, Layer::Value, &flipped).is_none(), "flipped at {at}");
            assert!(open(&[7; 32], PLACE, Layer::Value, &sealed[..at]).is_none(), "cut at {at}");
        }
    }

    /// The vector of draft-irtf-cfrg-xchacha, appendix A.3.1: the library does what its name says.
    #[test]
    fn the_cipher_is_the_published_one() {
        let plain: &[u8] =
            b"Ladies and Gentlemen of the class of '99: If I could offer you only one tip for the \
            future, sunscreen would be it.";
        let aad = [0x50, 0x51, 0x52, 0x53, 0xc0, 0xc1, 0xc2, 0xc3, 0xc4, 0xc5, 0xc6, 0xc7];
        let key: [u8; 32] = std::array::from_fn(|at| 0x80 + at as u8);
        let nonce: [u8; 24] = std::array::from_fn(|at| 0x40 + at as u8);
        let sealed = XChaCha20Poly1305::new(&Key::from(key))
            .encrypt(&XNonce::from(nonce), Payload { msg: plain, aad: &aad })
            .unwrap();
        assert_eq!(sealed[..8], [0xbd, 0x6d, 0x17, 0x9d, 0x3e, 0x83, 0xd4, 0x3b]);
        assert_eq!(sealed[plain.len()..][..4], [0xc0, 0x87, 0x59, 0x24]);
    }
}
