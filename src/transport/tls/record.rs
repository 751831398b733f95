//! What a record of TLS 1.3 looks like (RFC 8446, 5).

use rustls::{ContentType, Error};

use super::keys::TAG;

/// The length of the header of a record, in bytes.
pub(super) const HEADER: usize = 5;

/// How many bytes one record may carry.
pub(super) const MAX_CARRIED: usize = 1 << 14;

/// How much longer a record is than what it carries, in bytes, if nothing is padded: the
/// header, the type of what it carries, and the tag.
pub(super) const OVERHEAD: usize = HEADER + 1 + TAG;

/// How long that may be which is behind the header, in bytes, with all padding.
const MAX_SEALED: usize = MAX_CARRIED + 256;

/// The header of a record that is sealed, with so many bytes behind it, at most
/// [`MAX_SEALED`].
pub(super) fn header(len: usize) -> [u8; HEADER] {
    let [high, low] = (len as u16).to_be_bytes();
    [ContentType::ApplicationData.into(), 3, 3, high, low]
}

/// How many bytes are behind the header of a record that is sealed.
pub(super) fn sealed_len(header: &[u8; HEADER]) -> Result<usize, Error> {
    let [kind, _, _, high, low] = *header;
    let kind = ContentType::from(kind);
    if kind != ContentType::ApplicationData {
        return Err(Error::InappropriateMessage {
            expect_types: vec![ContentType::ApplicationData],
            got_type: kind,
        });
    }
    match usize::from(u16::from_be_bytes([high, low])) {
        len if len > MAX_SEALED => Err(Error::PeerSentOversizedRecord),
        // There is a type in any case.
        len if len <= TAG => Err(Error::DecryptError),
        len => Ok(len),
    }
}

/// The type of what an opened record carries, and how long that is, in bytes.
pub(super) fn carried(opened: &[u8]) -> Result<(ContentType, usize), Error> {
    use rustls::PeerMisbehaved::IllegalTlsInnerPlaintext;
    // With the type, and with all padding.
    if opened.len() > MAX_CARRIED + 1 {
        return Err(Error::PeerSentOversizedRecord);
    }
    let at = opened.iter().rposition(|&byte| byte != 0);
    let len = at.ok_or(IllegalTlsInnerPlaintext)?;
    Ok((ContentType::from(opened[len]), len))
}
