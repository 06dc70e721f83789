//! An SMTP server on loopback that follows RFC 5321, 3207 (STARTTLS) and 4954 (AUTH PLAIN), and takes down the
//! dialogue. It refuses what a client may not do in the state that it is in.

use std::sync::{Arc, Mutex};

use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncWrite, AsyncWriteExt, BufStream};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;

use crate::outgoing::peer::Identity;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Offers {
    Plain,
    Starttls,
    Wrapped,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Mail {
    pub(super) from: String,
    pub(super) to: Vec<String>,
    /// The response of `AUTH PLAIN`.
    pub(super) login: Option<String>,
    pub(super) encrypted: bool,
    pub(super) text: String,
}

pub(super) struct SmtpServer {
    pub(super) port: u16,
    mails: Arc<Mutex<Vec<Mail>>>,
    task: JoinHandle<()>,
}

impl Drop for SmtpServer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

#[derive(Clone)]
struct Rules {
    offers: Offers,
    tls: TlsAcceptor,
    /// What it says to `RCPT TO` and to the end of the mail, instead of yes.
    refuses: (Option<&'static str>, Option<&'static str>),
    login: Option<&'static str>,
    mails: Arc<Mutex<Vec<Mail>>>,
}

impl SmtpServer {
    pub(super) async fn start(
        offers: Offers,
        identity: &Identity,
        login: Option<&'static str>,
        refuses: (Option<&'static str>, Option<&'static str>),
    ) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let mails = Arc::new(Mutex::new(Vec::new()));
        let rules = Rules { offers, tls: identity.acceptor(), refuses, login, mails: Arc::clone(&mails) };
        let task = tokio::spawn(async move {
            loop {
                let (tcp, _) = listener.accept().await.unwrap();
                let rules = rules.clone();
                tokio::spawn(async move {
                    match rules.offers {
                        Offers::Plain => _ = talk(BufStream::new(tcp), &rules, true, false).await,
                        Offers::Starttls => {
                            let Some(stream) = talk(BufStream::new(tcp), &rules, true, false).await else {
                                return;
                            };
                            let tcp = stream.into_inner();
                            if let Ok(stream) = rules.tls.accept(tcp).await {
                                talk(BufStream::new(stream), &rules, false, true).await;
                            }
                        }
                        Offers::Wrapped => {
                            if let Ok(stream) = rules.tls.accept(tcp).await {
                                talk(BufStream::new(stream), &rules, true, true).await;
                            }
                        }
                    }
                });
            }
        });
        Self { port, mails, task }
    }

    pub(super) fn mails(&self) -> Vec<Mail> {
        self.mails.lock().unwrap().clone()
    }
}

/// The stream again when the client asked for TLS.
async fn talk<S: AsyncRead + AsyncWrite + Unpin>(
    mut stream: BufStream<S>,
    rules: &Rules,
    greet: bool,
    encrypted: bool,
) -> Option<BufStream<S>> {
    if greet {
        say(&mut stream, "220 mail.example ESMTP").await?;
    }
    let may_starttls = rules.offers == Offers::Starttls && !encrypted;
    let mut greeted = false;
    let mut mail = Mail { encrypted, ..Mail::default() };
    loop {
        let line = hear(&mut stream).await?;
        let upper = line.to_ascii_uppercase();
        let answer = if upper.starts_with("EHLO ") {
            greeted = true;
            let tls = if may_starttls { "250-STARTTLS\r\n" } else { "" };
            let auth = if rules.login.is_some() { "250-AUTH PLAIN\r\n" } else { "" };
            format!("250-mail.example\r\n{tls}{auth}250 8BITMIME")
        } else if !greeted {
            "503 EHLO first".to_owned()
        } else if upper == "STARTTLS" && may_starttls {
            say(&mut stream, "220 go ahead").await?;
            return Some(stream);
        } else if let Some(login) = line.strip_prefix("AUTH PLAIN ") {
            mail.login = Some(login.to_owned());
            if Some(login) == rules.login { "235 ok" } else { "535 5.7.8 wrong password for hunter2" }
                .to_owned()
        } else if rules.login.is_some() && mail.login.as_deref() != rules.login {
            "530 5.7.0 authentication required".to_owned()
        } else if upper.starts_with("MAIL FROM:") && mail.from.is_empty() {
            mail.from = line["MAIL FROM:".len()..].to_owned();
            "250 ok".to_owned()
        } else if upper.starts_with("RCPT TO:") && !mail.from.is_empty() {
            mail.to.push(line["RCPT TO:".len()..].to_owned());
            rules.refuses.0.unwrap_or("250 ok").to_owned()
        } else if upper == "DATA" && !mail.to.is_empty() {
            say(&mut stream, "354 end with a dot").await?;
            loop {
                let line = hear(&mut stream).await?;
                if line == "." {
                    break;
                }
                mail.text.push_str(line.strip_prefix('.').unwrap_or(&line));
                mail.text.push('\n');
            }
            if rules.refuses.1.is_none() {
                rules.mails.lock().unwrap().push(std::mem::take(&mut mail));
            }
            match rules.refuses.1 {
                // It hangs up instead of an answer.
                Some("") => return None,
                Some(answer) => answer.to_owned(),
                None => "250 2.0.0 queued as 4711".to_owned(),
            }
        } else if upper == "QUIT" {
            say(&mut stream, "221 bye").await?;
            return None;
        } else if upper == "RSET" || upper == "NOOP" {
            "250 ok".to_owned()
        } else {
            "503 not now".to_owned()
        };
        say(&mut stream, &answer).await?;
    }
}

async fn hear<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut BufStream<S>) -> Option<String> {
    let mut line = String::new();
    stream.read_line(&mut line).await.ok().filter(|read| *read > 0)?;
    Some(line.strip_suffix("\r\n").expect("lines of SMTP end with CR LF").to_owned())
}

async fn say<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut BufStream<S>, text: &str) -> Option<()> {
    stream.write_all(format!("{text}\r\n").as_bytes()).await.ok()?;
    stream.flush().await.ok()
}
