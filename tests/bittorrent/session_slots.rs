//! Whom a session serves, and what it says of itself when it has everything.

use std::net::SocketAddr;

use bt_lite::bittorrent::wire::{ExtendedHandshake, Message, Reserved};
use bt_lite::bittorrent::{Metainfo, MetainfoFormat, TorrentOptions};

use crate::link_desk::block;
use crate::raw_peer::{RawPeer, handshake};
use crate::sessions::{addr, peer, session, torrent, write_files};

fn is_block(message: &Message) -> bool {
    matches!(message, Message::Block { .. })
}

async fn client(to: SocketAddr, metainfo: &Metainfo, name: u8) -> RawPeer {
    let info_hash = *metainfo.info_hash_v1().unwrap().as_bytes();
    RawPeer::connect(to, handshake(info_hash, Reserved::default(), name)).await
}

#[tokio::test]
async fn session_serves_as_many_clients_as_it_has_slots() {
    let here = tempfile::tempdir().unwrap();
    write_files(here.path());
    let metainfo = torrent(here.path(), MetainfoFormat::V1);
    let owner = peer().await;
    let seeds = session(&owner).await;
    let options = TorrentOptions::new().directory(here.path());
    let options = options.upload_slots(1);
    seeds.add(&metainfo, options).unwrap().await.unwrap();
    let mut clients = Vec::new();
    for name in 1..=2 {
        clients.push(client(addr(&seeds), &metainfo, name).await);
    }
    let [first, second] = &mut clients[..] else {
        unreachable!("there are two");
    };
    let asked = Message::Request(block(0, 0, 16_384));
    first.say(Message::Interested).await;
    let heard = first.hear_until(|m| *m == Message::Unchoke).await;
    let about = heard.iter().find_map(|message| match message {
        Message::Extended { id: 0, payload } => ExtendedHandshake::decode(payload).ok(),
        _ => None,
    });
    assert_eq!(about.unwrap().upload_only, Some(true));
    first.say(asked.clone()).await;
    first.hear_until(is_block).await;
    // There is no slot for the second one.
    second.say(Message::Interested).await;
    second.say(asked.clone()).await;
    let reject = Message::Reject(block(0, 0, 16_384));
    let heard = second.hear_until(|m| *m == reject).await;
    assert!(!heard.contains(&Message::Unchoke), "{heard:?}");
    // Until the first one wants nothing any more.
    first.say(Message::NotInterested).await;
    second.hear_until(|m| *m == Message::Unchoke).await;
    second.say(asked).await;
    second.hear_until(is_block).await;
    first.hear_until(|m| *m == Message::Choke).await;
    owner.shutdown().await;
}

#[tokio::test]
async fn two_complete_sides_part_at_once() {
    let here = tempfile::tempdir().unwrap();
    write_files(here.path());
    let metainfo = torrent(here.path(), MetainfoFormat::V1);
    let owner = peer().await;
    let seeds = session(&owner).await;
    let options = TorrentOptions::new().directory(here.path());
    seeds.add(&metainfo, options).unwrap().await.unwrap();
    let mut other = client(addr(&seeds), &metainfo, 1).await;
    other.say(Message::HaveAll).await;
    while other.hear().await.is_some() {}
    owner.shutdown().await;
}
