//! All that somebody has received who is no member, and that it tells him nothing.

use std::fmt::Debug;

use bt_lite::Content;

/// The most bytes that are sent to an outsider, far less than the content has: two flights,
/// with a certificate in one of them. Over QUIC they are padded to whole datagrams, some are
/// sent again, and what belongs to no connection is answered by a reset.
const MAX_HANDSHAKE: usize = 32 << 10;

/// What he has received.
#[derive(Debug, Default)]
pub(crate) struct Learned {
    /// The bytes on the wire.
    pub(crate) wire: Vec<u8>,
    /// What they say to him, as far as he can decrypt it.
    pub(crate) said: Vec<u8>,
    /// The certificates that he was shown, in DER, and the words with which he was left.
    pub(crate) shown: Vec<Vec<u8>>,
}

impl Learned {
    /// Asserts that he was sent a handshake and no word of the protocol.
    pub(crate) fn expect_handshake_only(&self, content: &Content, bytes: &[u8], who: impl Debug) {
        assert!(self.said.is_empty(), "{who:?} heard {:?}", self.said);
        let len = self.wire.len();
        assert!((1..MAX_HANDSHAKE).contains(&len), "{who:?}: {len} bytes");
        self.expect_no_word_of(content, bytes, who);
    }

    /// Asserts that neither the name of the content, nor its id, nor its length, nor its
    /// first bytes are in anything that he has received.
    pub(crate) fn expect_no_word_of(&self, content: &Content, bytes: &[u8], who: impl Debug) {
        let length = content.length;
        let words = [
            ("the name", content.name.as_str().as_bytes().to_vec()),
            ("the id", content.id.as_bytes().to_vec()),
            ("the id in hex", content.id.to_string().into_bytes()),
            ("the length", length.to_be_bytes().to_vec()),
            ("the length", length.to_le_bytes().to_vec()),
            ("the length in text", length.to_string().into_bytes()),
            ("the bytes", bytes[..bytes.len().min(16)].to_vec()),
        ];
        let received = [&self.wire, &self.said].into_iter().chain(&self.shown);
        for received in received {
            for (what, word) in &words {
                let found = received.windows(word.len()).any(|window| window == word);
                assert!(!found, "{who:?} has learned {what}");
            }
        }
    }
}

#[test]
#[should_panic(expected = "has learned the id in hex")]
fn what_is_learned_is_noticed() {
    let bytes = vec![1, 2, 3, 4, 5, 6, 7, 8];
    let id = bt_lite::ContentId::of(&bytes);
    let content = Content::new(id, "plans.pdf".parse().unwrap(), 8);
    let mut learned = Learned::default();
    learned.expect_no_word_of(&content, &bytes, "he");
    learned.said = format!("there is {}", content.id).into_bytes();
    learned.expect_no_word_of(&content, &bytes, "he");
}
