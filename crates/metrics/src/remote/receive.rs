//! Remote write, receiving: a body as samples, and what to answer.

use crate::labels::{Labels, NAME};
use crate::remote::known::{Known, Seen};
use crate::remote::send::Message;
use crate::remote::wire::{Malformed, Value, fields, put_bytes, split_leading};
use crate::sample::{Sample, TimestampMs};

/// What a request may hold. Senders split far below: Prometheus sends 2,000 samples at a time.
#[derive(Clone, Copy, Debug)]
pub struct ReceiveLimits {
    /// Decompressed. Checked before anything is allocated.
    pub bytes_max: usize,
    pub series_max: usize,
    pub samples_max: usize,
    pub labels_max: usize,
    pub name_bytes_max: usize,
    pub value_bytes_max: usize,
}

impl Default for ReceiveLimits {
    fn default() -> Self {
        Self {
            bytes_max: 32 << 20,
            series_max: 100_000,
            samples_max: 1_000_000,
            labels_max: 64,
            name_bytes_max: 1 << 10,
            value_bytes_max: 16 << 10,
        }
    }
}

/// A sample may be this far ahead of now, as in Prometheus; one that is further off would hide all before it.
const AHEAD_MS_MAX: i64 = 10 * 60 * 1000;

/// Snappy's densest element is three bytes for 64. A body that claims more than this many times its own size lies.
const SNAPPY_RATIO_MAX: usize = 22;

/// Texts of a request with label names in them; past this, names repeat or the sender is no sender.
const SYMBOLS_MAX: usize = 500_000;

#[derive(Clone, Debug)]
pub struct ReceivedSeries {
    pub labels: Labels,
    /// In the sender's order.
    pub samples: Vec<Sample>,
}

/// What a request held.
#[derive(Debug)]
pub struct Received {
    pub message: Message,
    pub series: Vec<ReceivedSeries>,
    /// Not kept here: native histograms.
    pub histograms_ignored: usize,
    pub exemplars_ignored: usize,
    /// Families that the request describes.
    pub metadata_ignored: usize,
    /// Samples whose series or time cannot be.
    pub samples_refused: usize,
    /// Why the first of them was.
    pub problem: Option<String>,
}

impl Received {
    #[must_use]
    pub fn samples(&self) -> usize {
        self.series.iter().map(|series| series.samples.len()).sum()
    }

    fn refuse(&mut self, samples: usize, why: impl FnOnce() -> String) {
        self.samples_refused += samples;
        self.problem.get_or_insert_with(why);
    }
}

/// A request of which nothing is taken. None of these gets better by being sent again.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    #[error("expected application/x-protobuf as the media type, got {content_type:?}")]
    ContentType { content_type: String },
    #[error("{proto:?} is not a known remote write message")]
    Proto { proto: String },
    #[error("{encoding:?} is not an encoding that is read here")]
    Encoding { encoding: String },
    #[error("the body cannot be decompressed")]
    Compression,
    #[error("the body says that it has {said} bytes, which it cannot have")]
    Lies { said: usize },
    #[error("the request has more than {limit} {what}")]
    TooLarge { what: &'static str, limit: usize },
    #[error(transparent)]
    Malformed(#[from] Malformed),
}

impl Refused {
    #[must_use]
    pub fn status(&self) -> u16 {
        match self {
            Self::ContentType { .. } | Self::Proto { .. } | Self::Encoding { .. } => 415,
            Self::TooLarge { .. } => 413,
            Self::Compression | Self::Lies { .. } | Self::Malformed(_) => 400,
        }
    }

    #[must_use]
    pub fn answer(&self) -> Answer {
        Answer { status: self.status(), headers: Vec::new(), body: self.to_string() }
    }
}

/// An HTTP answer without its connection; the body is plain text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    pub status: u16,
    pub headers: Vec<(&'static str, String)>,
    pub body: String,
}

/// What became of the samples in the store.
#[derive(Clone, Debug)]
pub enum Stored {
    All,
    /// Some were not taken, and never will be: too old, or another value at the same time.
    Some {
        written: usize,
        why: String,
    },
    /// None was taken; the sender is to try again.
    None {
        why: String,
        retry_after_seconds: Option<u64>,
    },
}

impl Received {
    /// 204 when all is well, 400 when a part was refused for good (the rest is kept), 503 when to come again. The
    /// `X-Prometheus-Remote-Write-…-Written` headers are remote write 2.0's.
    #[must_use]
    pub fn answer(&self, stored: &Stored) -> Answer {
        let (written, status, body) = match stored {
            Stored::All => (self.samples(), 204, String::new()),
            Stored::Some { written, why } => (*written, 400, why.clone()),
            Stored::None { why, .. } => (0, 503, why.clone()),
        };
        let (status, body) = match &self.problem {
            Some(problem) if status == 204 => {
                (400, format!("{} samples were refused: {problem}", self.samples_refused))
            }
            Some(_) | None => (status, body),
        };
        let mut headers = Vec::new();
        if self.message == Message::V2 {
            headers.push(("X-Prometheus-Remote-Write-Samples-Written", written.to_string()));
            headers.push(("X-Prometheus-Remote-Write-Histograms-Written", "0".to_owned()));
            headers.push(("X-Prometheus-Remote-Write-Exemplars-Written", "0".to_owned()));
        }
        if let Stored::None { retry_after_seconds: Some(seconds), .. } = stored {
            headers.push(("Retry-After", seconds.to_string()));
        }
        Answer { status, headers, body }
    }
}

/// Reads requests to `/api/v1/write`, and remembers the names of series: a sender repeats them with every sample, and
/// taking them apart is most of the work. One for all senders; any number of threads may use it at a time.
#[derive(Debug)]
pub struct Receiver {
    limits: ReceiveLimits,
    known: Known,
}

impl Receiver {
    #[must_use]
    pub fn new(limits: ReceiveLimits) -> Self {
        Self { limits, known: Known::default() }
    }

    /// Reads one request. A header that is not there is the empty text. `own` gives the labels with which a series is
    /// kept, as [`own_labels`](crate::store::Store::own_labels) does; the series that it knows are remembered, with those.
    ///
    /// # Errors
    /// When nothing of the request can be taken.
    pub fn decode(
        &self,
        content_type: &str,
        content_encoding: &str,
        body: &[u8],
        now_ms: TimestampMs,
        own: impl Fn(&Labels) -> Option<Labels>,
    ) -> Result<Received, Refused> {
        let message = message_of(content_type)?;
        // Old senders name no encoding; it is snappy all the same.
        if !content_encoding.is_empty() && !content_encoding.eq_ignore_ascii_case("snappy") {
            return Err(Refused::Encoding { encoding: content_encoding.to_owned() });
        }
        let plain = decompress(body, self.limits.bytes_max)?;
        self.known.forget_unused(now_ms);
        let mut reader = Reader {
            limits: &self.limits,
            latest_ms: now_ms.saturating_add(AHEAD_MS_MAX),
            samples: 0,
            seen: self.known.seen(),
            received: Received {
                message,
                series: Vec::new(),
                histograms_ignored: 0,
                exemplars_ignored: 0,
                metadata_ignored: 0,
                samples_refused: 0,
                problem: None,
            },
        };
        match message {
            Message::V1 => reader.read_v1(&plain)?,
            Message::V2 => reader.read_v2(&plain)?,
        }
        let Reader { seen, received, .. } = reader;
        self.known.learn(seen.into_new(), own);
        Ok(received)
    }
}

/// [`Receiver::decode`] of a request by itself: nothing is known before, and nothing is remembered.
///
/// # Errors
/// When nothing of the request can be taken.
pub fn decode(
    content_type: &str,
    content_encoding: &str,
    body: &[u8],
    limits: &ReceiveLimits,
    now_ms: TimestampMs,
) -> Result<Received, Refused> {
    Receiver::new(*limits).decode(content_type, content_encoding, body, now_ms, |_| None)
}

fn message_of(content_type: &str) -> Result<Message, Refused> {
    if content_type.trim().is_empty() {
        return Ok(Message::V1);
    }
    let mut parts = content_type.split(';').map(str::trim);
    if parts.next() != Some("application/x-protobuf") {
        return Err(Refused::ContentType { content_type: content_type.to_owned() });
    }
    match parts.find_map(|part| part.strip_prefix("proto=")) {
        None | Some("prometheus.WriteRequest") => Ok(Message::V1),
        Some("io.prometheus.write.v2.Request") => Ok(Message::V2),
        Some(proto) => Err(Refused::Proto { proto: proto.to_owned() }),
    }
}

fn decompress(body: &[u8], bytes_max: usize) -> Result<Vec<u8>, Refused> {
    let said = snap::raw::decompress_len(body).map_err(|_| Refused::Compression)?;
    if said > bytes_max {
        return Err(Refused::TooLarge { what: "bytes", limit: bytes_max });
    }
    if said > body.len().saturating_mul(SNAPPY_RATIO_MAX) {
        return Err(Refused::Lies { said });
    }
    snap::raw::Decoder::new().decompress_vec(body).map_err(|_| Refused::Compression)
}

type Pairs<'a> = Vec<(&'a str, &'a str)>;

struct Reader<'a> {
    limits: &'a ReceiveLimits,
    latest_ms: TimestampMs,
    samples: usize,
    seen: Seen<'a>,
    received: Received,
}

/// What both messages have in a series, collected while it is walked.
#[derive(Default)]
struct Parts {
    samples: Vec<Sample>,
    histograms: usize,
    exemplars: usize,
}

/// The number of the field with the labels in a series of v1.
const LABEL_V1: u32 = 1;

impl Reader<'_> {
    fn read_v1(&mut self, plain: &[u8]) -> Result<(), Refused> {
        for field in fields(plain) {
            match field? {
                (1, series) => self.series_v1(series.bytes()?)?,
                (3, _) => self.received.metadata_ignored += 1,
                _ => {}
            }
        }
        Ok(())
    }

    fn series_v1(&mut self, series: &[u8]) -> Result<(), Refused> {
        // Every sender writes the labels first; who does not is read in full each time.
        let (name, rest) = split_leading(series, LABEL_V1);
        let mut parts = Parts::default();
        let mut complete = true;
        for field in fields(rest) {
            match field? {
                (LABEL_V1, _) => complete = false,
                (2, sample) => self.sample(sample, &mut parts)?,
                (3, _) => parts.exemplars += 1,
                (4, _) => parts.histograms += 1,
                _ => {}
            }
        }
        if complete && let Some(labels) = self.seen.find(name) {
            return self.keep(Ok(labels), parts);
        }
        let mut pairs = Vec::new();
        for field in fields(series) {
            if let (LABEL_V1, label) = field? {
                pairs.push(self.label_v1(label, pairs.len())?);
            }
        }
        let labels = valid(pairs);
        if complete && let Ok(labels) = &labels {
            self.seen.add(name, labels);
        }
        self.keep(labels, parts)
    }

    fn label_v1<'a>(&self, label: Value<'a>, before: usize) -> Result<(&'a str, &'a str), Refused> {
        if before >= self.limits.labels_max {
            return Err(Refused::TooLarge { what: "labels on a series", limit: self.limits.labels_max });
        }
        let (mut name, mut value) = ("", "");
        for field in fields(label.bytes()?) {
            match field? {
                (1, text) => name = text.text()?,
                (2, text) => value = text.text()?,
                _ => {}
            }
        }
        self.within(name, value)?;
        Ok((name, value))
    }

    fn read_v2(&mut self, plain: &[u8]) -> Result<(), Refused> {
        let mut symbols: Vec<&str> = Vec::new();
        // Fields may lie in any order, and every series needs the symbols.
        for field in fields(plain) {
            if let (4, symbol) = field? {
                if symbols.len() >= SYMBOLS_MAX {
                    return Err(Refused::TooLarge { what: "symbols", limit: SYMBOLS_MAX });
                }
                symbols.push(symbol.text()?);
            }
        }
        let (mut references, mut name) = (Vec::new(), Vec::new());
        for field in fields(plain) {
            let (5, series) = field? else { continue };
            references.clear();
            let mut parts = Parts::default();
            let mut described = false;
            for field in fields(series.bytes()?) {
                match field? {
                    (1, packed) => {
                        let most = 2 * self.limits.labels_max;
                        packed.varint_items(|item| {
                            if references.len() <= most {
                                references.push(item);
                            }
                        })?;
                        if references.len() > most {
                            return Err(Refused::TooLarge { what: "labels on a series", limit: most / 2 });
                        }
                    }
                    (2, sample) => self.sample(sample, &mut parts)?,
                    (3, _) => parts.histograms += 1,
                    (4, _) => parts.exemplars += 1,
                    (5, metadata) => described = !metadata.bytes()?.is_empty(),
                    _ => {}
                }
            }
            self.received.metadata_ignored += usize::from(described);
            let labels = self.labels_v2(&references, &symbols, &mut name)?;
            self.keep(labels, parts)?;
        }
        Ok(())
    }

    /// The inner error is the series' alone. `name` is scratch.
    fn labels_v2(
        &mut self,
        references: &[u64],
        symbols: &[&str],
        name: &mut Vec<u8>,
    ) -> Result<Result<Labels, String>, Refused> {
        let pairs = match self.pairs_v2(references, symbols)? {
            Ok(pairs) => pairs,
            Err(why) => return Ok(Err(why)),
        };
        // References mean another thing in each request. So the name is known by how v1 writes it.
        name.clear();
        for (label, value) in &pairs {
            put_label_v1(name, label, value);
        }
        if let Some(labels) = self.seen.find(name) {
            return Ok(Ok(labels));
        }
        let labels = valid(pairs);
        if let Ok(labels) = &labels {
            self.seen.add(name, labels);
        }
        Ok(labels)
    }

    /// The inner error is the series' alone.
    fn pairs_v2<'s>(
        &self,
        references: &[u64],
        symbols: &[&'s str],
    ) -> Result<Result<Pairs<'s>, String>, Refused> {
        let (named, odd) = references.as_chunks::<2>();
        if !odd.is_empty() {
            return Ok(Err("a series has a label name without a value".to_owned()));
        }
        let symbol = |reference: u64| usize::try_from(reference).ok().and_then(|at| symbols.get(at)).copied();
        let mut pairs = Vec::with_capacity(named.len());
        for [name, value] in named {
            let (Some(name), Some(value)) = (symbol(*name), symbol(*value)) else {
                return Ok(Err("a series refers to a symbol that is not there".to_owned()));
            };
            self.within(name, value)?;
            pairs.push((name, value));
        }
        Ok(Ok(pairs))
    }

    fn within(&self, name: &str, value: &str) -> Result<(), Refused> {
        let (name_max, value_max) = (self.limits.name_bytes_max, self.limits.value_bytes_max);
        if name.len() > name_max {
            return Err(Refused::TooLarge { what: "bytes in a label's name", limit: name_max });
        }
        // A metric's name is a name too.
        let value_max = if name == NAME { name_max } else { value_max };
        if value.len() > value_max {
            return Err(Refused::TooLarge { what: "bytes in a label's value", limit: value_max });
        }
        Ok(())
    }

    fn sample(&mut self, message: Value<'_>, parts: &mut Parts) -> Result<(), Refused> {
        if self.samples >= self.limits.samples_max {
            return Err(Refused::TooLarge { what: "samples", limit: self.limits.samples_max });
        }
        self.samples += 1;
        let mut sample = Sample { at_ms: 0, value: 0.0 };
        for field in fields(message.bytes()?) {
            match field? {
                (1, value) => sample.value = value.double()?,
                (2, at) => sample.at_ms = at.int()?,
                _ => {}
            }
        }
        // Most series come with one.
        if parts.samples.is_empty() {
            parts.samples.reserve_exact(1);
        }
        parts.samples.push(sample);
        Ok(())
    }

    fn keep(&mut self, labels: Result<Labels, String>, parts: Parts) -> Result<(), Refused> {
        self.received.histograms_ignored += parts.histograms;
        self.received.exemplars_ignored += parts.exemplars;
        let Parts { mut samples, .. } = parts;
        let count = samples.len();
        let labels = match labels {
            Ok(labels) => labels,
            Err(why) => {
                // A series without samples is refused as well: its sender made a mistake that must be told.
                self.received.refuse(count, || why);
                return Ok(());
            }
        };
        samples.retain(|sample| sample.at_ms <= self.latest_ms);
        if samples.len() < count {
            self.received.refuse(count - samples.len(), || {
                format!("out of bounds: a sample of {labels} is too far ahead")
            });
        }
        if samples.is_empty() {
            return Ok(());
        }
        if self.received.series.len() >= self.limits.series_max {
            return Err(Refused::TooLarge { what: "series", limit: self.limits.series_max });
        }
        self.received.series.push(ReceivedSeries { labels, samples });
        Ok(())
    }
}

fn put_label_v1(out: &mut Vec<u8>, name: &str, value: &str) {
    let mut label = Vec::with_capacity(name.len() + value.len() + 8);
    put_bytes(&mut label, 1, name.as_bytes());
    put_bytes(&mut label, 2, value.as_bytes());
    put_bytes(out, LABEL_V1, &label);
}

fn valid(pairs: Pairs<'_>) -> Result<Labels, String> {
    let count = pairs.iter().filter(|(_, value)| !value.is_empty()).count();
    if pairs.iter().any(|(name, _)| name.is_empty()) {
        return Err("a label has no name".to_owned());
    }
    let labels = Labels::new(pairs);
    if labels.name().is_empty() {
        return Err(format!("the series {labels} has no metric name"));
    }
    if labels.len() != count {
        return Err(format!("the series {labels} has a label twice"));
    }
    Ok(labels)
}

#[cfg(test)]
mod tests;
