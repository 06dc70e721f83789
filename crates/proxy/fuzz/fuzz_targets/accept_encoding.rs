#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fairway_proxy::fuzzing::accept_encoding(bytes));
