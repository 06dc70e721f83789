//! Messages on their way out: mail, Slack, PagerDuty, webhooks, another Alertmanager.
//!
//! Who hears what and when is decided in [`fairway_metrics::notify`]; here it is written, sent, and the answer of the
//! channel is turned into an [`Outcome`]. Each attempt ends within [`fairway_metrics::notify`]'s time for an answer.

use std::time::Duration;

use fairway_metrics::labels::Labels;
use fairway_metrics::notify::{
    Batch, Delivery, DeliveryId, Fingerprint, Outcome, Reason, Status, TimestampMs, ToldAlert,
};

use crate::outgoing::{Answer, Outgoing, OutgoingError};

mod alertmanager;
mod email;
mod pagerduty;
mod secret;
pub mod settings;
mod slack;
mod stamp;
#[cfg(test)]
mod tests;
mod text;
mod webhook;

pub use email::{Email, Tls};
pub use secret::Secret;

/// Where and how a message goes. Secrets are values here, not names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Channel {
    Email(Email),
    /// An incoming-webhook address.
    Slack {
        url: Secret,
    },
    /// Events API v2; `url` only for a compatible service elsewhere, in full.
    PagerDuty {
        key: Secret,
        url: Option<String>,
    },
    /// Alertmanager's JSON, version 4.
    Webhook {
        url: Secret,
    },
}

/// Who is speaking.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// The project or machine, as people call it. Part of the key by which PagerDuty merges: two Fairways with one
    /// routing key must differ in it.
    pub name: String,
    /// Where its UI or API can be reached; may be empty.
    pub url: String,
}

/// What a channel answered to a test.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TestAnswer {
    /// In its words.
    Taken {
        answer: String,
    },
    Refused {
        why: String,
    },
    /// It may work later.
    Failed {
        why: String,
    },
}

#[derive(Clone, Debug)]
pub struct Senders {
    outgoing: Outgoing,
    origin: Origin,
}

/// What a channel said, or why it said nothing.
type Sending = Result<String, SendError>;

#[derive(Debug)]
enum SendError {
    /// As it is, it will never be taken.
    Refused {
        why: String,
    },
    Failed {
        why: String,
        perhaps_sent: bool,
        retry_after: Option<Duration>,
    },
}

impl Senders {
    #[must_use]
    pub fn new(outgoing: Outgoing, origin: Origin) -> Self {
        Self { outgoing, origin }
    }

    /// One attempt. What to do about the outcome is the dispatcher's business.
    pub async fn send(&self, channel: &Channel, delivery: &Delivery, now_ms: TimestampMs) -> Outcome {
        outcome(self.deliver(channel, delivery, false, now_ms).await)
    }

    /// One request to `POST <url>/api/v2/alerts` of an Alertmanager.
    pub async fn forward(&self, url: &str, batch: &Batch) -> Outcome {
        outcome(alertmanager::send(&self.outgoing, url, batch).await)
    }

    /// Sends a message that says it is a test and nothing is wrong. PagerDuty gets an incident of the lowest severity
    /// and its end right after.
    pub async fn test(&self, channel: &Channel, name: &str, now_ms: TimestampMs) -> TestAnswer {
        let delivery = test_delivery(name, now_ms);
        let mut sending = self.deliver(channel, &delivery, true, now_ms).await;
        if sending.is_ok() {
            match channel {
                Channel::PagerDuty { .. } => {
                    sending = self.deliver(channel, &ended(delivery, now_ms), true, now_ms).await;
                }
                Channel::Email(_) | Channel::Slack { .. } | Channel::Webhook { .. } => {}
            }
        }
        match sending {
            Ok(answer) => TestAnswer::Taken { answer },
            Err(SendError::Refused { why }) => TestAnswer::Refused { why },
            Err(SendError::Failed { why, .. }) => TestAnswer::Failed { why },
        }
    }

    async fn deliver(
        &self,
        channel: &Channel,
        delivery: &Delivery,
        test: bool,
        now_ms: TimestampMs,
    ) -> Sending {
        let Self { outgoing, origin } = self;
        let text = text::render(delivery, &origin.name, test, now_ms);
        match channel {
            Channel::Email(email) => email::send(outgoing.roots(), email, origin, delivery, &text).await,
            Channel::Slack { url } => slack::send(outgoing, url, origin, &text).await,
            Channel::PagerDuty { key, url } => {
                pagerduty::send(outgoing, key, url.as_deref(), origin, delivery, &text).await
            }
            Channel::Webhook { url } => webhook::send(outgoing, url, origin, delivery).await,
        }
    }
}

fn outcome(sending: Sending) -> Outcome {
    match sending {
        Ok(_) => Outcome::Sent,
        Err(SendError::Refused { why }) => Outcome::Refused { why },
        Err(SendError::Failed { why, perhaps_sent, retry_after }) => {
            Outcome::Failed { why, perhaps_sent, retry_after }
        }
    }
}

/// What an HTTP answer means for a message. `secrets` do not get into the words.
fn judge(answer: Result<Answer, OutgoingError>, secrets: &[&Secret]) -> Sending {
    let redact = |text: String| secrets.iter().fold(text, |text, secret| secret.redact(&text));
    let answer = answer.map_err(|error| SendError::Failed {
        perhaps_sent: error.perhaps_taken(),
        why: redact(error.to_string()),
        retry_after: None,
    });
    let answer = answer?;
    let said = redact(answer.excerpt());
    let why = if said.is_empty() { answer.status.to_string() } else { format!("{}: {said}", answer.status) };
    match answer.status {
        200..=299 => Ok(why),
        300..=399 => Err(SendError::Refused { why: format!("{why} (redirects are not followed)") }),
        // It did not look at the message.
        408 | 425 | 429 | 503 => {
            Err(SendError::Failed { why, perhaps_sent: false, retry_after: answer.retry_after() })
        }
        // It broke at some point after it had the message.
        500..=599 => Err(SendError::Failed { why, perhaps_sent: true, retry_after: answer.retry_after() }),
        _ => Err(SendError::Refused { why }),
    }
}

fn test_delivery(channel: &str, now_ms: TimestampMs) -> Delivery {
    let labels = Labels::new([("alertname", "FairwayTest"), ("severity", "info")]);
    let annotations = Labels::new([
        ("summary", "This is a test of the channel. Nothing is wrong, and nothing needs to be done."),
        ("next", "nothing: real alerts arrive like this one"),
    ]);
    let alert = ToldAlert {
        fingerprint: Fingerprint::of(&labels),
        status: Status::Firing,
        labels: labels.clone(),
        annotations: annotations.clone(),
        starts_at_ms: now_ms,
        ends_at_ms: None,
        generator_url: String::new(),
    };
    Delivery {
        id: DeliveryId(0),
        channel: channel.to_owned(),
        // Every test on its own: one must not close another.
        group_key: format!("test of {channel} at {now_ms}"),
        group_labels: labels.clone(),
        common_labels: labels,
        common_annotations: annotations,
        status: Status::Firing,
        reason: Reason::New,
        alerts: vec![alert],
        truncated: 0,
        attempt: 1,
    }
}

fn ended(mut delivery: Delivery, now_ms: TimestampMs) -> Delivery {
    delivery.status = Status::Resolved;
    delivery.reason = Reason::Resolved;
    for alert in &mut delivery.alerts {
        alert.status = Status::Resolved;
        alert.ends_at_ms = Some(now_ms);
    }
    delivery
}
