//! Mail through SMTP.

use std::time::Duration;

use fairway_metrics::notify::Delivery;
use lettre::message::Mailbox;
use lettre::message::header::{ContentType, HeaderName, HeaderValue};
use lettre::transport::smtp::authentication::Credentials;
use lettre::transport::smtp::client::{Certificate, CertificateStore, Tls as SmtpTls, TlsParameters};
use lettre::{AsyncSmtpTransport, AsyncTransport, Message, Tokio1Executor};

use super::text::Text;
use super::{Origin, Secret, SendError, Sending};
use crate::outgoing::{Roots, cause};

/// For one step of the dialogue.
const STEP_WITHIN: Duration = Duration::from_secs(20);

/// For all of it: a server that greets slowly on purpose is waited for, one that hangs is not.
const WITHIN: Duration = Duration::from_secs(60);

/// A list address is the right thing for more.
const RECIPIENTS_MAX: usize = 50;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Email {
    pub host: String,
    pub port: u16,
    pub tls: Tls,
    pub from: String,
    pub to: Vec<String>,
    /// User name and password.
    pub login: Option<(String, Secret)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tls {
    /// STARTTLS, and no mail without it.
    Starttls,
    /// From the first byte.
    Wrapped,
    /// Plain text, for a relay on this machine.
    None,
}

pub(super) async fn send(
    roots: &Roots,
    email: &Email,
    origin: &Origin,
    delivery: &Delivery,
    text: &Text,
) -> Sending {
    let message = message(email, origin, delivery, text)?;
    let transport = transport(roots, email)?;
    let sending = tokio::time::timeout(WITHIN, transport.send(message)).await;
    let secrets = email.login.as_ref().map(|(_, password)| password);
    let redact = |text: String| secrets.map(|secret| secret.redact(&text)).unwrap_or(text);
    match sending {
        Ok(Ok(answer)) => {
            let said: Vec<&str> = answer.message().collect();
            Ok(redact(format!("{} {}", answer.code(), said.join(" "))))
        }
        Ok(Err(error)) => Err(failure(email, &error, &redact)),
        Err(_) => Err(SendError::Failed {
            why: format!(
                "{}:{}: no end of the dialogue within {} s",
                email.host,
                email.port,
                WITHIN.as_secs()
            ),
            perhaps_sent: true,
            retry_after: None,
        }),
    }
}

fn failure(
    email: &Email,
    error: &lettre::transport::smtp::Error,
    redact: &dyn Fn(String) -> String,
) -> SendError {
    let said = error.status().map(|code| format!("{code} ")).unwrap_or_default();
    let why = redact(format!("{}:{}: {said}{}", email.host, email.port, cause(error)));
    if error.is_permanent() {
        return SendError::Refused { why };
    }
    // It answered, or no connection with TLS came about: the mail was not taken.
    let refused = error.is_transient() || error.is_tls() || error.is_client() || never_connected(error);
    SendError::Failed { why, perhaps_sent: !refused, retry_after: None }
}

fn never_connected(error: &(dyn std::error::Error + 'static)) -> bool {
    use std::io::ErrorKind;
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(io) = error.downcast_ref::<std::io::Error>() {
            let kinds = [
                ErrorKind::ConnectionRefused,
                ErrorKind::HostUnreachable,
                ErrorKind::NetworkUnreachable,
                ErrorKind::AddrNotAvailable,
                ErrorKind::NotFound,
                ErrorKind::InvalidData,
            ];
            return kinds.contains(&io.kind());
        }
        next = error.source();
    }
    false
}

fn transport(roots: &Roots, email: &Email) -> Result<AsyncSmtpTransport<Tokio1Executor>, SendError> {
    let unusable = |error: lettre::transport::smtp::Error| SendError::Failed {
        why: format!("{}:{}: TLS: {}", email.host, email.port, cause(&error)),
        perhaps_sent: false,
        retry_after: None,
    };
    let parameters = || {
        let mut builder = TlsParameters::builder(email.host.clone());
        if let Roots::These(certificates) = roots {
            builder = builder.certificate_store(CertificateStore::None);
            for certificate in certificates {
                builder = builder.add_root_certificate(Certificate::from_der(certificate.to_vec())?);
            }
        }
        builder.build()
    };
    let tls = match email.tls {
        Tls::Starttls => SmtpTls::Required(parameters().map_err(unusable)?),
        Tls::Wrapped => SmtpTls::Wrapper(parameters().map_err(unusable)?),
        Tls::None => SmtpTls::None,
    };
    let mut builder = AsyncSmtpTransport::<Tokio1Executor>::builder_dangerous(&email.host)
        .port(email.port)
        .timeout(Some(STEP_WITHIN))
        .tls(tls);
    if let Some((user, password)) = &email.login {
        builder = builder.credentials(Credentials::new(user.clone(), password.expose().to_owned()));
    }
    Ok(builder.build())
}

fn message(email: &Email, origin: &Origin, delivery: &Delivery, text: &Text) -> Result<Message, SendError> {
    let refused = |why: String| SendError::Refused { why };
    let mailbox = |address: &str| {
        address.parse::<Mailbox>().map_err(|error| refused(format!("the mail address {address:?}: {error}")))
    };
    if email.to.is_empty() || email.to.len() > RECIPIENTS_MAX {
        return Err(refused(format!("{} recipients; 1 to {RECIPIENTS_MAX} are possible", email.to.len())));
    }
    // One thread for each group, in every mail program.
    let thread = blake3::hash(format!("{}\0{}", origin.name, delivery.group_key).as_bytes()).to_hex();
    let thread = format!("<{thread}@fairway.invalid>");
    // Out-of-office programs do not answer.
    let automatic = HeaderName::new_from_ascii_str("Auto-Submitted");
    let mut message = Message::builder()
        .from(mailbox(&email.from)?)
        .subject(&text.title)
        .date_now()
        .message_id(None)
        .references(thread)
        .raw_header(HeaderValue::new(automatic, "auto-generated".to_owned()));
    for address in &email.to {
        message = message.to(mailbox(address)?);
    }
    message
        .header(ContentType::TEXT_PLAIN)
        .body(text.plain())
        .map_err(|error| refused(format!("the mail cannot be written: {error}")))
}
