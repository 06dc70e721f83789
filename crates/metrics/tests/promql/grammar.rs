//! Random queries, made from the grammar.

use super::random::{INSTANCES, JOBS, Random};

/// A query of at most this depth; most are flat.
pub fn query(random: &mut Random) -> String {
    let depth = 1 + random.below(4);
    match random.below(20) {
        0 => scalar(random, depth),
        1 => mathematics(random),
        _ => vector(random, depth),
    }
}

/// Of values that are exact, and by themselves: libraries differ in the last digit, and what follows could make that
/// the first.
fn mathematics(random: &mut Random) -> String {
    let function = random.pick(&[
        "exp", "ln", "log2", "log10", "sin", "cos", "tan", "asin", "acos", "atan", "sinh", "cosh", "tanh",
        "asinh", "acosh", "atanh",
    ]);
    format!("{function}({})", selector(random))
}

/// A scalar that can change from step to step. Without `@`, which Prometheus does not heed in the parameter of an
/// aggregation: what it is fixed to moves on with the steps.
fn param(random: &mut Random) -> String {
    loop {
        let text = scalar(random, 1);
        if !text.contains('@') {
            return text;
        }
    }
}

fn number(random: &mut Random) -> String {
    const FIGURES: [&str; 18] = [
        "0", "1", "2", "3", "-1", "0.5", "-2.5", "1e3", "0x1F", "Inf", "-Inf", "NaN", "1_000", "5m", "0.1",
        "100", ".25", "1h30m",
    ];
    random.pick(&FIGURES).to_owned()
}

fn plain_number(random: &mut Random) -> String {
    const FIGURES: [&str; 9] = ["0", "1", "2", "3", "0.5", "-2.5", "0.1", "100", "0.9"];
    random.pick(&FIGURES).to_owned()
}

fn length(random: &mut Random) -> &'static str {
    random.pick(&["1m", "2m", "90s", "5m", "5m", "10m", "30s", "15s", "1m30s", "300", "7m13s", "20m", "1h"])
}

fn scalar(random: &mut Random, depth: usize) -> String {
    if depth == 0 {
        return number(random);
    }
    match random.below(8) {
        0 => "time()".to_owned(),
        1 => "pi()".to_owned(),
        2 | 3 => format!("scalar({})", vector(random, depth - 1)),
        4 => {
            let op = random.pick(&["+", "-", "*", "/", "%", "== bool", "> bool", "<= bool", "!= bool"]);
            format!("({} {op} {})", scalar(random, depth - 1), scalar(random, depth - 1))
        }
        5 => format!("-{}", scalar(random, depth - 1)),
        _ => number(random),
    }
}

fn matchers(random: &mut Random) -> String {
    let mut list = Vec::new();
    if random.chance(35) {
        list.push(match random.below(9) {
            0 => format!("job=\"{}\"", random.pick(&JOBS)),
            1 => format!("instance!=\"{}\"", random.pick(&INSTANCES)),
            2 => "job=~\"a.*|db\"".to_owned(),
            3 => "instance!~\"[ab]:\\\\d\"".to_owned(),
            4 => "code=~\"4..\"".to_owned(),
            5 => "missing=\"\"".to_owned(),
            6 => "zone!=\"\"".to_owned(),
            7 => "job=~\"\\\\w+\"".to_owned(),
            _ => "job!=\"web\"".to_owned(),
        });
    }
    if list.is_empty() { String::new() } else { format!("{{{}}}", list.join(",")) }
}

fn selector(random: &mut Random) -> String {
    match random.below(20) {
        0 => "{__name__=~\"load|temperature\"}".to_owned(),
        1 => "{\"odd.name\"}".to_owned(),
        2 => "nothing".to_owned(),
        3 => "{job=\"api\",__name__!~\"latency.*|requests.*\"}".to_owned(),
        _ => {
            let name = random.pick(&[
                "requests_total",
                "requests_total",
                "load",
                "load",
                "temperature",
                "build_info",
                "latency_bucket",
                "latency_count",
                "latency_sum",
                "small",
                "threshold",
                "clock",
            ]);
            format!("{name}{}", matchers(random))
        }
    }
}

fn shift(random: &mut Random) -> String {
    let mut text = String::new();
    if random.chance(12) {
        let sign = if random.chance(30) { "-" } else { "" };
        text.push_str(&format!(" offset {sign}{}", length(random)));
    }
    if random.chance(8) {
        let at = random.pick(&["1700001000", "1700002345.678", "start()", "end()", "1700005000"]);
        text.push_str(&format!(" @ {at}"));
    }
    text
}

fn range(random: &mut Random, depth: usize) -> String {
    if depth > 0 && random.chance(25) {
        let inner = vector(random, depth - 1);
        let step = if random.chance(30) { "" } else { length(random) };
        let inner = if random.chance(50) { format!("({inner})") } else { format!("abs({inner})") };
        return format!("{inner}[{}:{step}]{}", length(random), shift(random));
    }
    format!("{}[{}]{}", selector(random), length(random), shift(random))
}

fn grouping(random: &mut Random) -> String {
    const LABELS: [&str; 9] =
        ["job", "instance", "code", "job, instance", "le", "zone", "missing", "instance, code, le", ""];
    match random.below(3) {
        0 => String::new(),
        1 => format!(" by ({})", random.pick(&LABELS)),
        _ => format!(" without ({})", random.pick(&LABELS)),
    }
}

fn matching(random: &mut Random, sets: bool) -> String {
    let labels = random.pick(&[
        "job",
        "instance",
        "job, instance",
        "",
        "job, instance, code",
        "le",
        "job, instance, zone",
    ]);
    let mut text = match random.below(4) {
        0 | 1 => return String::new(),
        2 => format!(" on ({labels})"),
        _ => format!(" ignoring ({labels})"),
    };
    if !sets && random.chance(50) {
        let side = random.pick(&["group_left", "group_right"]);
        let include = random.pick(&["", "", "version", "zone", "code"]);
        text.push_str(&format!(" {side} ({include})"));
    }
    text
}

fn vector(random: &mut Random, depth: usize) -> String {
    if depth == 0 {
        return format!("{}{}", selector(random), shift(random));
    }
    match random.below(30) {
        // Prometheus adds up what it computed in no order; of large values, a spread loses digits then.
        0 if random.chance(50) => {
            format!("{}{} ({})", random.pick(&["stddev", "stdvar"]), grouping(random), selector(random))
        }
        0..=2 => {
            let op = random.pick(&["sum", "avg", "min", "max", "count", "group"]);
            format!("{op}{} ({})", grouping(random), vector(random, depth - 1))
        }
        3 => {
            let op = random.pick(&["topk", "bottomk"]);
            let param = random.pick(&["1", "2", "3", "5", "0", "scalar(vector(2))", "1e9"]);
            // Prometheus gives what it computes in no order, and that decides between equal values.
            let inner =
                if random.chance(50) { selector(random) } else { format!("rate({})", range(random, 0)) };
            format!("{op}{} ({param}, {inner})", grouping(random))
        }
        4 => {
            let param = if random.chance(70) {
                random.pick(&["0.5", "0.9", "0", "1"]).to_owned()
            } else {
                param(random)
            };
            format!("quantile{} ({param}, {})", grouping(random), vector(random, depth - 1))
        }
        // Of exact values: the label shows the last digit, in which mathematical functions differ between libraries.
        5 => format!("count_values{} (\"value\", {})", grouping(random), selector(random)),
        6..=10 => {
            let function = random.pick(&[
                "rate",
                "increase",
                "delta",
                "irate",
                "idelta",
                "avg_over_time",
                "min_over_time",
                "max_over_time",
                "sum_over_time",
                "count_over_time",
                "stddev_over_time",
                "stdvar_over_time",
                "last_over_time",
                "present_over_time",
                "absent_over_time",
                "changes",
                "resets",
                "deriv",
                "rate",
                "increase",
                "ts_of_last_over_time",
                "ts_of_max_over_time",
                "ts_of_min_over_time",
            ]);
            format!("{function}({})", range(random, depth - 1))
        }
        11 => {
            let param = if random.chance(70) { plain_number(random) } else { scalar(random, 1) };
            format!("quantile_over_time({param}, {})", range(random, depth - 1))
        }
        // Without NaN, of which 3.5 does not speak.
        12 if random.chance(20) => {
            format!("mad_over_time(requests_total{}[{}])", matchers(random), length(random))
        }
        12 => format!("predict_linear({}, {})", range(random, depth - 1), scalar(random, 1)),
        13 => {
            let (first, second) =
                (random.pick(&["0.1", "0.5", "0.9"]), random.pick(&["0.2", "0.5", "1.5", "0.7"]));
            format!("double_exponential_smoothing({}, {first}, {second})", range(random, depth - 1))
        }
        14..=16 => {
            let function = random.pick(&[
                "abs",
                "ceil",
                "floor",
                "sqrt",
                "sgn",
                "deg",
                "rad",
                "round",
                "absent",
                "sort",
                "sort_desc",
                "timestamp",
                "hour",
                "minute",
                "month",
                "year",
                "day_of_month",
                "day_of_week",
                "day_of_year",
                "days_in_month",
            ]);
            format!("{function}({})", vector(random, depth - 1))
        }
        17 => match random.below(5) {
            0 => {
                format!("clamp({}, {}, {})", vector(random, depth - 1), scalar(random, 0), scalar(random, 0))
            }
            1 => format!("clamp_min({}, {})", vector(random, depth - 1), scalar(random, 1)),
            2 => format!("clamp_max({}, {})", vector(random, depth - 1), scalar(random, 1)),
            3 => format!("round({}, {})", vector(random, depth - 1), plain_number(random)),
            _ => format!("vector({})", scalar(random, depth - 1)),
        },
        18 => {
            let target = random.pick(&["new", "job", "__name__", "instance"]);
            let replacement = random.pick(&["$1", "x-$1", "${1}y", "", "fixed"]);
            let source = random.pick(&["job", "instance", "__name__", "missing"]);
            let pattern = random.pick(&["(.*)", "(.).*", "a(.*)", "([a-z]+):?.*"]);
            let inner = vector(random, depth - 1);
            format!("label_replace({inner}, \"{target}\", \"{replacement}\", \"{source}\", \"{pattern}\")")
        }
        19 => format!("label_join({}, \"new\", \"-\", \"job\", \"instance\")", vector(random, depth - 1)),
        20 => {
            let buckets = match random.below(4) {
                0 => format!("latency_bucket{}", matchers(random)),
                1 => format!("rate(latency_bucket[{}])", length(random)),
                2 => format!("sum by (le) (rate(latency_bucket[{}]))", length(random)),
                _ => format!(
                    "sum by (le, job) (increase(latency_bucket{}[{}]))",
                    matchers(random),
                    length(random)
                ),
            };
            if random.chance(80) {
                format!("histogram_quantile({}, {buckets})", plain_number(random))
            } else {
                // Between finite bounds: outside of them, 3.5 gives NaN and later ones do not.
                let (lower, upper) = (random.pick(&["0.1", "0.3"]), random.pick(&["0.2", "0.5", "0.9", "1"]));
                format!("histogram_fraction({lower}, {upper}, {buckets})")
            }
        }
        21..=23 => {
            let op = random.pick(&["+", "-", "*", "/", "%", "^", "atan2", "==", "!=", ">", "<", ">=", "<="]);
            let bool = if matches!(op, "==" | "!=" | ">" | "<" | ">=" | "<=") && random.chance(40) {
                " bool"
            } else {
                ""
            };
            let depth = if op == "%" { 0 } else { depth - 1 };
            let (left, right) = (vector(random, depth), vector(random, depth));
            format!("({left}) {op}{bool}{} ({right})", matching(random, false))
        }
        24 | 25 => {
            let op = random.pick(&["+", "-", "*", "/", "%", "^", "==", ">", "<", ">= bool", "!="]);
            // A remainder turns a difference in the last digit into one in the first.
            let depth = if op == "%" { 0 } else { depth - 1 };
            let (left, right) = (vector(random, depth), scalar(random, depth));
            if random.chance(50) {
                format!("({left}) {op} {right}")
            } else {
                format!("{right} {op} ({left})")
            }
        }
        26 => {
            let op = random.pick(&["and", "or", "unless"]);
            let (left, right) = (vector(random, depth - 1), vector(random, depth - 1));
            format!("({left}) {op}{} ({right})", matching(random, true))
        }
        27 => format!("-{}", selector(random)),
        28 => format!("{}()", random.pick(&["hour", "minute", "year", "day_of_week", "days_in_month"])),
        _ => format!("{}{}", selector(random), shift(random)),
    }
}

/// A query with something wrong in it, most of the time.
pub fn broken(random: &mut Random) -> String {
    const PIECES: [&str; 54] = [
        "(",
        ")",
        "{",
        "}",
        "[",
        "]",
        "[5m]",
        "[5m:]",
        "[5m:30s]",
        ",",
        "+",
        "-",
        "*",
        "==",
        "!=",
        "=~",
        "=",
        "!",
        "<",
        "@",
        "@ start()",
        "offset",
        "offset 5m",
        "by",
        "by (job)",
        "without",
        "on",
        "on (job)",
        "ignoring",
        "group_left",
        "bool",
        "sum",
        "topk",
        "rate",
        "abs",
        "foo",
        "1",
        "5m",
        "\"x\"",
        "'",
        "`",
        "#",
        ":",
        ".",
        "5mm",
        "0x",
        "1e",
        "1__0",
        "and",
        "or",
        "$",
        "\\",
        "job=\"x\"",
        "unknown(1)",
    ];
    let mut text = query(random);
    for _ in 0..=random.below(2) {
        let places: Vec<usize> = (0..=text.len()).filter(|index| text.is_char_boundary(*index)).collect();
        let place = places[random.below(places.len())];
        match random.below(4) {
            0 => text.insert_str(place, random.pick(&PIECES)),
            1 => text.insert_str(place, &format!(" {} ", random.pick(&PIECES))),
            2 if place < text.len() => {
                text.remove(place);
            }
            _ => text.truncate(place),
        }
    }
    text
}
