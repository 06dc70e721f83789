//! What is read from a certificate: RFC 5280, section 4.1. Of all that is in one, only that is needed.

use std::net::IpAddr;
use std::time::Duration;

use der::asn1::{AnyRef, GeneralizedTime, UtcTime};
use der::{Decode as _, Encode as _, SliceReader, Tag, TagNumber, Tagged as _};
use fairway_engine::time::Timestamp;

/// `subjectAltName`, 2.5.29.17.
const SUBJECT_ALT_NAME: &[u8] = &[0x55, 0x1d, 0x11];

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Leaf {
    pub(super) not_before: Timestamp,
    pub(super) not_after: Timestamp,
    /// Host names (perhaps with a wildcard) and IP addresses.
    pub(super) names: Vec<String>,
    /// `SubjectPublicKeyInfo`, DER.
    pub(super) public_key: Vec<u8>,
}

impl Leaf {
    /// # Errors
    /// What of it is no certificate.
    pub(super) fn read(certificate: &[u8]) -> der::Result<Self> {
        let mut outer = SliceReader::new(certificate)?;
        let mut certificate = sequence(&mut outer)?;
        let mut signed = sequence(&mut certificate)?;
        if Tag::peek(&signed)? == context(0) {
            // The version, which the first one does not have.
            AnyRef::decode(&mut signed)?;
        }
        for _ in ["serial number", "signature", "issuer"] {
            AnyRef::decode(&mut signed)?;
        }
        let mut validity = sequence(&mut signed)?;
        let (not_before, not_after) = (time(&mut validity)?, time(&mut validity)?);
        // The subject.
        AnyRef::decode(&mut signed)?;
        let public_key = AnyRef::decode(&mut signed)?.to_der()?;
        let mut names = Vec::new();
        while !der::Reader::is_finished(&signed) {
            let field = AnyRef::decode(&mut signed)?;
            if field.tag() == context(3) {
                let mut explicit = SliceReader::new(field.value())?;
                names = names_in(&mut sequence(&mut explicit)?)?;
            }
        }
        Ok(Self { not_before, not_after, names, public_key })
    }

    /// Zero where the end is before the start.
    pub(super) fn life(&self) -> Duration {
        self.not_after.since(self.not_before)
    }
}

fn names_in(extensions: &mut SliceReader<'_>) -> der::Result<Vec<String>> {
    let mut names = Vec::new();
    while !der::Reader::is_finished(extensions) {
        let mut extension = sequence(extensions)?;
        let which = AnyRef::decode(&mut extension)?;
        let mut value = AnyRef::decode(&mut extension)?;
        if value.tag() == Tag::Boolean {
            value = AnyRef::decode(&mut extension)?;
        }
        if which.tag() == Tag::ObjectIdentifier && which.value() == SUBJECT_ALT_NAME {
            let mut inner = SliceReader::new(value.value())?;
            let mut general_names = sequence(&mut inner)?;
            while !der::Reader::is_finished(&general_names) {
                let name = AnyRef::decode(&mut general_names)?;
                names.extend(general_name(name));
            }
        }
    }
    Ok(names)
}

/// `dNSName [2]` and `iPAddress [7]`; the other kinds name no host.
fn general_name(name: AnyRef<'_>) -> Option<String> {
    let value = name.value();
    let implicit = |number| Tag::ContextSpecific { constructed: false, number: TagNumber(number) };
    if name.tag() == implicit(2) {
        return std::str::from_utf8(value).ok().map(str::to_ascii_lowercase);
    }
    if name.tag() != implicit(7) {
        return None;
    }
    let four = <[u8; 4]>::try_from(value).map(IpAddr::from);
    let sixteen = || <[u8; 16]>::try_from(value).map(IpAddr::from);
    four.or_else(|_| sixteen()).ok().map(|address| address.to_string())
}

/// Until 2049, and after that.
fn time(validity: &mut SliceReader<'_>) -> der::Result<Timestamp> {
    let since_epoch = if Tag::peek(validity)? == Tag::UtcTime {
        UtcTime::decode(validity)?.to_unix_duration()
    } else {
        GeneralizedTime::decode(validity)?.to_unix_duration()
    };
    Ok(Timestamp(0) + since_epoch)
}

fn context(number: u32) -> Tag {
    Tag::ContextSpecific { constructed: true, number: TagNumber(number) }
}

/// A reader of the sequence that comes next.
fn sequence<'a>(reader: &mut SliceReader<'a>) -> der::Result<SliceReader<'a>> {
    let sequence = AnyRef::decode(reader)?;
    sequence.tag().assert_eq(Tag::Sequence)?;
    SliceReader::new(sequence.value())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn certificate() -> Vec<u8> {
        let names = ["Shop.example", "*.shop.example", "127.0.0.1", "::1"].map(str::to_owned);
        let mut params = rcgen::CertificateParams::new(names).unwrap();
        params.not_before = rcgen::date_time_ymd(2026, 1, 1);
        params.not_after = rcgen::date_time_ymd(2060, 1, 1);
        // Has a criticality, which the others leave out.
        params.is_ca = rcgen::IsCa::ExplicitNoCa;
        params.self_signed(&rcgen::KeyPair::generate().unwrap()).unwrap().der().to_vec()
    }

    #[test]
    fn times_and_names_are_read() {
        let leaf = Leaf::read(&certificate()).unwrap();
        assert_eq!(leaf.names, ["shop.example", "*.shop.example", "127.0.0.1", "::1"]);
        assert_eq!(leaf.not_before, Timestamp(1_767_225_600_000));
        assert_eq!(leaf.not_after, Timestamp(2_840_140_800_000));
    }

    #[test]
    fn a_damaged_certificate_is_an_error_and_no_panic() {
        let whole = certificate();
        for length in 0..whole.len() {
            Leaf::read(&whole[..length]).unwrap_err();
        }
        for at in 0..whole.len() {
            let mut damaged = whole.clone();
            damaged[at] ^= 0xff;
            let _ = Leaf::read(&damaged);
        }
    }
}
