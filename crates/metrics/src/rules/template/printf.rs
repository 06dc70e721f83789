//! `printf`, in the manner of Go's `fmt`, mistakes included: a wrong verb shows itself and fails nothing.

use super::number;
use super::value::Value;

/// Wider fields are cut to this: nobody reads them, and a format must not allocate what it likes.
const WIDTH_MAX: usize = 1_000;

#[derive(Default)]
struct Spec {
    minus: bool,
    plus: bool,
    space: bool,
    zero: bool,
    sharp: bool,
    width: Option<usize>,
    precision: Option<usize>,
}

pub(super) fn format(format: &str, args: &[Value]) -> String {
    let mut out = String::new();
    let mut args = args.iter();
    let mut chars = format.chars().peekable();
    while let Some(c) = chars.next() {
        if c != '%' {
            out.push(c);
            continue;
        }
        let mut spec = Spec::default();
        while let Some(flag) = chars.peek() {
            match flag {
                '-' => spec.minus = true,
                '+' => spec.plus = true,
                ' ' => spec.space = true,
                '0' => spec.zero = true,
                '#' => spec.sharp = true,
                _ => break,
            }
            chars.next();
        }
        spec.width = size(&mut chars, &mut args);
        if chars.next_if_eq(&'.').is_some() {
            spec.precision = Some(size(&mut chars, &mut args).unwrap_or(0));
        }
        match chars.next() {
            None => out.push_str("%!(NOVERB)"),
            Some('%') => out.push('%'),
            Some(verb) => match args.next() {
                Some(arg) => out.push_str(&spec.show(verb, arg)),
                None => out.push_str(&format!("%!{verb}(MISSING)")),
            },
        }
    }
    let extra: Vec<String> = args.map(|arg| format!("{}={}", arg.kind(), arg.show())).collect();
    if !extra.is_empty() {
        out.push_str(&format!("%!(EXTRA {})", extra.join(", ")));
    }
    out
}

/// Digits, or `*` for the next argument.
fn size(
    chars: &mut std::iter::Peekable<std::str::Chars<'_>>,
    args: &mut std::slice::Iter<'_, Value>,
) -> Option<usize> {
    if chars.next_if_eq(&'*').is_some() {
        return match args.next() {
            Some(Value::Int(number)) => usize::try_from(*number).ok().map(|width| width.min(WIDTH_MAX)),
            Some(_) | None => None,
        };
    }
    let mut width = None;
    while let Some(digit) = chars.peek().and_then(|c| c.to_digit(10)) {
        width = Some((width.unwrap_or(0) * 10 + digit as usize).min(WIDTH_MAX));
        chars.next();
    }
    width
}

impl Spec {
    fn show(&self, verb: char, arg: &Value) -> String {
        let shown = match (verb, arg) {
            ('T', _) => Some(arg.kind().to_owned()),
            ('v', Value::Float(number)) => {
                let digits = self.precision;
                return self.number(&digits.map_or_else(
                    || number::shortest(*number),
                    |digits| number::significant(*number, digits),
                ));
            }
            ('g' | 'G', Value::Float(number)) => {
                let digits = self.precision;
                let text = digits
                    .map_or_else(|| number::shortest(*number), |digits| number::significant(*number, digits));
                return self.number(&if verb == 'G' { text.to_uppercase() } else { text });
            }
            ('f' | 'F', Value::Float(number)) => {
                return self.number(&number::fixed(*number, self.precision.unwrap_or(6)));
            }
            ('e', Value::Float(number)) => {
                return self.number(&number::exponential(*number, Some(self.precision.unwrap_or(6))));
            }
            ('E', Value::Float(number)) => {
                let text = number::exponential(*number, Some(self.precision.unwrap_or(6)));
                return self.number(&text.to_uppercase());
            }
            ('d' | 'v', Value::Int(number)) => return self.number(&number.to_string()),
            ('x', Value::Int(number)) => return self.number(&hexadecimal(*number)),
            ('X', Value::Int(number)) => return self.number(&hexadecimal(*number).to_uppercase()),
            ('o', Value::Int(number)) => {
                let sign = if *number < 0 { "-" } else { "" };
                return self.number(&format!("{sign}{:o}", number.unsigned_abs()));
            }
            ('b', Value::Int(number)) => {
                let sign = if *number < 0 { "-" } else { "" };
                return self.number(&format!("{sign}{:b}", number.unsigned_abs()));
            }
            ('c', Value::Int(number)) => {
                Some(u32::try_from(*number).ok().and_then(char::from_u32).unwrap_or('\u{fffd}').to_string())
            }
            ('U', Value::Int(number)) => Some(format!("U+{number:04X}")),
            ('t' | 'v', Value::Bool(truth)) => Some(truth.to_string()),
            ('s', Value::Text(text)) => Some(self.cut(text)),
            ('v', Value::Text(text)) => Some(if self.sharp { format!("{text:?}") } else { self.cut(text) }),
            ('q', Value::Text(text)) => Some(format!("{:?}", self.cut(text))),
            ('x', Value::Text(text)) => Some(text.bytes().map(|byte| format!("{byte:02x}")).collect()),
            ('X', Value::Text(text)) => Some(text.bytes().map(|byte| format!("{byte:02X}")).collect()),
            (
                'v' | 's',
                Value::Nil
                | Value::Labels(_)
                | Value::Sample(..)
                | Value::List(_)
                | Value::Map(_)
                | Value::Root(_),
            ) => Some(arg.show()),
            _ => None,
        };
        match shown {
            Some(text) => self.pad(&text, if self.zero && !self.minus { '0' } else { ' ' }),
            None => format!("%!{verb}({}={})", arg.kind(), arg.show()),
        }
    }

    fn cut(&self, text: &str) -> String {
        self.precision.map_or_else(|| text.to_owned(), |most| text.chars().take(most).collect())
    }

    /// Sign, then padding.
    fn number(&self, text: &str) -> String {
        let (sign, digits) = match text.strip_prefix(['-', '+']) {
            Some(digits) if text.starts_with('-') => ("-", digits),
            // Infinity brings its sign along.
            Some(digits) => ("+", digits),
            None if self.plus => ("+", text),
            None if self.space => (" ", text),
            None => ("", text),
        };
        let width = self.width.unwrap_or(0);
        let zeros = self.zero && !self.minus && digits.starts_with(|c: char| c.is_ascii_digit());
        if zeros && sign.len() + digits.len() < width {
            return format!("{sign}{}{digits}", "0".repeat(width - sign.len() - digits.len()));
        }
        self.pad(&format!("{sign}{digits}"), ' ')
    }

    fn pad(&self, text: &str, with: char) -> String {
        let missing = self.width.unwrap_or(0).saturating_sub(text.chars().count());
        let padding: String = std::iter::repeat_n(with, missing).collect();
        if self.minus { format!("{text}{padding}") } else { format!("{padding}{text}") }
    }
}

fn hexadecimal(number: i64) -> String {
    format!("{}{:x}", if number < 0 { "-" } else { "" }, number.unsigned_abs())
}
