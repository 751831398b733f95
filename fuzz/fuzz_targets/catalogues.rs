#![no_main]
#![allow(missing_docs, reason = "a program without a page of its own")]

libfuzzer_sys::fuzz_target!(|data: &[u8]| bt_lite_fuzz::catalogues(data));
