//! Requests of other Prometheuses, as protobuf of both versions and of OpenTelemetry: the packing is put around it here,
//! or the fuzzer would have to find out how to compress.
#![no_main]

use fairway_metrics::remote::{ReceiveLimits, decode, otlp};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let Some((kind, plain)) = bytes.split_first() else { return };
    let limits = ReceiveLimits::default();
    const V2: &str = "application/x-protobuf;proto=io.prometheus.write.v2.Request";
    match kind % 4 {
        // As it comes.
        0 => drop(decode("application/x-protobuf", "snappy", plain, &limits, 1_700_000_000_000)),
        3 => drop(otlp::decode("application/x-protobuf", "", plain, &limits)),
        version => {
            let Ok(packed) = snap::raw::Encoder::new().compress_vec(plain) else { return };
            let content_type = if version == 1 { "application/x-protobuf" } else { V2 };
            drop(decode(content_type, "snappy", &packed, &limits, 1_700_000_000_000));
        }
    }
});
