//! Names and numbers of things. Short enough to say aloud on the phone: `shop/production`, `r12`, `api.r12.3`.

use std::fmt;
use std::marker::PhantomData;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use smol_str::SmolStr;
use thiserror::Error;

/// The longest name accepted: it becomes part of directory names, metric labels and DNS labels (63 octets).
pub const NAME_LEN_MAX: usize = 40;

#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{name:?} is not a {what} name: {why}")]
pub struct InvalidName {
    pub what: &'static str,
    pub name: String,
    pub why: &'static str,
}

fn check_name(what: &'static str, name: &str) -> Result<(), InvalidName> {
    let fail = |why| Err(InvalidName { what, name: name.to_owned(), why });
    if name.is_empty() {
        return fail("it is empty");
    }
    if name.len() > NAME_LEN_MAX {
        return fail("it is longer than 40 characters");
    }
    if !name.starts_with(|c: char| c.is_ascii_lowercase()) {
        return fail("it must start with a lower-case letter");
    }
    if !name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-') {
        return fail("only lower-case letters, digits and '-' are allowed");
    }
    if name.ends_with('-') {
        return fail("it must not end with '-'");
    }
    Ok(())
}

/// Reads a `T` from the text that it prints as, without a `String` between: a replay reads some ten of them an event.
struct Text<T>(PhantomData<T>);

impl<T: FromStr<Err: fmt::Display>> serde::de::Visitor<'_> for Text<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string")
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<T, E> {
        text.parse().map_err(E::custom)
    }
}

/// As text in JSON, what it prints as.
macro_rules! as_text {
    ($type:ident) => {
        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                deserializer.deserialize_str(Text(PhantomData))
            }
        }
    };
}

macro_rules! name {
    ($(#[$doc:meta])* $type:ident, $what:literal) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        // Up to 23 bytes lie within, longer ones are shared: the engine copies names all the time.
        pub struct $type(SmolStr);

        as_text!($type);

        impl $type {
            /// # Errors
            /// When the name is empty, too long, or has a character outside `a-z 0-9 -`.
            pub fn new(name: &str) -> Result<Self, InvalidName> {
                check_name($what, name)?;
                Ok(Self(name.into()))
            }

            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $type {
            type Err = InvalidName;

            fn from_str(name: &str) -> Result<Self, InvalidName> {
                Self::new(name)
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }
    };
}

name!(/// A project, the `project = "…"` of a fairway.toml.
    ProjectName, "project");
name!(/// `dev`, `staging`, `production`, …
    EnvironmentName, "environment");
name!(/// A service of a project.
    ServiceName, "service");

/// One environment of one project: the unit in which releases are numbered and rollouts exclude each other.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct EnvironmentKey {
    pub project: ProjectName,
    pub environment: EnvironmentName,
}

impl fmt::Display for EnvironmentKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.project, self.environment)
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{text:?} is not {expected}")]
pub struct InvalidId {
    pub text: String,
    pub expected: &'static str,
}

/// As the key of a map a number is text in JSON, and inside a tagged enum serde does not turn it back by itself.
struct NumberOrText;

impl serde::de::Visitor<'_> for NumberOrText {
    type Value = u32;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a whole number")
    }

    fn visit_u64<E: serde::de::Error>(self, number: u64) -> Result<u32, E> {
        u32::try_from(number).map_err(E::custom)
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<u32, E> {
        text.parse().map_err(E::custom)
    }
}

macro_rules! number {
    ($(#[$doc:meta])* $type:ident, $prefix:literal, $expected:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
        #[serde(transparent)]
        pub struct $type(pub u32);

        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                deserializer.deserialize_any(NumberOrText).map(Self)
            }
        }

        impl $type {
            #[must_use]
            pub fn next(self) -> Self {
                Self(self.0 + 1)
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&format!(concat!($prefix, "{}"), self.0))
            }
        }

        impl FromStr for $type {
            type Err = InvalidId;

            /// Accepts the number with and without its prefix.
            fn from_str(text: &str) -> Result<Self, InvalidId> {
                text.strip_prefix($prefix)
                    .unwrap_or(text)
                    .parse()
                    .map(Self)
                    .map_err(|_| InvalidId { text: text.to_owned(), expected: $expected })
            }
        }
    };
}

number!(/// A release of one environment, `r12`.
    ReleaseNumber, "r", "a release such as r12");
number!(/// A rollout of one environment, `#7`; also the revision of the environment's desired state.
    RolloutNumber, "#", "a rollout such as #7");
number!(/// A job (migration, smoke, seed, one-off command) of one environment, `j3`.
    JobNumber, "j", "a job such as j3");

/// One copy of a service: `api.r12.3` is the third that was ever started for `api` in release 12.
/// Ordinals are never used twice, so a late outcome can never be taken for that of a newer copy.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct InstanceId {
    pub service: ServiceName,
    pub release: ReleaseNumber,
    pub ordinal: u32,
}

as_text!(InstanceId);

impl fmt::Display for InstanceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{}.{}.{}", self.service, self.release, self.ordinal))
    }
}

impl FromStr for InstanceId {
    type Err = InvalidId;

    fn from_str(text: &str) -> Result<Self, InvalidId> {
        let parse = || {
            let mut parts = text.split('.');
            let service = ServiceName::new(parts.next()?).ok()?;
            let release = ReleaseNumber(parts.next()?.strip_prefix('r')?.parse().ok()?);
            let ordinal = parts.next()?.parse().ok()?;
            parts.next().is_none().then_some(InstanceId { service, release, ordinal })
        };
        parse().ok_or_else(|| InvalidId { text: text.to_owned(), expected: "an instance such as api.r12.3" })
    }
}

/// Generation of an environment's route table: a fencing token. A higher one wins, a lower one is ignored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Generation(pub u64);

impl Generation {
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl fmt::Display for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "g{}", self.0)
    }
}

/// BLAKE3 of a file tree's manifest, 64 hex digits: what a release runs, to the byte.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct TreeDigest(pub Box<str>);

impl fmt::Display for TreeDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_would_break_a_path_or_a_label_are_refused() {
        for bad in ["", "Shop", "-a", "a-", "a/b", "a.b", "a b", "1a", &"x".repeat(41)] {
            assert!(ServiceName::new(bad).is_err(), "{bad:?} was accepted");
        }
        assert!(ServiceName::new("api-2").is_ok());
    }

    #[test]
    fn numbers_are_read_back_as_keys_inside_a_tagged_enum() {
        #[derive(Debug, PartialEq, Serialize, Deserialize)]
        #[serde(tag = "fact")]
        enum Fact {
            Set { by: std::collections::BTreeMap<ReleaseNumber, ReleaseNumber> },
        }
        let fact = Fact::Set { by: [(ReleaseNumber(1), ReleaseNumber(2))].into() };
        let json = serde_json::to_string(&fact).unwrap();
        assert_eq!(json, r#"{"fact":"Set","by":{"1":2}}"#);
        assert_eq!(serde_json::from_str::<Fact>(&json).unwrap(), fact);
    }

    #[test]
    fn ids_read_back_what_they_print() {
        let id: InstanceId = "api.r12.3".parse().unwrap();
        assert_eq!(id.to_string(), "api.r12.3");
        assert_eq!("12".parse::<ReleaseNumber>(), Ok(ReleaseNumber(12)));
        for bad in ["api", "api.12.3", "api.r1.2.3", ".r1.2", "api.r1.x"] {
            assert!(bad.parse::<InstanceId>().is_err(), "{bad:?} was accepted");
        }
    }
}
