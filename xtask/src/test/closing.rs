//! The closing lines of the test runners that we start.

use crate::checks::Count;

/// What the line says about passed and failed tests, if it is a closing line.
pub fn read(line: &str) -> Option<Count> {
    let is_indented = line.starts_with(char::is_whitespace);
    let line = line.trim();
    if let Some(rest) = line.strip_prefix("Summary [") {
        // cargo nextest: `Summary [   1.234s] 12 tests run: 11 passed (1 slow), 1 failed, 0 skipped`
        let (_, counts) = rest.split_once("run: ")?;
        let failed =
            ["failed", "timed out", "exec failed"].iter().map(|word| number_before(counts, word)).sum();
        return Some(Count { passed: number_before(counts, "passed"), failed });
    }
    // Within a run of nextest the closing line of a single test is indented: it is counted in the summary, or was a
    // first try.
    if is_indented {
        return None;
    }
    if let Some(counts) = line.strip_prefix("test result: ") {
        // libtest: `test result: ok. 5 passed; 0 failed; 0 ignored; …`
        return Some(Count {
            passed: number_before(counts, "passed"),
            failed: number_before(counts, "failed"),
        });
    }
    if let Some(rest) = line.strip_prefix("Ran ") {
        // Python's unittest: `Ran 28 tests in 11.332s`, and later `FAILED (failures=1, errors=2)`
        let (number, rest) = rest.split_once(' ')?;
        let is_closing = rest.starts_with("test in ") || rest.starts_with("tests in ");
        return Some(Count { passed: number.parse().ok().filter(|_| is_closing)?, failed: 0 });
    }
    if let Some(counts) = line.strip_prefix("FAILED (") {
        // `Ran` has counted these as passed: the caller adds them as failed, which is the safe side.
        let failed = counts
            .trim_end_matches(')')
            .split(", ")
            .filter_map(|part| part.split_once('='))
            .filter(|(word, _)| ["failures", "errors"].contains(word))
            .filter_map(|(_, number)| number.parse::<u64>().ok())
            .sum();
        return (failed > 0).then_some(Count { passed: 0, failed });
    }
    None
}

/// `11` of `11 passed (1 slow), 1 failed`, asked for "passed". 0 when the word is not there.
fn number_before(counts: &str, word: &str) -> u64 {
    counts
        .split([',', ';', '.'])
        .filter_map(|part| part.trim().split_once(' '))
        .find(|(_, rest)| *rest == word || rest.starts_with(&format!("{word} (")))
        .and_then(|(number, _)| number.parse().ok())
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(line: &str, expect: Option<(u64, u64)>) {
        assert_eq!(read(line), expect.map(|(passed, failed)| Count { passed, failed }), "{line}");
    }

    #[test]
    fn closing_lines_are_read_and_others_are_not() {
        check(
            "     Summary [   1.234s] 12 tests run: 11 passed (1 slow), 1 failed, 0 skipped",
            Some((11, 1)),
        );
        check(
            "     Summary [   1.234s] 3 tests run: 1 passed, 1 failed, 1 timed out, 4 skipped",
            Some((1, 2)),
        );
        check("test result: ok. 5 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out", Some((5, 0)));
        check("test result: FAILED. 5 passed; 2 failed; 1 ignored", Some((5, 2)));
        check("Ran 28 tests in 11.332s", Some((28, 0)));
        check("FAILED (failures=1, errors=2, skipped=1)", Some((0, 3)));
        check("    test result: FAILED. 0 passed; 1 failed; 0 ignored", None);
        check("     Summary [ 2.1s] 3 tests run: 3 passed (1 flaky), 0 skipped", Some((3, 0)));
        check("Ran away", None);
        check("ok. 5 passed; 0 failed", None);
    }
}
