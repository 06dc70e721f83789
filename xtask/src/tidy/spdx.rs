//! SPDX licence expressions, as far as crates use them: `MIT OR Apache-2.0`, `(A OR B) AND C`, `A WITH B`, and the
//! old `A/B`. <https://spdx.github.io/spdx-spec/v2.3/SPDX-license-expressions/>

/// True when the expression can be met with allowed licences alone; `Err` when it cannot be read.
pub fn is_met(expression: &str, allowed: &dyn Fn(&str) -> bool) -> Result<bool, String> {
    let spaced = expression.replace('(', " ( ").replace(')', " ) ").replace('/', " OR ");
    let words: Vec<&str> = spaced.split_whitespace().collect();
    let mut parser = Parser { words: &words, at: 0, allowed };
    let met = parser.any()?;
    if parser.at == words.len() { Ok(met) } else { Err(format!("{:?} is out of place", words[parser.at])) }
}

struct Parser<'a> {
    words: &'a [&'a str],
    at: usize,
    allowed: &'a dyn Fn(&str) -> bool,
}

impl<'a> Parser<'a> {
    fn any(&mut self) -> Result<bool, String> {
        let mut met = self.all()?;
        while self.take("OR") {
            met |= self.all()?;
        }
        Ok(met)
    }

    fn all(&mut self) -> Result<bool, String> {
        let mut met = self.one()?;
        while self.take("AND") {
            met &= self.one()?;
        }
        Ok(met)
    }

    fn one(&mut self) -> Result<bool, String> {
        if self.take("(") {
            let met = self.any()?;
            return if self.take(")") { Ok(met) } else { Err("a bracket is not closed".to_owned()) };
        }
        let licence = self.licence()?;
        if self.take("WITH") {
            let exception = self.licence()?;
            return Ok((self.allowed)(&format!("{licence} WITH {exception}")));
        }
        Ok((self.allowed)(licence))
    }

    fn licence(&mut self) -> Result<&'a str, String> {
        match self.words.get(self.at) {
            Some(word) if !["OR", "AND", "WITH", "(", ")"].contains(word) => {
                self.at += 1;
                Ok(word)
            }
            other => Err(format!("expected a licence, not {other:?}")),
        }
    }

    fn take(&mut self, word: &str) -> bool {
        let is_next = self.words.get(self.at) == Some(&word);
        self.at += usize::from(is_next);
        is_next
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(expression: &str, expect: Result<bool, ()>) {
        let allowed = |licence: &str| {
            ["MIT", "Apache-2.0", "Zlib", "Apache-2.0 WITH LLVM-exception"].contains(&licence)
        };
        assert_eq!(is_met(expression, &allowed).map_err(drop), expect, "{expression}");
    }

    #[test]
    fn one_of_several_is_enough_and_all_of_several_are_needed() {
        check("MIT", Ok(true));
        check("GPL-3.0", Ok(false));
        check("GPL-3.0 OR MIT", Ok(true));
        check("Unlicense/MIT", Ok(true));
        check("MIT AND GPL-3.0", Ok(false));
        check("(MIT OR GPL-3.0) AND Zlib", Ok(true));
        check("MIT OR GPL-3.0 AND GPL-2.0", Ok(true));
        check("Apache-2.0 WITH LLVM-exception", Ok(true));
        check("MIT WITH LLVM-exception", Ok(false));
    }

    #[test]
    fn what_cannot_be_read_is_not_allowed() {
        for bad in ["", "MIT OR", "(MIT", "MIT)", "MIT MIT", "OR", "WITH MIT"] {
            check(bad, Err(()));
        }
    }
}
