//! Protobuf's wire format, field by field, without the messages' shapes.

use prost::encoding::{WireType, decode_key, decode_varint, encode_key, encode_varint};

#[derive(Clone, Copy, Debug)]
pub(super) enum Value<'a> {
    Varint(u64),
    Fixed64(u64),
    Fixed32,
    Bytes(&'a [u8]),
}

/// A message that is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the body is no valid protobuf message")]
pub struct Malformed;

impl<'a> Value<'a> {
    pub(super) fn bytes(self) -> Result<&'a [u8], Malformed> {
        match self {
            Self::Bytes(bytes) => Ok(bytes),
            Self::Varint(_) | Self::Fixed64(_) | Self::Fixed32 => Err(Malformed),
        }
    }

    pub(super) fn text(self) -> Result<&'a str, Malformed> {
        std::str::from_utf8(self.bytes()?).map_err(|_| Malformed)
    }

    pub(super) fn fixed(self) -> Result<u64, Malformed> {
        match self {
            Self::Fixed64(bits) => Ok(bits),
            Self::Varint(_) | Self::Bytes(_) | Self::Fixed32 => Err(Malformed),
        }
    }

    pub(super) fn double(self) -> Result<f64, Malformed> {
        self.fixed().map(f64::from_bits)
    }

    pub(super) fn varint(self) -> Result<u64, Malformed> {
        match self {
            Self::Varint(value) => Ok(value),
            Self::Fixed64(_) | Self::Bytes(_) | Self::Fixed32 => Err(Malformed),
        }
    }

    /// An `int64`: two's complement in a varint.
    pub(super) fn int(self) -> Result<i64, Malformed> {
        self.varint().map(u64::cast_signed)
    }

    /// The items of a repeated `fixed64` or `double`: packed, or one.
    pub(super) fn fixed_items(self) -> Result<impl Iterator<Item = u64> + 'a, Malformed> {
        let (one, packed): (Option<u64>, &'a [u8]) = match self {
            Self::Fixed64(bits) => (Some(bits), &[]),
            Self::Bytes(bytes) if bytes.len().is_multiple_of(8) => (None, bytes),
            Self::Bytes(_) | Self::Varint(_) | Self::Fixed32 => return Err(Malformed),
        };
        let packed = packed.as_chunks::<8>().0.iter().map(|chunk| u64::from_le_bytes(*chunk));
        Ok(one.into_iter().chain(packed))
    }

    /// Calls `each` with the items of a repeated varint: packed, or one.
    pub(super) fn varint_items(self, mut each: impl FnMut(u64)) -> Result<(), Malformed> {
        match self {
            Self::Varint(value) => each(value),
            Self::Bytes(mut packed) => {
                while !packed.is_empty() {
                    each(decode_varint(&mut packed).map_err(|_| Malformed)?);
                }
            }
            Self::Fixed64(_) | Self::Fixed32 => return Err(Malformed),
        }
        Ok(())
    }
}

/// The fields of a message, in the order in which they lie; the first error is the last item.
#[derive(Debug)]
pub(super) struct Fields<'a> {
    rest: &'a [u8],
}

pub(super) fn fields(message: &[u8]) -> Fields<'_> {
    Fields { rest: message }
}

impl<'a> Fields<'a> {
    fn field(&mut self) -> Result<(u32, Value<'a>), Malformed> {
        let (tag, wire_type) = decode_key(&mut self.rest).map_err(|_| Malformed)?;
        let value = match wire_type {
            WireType::Varint => Value::Varint(decode_varint(&mut self.rest).map_err(|_| Malformed)?),
            WireType::SixtyFourBit => {
                let (bytes, rest) = self.rest.split_first_chunk::<8>().ok_or(Malformed)?;
                self.rest = rest;
                Value::Fixed64(u64::from_le_bytes(*bytes))
            }
            WireType::ThirtyTwoBit => {
                let (_, rest) = self.rest.split_first_chunk::<4>().ok_or(Malformed)?;
                self.rest = rest;
                Value::Fixed32
            }
            WireType::LengthDelimited => {
                let length = decode_varint(&mut self.rest).map_err(|_| Malformed)?;
                let length = usize::try_from(length).map_err(|_| Malformed)?;
                let (bytes, rest) = self.rest.split_at_checked(length).ok_or(Malformed)?;
                self.rest = rest;
                Value::Bytes(bytes)
            }
            // Groups were given up before any of these messages was thought of.
            WireType::StartGroup | WireType::EndGroup => return Err(Malformed),
        };
        Ok((tag, value))
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = Result<(u32, Value<'a>), Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let field = self.field();
        if field.is_err() {
            self.rest = &[];
        }
        Some(field)
    }
}

/// A message before and after the end of its first fields with this number.
pub(super) fn split_leading(message: &[u8], tag: u32) -> (&[u8], &[u8]) {
    let mut rest = message;
    let mut walked = fields(message);
    while let Ok((found, _)) = walked.field()
        && found == tag
    {
        rest = walked.rest;
    }
    (&message[..message.len() - rest.len()], rest)
}

pub(super) fn put_bytes(out: &mut Vec<u8>, tag: u32, bytes: &[u8]) {
    encode_key(tag, WireType::LengthDelimited, out);
    encode_varint(bytes.len() as u64, out);
    out.extend_from_slice(bytes);
}

pub(super) fn put_double(out: &mut Vec<u8>, tag: u32, value: f64) {
    // Zero is what is not written; minus zero is another number.
    if value.to_bits() != 0 {
        encode_key(tag, WireType::SixtyFourBit, out);
        out.extend_from_slice(&value.to_bits().to_le_bytes());
    }
}

pub(super) fn put_int(out: &mut Vec<u8>, tag: u32, value: i64) {
    if value != 0 {
        encode_key(tag, WireType::Varint, out);
        encode_varint(value.cast_unsigned(), out);
    }
}

/// A packed repeated `uint32`.
pub(super) fn put_packed(out: &mut Vec<u8>, tag: u32, values: &[u32]) {
    let mut packed = Vec::with_capacity(values.len());
    for value in values {
        encode_varint(u64::from(*value), &mut packed);
    }
    put_bytes(out, tag, &packed);
}
