//! Whatever is read is read again as the same.
#![no_main]

use fairway_metrics::promql::{Dialect, parse_as, parse_duration_ns, parse_selector};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    for dialect in [Dialect::Stable, Dialect::Experimental] {
        if let Ok(query) = parse_as(text, dialect) {
            assert_eq!(query.text(), text);
            // White space around it is none of its business.
            let wide = format!(" \n{text}\n\t");
            assert_eq!(parse_as(&wide, dialect).map(|query| query.ty()).ok(), Some(query.ty()));
        }
    }
    let _ = parse_selector(text);
    let _ = parse_duration_ns(text);
});
