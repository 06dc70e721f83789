//! Which format: asked for, answered in.

/// A wire format of an exposition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Prometheus' text format, 0.0.4 or 1.0: they are read alike. Written is 0.0.4, in which a name that is not of
    /// the old characters has underscores in their places.
    Text,
    /// Written as 1.0, with such names in quotes.
    TextUtf8,
    /// OpenMetrics 1.0.
    OpenMetrics,
}

/// What a scrape asks for: Prometheus' own preferences without protobuf, which is not read here.
pub const ACCEPT: &str = "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,\
    application/openmetrics-text;version=0.0.1;q=0.5,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,\
    text/plain;version=0.0.4;q=0.3,*/*;q=0.2";

impl Format {
    /// The format in which a body with this `Content-Type` is read. `None` for one that is not read here, or not
    /// named at all: Prometheus 3 does not guess either.
    #[must_use]
    pub fn of_content_type(content_type: &str) -> Option<Self> {
        let media_type = content_type.split(';').next().unwrap_or_default().trim();
        if media_type.eq_ignore_ascii_case("text/plain") {
            Some(Self::Text)
        } else if media_type.eq_ignore_ascii_case("application/openmetrics-text") {
            Some(Self::OpenMetrics)
        } else {
            None
        }
    }

    /// The format to answer in, by the `Accept` header: the best weighted of those known here, the text format when
    /// there is none.
    #[must_use]
    pub fn of_accept(accept: &str) -> Self {
        let mut best: Option<(f64, Self)> = None;
        for clause in accept.split(',') {
            let mut parts = clause.split(';').map(str::trim);
            let media_type = parts.next().unwrap_or_default();
            let (mut weight, mut version, mut utf8) = (1.0, None, false);
            for (name, value) in parts.filter_map(|part| part.split_once('=')) {
                match name.trim().to_ascii_lowercase().as_str() {
                    "q" => weight = value.trim().parse().unwrap_or(0.0),
                    "version" => version = Some(value.trim()),
                    "escaping" => utf8 = value.trim() == "allow-utf-8",
                    _ => {}
                }
            }
            let format = match (media_type.to_ascii_lowercase().as_str(), version) {
                ("application/openmetrics-text", None | Some("1.0.0" | "0.0.1")) => Self::OpenMetrics,
                ("text/plain", Some("1.0.0")) if utf8 => Self::TextUtf8,
                ("text/plain", None | Some("0.0.4" | "1.0.0")) => Self::Text,
                _ => continue,
            };
            if weight > 0.0 && best.is_none_or(|(known, _)| weight > known) {
                best = Some((weight, format));
            }
        }
        best.map_or(Self::Text, |(_, format)| format)
    }

    /// The `Content-Type` of what is written in it.
    #[must_use]
    pub fn content_type(self) -> &'static str {
        match self {
            Self::Text => "text/plain; version=0.0.4; charset=utf-8; escaping=underscores",
            Self::TextUtf8 => "text/plain; version=1.0.0; charset=utf-8; escaping=allow-utf-8",
            Self::OpenMetrics => {
                "application/openmetrics-text; version=1.0.0; charset=utf-8; escaping=allow-utf-8"
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_is_read_as_its_content_type_says() {
        let check = |content_type, format| {
            assert_eq!(Format::of_content_type(content_type), format, "{content_type}")
        };
        check("text/plain; version=0.0.4; charset=utf-8", Some(Format::Text));
        check("Text/Plain", Some(Format::Text));
        check("application/openmetrics-text; version=1.0.0; charset=utf-8", Some(Format::OpenMetrics));
        check("application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily", None);
        check("text/html", None);
        check("", None);
    }

    #[test]
    fn the_answer_is_in_the_format_that_is_preferred() {
        let check = |accept, format| assert_eq!(Format::of_accept(accept), format, "{accept}");
        check(ACCEPT, Format::OpenMetrics);
        check("", Format::Text);
        check("*/*", Format::Text);
        check("text/html,application/xhtml+xml;q=0.9,*/*;q=0.8", Format::Text);
        check("text/plain;version=0.0.4;q=0.9,application/openmetrics-text;q=0.5", Format::Text);
        check("text/plain;version=1.0.0;escaping=allow-utf-8", Format::TextUtf8);
        check("application/openmetrics-text;version=2.0.0, text/plain;version=9", Format::Text);
        check("application/openmetrics-text;q=0", Format::Text);
    }
}
