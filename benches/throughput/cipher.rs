//! What must be computed over the bytes in any case.

use std::fs;
use std::path::Path;

use ring::aead::{
    AES_128_GCM, AES_256_GCM, Aad, Algorithm, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce,
    UnboundKey,
};
use rustls::CipherSuite;

use super::common::Outcome;
use super::usage::{Meter, Usage};

/// How much one record of TLS carries, in bytes.
const RECORD: usize = 16 << 10;

/// The cipher that two sides here agree on: the first one of the provider, as both prefer
/// it.
pub(crate) fn suite() -> Outcome<CipherSuite> {
    let provider = rustls::crypto::ring::default_provider();
    let suite = provider.cipher_suites.first().ok_or("no cipher")?;
    Ok(suite.suite())
}

fn algorithm() -> Outcome<&'static Algorithm> {
    match suite()? {
        CipherSuite::TLS13_AES_128_GCM_SHA256 => Ok(&AES_128_GCM),
        CipherSuite::TLS13_AES_256_GCM_SHA384 => Ok(&AES_256_GCM),
        CipherSuite::TLS13_CHACHA20_POLY1305_SHA256 => Ok(&CHACHA20_POLY1305),
        other => Err(format!("no baseline for {other:?}").into()),
    }
}

/// One pass of BLAKE3 over the bytes of a file, which are in memory.
pub(crate) fn hash(file: &Path) -> Outcome<Usage> {
    let bytes = fs::read(file)?;
    let meter = Meter::start();
    let hash = blake3::hash(&bytes);
    let used = meter.read();
    std::hint::black_box(hash);
    Ok(used)
}

/// Seals and opens the bytes of a file, which are in memory, record by record.
pub(crate) fn seal_and_open(file: &Path) -> Outcome<Usage> {
    let mut bytes = fs::read(file)?;
    let algorithm = algorithm()?;
    let key = || -> Outcome<LessSafeKey> {
        let key = UnboundKey::new(algorithm, &vec![7; algorithm.key_len()]);
        Ok(LessSafeKey::new(key.map_err(|_| "the key is unusable")?))
    };
    let (sealing, opening) = (key()?, key()?);
    let mut tags = Vec::with_capacity(bytes.len().div_ceil(RECORD));
    let meter = Meter::start();
    for (number, record) in bytes.chunks_mut(RECORD).enumerate() {
        let sealed = sealing.seal_in_place_separate_tag(nonce(number), Aad::empty(), record);
        tags.push(sealed.map_err(|_| "a record cannot be sealed")?);
    }
    for (number, record) in bytes.chunks_mut(RECORD).enumerate() {
        let opened = opening.open_in_place_separate_tag(
            nonce(number),
            Aad::empty(),
            tags[number],
            record,
            0..,
        );
        opened.map_err(|_| "a record cannot be opened")?;
    }
    let used = meter.read();
    match bytes == fs::read(file)? {
        true => Ok(used),
        false => Err("the cipher has altered the bytes".into()),
    }
}

fn nonce(number: usize) -> Nonce {
    let mut nonce = [0; NONCE_LEN];
    nonce[..8].copy_from_slice(&(number as u64).to_be_bytes());
    Nonce::assume_unique_for_key(nonce)
}
