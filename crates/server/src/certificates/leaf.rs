//! What is read from a certificate: RFC 5280, section 4.1. Of all that is in one, only that is needed.

use std::net::IpAddr;
use std::time::Duration;

use der::asn1::{AnyRef, GeneralizedTime, UtcTime};
use der::{Decode as _, Encode as _, SliceReader, Tag, TagNumber, Tagged as _};
use fairway_engine::time::Timestamp;

/// `subjectAltName`, 2.5.29.17.
const SUBJECT_ALT_NAME: &[u8] = &[0x55, 0x1d, 0x11];
/// `authorityKeyIdentifier`, 2.5.29.35.
const AUTHORITY_KEY: &[u8] = &[0x55, 0x1d, 0x23];
/// `organizationName` and `commonName`, 2.5.4.10 and 2.5.4.3, in the order in which they are shown.
const SHOWN_OF_ISSUER: [&[u8]; 2] = [&[0x55, 0x04, 0x0a], &[0x55, 0x04, 0x03]];
/// A name is shown in a table.
const ISSUER_CHARS_MAX: usize = 80;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Leaf {
    pub(super) not_before: Timestamp,
    pub(super) not_after: Timestamp,
    /// Host names (perhaps with a wildcard) and IP addresses.
    pub(super) names: Vec<String>,
    /// `SubjectPublicKeyInfo`, DER.
    pub(super) public_key: Vec<u8>,
    /// Organization and name; empty where it has neither.
    pub(super) issuer: String,
    /// As it stands in the certificate.
    pub(super) serial: Vec<u8>,
    /// Which key of the authority has signed it.
    pub(super) authority_key: Option<Vec<u8>>,
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
        let serial = AnyRef::decode(&mut signed)?.value().to_vec();
        // The signature's algorithm.
        AnyRef::decode(&mut signed)?;
        let issuer = issuer(&mut sequence(&mut signed)?)?;
        let mut validity = sequence(&mut signed)?;
        let (not_before, not_after) = (time(&mut validity)?, time(&mut validity)?);
        // The subject.
        AnyRef::decode(&mut signed)?;
        let public_key = AnyRef::decode(&mut signed)?.to_der()?;
        let mut extensions = Extensions::default();
        while !der::Reader::is_finished(&signed) {
            let field = AnyRef::decode(&mut signed)?;
            if field.tag() == context(3) {
                let mut explicit = SliceReader::new(field.value())?;
                extensions = Extensions::read(&mut sequence(&mut explicit)?)?;
            }
        }
        let Extensions { names, authority_key } = extensions;
        Ok(Self { not_before, not_after, names, public_key, issuer, serial, authority_key })
    }

    /// Zero where the end is before the start.
    pub(super) fn life(&self) -> Duration {
        self.not_after.since(self.not_before)
    }
}

#[derive(Default)]
struct Extensions {
    names: Vec<String>,
    authority_key: Option<Vec<u8>>,
}

impl Extensions {
    fn read(extensions: &mut SliceReader<'_>) -> der::Result<Self> {
        let mut read = Self::default();
        while !der::Reader::is_finished(extensions) {
            let mut extension = sequence(extensions)?;
            let which = AnyRef::decode(&mut extension)?;
            let mut value = AnyRef::decode(&mut extension)?;
            if value.tag() == Tag::Boolean {
                value = AnyRef::decode(&mut extension)?;
            }
            if which.tag() != Tag::ObjectIdentifier {
                continue;
            }
            let mut inner = SliceReader::new(value.value())?;
            if which.value() == SUBJECT_ALT_NAME {
                let mut general_names = sequence(&mut inner)?;
                while !der::Reader::is_finished(&general_names) {
                    let name = AnyRef::decode(&mut general_names)?;
                    read.names.extend(general_name(name));
                }
            } else if which.value() == AUTHORITY_KEY {
                let mut fields = sequence(&mut inner)?;
                while !der::Reader::is_finished(&fields) {
                    let field = AnyRef::decode(&mut fields)?;
                    if field.tag() == implicit(0) {
                        read.authority_key = Some(field.value().to_vec());
                    }
                }
            }
        }
        Ok(read)
    }
}

/// A `Name`: a sequence of sets of pairs of what it is and its value.
fn issuer(name: &mut SliceReader<'_>) -> der::Result<String> {
    let mut found = [const { String::new() }; SHOWN_OF_ISSUER.len()];
    while !der::Reader::is_finished(name) {
        let set = AnyRef::decode(name)?;
        let mut pairs = SliceReader::new(set.value())?;
        while !der::Reader::is_finished(&pairs) {
            let mut pair = sequence(&mut pairs)?;
            let (which, value) = (AnyRef::decode(&mut pair)?, AnyRef::decode(&mut pair)?);
            if let Some(at) = SHOWN_OF_ISSUER.iter().position(|shown| *shown == which.value()) {
                let text = String::from_utf8_lossy(value.value());
                found[at] = text.chars().filter(|c| !c.is_control()).take(ISSUER_CHARS_MAX).collect();
            }
        }
    }
    let said: Vec<&str> = found.iter().map(String::as_str).filter(|text| !text.is_empty()).collect();
    Ok(said.join(" "))
}

/// `dNSName [2]` and `iPAddress [7]`; the other kinds name no host.
fn general_name(name: AnyRef<'_>) -> Option<String> {
    let value = name.value();
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

fn implicit(number: u32) -> Tag {
    Tag::ContextSpecific { constructed: false, number: TagNumber(number) }
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
        params.use_authority_key_identifier_extension = true;
        params.serial_number = Some(rcgen::SerialNumber::from_slice(&[0x87, 0x65, 0x43, 0x21]));
        params.distinguished_name.push(rcgen::DnType::OrganizationName, "Acme\r\nTrust");
        params.distinguished_name.push(rcgen::DnType::CommonName, "E7");
        params.self_signed(&rcgen::KeyPair::generate().unwrap()).unwrap().der().to_vec()
    }

    #[test]
    fn times_and_names_are_read() {
        let leaf = Leaf::read(&certificate()).unwrap();
        assert_eq!(leaf.names, ["shop.example", "*.shop.example", "127.0.0.1", "::1"]);
        assert_eq!(leaf.not_before, Timestamp(1_767_225_600_000));
        assert_eq!(leaf.not_after, Timestamp(2_840_140_800_000));
        assert_eq!(leaf.issuer, "AcmeTrust E7");
        // A number without a sign has a zero before its highest bit (RFC 9773, section 4.1, has the same example).
        assert_eq!(leaf.serial, [0x00, 0x87, 0x65, 0x43, 0x21]);
        assert_eq!(leaf.authority_key.map(|key| key.len()), Some(20));
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
