//! A project, or what is wrong with it: with places that are in the text.
#![no_main]

use fairway_config::Project;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    match Project::parse("fairway.toml", text) {
        Ok(_) => {}
        Err(diagnostics) => assert!(!diagnostics.is_empty()),
    }
});
