#![no_main]
libfuzzer_sys::fuzz_target!(init: moji_fuzz::begin(), |bytes| moji_fuzz::requires::check(bytes));
