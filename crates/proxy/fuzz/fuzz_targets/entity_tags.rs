#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fairway_proxy::fuzzing::entity_tags(bytes));
