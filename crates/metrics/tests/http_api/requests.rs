//! What both sides are asked.

/// How the answers must be alike. The status must always be the same.
#[derive(Clone, Copy)]
pub(crate) enum Compare {
    Bytes,
    /// Lists of objects may be in any order.
    Sorted,
    /// Errors of one type, in words that may differ.
    Class,
    /// The text names what is only there, or only here.
    Status,
}

pub(crate) struct Asked {
    pub(crate) method: &'static str,
    pub(crate) target: String,
    pub(crate) form: String,
    pub(crate) accept: &'static str,
    pub(crate) compare: Compare,
}

fn escaped(text: &str) -> String {
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._~".contains(byte);
    text.bytes()
        .map(|byte| if plain(&byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") })
        .collect()
}

const OPENMETRICS: &str = "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8";

pub(crate) fn requests(now: i64) -> Vec<Asked> {
    use Compare::{Bytes, Class, Sorted, Status};
    let mut all = Vec::new();
    let mut ask = |method: &'static str, target: String, form: String, compare: Compare| {
        all.push(Asked { method, target, form, accept: "*/*", compare });
    };
    let mut get = |target: String, compare: Compare| ask("GET", target, String::new(), compare);

    // Instant queries: values, types, number forms, orders, annotations.
    for (query, compare) in [
        ("http_requests_total", Sorted),
        ("http_requests_total{code=\"5xx\"}", Sorted),
        ("sum by (code) (rate(http_requests_total[5m]))", Sorted),
        ("sort_desc(sum by (code) (http_requests_total))", Bytes),
        ("odd", Sorted),
        ("odd * 2", Sorted),
        ("ends", Sorted),
        ("{\"dotted.name\"}", Bytes),
        ("{\"dotted.name\", \"label.x\"=~\".*é.*\"}", Bytes),
        ("Upper", Bytes),
        ("Upper[2m]", Bytes),
        ("odd{n=\"2\"}[1m]", Bytes),
        ("1", Bytes),
        ("1e21", Bytes),
        ("1e-7", Bytes),
        ("NaN", Bytes),
        ("-Inf", Bytes),
        ("123456789.5", Bytes),
        ("\"text <&>\"", Bytes),
        ("time()", Bytes),
        ("vector(1)", Bytes),
        ("histogram_quantile(0.9, rate(latency_seconds_bucket[5m]))", Bytes),
        ("histogram_quantile(2, latency_seconds_bucket)", Bytes),
        ("rate(odd[5m])", Sorted),
        ("sum(odd{n=\"5\"})", Bytes),
        ("nothing", Bytes),
        ("nothing[5m]", Bytes),
        ("", Class),
        ("up{", Bytes),
        ("sum(", Bytes),
        ("rate(up)", Bytes),
        ("up[5m", Class),
        ("1 +", Bytes),
        ("foo bar", Bytes),
        ("{}", Bytes),
        ("up{a=~\"(\"}", Class),
        ("unknown_function(up)", Bytes),
        ("http_requests_total + on (job) http_requests_total", Class),
        ("label_replace(http_requests_total, \"code\", \"x\", \"code\", \".*\")", Class),
    ] {
        get(format!("/api/v1/query?time={now}&query={}", escaped(query)), compare);
    }
    // Parameters of instant queries.
    for rest in [
        "time=x&query=1",
        "time=2015-07-01T20:10:51.781Z&query=time()",
        "time=2015-07-01T20:10:51.781%2B02:00&query=time()",
        "time=-1.5&query=1",
        "time=1.0005&query=time()",
        "time=1&query=1&timeout=5s",
        "time=1&query=1&timeout=x",
        "time=1&query=1&timeout=1e300",
        "time=1&query=1&lookback_delta=x",
        "time=1&query=1&limit=x",
        "time=1&query=1&limit=-1",
        "time=1&query=1&limit=99999999999999999999",
        "time=1&query=1&limit=0",
        "time=1&query=1&query=2",
    ] {
        get(format!("/api/v1/query?{rest}"), Bytes);
    }
    for rest in ["time=1", "time=1&query=%zz", "time=1;query=1"] {
        get(format!("/api/v1/query?{rest}"), Class);
    }
    get("/api/v1/query_range?start=0&end=10&step=1".to_owned(), Class);
    get(format!("/api/v1/query?query=http_requests_total&time={now}&lookback_delta=1ms"), Bytes);
    get(format!("/api/v1/query?query=sort(http_requests_total)&time={now}&limit=2"), Bytes);
    get(format!("/api/v1/query?query=1&time={now}&limit=1"), Bytes);

    // Range queries.
    let (from, to) = (now - 900, now);
    for (query, compare) in [
        ("http_requests_total", Sorted),
        ("rate(http_requests_total{code=\"2xx\"}[2m])", Sorted),
        ("odd", Sorted),
        ("ends", Sorted),
        ("1", Bytes),
        ("time()", Bytes),
        ("nothing", Bytes),
        ("\"text\"", Bytes),
        ("http_requests_total[5m]", Bytes),
        ("sum(", Bytes),
    ] {
        get(format!("/api/v1/query_range?start={from}&end={to}&step=60&query={}", escaped(query)), compare);
    }
    for rest in [
        "query=1&start=0&end=11000&step=1",
        "query=1&start=0&end=11001&step=1",
        "query=1&start=10&end=0&step=1",
        "query=1&start=0&end=10&step=0",
        "query=1&start=0&end=10&step=-5",
        "query=1&start=0&end=10&step=x",
        "query=1&start=0&end=10",
        "query=1&start=0&end=10&step=1e300",
        "query=1&end=10&step=1",
        "query=1&start=0&step=1",
        "query=1&start=x&end=10&step=1",
        "query=1&start=0.25&end=1.75&step=500ms",
        "query=1&start=2015-07-01T20:10:30Z&end=2015-07-01T20:11:00Z&step=15s",
        "query=1&start=0&end=10&step=1m&limit=x",
    ] {
        get(format!("/api/v1/query_range?{rest}"), Bytes);
    }
    get(
        format!("/api/v1/query_range?start={from}&end={to}&step=300&query=http_requests_total&limit=2"),
        Bytes,
    );

    // Labels and series.
    for rest in [
        "labels",
        "labels?match[]=odd",
        "labels?match[]=odd&match[]=Upper",
        "labels?limit=2",
        "labels?limit=100",
        "labels?match[]={",
        "labels?match[]={}",
        "labels?match[]=%7Ba%3D~%22.*%22%7D",
        "labels?start=x",
        "labels?end=x",
        "labels?limit=x",
        "labels?start=-292273086-05-16T16:47:06Z&end=292277025-08-18T07:12:54.999999999Z",
        "label/__name__/values",
        "label/code/values",
        "label/code/values?limit=1",
        "label/n/values?match[]=odd",
        "label/job/values?match[]=ends&match[]=http_requests_total",
        "label/U__label_2e_x/values",
        "label/label.x/values",
        "label/nothing/values",
        "label/code/values?match[]=}",
        "label/code/values?match[]={}",
        "series",
        "series?match[]=Upper",
        "series?match[]=%7B%22dotted.name%22%7D",
        "series?match[]=nothing",
        "series?match[]={",
        "series?match[]={}",
        "series?match[]=1",
        "series?match[]=Upper&limit=x",
        "series?match[]=Upper&start=x",
        "series?match[]=Upper&%zz",
    ] {
        get(format!("/api/v1/{rest}"), Bytes);
    }
    get("/api/v1/series?match[]=odd&match[]=http_requests_total&match[]=odd".to_owned(), Sorted);
    get(format!("/api/v1/series?match[]=Upper&start={from}&end={to}"), Bytes);
    get("/api/v1/labels?start=1&end=2".to_owned(), Bytes);

    // Rules, alerts, targets, metadata.
    for rest in [
        "rules?type=record",
        "rules?type=x",
        "rules?exclude_alerts=x",
        "rules?rule_group[]=second",
        "rules?rule_name[]=Down",
        "rules?rule_name[]=x:y&exclude_alerts=true",
        "rules?match[]=%7Bteam%3D%22web%22%7D",
        "rules?match[]={",
        "rules?group_next_token=x",
        "rules?group_limit=0",
        "rules?group_limit=x",
        "rules?group_limit=2",
        "rules?group_limit=1&group_next_token=x",
        "rules",
        "alerts",
        "targets",
        "targets?state=active",
        "targets?state=dropped",
        "targets?scrapePool=none",
        "scrape_pools",
        "alertmanagers",
        "metadata",
        "metadata?limit=x",
        "metadata?limit_per_metric=x",
        "metadata?metric=up",
        "targets/metadata",
        "targets/metadata?match_target={",
        "targets/metadata?limit=x",
        "query_exemplars?query=odd&start=1&end=2",
        "query_exemplars?query=odd&start=2&end=1",
        "query_exemplars?query=odd{",
        "format_query?query=up",
        "format_query?query=up{",
    ] {
        get(format!("/api/v1/{rest}"), Bytes);
    }
    for rest in ["status/buildinfo", "status/runtimeinfo", "status/config", "status/flags", "nothing"] {
        get(format!("/api/v1/{rest}"), Status);
    }
    for path in ["/-/healthy", "/-/ready", "/federate?match[]=x{"] {
        get(path.to_owned(), Status);
    }
    for rest in [
        "match[]=Upper",
        "match[]=odd&match[]=Upper",
        "match[]=ends",
        "",
        "match[]=%7B__name__%3D~%22.%2B%22%7D",
    ] {
        get(format!("/federate?{rest}"), Bytes);
    }

    // Forms, and methods that are not there.
    let form = |query: &str| format!("query={}&time={now}", escaped(query));
    ask("POST", "/api/v1/query".to_owned(), form("sort(http_requests_total)"), Bytes);
    ask("POST", "/api/v1/query?query=1".to_owned(), form("2"), Bytes);
    ask("POST", "/api/v1/query_range?step=60".to_owned(), format!("query=1&start={from}&end={to}"), Bytes);
    ask("POST", "/api/v1/labels".to_owned(), "match[]=odd".to_owned(), Bytes);
    ask("POST", "/api/v1/series?match[]=odd".to_owned(), "match[]=Upper".to_owned(), Sorted);
    ask("POST", "/api/v1/label/code/values".to_owned(), String::new(), Status);
    ask("POST", "/api/v1/rules".to_owned(), String::new(), Status);
    ask("PUT", "/api/v1/query".to_owned(), String::new(), Status);
    all.push(Asked {
        method: "GET",
        target: "/federate?match[]=%7B__name__%3D~%22.%2B%22%7D".to_owned(),
        form: String::new(),
        accept: OPENMETRICS,
        compare: Bytes,
    });
    all
}
