//! Has the crate take its locks from `shuttle` (`src/sync.rs`).

fn main() {
    println!("cargo::rustc-cfg=shuttle");
    println!("cargo::rerun-if-changed=build.rs");
}
