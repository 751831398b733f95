//! Channels over QUIC: each has its own stream, and what must keep its order does.

use bt_lite::protocol::{ChannelId, Frame, PeerMessage, RefuseReason};
use bt_lite::transport::{Connection, Listener};
use bt_lite::{ChunkIndex, ContentId, Transport};
use bytes::Bytes;
use futures::{SinkExt, StreamExt, future};

use crate::lossy::{Line, Weather};
use crate::members::{Members, soon};

const FIRST: ChannelId = ChannelId(1);
const SECOND: ChannelId = ChannelId(3);

async fn connected() -> (Box<dyn Listener>, Connection, Connection) {
    let members = Members::by_secret();
    let mut listener = members
        .quic()
        .listen(&"127.0.0.1:0".parse().unwrap())
        .await
        .unwrap();
    let (here, addr) = (members.quic(), listener.local_addr().clone());
    let (here, there) = future::join(here.connect(&addr), listener.accept()).await;
    (listener, here.unwrap(), there.unwrap())
}

fn open(channel: ChannelId, content: &[u8]) -> Frame {
    PeerMessage::Open(ContentId::of(content)).encode(channel)
}

fn have(channel: ChannelId, chunk: u32) -> Frame {
    PeerMessage::Have(ChunkIndex(chunk)).encode(channel)
}

fn refuse(channel: ChannelId) -> Frame {
    PeerMessage::Refuse(RefuseReason::NotNeeded).encode(channel)
}

fn greeting() -> Frame {
    PeerMessage::KeepAlive.encode(ChannelId::SESSION)
}

fn channel_of(frame: &Frame) -> ChannelId {
    PeerMessage::decode(frame.clone()).unwrap().0
}

/// All frames until the other side closes.
async fn heard(connection: &mut Connection) -> Vec<Frame> {
    let stream = &mut connection.stream;
    stream.map(Result::unwrap).collect().await
}

/// Hears so many frames.
async fn hear(connection: &mut Connection, frames: usize) {
    for _ in 0..frames {
        connection.stream.next().await.unwrap().unwrap();
    }
}

async fn say(connection: &mut Connection, frames: &[Frame]) {
    for frame in frames {
        connection.sink.feed(frame.clone()).await.unwrap();
    }
    connection.sink.flush().await.unwrap();
}

#[tokio::test]
async fn frames_of_a_channel_keep_their_order_behind_its_open() {
    let (_listener, mut here, mut there) = connected().await;
    let channels: Vec<_> = (0..200).map(|n| ChannelId(2 * n + 1)).collect();
    let mut said = vec![greeting()];
    for channel in &channels {
        said.push(open(*channel, &channel.0.to_be_bytes()));
    }
    for chunk in 0..20 {
        said.extend(channels.iter().map(|channel| have(*channel, chunk)));
    }
    said.extend(channels.iter().map(|channel| refuse(*channel)));
    let saying = async {
        say(&mut here, &said).await;
        here.sink.close().await.unwrap();
    };
    let ((), heard) = future::join(saying, heard(&mut there)).await;
    assert_eq!(heard[0], greeting());
    assert_eq!(heard.len(), said.len());
    for channel in channels {
        let of_it = |frames: &[Frame]| -> Vec<Frame> {
            let of_it = frames.iter().filter(|frame| channel_of(frame) == channel);
            of_it.cloned().collect()
        };
        assert_eq!(of_it(&heard), of_it(&said));
    }
}

#[tokio::test]
async fn content_is_opened_again_only_behind_the_end_of_its_first_channel() {
    for _ in 0..50 {
        let (_listener, mut here, mut there) = connected().await;
        // The end of the first channel is behind much, and the second Open is short.
        let data = Bytes::from(vec![7; 100_000]);
        let block = PeerMessage::Block {
            chunk: ChunkIndex(0),
            offset: 0,
            data,
        };
        let said = [
            greeting(),
            open(FIRST, b"x"),
            block.encode(FIRST),
            refuse(FIRST),
            open(SECOND, b"x"),
            have(SECOND, 1),
        ];
        let saying = async {
            say(&mut here, &said).await;
            here.sink.close().await.unwrap();
        };
        let ((), heard) = future::join(saying, heard(&mut there)).await;
        let short = |frames: &[Frame]| -> Vec<Bytes> {
            frames.iter().map(|frame| frame.head.clone()).collect()
        };
        assert_eq!(short(&heard), short(&said));
    }
}

#[tokio::test]
async fn content_is_opened_again_only_behind_the_end_that_a_line_has_lost() {
    let members = Members::by_secret();
    let listens = "127.0.0.1:0".parse().unwrap();
    let mut listener = members.quic().listen(&listens).await.unwrap();
    let to = listener.local_addr().socket_addr().unwrap();
    let weather = Weather {
        loss: 0.2,
        ..Weather::default()
    };
    let line = Line::to(to, weather, 1).await;
    let (quic, addr) = (members.quic(), line.addr.into());
    let (here, there) = future::join(quic.connect(&addr), listener.accept()).await;
    let (mut here, mut there) = (here.unwrap(), there.unwrap());
    let rounds = (0..40).flat_map(|n| {
        let channel = ChannelId(2 * n + 1);
        [open(channel, b"x"), have(channel, n), refuse(channel)]
    });
    let said: Vec<_> = rounds.collect();
    let saying = async {
        say(&mut here, &[greeting()]).await;
        for frame in &said {
            say(&mut here, std::slice::from_ref(frame)).await;
            // It goes in a datagram of its own, which may be lost alone.
            for _ in 0..10 {
                tokio::task::yield_now().await;
            }
        }
        here.sink.close().await.unwrap();
    };
    let ((), heard) = soon(future::join(saying, heard(&mut there))).await;
    assert_eq!(heard[1..], said);
}

#[tokio::test]
async fn nothing_of_a_channel_is_heard_before_the_first_word_of_the_other_side() {
    let (_listener, mut here, mut there) = connected().await;
    say(&mut here, &[greeting(), open(FIRST, b"x")]).await;
    assert_eq!(there.stream.next().await, Some(Ok(greeting())));
    assert_eq!(there.stream.next().await, Some(Ok(open(FIRST, b"x"))));
    // The channel is known here, and its first frame goes out first.
    say(&mut there, &[have(FIRST, 1)]).await;
    tokio::task::yield_now().await;
    say(&mut there, &[greeting()]).await;
    assert_eq!(here.stream.next().await, Some(Ok(greeting())));
    assert_eq!(here.stream.next().await, Some(Ok(have(FIRST, 1))));
}

#[tokio::test]
async fn many_long_frames_of_many_channels_at_once_arrive() {
    let (_listener, mut here, mut there) = connected().await;
    let channels: Vec<_> = (0..200).map(|n| ChannelId(2 * n + 1)).collect();
    let data = Bytes::from(vec![7; 250_000]);
    let mut said = vec![greeting()];
    for channel in &channels {
        said.push(open(*channel, &channel.0.to_be_bytes()));
    }
    for channel in &channels {
        let block = PeerMessage::Block {
            chunk: ChunkIndex(0),
            offset: 0,
            data: data.clone(),
        };
        said.push(block.encode(*channel));
    }
    let saying = async {
        say(&mut here, &said).await;
        here.sink.close().await.unwrap();
    };
    let ((), heard) = future::join(saying, heard(&mut there)).await;
    assert_eq!(heard.len(), said.len());
}

#[tokio::test]
async fn more_channels_than_a_session_has_at_a_time_go_over_one_connection() {
    let (_listener, mut here, mut there) = connected().await;
    let channels = 6000;
    let saying = async {
        say(&mut here, &[greeting()]).await;
        for n in 0..channels {
            let channel = ChannelId(2 * n + 1);
            let content = n.to_be_bytes();
            say(
                &mut here,
                &[open(channel, &content), have(channel, n), refuse(channel)],
            )
            .await;
        }
        here.sink.close().await.unwrap();
    };
    let ((), heard) = future::join(saying, heard(&mut there)).await;
    assert_eq!(heard.len(), 1 + 3 * channels as usize);
}

#[tokio::test]
async fn side_that_does_not_end_its_channels_ends_their_streams_when_the_other_side_has() {
    let (_listener, mut here, mut there) = connected().await;
    say(&mut here, &[greeting()]).await;
    say(&mut there, &[greeting()]).await;
    // Together more than one side may have open.
    let channels: Vec<_> = (0..2500).map(|n| ChannelId(2 * n + 1)).collect();
    for some in channels.chunks(500) {
        let each = |frame: fn(ChannelId) -> Frame| -> Vec<_> {
            some.iter().map(|channel| frame(*channel)).collect()
        };
        let opens = each(|channel| open(channel, &channel.0.to_be_bytes()));
        let (answers, refusals) = (each(|channel| have(channel, 1)), each(refuse));
        say(&mut here, &opens).await;
        hear(&mut there, opens.len()).await;
        let answering = soon(say(&mut there, &answers));
        future::join(answering, hear(&mut here, answers.len())).await;
        say(&mut here, &refusals).await;
        hear(&mut there, refusals.len()).await;
    }
}

#[tokio::test]
async fn last_words_arrive_although_both_halves_are_dropped_at_once() {
    for _ in 0..20 {
        let (_listener, mut here, mut there) = connected().await;
        let said = [greeting(), open(FIRST, b"x"), have(FIRST, 1), refuse(FIRST)];
        say(&mut here, &said).await;
        drop(here);
        assert_eq!(heard(&mut there).await, said);
    }
}

#[tokio::test]
async fn address_of_who_has_moved_is_where_it_is_now() {
    let members = Members::by_secret();
    let mut listener = members
        .quic()
        .listen(&"127.0.0.1:0".parse().unwrap())
        .await
        .unwrap();
    let (quic, addr) = (members.quic(), listener.local_addr().clone());
    let (here, there) = future::join(quic.connect(&addr), listener.accept()).await;
    let (mut here, mut there) = (here.unwrap(), there.unwrap());
    assert_eq!(there.remote_now(), there.remote);
    quic.rebind().unwrap();
    // It is known by what comes from there.
    while there.remote_now() == there.remote {
        say(&mut here, &[greeting()]).await;
        there.stream.next().await.unwrap().unwrap();
    }
    assert!(there.remote_now().same_host(&there.remote));
}
