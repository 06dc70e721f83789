//! Mail, as a server receives it.

use super::smtp::{Offers, SmtpServer};
use super::*;
use crate::outgoing::peer::Identity;

/// `\0ada\0hunter2` in base64.
const LOGIN: &str = "AGFkYQBodW50ZXIy";

fn email(server: &SmtpServer, tls: Tls, login: bool) -> Email {
    Email {
        host: "localhost".to_owned(),
        port: server.port,
        tls,
        from: "Fairway <fairway@shop.example>".to_owned(),
        to: vec!["oncall@shop.example".to_owned(), "Ada <ada@shop.example>".to_owned()],
        login: login.then(|| ("ada".to_owned(), Secret::new("hunter2"))),
    }
}

fn believing(identity: &Identity) -> Senders {
    Senders::new(Outgoing::new(Roots::These(vec![identity.certificate.clone()])), origin())
}

/// The body of a quoted-printable mail.
fn body(text: &str) -> String {
    let (head, body) = text.split_once("\n\n").unwrap();
    assert!(head.contains("Content-Type: text/plain; charset=utf-8"), "{head}");
    if head.contains("Content-Transfer-Encoding: quoted-printable") {
        return body.replace("=\n", "").replace("=3D", "=");
    }
    body.to_owned()
}

#[test]
fn a_mail_arrives_over_every_kind_of_connection() {
    run(async {
        let identity = Identity::new();
        for (offers, tls, login) in [
            (Offers::Plain, Tls::None, None),
            (Offers::Starttls, Tls::Starttls, Some(LOGIN)),
            (Offers::Wrapped, Tls::Wrapped, Some(LOGIN)),
        ] {
            let server = SmtpServer::start(offers, &identity, login, (None, None)).await;
            let channel = Channel::Email(email(&server, tls, login.is_some()));
            let outcome = believing(&identity).send(&channel, &firing(), NOW_MS).await;
            assert_eq!(outcome, Outcome::Sent, "{offers:?}");
            let mail = server.mails().remove(0);
            assert_eq!(mail.from, "<fairway@shop.example>");
            assert_eq!(mail.to, ["<oncall@shop.example>", "<ada@shop.example>"]);
            assert_eq!((mail.login.as_deref(), mail.encrypted), (login, tls != Tls::None));
            for header in [
                "Subject: [CRITICAL] HighErrorRate: production / api / v12\n",
                "From: Fairway <fairway@shop.example>\n",
                "Auto-Submitted: auto-generated\n",
                "References: <",
                "Message-ID: <",
                "Date: ",
            ] {
                assert!(mail.text.contains(header), "{header:?} is not in {}", mail.text);
            }
            assert_eq!(
                body(&mail.text).trim_end(),
                "CRITICAL HighErrorRate: production / api / v12\n  \
                 12.3 % of requests fail\n  <!channel> & more than 5 %\n  \
                 since:    2026-11-21 02:48 UTC, 12 min ago\n  \
                 value:    0.123\n  \
                 changed:  release v12 by ada, 14 min before it began\n  \
                 next:     fairway rollback -e production\n  \
                 runbook:  https://runbooks.example/errors?a=1&b=2\n\n\
                 -- \nFairway on shop, an alert, channel oncall"
            );
        }
    });
}

#[track_caller]
fn check_failure(
    offers: Offers,
    tls: Tls,
    login: Option<&'static str>,
    refuses: (Option<&'static str>, Option<&'static str>),
    expected: &str,
) {
    run(async {
        let identity = Identity::new();
        let server = SmtpServer::start(offers, &identity, login, refuses).await;
        let channel = Channel::Email(email(&server, tls, login.is_some()));
        let said = match believing(&identity).send(&channel, &firing(), NOW_MS).await {
            Outcome::Sent => "sent".to_owned(),
            Outcome::Refused { why } => format!("refused {why}"),
            Outcome::Failed { why, perhaps_sent: true, .. } => format!("perhaps {why}"),
            Outcome::Failed { why, .. } => format!("later {why}"),
        };
        let said = said.replace(&format!("localhost:{}: ", server.port), "");
        assert!(said.starts_with(expected) && !said.contains("hunter2"), "{said:?}");
        assert!(server.mails().is_empty());
    });
}

#[test]
fn without_encryption_nothing_is_said_where_it_is_asked_for() {
    check_failure(Offers::Plain, Tls::Starttls, None, (None, None), "later ");
    check_failure(Offers::Plain, Tls::Starttls, Some(LOGIN), (None, None), "later ");
}

#[test]
fn what_the_server_says_decides() {
    let no = |to, end| (to, end);
    check_failure(
        Offers::Plain,
        Tls::None,
        None,
        no(Some("550 5.1.1 unknown"), None),
        "refused 550 5.1.1 unknown",
    );
    check_failure(
        Offers::Plain,
        Tls::None,
        None,
        no(Some("451 4.7.1 greylisted"), None),
        "later 451 4.7.1 grey",
    );
    check_failure(
        Offers::Plain,
        Tls::None,
        None,
        no(None, Some("552 5.3.4 too big")),
        "refused 552 5.3.4 too big",
    );
    check_failure(Offers::Plain, Tls::None, None, no(None, Some("")), "perhaps ");
    check_failure(
        Offers::Starttls,
        Tls::Starttls,
        Some("b3RoZXI="),
        no(None, None),
        "refused 535 5.7.8 wrong",
    );
}

#[test]
fn a_certificate_that_nobody_knows_is_not_believed() {
    run(async {
        let (identity, other) = (Identity::new(), Identity::new());
        for (offers, tls) in [(Offers::Starttls, Tls::Starttls), (Offers::Wrapped, Tls::Wrapped)] {
            let server = SmtpServer::start(offers, &identity, Some(LOGIN), (None, None)).await;
            let channel = Channel::Email(email(&server, tls, true));
            let Outcome::Failed { why, perhaps_sent, .. } =
                believing(&other).send(&channel, &firing(), NOW_MS).await
            else {
                panic!("it was believed");
            };
            assert!(why.contains("certificate"), "{why}");
            assert!(!perhaps_sent);
            assert!(server.mails().is_empty());
        }
    });
}

#[test]
fn a_test_mail_says_so_and_shows_the_answer() {
    run(async {
        let identity = Identity::new();
        let server = SmtpServer::start(Offers::Plain, &identity, None, (None, None)).await;
        let channel = Channel::Email(email(&server, Tls::None, false));
        let answer = senders().test(&channel, "mail", NOW_MS).await;
        assert_eq!(answer, TestAnswer::Taken { answer: "250 2.0.0 queued as 4711".to_owned() });
        assert!(server.mails()[0].text.contains("Subject: [TEST, nothing is wrong] [INFO] FairwayTest\n"));
    });
}

#[test]
fn a_label_cannot_write_headers_and_a_wrong_address_is_named() {
    run(async {
        let identity = Identity::new();
        let server = SmtpServer::start(Offers::Plain, &identity, None, (None, None)).await;
        let good = email(&server, Tls::None, false);
        let evil = told("A\r\nBcc: eve@evil.example\r\n\r\nhello\n.\nQUIT", Status::Firing);
        let outcome = senders().send(&Channel::Email(good.clone()), &delivery(vec![evil]), NOW_MS).await;
        assert_eq!(outcome, Outcome::Sent);
        let mail = server.mails().remove(0);
        assert_eq!(mail.to.len(), 2);
        assert!(!mail.text.contains("\nBcc:"), "{}", mail.text);
        for to in [vec!["nobody".to_owned()], vec![], vec!["a@b.example".to_owned(); 51]] {
            let channel = Channel::Email(Email { to, ..good.clone() });
            let outcome = senders().send(&channel, &firing(), NOW_MS).await;
            assert!(matches!(outcome, Outcome::Refused { .. }), "{outcome:?}");
        }
        let nobody = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port();
        let channel = Channel::Email(Email { host: "127.0.0.1".to_owned(), port: nobody, ..good });
        let outcome = senders().send(&channel, &firing(), NOW_MS).await;
        assert!(matches!(outcome, Outcome::Failed { perhaps_sent: false, .. }), "{outcome:?}");
    });
}
