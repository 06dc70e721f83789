//! Whether two answers of Prometheus' API say the same.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::fault::{Context, Done};

/// What one answer holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size {
    pub series: usize,
    pub points: usize,
}

/// Sums of floats depend on their order, in the last digits.
const RELATIVE_ERROR_MAX: f64 = 1e-9;

type Points<'a> = BTreeMap<String, &'a Vec<Value>>;

pub fn size(answer: &[u8]) -> Done<Size> {
    let answer: Value = serde_json::from_slice(answer).context("an answer")?;
    let points = points(&answer)?;
    Ok(Size { series: points.len(), points: points.values().map(|values| values.len()).sum() })
}

/// Same series, same times, same values.
pub fn agree(ours: &[u8], theirs: &[u8]) -> Done<bool> {
    let ours: Value = serde_json::from_slice(ours).context("our answer")?;
    let theirs: Value = serde_json::from_slice(theirs).context("Prometheus' answer")?;
    let (ours, theirs) = (points(&ours)?, points(&theirs)?);
    let same = |(one, other): (&Value, &Value)| {
        let number = |point: &Value| point[1].as_str().and_then(|text| text.parse::<f64>().ok());
        let (Some(a), Some(b)) = (number(one), number(other)) else { return false };
        let near = (a - b).abs() <= RELATIVE_ERROR_MAX * a.abs().max(b.abs());
        one[0].as_f64() == other[0].as_f64() && (near || a == b || a.is_nan() && b.is_nan())
    };
    Ok(ours.len() == theirs.len()
        && ours.iter().zip(&theirs).all(|((name, one), (other_name, other))| {
            name == other_name && one.len() == other.len() && one.iter().zip(*other).all(same)
        }))
}

fn points(answer: &Value) -> Done<Points<'_>> {
    let series = answer["data"]["result"].as_array().context("an answer without a result")?;
    let one = |series: &'_ Value| series["metric"].to_string();
    series
        .iter()
        .map(|series| Ok((one(series), series["values"].as_array().context("a series without values")?)))
        .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn answer(name: &str, value: &str) -> Vec<u8> {
        let series = json!({ "metric": { "a": name }, "values": [[1.5, value], [2, "NaN"]] });
        json!({ "data": { "result": [series] } }).to_string().into_bytes()
    }

    #[test]
    fn the_last_digit_may_differ_and_nothing_else() {
        let ours = answer("x", "0.3");
        assert_eq!(size(&ours).unwrap(), Size { series: 1, points: 2 });
        assert!(agree(&ours, &answer("x", "0.30000000000000004")).unwrap());
        assert!(!agree(&ours, &answer("x", "0.30001")).unwrap());
        assert!(!agree(&ours, &answer("y", "0.3")).unwrap());
        assert!(!agree(&ours, br#"{"data":{"result":[]}}"#).unwrap());
        assert!(agree(&ours, b"{}").is_err());
    }
}
