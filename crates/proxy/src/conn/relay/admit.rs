//! Whether a request keeps what its route demands.

use std::time::Duration;

use super::Relay;
use crate::codec::RequestHead;
use crate::policy::Rate;
use crate::policy::rate::{Limiter, client_key};
use crate::snapshot::RateKey;
use crate::table::{RouteTable, is_below};

/// Why a request does not get any further.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refused {
    TargetTooLong,
    HeadTooLarge,
    TooManyFields,
    TooManyRequests { wait: Duration },
}

impl Refused {
    pub(super) fn status(self) -> u16 {
        match self {
            Self::TargetTooLong => 414,
            Self::HeadTooLarge | Self::TooManyFields => 431,
            Self::TooManyRequests { .. } => 429,
        }
    }

    pub(super) fn why(self) -> &'static str {
        match self {
            Self::TargetTooLong => "the path and query are longer than this route takes",
            Self::HeadTooLarge => "the request head is larger than this route takes",
            Self::TooManyFields => "the request has more header fields than this route takes",
            Self::TooManyRequests { .. } => "too many requests; come back later",
        }
    }

    /// Seconds, rounded up, so that whoever comes back then has room.
    pub(super) fn retry_after_s(self) -> Option<u32> {
        match self {
            Self::TooManyRequests { wait } => {
                let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
                Some(u32::try_from(seconds.max(1)).unwrap_or(u32::MAX))
            }
            Self::TargetTooLong | Self::HeadTooLarge | Self::TooManyFields => None,
        }
    }
}

impl Relay<'_> {
    pub(super) fn admit(
        &self,
        head: &RequestHead<'_, '_>,
        head_bytes: usize,
        route: &RouteTable,
    ) -> Result<(), Refused> {
        let limits = &route.policy.limits;
        let exceeds = |value: usize, max: Option<u32>| max.is_some_and(|max| value > max as usize);
        if exceeds(head.target.len(), limits.target_bytes_max) {
            return Err(Refused::TargetTooLong);
        }
        if exceeds(head_bytes, limits.head_bytes_max) {
            return Err(Refused::HeadTooLarge);
        }
        if exceeds(head.headers.len(), limits.fields_max) {
            return Err(Refused::TooManyFields);
        }
        let rates = &route.policy.rates;
        // Whoever is beyond one rate must not use up another, which may be everybody's.
        if rates.len() > 1 {
            for rate in rates {
                self.under(rate, head, Limiter::has_room)?;
            }
        }
        for rate in rates {
            self.under(rate, head, Limiter::admit)?;
        }
        Ok(())
    }

    /// What the limiter says about a request to which the rate applies.
    fn under(
        &self,
        rate: &Rate,
        head: &RequestHead<'_, '_>,
        ask: impl Fn(&Limiter, &[u8]) -> Result<(), Duration>,
    ) -> Result<(), Refused> {
        if rate.settings.path.as_ref().is_some_and(|path| !is_below(head.path(), path)) {
            return Ok(());
        }
        let asked = match &rate.settings.per {
            RateKey::Route => ask(&rate.limiter, b""),
            RateKey::Client => ask(&rate.limiter, &client_key(self.client_of(head))),
            RateKey::Header(name) => {
                let field = head.headers.iter().find(|header| header.name.eq_ignore_ascii_case(name));
                ask(&rate.limiter, field.map_or(b"", |header| header.value))
            }
        };
        asked.map_err(|wait| Refused::TooManyRequests { wait })
    }
}
