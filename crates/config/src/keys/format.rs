//! What strings must look like.

use fairway_engine::id::{EnvironmentName, InvalidName, ProjectName, ServiceName};

use crate::code;
use crate::spec::Format;
use crate::value::{labels, name, path, url};

macro_rules! text_format {
    ($name:ident, $label:literal, $expected:literal, $code:expr, $pattern:expr, $check:expr) => {
        pub(crate) static $name: Format =
            Format { name: $label, expected: $expected, code: $code, pattern: $pattern, check: $check };
    };
}

fn owned<T>(result: Result<T, &'static str>) -> Result<(), String> {
    result.map(|_| ()).map_err(str::to_owned)
}

fn named<T>(result: Result<T, InvalidName>) -> Result<(), String> {
    result.map(|_| ()).map_err(|error| error.why.to_owned())
}

const NAME_PATTERN: Option<&str> = Some("^[a-z]([a-z0-9-]{0,38}[a-z0-9])?$");

text_format!(TEXT, "TEXT", "a string", code::BAD_VALUE, None, |text| {
    match text {
        "" => Err("it is empty".to_owned()),
        text if text.contains('\0') => Err("it has a NUL character".to_owned()),
        _ => Ok(()),
    }
});
text_format!(PROJECT_NAME, "NAME", "a project name", code::BAD_NAME, NAME_PATTERN, |t| named(
    ProjectName::new(t)
));
text_format!(
    ENVIRONMENT_NAME,
    "ENVIRONMENT",
    "the name of an environment",
    code::BAD_NAME,
    NAME_PATTERN,
    |t| { named(EnvironmentName::new(t)) }
);
text_format!(SERVICE_NAME, "SERVICE", "the name of a service", code::BAD_NAME, NAME_PATTERN, |t| {
    match t {
        "data" | "public" => {
            Err("the name is taken by the references { ref = \"data.dir\" } and { ref = \"public.url\" }"
                .to_owned())
        }
        t => named(ServiceName::new(t)),
    }
});
text_format!(
    VARIABLE_NAME,
    "NAME",
    "the name of a variable",
    code::BAD_NAME,
    Some("^[A-Za-z_][A-Za-z0-9_]*$"),
    |t| { owned(name::variable(t)) }
);
text_format!(HOST, "HOST", "a host name", code::BAD_VALUE, None, |t| owned(name::host(t)));
text_format!(LISTEN, "ADDRESS", "an address such as \"0.0.0.0:80\"", code::BAD_VALUE, None, |t| {
    owned(name::listen(t))
});
text_format!(
    URL,
    "URL",
    "a URL such as \"https://shop.example\"",
    code::BAD_VALUE,
    Some("^https?://"),
    |t| { owned(name::url(t)) }
);
text_format!(
    NETWORK,
    "NETWORK",
    "a network such as \"10.0.0.0/8\", or an address",
    code::BAD_VALUE,
    None,
    |t| owned(name::network(t))
);
text_format!(
    MEDIA_TYPE,
    "TYPE",
    "a media type such as \"text/html\" or \"text/*\"",
    code::BAD_VALUE,
    None,
    |t| owned(name::media_type(t))
);
text_format!(FILE, "FILE", "an absolute path on the machine", code::BAD_VALUE, Some("^/"), |t| match t {
    t if !t.starts_with('/') => Err("it does not begin with a slash".to_owned()),
    t if t.contains('\0') => Err("it has a NUL character".to_owned()),
    _ => Ok(()),
});
text_format!(USER, "USER", "a user name or a numeric id", code::BAD_NAME, None, |t| owned(name::user(t)));
text_format!(DIRECTORY, "PATH", "a path inside the project", code::BAD_VALUE, Some("^[^/~]"), |t| {
    owned(path::relative(t))
});
text_format!(ROUTE_PATH, "PATH", "a path such as \"/\" or \"/api\"", code::BAD_VALUE, Some("^/"), |t| {
    owned(path::route(t))
});
text_format!(PROBE_PATH, "PATH", "a path such as \"/healthz\"", code::BAD_VALUE, Some("^/"), |t| {
    owned(path::request(t))
});
text_format!(TOKEN, "NAME", "the name of a header or a cookie", code::BAD_NAME, None, |t| owned(
    name::token(t)
));
text_format!(MATCH_VALUE, "VALUE", "a string", code::BAD_VALUE, None, |t| owned(name::header_value(t)));
text_format!(PROMQL, "PROMQL", "a PromQL expression", code::BAD_VALUE, None, |t| owned(name::promql(t)));
text_format!(SECRET_NAME, "SECRET", "the name of a secret", code::BAD_NAME, None, |t| owned(name::secret(t)));
text_format!(THING, "NAME", "a name", code::BAD_NAME, Some("^[A-Za-z][A-Za-z0-9_-]{0,63}$"), |t| {
    owned(name::thing(t))
});
text_format!(
    LABEL_NAME,
    "LABEL",
    "the name of a label",
    code::BAD_NAME,
    Some("^[A-Za-z_][A-Za-z0-9_]*$"),
    |t| { owned(name::label(t)) }
);
text_format!(ALERT_NAME, "ALERT", "the name of an alert", code::BAD_NAME, None, |t| owned(name::label(t)));
text_format!(LABEL_VALUE, "VALUE", "a string", code::BAD_VALUE, None, |t| owned(name::line(t)));
text_format!(LINE, "TEXT", "a string", code::BAD_VALUE, None, |t| owned(name::line(t)));
text_format!(LABEL_MATCH, "MATCH", "what a label must match", code::BAD_VALUE, None, |t| {
    labels::check(t)
});
text_format!(SERVER, "HOST", "a host name", code::BAD_VALUE, None, |t| match t {
    t if t.contains(':') && !t.contains("://") => Err("it has no port".to_owned()),
    t => owned(name::host(t)),
});
text_format!(EMAIL, "ADDRESS", "a mail address such as \"ops@shop.example\"", code::BAD_VALUE, None, |t| {
    owned(name::email(t))
});
text_format!(HOST_PORT, "ADDRESS", "an address such as \"db.example:5432\"", code::BAD_VALUE, None, |t| {
    owned(url::host_port(t, None))
});
text_format!(CERTIFICATE, "ADDRESS", "an address such as \"shop.example:443\"", code::BAD_VALUE, None, |t| {
    owned(url::host_port(t, Some(443)))
});
text_format!(
    PROBE_URL,
    "URL",
    "a URL such as \"https://shop.example/healthz\", or a path such as \"/healthz\"",
    code::BAD_VALUE,
    Some("^(https?://|/)"),
    |t| { owned(if t.starts_with('/') { path::request(t) } else { name::url(t) }) }
);
text_format!(
    RULES,
    "PATH",
    "a path inside the project such as \"ops/*.rules.yml\"",
    code::BAD_VALUE,
    Some("^[^/~]"),
    |t| { owned(path::pattern(t)) }
);
