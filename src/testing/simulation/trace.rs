//! A fingerprint of a run. Two runs have the same fingerprint exactly if the same
//! events happened in the same order at the same times.

use blake3::Hasher;

use super::event::Event;
use crate::protocol::{ChannelId, PeerMessage};

/// A hash over the events of a run.
#[derive(Debug, Default)]
pub(super) struct Trace(Hasher);

impl Trace {
    /// Adds an event that happened `nanos` nanoseconds after the start.
    pub(super) fn add(&mut self, nanos: u128, event: &Event) {
        self.0.update(&nanos.to_be_bytes());
        match event {
            Event::Deliver { to, link, message } => {
                self.numbers(0, &[to.0 as u64, link.0]);
                self.message(message.clone());
            }
            Event::Sent { from, plan } => self.numbers(1, &[from.0 as u64, *plan]),
            Event::Timer(member) => self.numbers(2, &[member.0 as u64]),
            Event::Dial { from, to } => self.numbers(3, &[from.0 as u64, to.0 as u64]),
            Event::Unanswered { from, addr } => {
                self.numbers(4, &[from.0 as u64]);
                self.bytes(addr.to_string().as_bytes());
            }
            Event::Rate { of, upload } => self.numbers(5, &[of.0 as u64, upload.to_bits()]),
            Event::Join(newcomer) => {
                let rates = [newcomer.upload.to_bits(), newcomer.download.to_bits()];
                self.numbers(6, &rates);
            }
            Event::Pause { of, serve } => {
                let serve = serve.map_or(2, u64::from);
                self.numbers(10, &[of.0 as u64, serve]);
            }
            Event::Leave(member) => self.numbers(7, &[member.0 as u64]),
            Event::Owners(member) => self.numbers(8, &[member.0 as u64]),
            Event::Down { of, link } => self.numbers(9, &[of.0 as u64, link.0]),
        }
    }

    /// The fingerprint of all events so far, in hexadecimal digits.
    pub(super) fn fingerprint(&self) -> String {
        self.0.finalize().to_hex().to_string()
    }

    fn message(&mut self, message: PeerMessage) {
        let frame = message.encode(ChannelId::SESSION);
        self.bytes(&frame.head);
        // Long bodies are blocks, and their bytes are all zeros.
        let body_len = frame.body.len() as u64;
        if body_len < 4096 {
            self.bytes(&frame.body);
        } else {
            self.0.update(&body_len.to_be_bytes());
        }
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.0.update(&(bytes.len() as u64).to_be_bytes());
        self.0.update(bytes);
    }

    fn numbers(&mut self, kind: u8, numbers: &[u64]) {
        self.0.update(&[kind]);
        for number in numbers {
            self.0.update(&number.to_be_bytes());
        }
    }
}
