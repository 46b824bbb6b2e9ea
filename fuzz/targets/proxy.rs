#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| freshet_fuzz::entries::proxy_head(input));
