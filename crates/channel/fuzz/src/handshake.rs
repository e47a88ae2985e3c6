#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| multiproc_channel_fuzz::targets::handshake(bytes));
