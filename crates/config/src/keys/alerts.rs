//! The keys of `[alerts]`.

use super::POSITIVE;
use super::format::{EMAIL, LABEL_MATCH, LABEL_NAME, LABEL_VALUE, LINE, SECRET_NAME, SERVER, THING, URL};
use crate::spec::Absent::{Default, Required, Words};
use crate::spec::{Kind, TableSpec, key};

/// More than anybody looks at.
const CHANNELS_MAX: usize = 50;
/// Each is tried on every alert.
const ROUTES_MAX: usize = 50;
/// Each compares every alert with every other.
const INHIBIT_MAX: usize = 50;
/// Larger groups have a mailing list.
const RECIPIENTS_MAX: usize = 50;
/// An alert has about this many labels.
const MATCHES_MAX: usize = 20;
const SEVERITIES_MAX: usize = 10;

const MATCHES: Kind = Kind::Map { key: &LABEL_NAME, of: &Kind::Text(&LABEL_MATCH), max: MATCHES_MAX };
const LABELS: Kind = Kind::List { of: &Kind::Text(&LABEL_NAME), max: MATCHES_MAX };

pub(crate) static ALERTS: TableSpec = TableSpec {
    name: "alerts",
    doc: "Who is told when an alert fires.",
    keys: &[
        key(
            "channels",
            Kind::Map { key: &THING, of: &Kind::Table(&CHANNEL), max: CHANNELS_MAX },
            Words("nobody is told"),
            "{ ops = { slack = { secret = \"slack_url\" } } }",
            "Ways to reach people. Each is a table, [alerts.channels.NAME].",
        ),
        key(
            "routes",
            Kind::List { of: &Kind::Table(&ALERT_ROUTE), max: ROUTES_MAX },
            Words("every alert goes to all channels"),
            "[{ severity = \"critical\", channels = [\"pager\"] }, { channels = [\"ops\"] }]",
            "Which alert goes where: the first route that matches.",
        ),
        key(
            "inhibit",
            Kind::List { of: &Kind::Table(&INHIBIT), max: INHIBIT_MAX },
            Words("a critical alert silences the warning of the same alertname, environment and service"),
            "[{ source = { severity = \"critical\" }, target = { severity = \"warning\" }, equal = [\"service\"] }]",
            "Alerts that silence others while they fire.",
        ),
        key(
            "alertmanager",
            Kind::Text(&URL),
            Words("not used"),
            "\"http://alertmanager.example:9093\"",
            "An Alertmanager that gets every alert instead of the channels.",
        ),
    ],
};

pub(crate) static CHANNEL: TableSpec = TableSpec {
    name: "channel",
    doc: "A way to reach people: exactly one of slack, email, pagerduty and webhook.",
    keys: &[
        key(
            "slack",
            Kind::Table(&SECRET),
            Words("not used"),
            "{ secret = \"slack_url\" }",
            "An incoming webhook of Slack; the secret is its URL.",
        ),
        key(
            "email",
            Kind::Table(&MAIL),
            Words("not used"),
            "{ host = \"smtp.example\", from = \"fairway@shop.example\", to = [\"ops@shop.example\"] }",
            "Mail over SMTP.",
        ),
        key(
            "pagerduty",
            Kind::Table(&PAGERDUTY),
            Words("not used"),
            "{ secret = \"pagerduty_key\" }",
            "PagerDuty; the secret is a routing key of the Events API v2.",
        ),
        key(
            "webhook",
            Kind::OneOf(&[Kind::Text(&URL), Kind::Table(&SECRET)]),
            Words("not used"),
            "\"https://bot.example/alerts\"",
            "A URL that gets Alertmanager's JSON; a secret when the URL carries a credential.",
        ),
    ],
};

pub(crate) static SECRET: TableSpec = TableSpec {
    name: "secret",
    doc: "A value that is not in the file: `fairway secret set NAME`.",
    keys: &[key("secret", Kind::Text(&SECRET_NAME), Required, "\"slack_url\"", "Name of the secret.")],
};

pub(crate) static PAGERDUTY: TableSpec = TableSpec {
    name: "pagerduty",
    doc: "PagerDuty.",
    keys: &[
        key(
            "secret",
            Kind::Text(&SECRET_NAME),
            Required,
            "\"pagerduty_key\"",
            "Name of the secret that holds the routing key.",
        ),
        key(
            "url",
            Kind::Text(&URL),
            Words("PagerDuty itself"),
            "\"https://events.eu.pagerduty.com/v2/enqueue\"",
            "Another service that speaks the Events API v2.",
        ),
    ],
};

pub(crate) static MAIL: TableSpec = TableSpec {
    name: "email",
    doc: "Mail over SMTP.",
    keys: &[
        key("host", Kind::Text(&SERVER), Required, "\"smtp.example\"", "The mail server."),
        key(
            "port",
            Kind::Integer { min: 1, max: 65_535 },
            Words("587 with starttls, 465 with tls, 25 with none"),
            "587",
            "Its port.",
        ),
        key(
            "tls",
            Kind::Choice(&["starttls", "tls", "none"]),
            Default("starttls"),
            "\"starttls\"",
            "STARTTLS and no mail without it; TLS from the first byte; or plain text, for a relay on this machine.",
        ),
        key("from", Kind::Text(&EMAIL), Required, "\"fairway@shop.example\"", "The sender."),
        key(
            "to",
            Kind::OneOf(&[Kind::Text(&EMAIL), Kind::List { of: &Kind::Text(&EMAIL), max: RECIPIENTS_MAX }]),
            Required,
            "[\"ops@shop.example\"]",
            "Who gets it.",
        ),
        key("username", Kind::Text(&LINE), Words("no login"), "\"fairway\"", "Login at the mail server."),
        key(
            "password",
            Kind::Table(&SECRET),
            Words("no login"),
            "{ secret = \"smtp_password\" }",
            "Password of the login.",
        ),
    ],
};

pub(crate) static ALERT_ROUTE: TableSpec = TableSpec {
    name: "alert_route",
    doc: "Where alerts go. A route without severity and match takes every alert that is left.",
    keys: &[
        key(
            "severity",
            Kind::OneOf(&[
                Kind::Text(&LABEL_VALUE),
                Kind::List { of: &Kind::Text(&LABEL_VALUE), max: SEVERITIES_MAX },
            ]),
            Words("any"),
            "\"critical\"",
            "Severity of the alerts, or several.",
        ),
        key(
            "match",
            MATCHES,
            Words("any"),
            "{ service = \"api\", alertname = \"=~High.*\" }",
            "Labels that the alerts must have: the text itself, or after != , =~ and !~ another text or a regular expression.",
        ),
        key(
            "channels",
            Kind::List { of: &Kind::Text(&THING), max: CHANNELS_MAX },
            Required,
            "[\"ops\"]",
            "Who is told; [] tells nobody.",
        ),
        key(
            "group_by",
            LABELS,
            Words("alertname and environment"),
            "[\"alertname\", \"service\"]",
            "Alerts that agree in these labels go out as one message.",
        ),
        key(
            "group_wait",
            POSITIVE,
            Default("30s"),
            "\"30s\"",
            "Wait for more of the group before the first message.",
        ),
        key(
            "group_interval",
            POSITIVE,
            Default("5m"),
            "\"5m\"",
            "Wait before a message about what joined the group.",
        ),
        key("repeat", POSITIVE, Default("4h"), "\"4h\"", "Wait before the same message again."),
    ],
};

pub(crate) static INHIBIT: TableSpec = TableSpec {
    name: "inhibit",
    doc: "While an alert that matches source fires, those that match target and agree in the labels of equal are silent.",
    keys: &[
        key(
            "source",
            MATCHES,
            Required,
            "{ severity = \"critical\" }",
            "What silences, as match of a route.",
        ),
        key(
            "target",
            MATCHES,
            Required,
            "{ severity = \"warning\" }",
            "What is silenced, as match of a route.",
        ),
        key("equal", LABELS, Words("none"), "[\"service\"]", "Labels in which both must agree."),
    ],
};
