//! Records of finished contents as earlier versions kept them, each in a file of its
//! own. They are read once and moved to the log. This module does no I/O.

use bytes::{Buf, Bytes};

use super::fields::take;
use super::manifest_bytes::{MAX_MANIFEST_LEN, take_manifest};
use super::record::{Names, Record};
use crate::content::Manifest;

const MAGIC: [u8; 8] = *b"btl.mfst";
const HASH_LEN: usize = 32;
/// The maximum length of such a file, in bytes.
pub(super) const MAX_OLD_RECORD_LEN: u64 = MAX_MANIFEST_LEN as u64 + (64 << 10);

/// Reads such a file; nothing if it is damaged or of an unknown version.
pub(super) fn read_old_record(mut bytes: Bytes) -> Option<(Record, Manifest)> {
    let body = bytes.len().checked_sub(HASH_LEN)?;
    let checksum = bytes.split_off(body);
    if blake3::hash(&bytes) != *<&[u8; HASH_LEN]>::try_from(&checksum[..]).ok()? {
        return None;
    }
    if take::<8>(&mut bytes)? != MAGIC {
        return None;
    }
    let names = match bytes.try_get_u32_le().ok()? {
        1 => Names::One,
        2 => Names::Two,
        _ => return None,
    };
    let record = Record::take(&mut bytes, names)?;
    let manifest = take_manifest(&mut bytes, record.id, record.stamp.len)?;
    bytes.is_empty().then_some((record, manifest))
}

/// A file as version 1 or 2 wrote it. For tests of reading it.
#[cfg(test)]
pub(super) fn old_record(version: u32, record: &Record, manifest: &Manifest) -> Vec<u8> {
    let mut bytes = MAGIC.to_vec();
    bytes.extend(version.to_le_bytes());
    let fields = bytes.len();
    record.put(&mut bytes).unwrap();
    if version == 1 {
        // After id, length, time, the flag, and the name.
        let listed_at = fields + 32 + 8 + 12 + 1 + 2 + record.name.as_str().len();
        assert_eq!(bytes.drain(listed_at..listed_at + 2).as_slice(), [0, 0]);
    }
    super::manifest_bytes::put_manifest(&mut bytes, manifest).unwrap();
    bytes.extend(*blake3::hash(&bytes).as_bytes());
    bytes
}

#[cfg(test)]
mod tests {
    use super::super::stamp::Stamp;
    use super::super::timestamp::Timestamp;
    use super::*;

    fn sample(content: &[u8]) -> (Record, Manifest) {
        let manifest = Manifest::of(content).unwrap();
        let record = Record {
            id: manifest.id(),
            name: "naïve 文件".parse().unwrap(),
            listed_as: "ubuntu.iso".parse().unwrap(),
            path: Some("/some/where".into()),
            stamp: Stamp {
                len: content.len() as u64,
                modified: Timestamp {
                    seconds: -5,
                    nanos: 7,
                },
                settled: true,
            },
            written_here: false,
        };
        (record, manifest)
    }

    #[test]
    fn record_is_read_unless_it_is_torn_or_altered() {
        for len in [0, 1, 40_000] {
            let (mut record, manifest) = sample(&vec![9; len]);
            let other = record.listed_as.clone();
            for (path, listed_as) in [
                (None, other.clone()),
                (None, record.name.clone()),
                (Some("/some/where".into()), other),
            ] {
                (record.path, record.listed_as) = (path, listed_as);
                let bytes = old_record(2, &record, &manifest);
                let read = read_old_record(bytes.clone().into());
                assert_eq!(read, Some((record.clone(), manifest.clone())));
                for cut in 0..bytes.len() {
                    assert_eq!(read_old_record(bytes[..cut].to_vec().into()), None);
                    let mut altered = bytes.clone();
                    altered[cut] ^= 1;
                    assert_eq!(read_old_record(altered.into()), None);
                }
            }
        }
    }

    #[test]
    fn record_of_version_1_has_one_name() {
        let (mut record, manifest) = sample(&[7; 50]);
        record.listed_as = record.name.clone();
        let bytes = old_record(1, &record, &manifest);
        assert_eq!(read_old_record(bytes.into()), Some((record, manifest)));
    }

    #[test]
    fn record_without_a_valid_manifest_is_bad_despite_its_checksum() {
        let (record, manifest) = sample(&[1; 100]);
        let mut bytes = old_record(2, &record, &manifest);
        bytes.truncate(bytes.len() - HASH_LEN);
        // The length follows magic, version and id.
        bytes[44] ^= 1;
        bytes.extend(*blake3::hash(&bytes).as_bytes());
        assert_eq!(read_old_record(bytes.into()), None);
    }
}
