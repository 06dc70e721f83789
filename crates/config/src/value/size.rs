//! `"512M"`, `"1G"`, `"64KiB"`. The short letters are binary, as in systemd and in compose; `MB` is decimal.

pub(crate) const EXPECTED: &str = "a size such as \"512M\", \"1G\" or \"64KiB\"";

/// # Errors
/// Why the text is not a size in bytes.
pub(crate) fn parse(text: &str) -> Result<u64, String> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    if digits == 0 {
        return Err("it does not start with a number".to_owned());
    }
    let number: u64 = text[..digits].parse().map_err(|_| "the number is too large".to_owned())?;
    let unit: u64 = match &text[digits..] {
        "B" => 1,
        "K" | "k" | "KiB" | "Ki" => 1 << 10,
        "M" | "m" | "MiB" | "Mi" => 1 << 20,
        "G" | "g" | "GiB" | "Gi" => 1 << 30,
        "T" | "TiB" | "Ti" => 1 << 40,
        "KB" | "kB" => 1000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        "TB" => 1_000_000_000_000,
        "" => return Err(format!("the unit is missing: {number}M? {number}B?")),
        other => {
            return Err(format!("{other:?} is not a unit; B, K, M, G, KiB, MiB, GiB, KB, MB and GB are"));
        }
    };
    number.checked_mul(unit).filter(|bytes| *bytes <= 1 << 50).ok_or_else(|| "it is too large".to_owned())
}

/// The shortest text that reads back as the same size.
pub(crate) fn show(bytes: u64) -> String {
    for (unit, name) in [(1 << 30, "G"), (1 << 20, "M"), (1 << 10, "K")] {
        if bytes >= unit && bytes.is_multiple_of(unit) {
            return format!("{}{name}", bytes / unit);
        }
    }
    format!("{bytes}B")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn letters_are_binary_and_read_back() {
        for (text, bytes) in [
            ("512M", 512 << 20),
            ("1G", 1 << 30),
            ("64KiB", 64 << 10),
            ("5MB", 5_000_000),
            ("7B", 7),
            ("2Gi", 2 << 30),
        ] {
            assert_eq!(parse(text), Ok(bytes), "{text}");
            assert_eq!(parse(&show(bytes)), Ok(bytes));
        }
    }

    #[test]
    fn what_is_not_a_size_says_why() {
        for bad in ["", "M", "5", "5 M", "-5M", "5x", "1.5G", "99999999999999999999M", "9999999T"] {
            assert!(parse(bad).is_err(), "{bad:?} was accepted");
        }
    }
}
