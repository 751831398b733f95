//! The network inside the process: its model of time, its faults, and that runs can
//! be repeated.

use std::io::ErrorKind;
use std::time::Duration;

use bt_lite::protocol::{Frame, FrameLimits};
use bt_lite::transport::memory::{BACKLOG, LINK_BYTES, Latency, Trace, TraceEvent, TraceKind};
use bt_lite::transport::{Connection, Listener, TransportError};
use bt_lite::{Addr, MemoryNetwork, Transport};
use bytes::Bytes;
use futures::{FutureExt, SinkExt, StreamExt, future, poll};
use tokio::time::{Instant, sleep, timeout};

/// What a frame occupies on a line in addition to its head and body, in bytes.
const PREFIX: usize = 6;

fn addr(text: &str) -> Addr {
    text.parse().unwrap()
}

/// A frame that occupies a line for exactly `len` bytes.
fn frame(len: usize) -> Frame {
    Frame {
        head: Bytes::new(),
        body: vec![0; len - PREFIX].into(),
    }
}

async fn listen(network: &MemoryNetwork, name: &str) -> Box<dyn Listener> {
    let at = addr(&format!("memory:{name}"));
    network.endpoint(name).listen(&at).await.unwrap()
}

/// Both ends of a connection, the dialling end first.
async fn join(network: &MemoryNetwork, from: &str, to: &str) -> (Connection, Connection) {
    let mut listener = listen(network, to).await;
    let dialler = network.endpoint(from);
    let at = listener.local_addr().clone();
    let (here, there) = future::join(dialler.connect(&at), listener.accept()).await;
    (here.unwrap(), there.unwrap())
}

/// The next item. It has a timeout: a paused clock does not move while no timer is
/// set, so that a test would hang.
async fn next(connection: &mut Connection) -> Option<Result<Frame, TransportError>> {
    soon(connection.stream.next()).await
}

async fn soon<T>(something: impl Future<Output = T>) -> T {
    timeout(ms(60_000), something).await.expect("must not hang")
}

/// Sends `count` frames of `len` bytes each. Returns the connection, so that it
/// stays open.
async fn pour(mut connection: Connection, count: usize, len: usize) -> Connection {
    for _ in 0..count {
        connection.sink.send(frame(len)).await.unwrap();
    }
    connection
}

/// Reads `count` frames. Returns the time until the last one arrived.
async fn drain(connection: &mut Connection, count: usize) -> Duration {
    let begun = Instant::now();
    for _ in 0..count {
        connection.stream.next().await.unwrap().unwrap();
    }
    begun.elapsed()
}

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn is_io<T>(result: &Result<T, TransportError>, expected: ErrorKind) -> bool {
    matches!(result, Err(TransportError::Io { kind, .. }) if *kind == expected)
}

#[tokio::test(start_paused = true)]
async fn upload_rate_is_kept() {
    let network = MemoryNetwork::new(1);
    network.set_upload_rate("a", Some(1_000_000));
    let (here, mut there) = join(&network, "a", "b").await;
    let (_, took) = future::join(pour(here, 500, 10_000), drain(&mut there, 500)).await;
    assert_eq!(took, ms(5000));
}

#[tokio::test(start_paused = true)]
async fn download_rate_is_shared_by_the_senders() {
    let network = MemoryNetwork::new(1);
    network.set_download_rate("sink", Some(1_000_000));
    let (a, mut from_a) = join(&network, "a", "sink").await;
    let (b, mut from_b) = join(&network, "b", "sink").await;
    let ((_, _), (a_took, b_took)) = future::join(
        future::join(pour(a, 100, 10_000), pour(b, 200, 10_000)),
        future::join(drain(&mut from_a, 100), drain(&mut from_b, 200)),
    )
    .await;
    // They take turns until one is done; then the other has the whole line. The one
    // that started first is a frame or two ahead.
    assert_eq!(b_took, ms(3000));
    assert!((ms(1980)..=ms(2000)).contains(&a_took), "{a_took:?}");
}

#[tokio::test(start_paused = true)]
async fn upload_is_shared_fairly_by_links_that_start_at_different_times() {
    let network = MemoryNetwork::new(1);
    network.set_upload_rate("seed", Some(1_000_000));
    let mut ends = Vec::new();
    for name in ["a", "b", "c"] {
        ends.push(join(&network, "seed", name).await);
    }
    let count = 200;
    let all = ends
        .into_iter()
        .enumerate()
        .map(|(i, (here, mut there))| async move {
            // The first link has filled its queue before the others start.
            sleep(ms(5 * i as u64)).await;
            let (_, took) = future::join(pour(here, count, 10_000), drain(&mut there, count)).await;
            took
        });
    for took in future::join_all(all).await {
        assert!((ms(5900)..=ms(6000)).contains(&took), "{took:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn slow_receiver_does_not_slow_down_the_others() {
    let network = MemoryNetwork::new(1);
    network.set_upload_rate("seed", Some(1_000_000));
    network.set_download_rate("slow", Some(1_000));
    let (to_slow, mut slow) = join(&network, "seed", "slow").await;
    let (to_fast, mut fast) = join(&network, "seed", "fast").await;
    let slow_end = tokio::spawn(async move {
        future::join(pour(to_slow, 100, 10_000), drain(&mut slow, 100)).await
    });
    let (_, took) = future::join(pour(to_fast, 200, 10_000), drain(&mut fast, 200)).await;
    // The window of the slow link goes through the line once, but hardly more.
    let window = ms(LINK_BYTES as u64 / 1000 + 30);
    assert!((ms(2000)..=ms(2000) + window).contains(&took), "{took:?}");
    assert!(!slow_end.is_finished());
    slow_end.abort();
}

#[tokio::test(start_paused = true)]
async fn latency_delays_but_does_not_throttle() {
    let network = MemoryNetwork::new(1);
    network.set_latency("a", ms(30));
    network.set_latency("b", ms(20));
    let begun = Instant::now();
    let (here, mut there) = join(&network, "a", "b").await;
    assert_eq!(begun.elapsed(), ms(100), "one round trip");
    let (_, took) = future::join(pour(here, 40, 10_000), drain(&mut there, 40)).await;
    assert_eq!(took, ms(50), "all at once, after one latency");

    network.set_latency_between("b", "a", ms(7));
    let (here, mut there) = join(&network, "a", "b").await;
    let (_, took) = future::join(pour(here, 1, 100), drain(&mut there, 1)).await;
    assert_eq!(took, ms(7));
}

#[tokio::test(start_paused = true)]
async fn jitter_does_not_reorder_frames_and_stays_in_its_bounds() {
    let network = MemoryNetwork::new(3);
    let jitter = Latency::new(ms(10), ms(50));
    network.set_latency_between("a", "b", jitter);
    network.record(1000);
    let (mut here, mut there) = join(&network, "a", "b").await;
    for i in 0..100u8 {
        here.sink.send(Frame::head(vec![i])).await.unwrap();
        sleep(ms(1)).await;
    }
    for i in 0..100u8 {
        assert_eq!(next(&mut there).await, Some(Ok(Frame::head(vec![i]))));
    }
    let trace = network.trace();
    let times = |kind| {
        let of_kind = trace.events.iter().filter(move |event| event.kind == kind);
        of_kind.map(|event| event.at).collect::<Vec<_>>()
    };
    let (sent, came) = (times(TraceKind::Sent), times(TraceKind::Delivered));
    let took: Vec<_> = sent.iter().zip(&came).map(|(s, c)| *c - *s).collect();
    assert!(took.iter().all(|t| (ms(10)..=ms(60)).contains(t)));
    assert!(took.iter().any(|t| *t != took[0]), "the latency varies");
}

#[tokio::test(start_paused = true)]
async fn body_is_the_same_memory_on_both_sides() {
    let network = MemoryNetwork::new(1);
    for shaped in [false, true] {
        if shaped {
            network.set_upload_rate("a", Some(1_000_000));
        }
        let (mut here, mut there) = join(&network, "a", "b").await;
        let sent = frame(100_000);
        here.sink.send(sent.clone()).await.unwrap();
        let got = next(&mut there).await.unwrap().unwrap();
        assert_eq!(got.body.as_ptr(), sent.body.as_ptr());
    }
}

#[tokio::test(start_paused = true)]
async fn link_holds_no_more_than_its_bound() {
    for (shaped, len) in [(false, 10_000), (true, 10_000), (false, PREFIX)] {
        let network = MemoryNetwork::new(1);
        if shaped {
            network.set_latency("a", ms(1));
        }
        let (mut here, mut there) = join(&network, "a", "b").await;
        let mut taken = 0;
        while let Ok(sent) = timeout(ms(100), here.sink.send(frame(len))).await {
            sent.unwrap();
            taken += len;
        }
        assert!((LINK_BYTES..LINK_BYTES + len).contains(&taken), "{taken}");
        // Once a frame is read, the sink accepts another one.
        next(&mut there).await.unwrap().unwrap();
        here.sink.send(frame(len)).await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn without_rates_no_time_passes_and_no_frame_waits() {
    let network = MemoryNetwork::new(1);
    let (mut here, mut there) = join(&network, "a", "b").await;
    let begun = Instant::now();
    for _ in 0..1000 {
        here.sink.send(frame(1000)).now_or_never().unwrap().unwrap();
        let got = there.stream.next();
        got.now_or_never().unwrap().unwrap().unwrap();
        tokio::task::yield_now().await;
    }
    assert_eq!(begun.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn addresses_and_ports_work_as_on_a_host() {
    let network = MemoryNetwork::new(1);
    let a = network.endpoint("a");
    let mut any = a.listen(&addr("memory:a:0")).await.unwrap();
    let other = a.listen(&addr("memory:a:0")).await.unwrap();
    let _plain = a.listen(&addr("memory:a")).await.unwrap();
    let _seven = a.listen(&addr("memory:a:7")).await.unwrap();
    assert_ne!(any.local_addr(), other.local_addr());
    for taken in ["memory:a", "memory:a:7", any.local_addr().as_str()] {
        let again = a.listen(&addr(taken)).await;
        assert!(is_io(&again, ErrorKind::AddrInUse), "{taken}");
    }
    let elsewhere = a.listen(&addr("memory:b")).await;
    assert!(matches!(elsewhere, Err(TransportError::Address { .. })));

    let b = network.endpoint("b");
    let at = any.local_addr().clone();
    let here = b.connect(&at).await.unwrap();
    let there = any.accept().await.unwrap();
    assert_eq!(here.remote, at);
    assert!(there.remote.same_host(b.addr()));
    assert_ne!(there.remote, *b.addr());

    // Endpoints of another network cannot connect.
    let stranger = MemoryNetwork::new(1).endpoint("b");
    let refused = stranger.connect(&at).await;
    assert!(is_io(&refused, ErrorKind::ConnectionRefused));
}

#[tokio::test(start_paused = true)]
async fn full_backlog_refuses_connections() {
    let network = MemoryNetwork::new(1);
    let mut listener = listen(&network, "a").await;
    let (b, at) = (network.endpoint("b"), addr("memory:a"));
    let mut waiting = Vec::new();
    for _ in 0..BACKLOG {
        waiting.push(b.connect(&at).await.unwrap());
    }
    assert!(is_io(&b.connect(&at).await, ErrorKind::ConnectionRefused));
    listener.accept().await.unwrap();
    b.connect(&at).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn cut_resets_both_sides_of_this_pair_only() {
    let network = MemoryNetwork::new(1);
    let (mut here, mut there) = join(&network, "a", "b").await;
    let (mut other, mut far) = join(&network, "a", "c").await;
    here.sink.send(frame(100)).await.unwrap();
    network.cut("b", "a");
    for end in [&mut here, &mut there] {
        let item = next(end).await.unwrap();
        assert!(is_io(&item, ErrorKind::ConnectionReset));
        assert_eq!(next(end).await, None);
        let sent = end.sink.send(frame(100)).await;
        assert!(is_io(&sent, ErrorKind::ConnectionReset));
    }
    other.sink.send(frame(100)).await.unwrap();
    assert_eq!(next(&mut far).await, Some(Ok(frame(100))));
    join(&network, "a", "b").await;
}

#[tokio::test(start_paused = true)]
async fn cut_wakes_waiting_tasks() {
    let network = MemoryNetwork::new(1);
    let (here, mut there) = join(&network, "a", "b").await;
    let mut sink = here.sink;
    let full = tokio::spawn(async move {
        loop {
            if let Err(error) = sink.send(frame(10_000)).await {
                return error;
            }
        }
    });
    let mut stream = here.stream;
    let reader = tokio::spawn(async move { stream.next().await });
    sleep(ms(1)).await;
    network.cut("a", "b");
    assert!(is_io(
        &Err::<(), _>(soon(full).await.unwrap()),
        ErrorKind::ConnectionReset
    ));
    assert!(matches!(soon(reader).await.unwrap(), Some(Err(_))));
    assert!(matches!(next(&mut there).await, Some(Err(_))));
}

#[tokio::test(start_paused = true)]
async fn partition_holds_everything_until_it_heals() {
    let network = MemoryNetwork::new(1);
    let _listener = listen(&network, "d").await;
    let (mut here, mut there) = join(&network, "a", "b").await;
    let (mut same_side, mut neighbour) = join(&network, "a", "c").await;
    network.partition(&["a", "c"], &["b", "d"]);

    here.sink.send(frame(100)).await.unwrap();
    here.sink.close().await.unwrap();
    assert!(timeout(ms(9000), there.stream.next()).await.is_err());
    same_side.sink.send(frame(100)).await.unwrap();
    assert!(next(&mut neighbour).await.unwrap().is_ok());
    let a = network.endpoint("a");
    let at = addr("memory:d");
    assert!(timeout(ms(9000), a.connect(&at)).await.is_err());

    let connecting = tokio::spawn(async move { a.connect(&at).await.map(drop) });
    sleep(ms(1)).await;
    network.heal();
    assert_eq!(soon(connecting).await.unwrap(), Ok(()));
    assert_eq!(next(&mut there).await, Some(Ok(frame(100))));
    assert_eq!(next(&mut there).await, None);
}

#[tokio::test(start_paused = true)]
async fn partition_holds_a_dial_that_is_under_way() {
    let network = MemoryNetwork::new(1);
    network.set_latency("b", ms(10));
    let _listener = listen(&network, "b").await;
    let a = network.endpoint("a");
    // While the dial is on its way there, and on its way back.
    for later in [5, 15] {
        let a = a.clone();
        let connecting = tokio::spawn(async move { a.connect(&addr("memory:b")).await.map(drop) });
        sleep(ms(later)).await;
        network.partition(&["a"], &["b"]);
        sleep(ms(9000)).await;
        assert!(!connecting.is_finished());
        network.heal();
        assert_eq!(soon(connecting).await.unwrap(), Ok(()));
    }
}

#[tokio::test(start_paused = true)]
async fn stalled_endpoint_neither_sends_nor_receives_until_it_resumes() {
    let network = MemoryNetwork::new(1);
    let (mut here, mut there) = join(&network, "a", "b").await;
    let _listener = listen(&network, "a").await;
    network.stall("a");
    here.sink.send(frame(100)).await.unwrap();
    there.sink.send(frame(200)).await.unwrap();
    for end in [&mut here, &mut there] {
        assert!(timeout(ms(9000), end.stream.next()).await.is_err());
    }
    let b = network.endpoint("b");
    assert!(
        timeout(ms(9000), b.connect(&addr("memory:a")))
            .await
            .is_err()
    );
    network.resume("a");
    assert_eq!(next(&mut here).await, Some(Ok(frame(200))));
    assert_eq!(next(&mut there).await, Some(Ok(frame(100))));
    b.connect(&addr("memory:a")).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn corruption_flips_one_bit_of_a_copy() {
    let network = MemoryNetwork::new(1);
    let (mut here, mut there) = join(&network, "a", "b").await;
    network.corrupt_next("a", 2);
    let sent = frame(1000);
    let flipped = |got: &Frame| -> u32 {
        let bits = got
            .body
            .iter()
            .zip(&sent.body)
            .map(|(x, y)| (x ^ y).count_ones());
        bits.sum()
    };
    let mut seen = Vec::new();
    for _ in 0..4 {
        // A frame without a body is not corrupted and does not count.
        here.sink.send(Frame::head("head")).await.unwrap();
        assert_eq!(next(&mut there).await, Some(Ok(Frame::head("head"))));
        here.sink.send(sent.clone()).await.unwrap();
        seen.push(flipped(&next(&mut there).await.unwrap().unwrap()));
    }
    assert_eq!(seen, [1, 1, 0, 0]);
    assert!(
        sent.body.iter().all(|&byte| byte == 0),
        "the sender's bytes are unchanged"
    );

    for (probability, expected) in [(1.0, 20..=20), (0.5, 4..=16), (0.0, 0..=0)] {
        network.corrupt("a", probability);
        let mut corrupted = 0;
        for _ in 0..20 {
            here.sink.send(sent.clone()).await.unwrap();
            corrupted += flipped(&next(&mut there).await.unwrap().unwrap());
        }
        assert!(expected.contains(&corrupted), "{probability}: {corrupted}");
    }
    // The other direction is not corrupted.
    network.corrupt("a", 1.0);
    there.sink.send(sent.clone()).await.unwrap();
    assert_eq!(next(&mut here).await, Some(Ok(sent.clone())));
}

#[tokio::test(start_paused = true)]
async fn refusing_endpoint_keeps_its_connections() {
    let network = MemoryNetwork::new(1);
    let (mut here, mut there) = join(&network, "a", "b").await;
    let _listener = listen(&network, "b").await;
    let a = network.endpoint("a");
    network.refuse("b", true);
    let refused = a.connect(&addr("memory:b")).await;
    assert!(is_io(&refused, ErrorKind::ConnectionRefused));
    here.sink.send(frame(100)).await.unwrap();
    assert_eq!(next(&mut there).await, Some(Ok(frame(100))));
    network.refuse("b", false);
    a.connect(&addr("memory:b")).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn killed_endpoint_is_gone_and_can_restart() {
    let network = MemoryNetwork::new(1);
    let (mut here, _there) = join(&network, "a", "b").await;
    let mut listener = listen(&network, "b").await;
    let a = network.endpoint("a");
    let mut unaccepted = a.connect(&addr("memory:b")).await.unwrap();
    network.kill("b");
    for end in [&mut here, &mut unaccepted] {
        let item = next(end).await.unwrap();
        assert!(is_io(&item, ErrorKind::ConnectionReset));
    }
    let refused = a.connect(&addr("memory:b")).await;
    assert!(is_io(&refused, ErrorKind::ConnectionRefused));
    // The connection that waited is accepted, but reset. Then the listener is
    // closed.
    let mut dead = listener.accept().await.unwrap();
    assert!(next(&mut dead).await.unwrap().is_err());
    assert!(matches!(
        listener.accept().await,
        Err(TransportError::Closed)
    ));

    let _again = listen(&network, "b").await;
    drop(listener);
    a.connect(&addr("memory:b")).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn sender_learns_that_the_reader_is_gone() {
    let network = MemoryNetwork::new(1);
    let (mut here, there) = join(&network, "a", "b").await;
    let mut full: future::LocalBoxFuture<Result<(), TransportError>> = Box::pin(async {
        loop {
            here.sink.send(frame(10_000)).await?;
        }
    });
    assert!(poll!(&mut full).is_pending());
    drop(there);
    assert!(is_io(&soon(full).await, ErrorKind::BrokenPipe));
}

/// How long a frame of 10,000 bytes takes from "a" to "c", over a line of 10 kB/s on which ten
/// of them wait for "b", if this happens to the end of "b" while the line carries the first.
async fn delay_after(network: &MemoryNetwork, end: impl AsyncFnOnce(Connection)) -> Duration {
    network.set_upload_rate("a", Some(10_000));
    network.set_latency("b", ms(20));
    let (mut here, there) = join(network, "a", "b").await;
    let (other, mut far) = join(network, "a", "c").await;
    for _ in 0..10 {
        here.sink.send(frame(10_000)).await.unwrap();
    }
    sleep(ms(500)).await;
    end(there).await;
    let (_, took) = future::join(pour(other, 1, 10_000), drain(&mut far, 1)).await;
    let sent = here.sink.send(frame(10_000)).await;
    assert!(is_io(&sent, ErrorKind::BrokenPipe));
    took
}

#[tokio::test(start_paused = true)]
async fn what_is_queued_for_a_reader_that_is_gone_leaves_the_line_at_once() {
    let network = MemoryNetwork::new(1);
    network.record(100);
    assert_eq!(delay_after(&network, async |end| drop(end)).await, ms(1000));
    let to_b = |kind| {
        let events = network.trace().events;
        let is_one = |event: &TraceEvent| event.kind == kind && event.to == addr("memory:b");
        events.into_iter().filter(is_one).count()
    };
    assert_eq!(to_b(TraceKind::Sent), 10);
    assert_eq!(to_b(TraceKind::Delivered), 0);
    assert_eq!(to_b(TraceKind::Abandoned), 1);
}

#[tokio::test(start_paused = true)]
async fn end_that_goes_on_sending_frees_the_line_when_it_reads_no_more() {
    let network = MemoryNetwork::new(1);
    let mut kept = None;
    let took = delay_after(&network, async |end| {
        drop(end.stream);
        kept = Some(end.sink);
    });
    assert_eq!(took.await, ms(1000));
}

#[tokio::test(start_paused = true)]
async fn reader_that_meets_a_frame_too_long_frees_the_line() {
    let network = MemoryNetwork::new(1);
    let mut kept = None;
    let took = delay_after(&network, async |mut end| {
        end.limits.set(FrameLimits {
            head: 100,
            body: 100,
        });
        let first = next(&mut end).await;
        assert!(matches!(first, Some(Err(_))), "{first:?}");
        kept = Some(end);
    });
    // The first frame has arrived, and nothing is carried behind it.
    assert_eq!(took.await, ms(1000));
}

#[tokio::test(start_paused = true)]
async fn cut_frees_the_line_at_once() {
    let network = MemoryNetwork::new(1);
    network.set_upload_rate("a", Some(10_000));
    let (mut here, _there) = join(&network, "a", "b").await;
    let (other, mut far) = join(&network, "a", "c").await;
    here.sink.send(frame(100_000)).await.unwrap();
    sleep(ms(500)).await;
    network.cut("a", "b");
    let (_, took) = future::join(pour(other, 1, 10_000), drain(&mut far, 1)).await;
    assert_eq!(took, ms(1000));
}

#[tokio::test(start_paused = true)]
async fn dropped_dial_leaves_nothing_behind() {
    let network = MemoryNetwork::new(1);
    network.set_latency("a", ms(10));
    let mut listener = listen(&network, "a").await;
    let (b, at) = (network.endpoint("b"), addr("memory:a"));
    // Dropped before it reaches the listener, and after.
    for patience in [5, 15] {
        assert!(timeout(ms(patience), b.connect(&at)).await.is_err());
    }
    let mut ghost = listener.accept().await.unwrap();
    assert_eq!(next(&mut ghost).await, None);
    assert!(timeout(ms(1000), listener.accept()).await.is_err());
}

/// A run with rates, jitter, corruption, a cut, a stall, and several links.
async fn eventful(seed: u64) -> Trace {
    let network = MemoryNetwork::new(seed);
    network.record(10_000);
    let names = ["a", "b", "c", "d"];
    for (i, name) in names.iter().enumerate() {
        network.set_upload_rate(name, Some(300_000 + 100_000 * i as u64));
        network.set_download_rate(name, Some(700_000));
        let jitter = Latency::new(ms(5), ms(20));
        network.set_latency(name, jitter);
    }
    network.corrupt("b", 0.3);
    let mut tasks = Vec::new();
    for from in names {
        for to in names.iter().filter(|to| **to != from) {
            let (here, there) = join(&network, from, to).await;
            let (mut sink, mut stream) = (here.sink, there.stream);
            tasks.push(tokio::spawn(async move {
                for i in 0..40 {
                    if sink.send(frame(PREFIX + 1 + i * 313)).await.is_err() {
                        return;
                    }
                }
            }));
            tasks.push(tokio::spawn(async move {
                while let Some(Ok(_)) = stream.next().await {}
            }));
        }
    }
    sleep(ms(700)).await;
    network.cut("a", "b");
    network.stall("c");
    sleep(ms(300)).await;
    network.resume("c");
    for task in tasks {
        task.await.unwrap();
    }
    network.trace()
}

fn run(seed: u64) -> Trace {
    tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap()
        .block_on(eventful(seed))
}

#[test]
fn same_seed_gives_the_same_run_event_for_event() {
    let first = run(7);
    for kind in [
        TraceKind::Connected,
        TraceKind::Sent,
        TraceKind::Corrupted,
        TraceKind::Delivered,
        TraceKind::Closed,
        TraceKind::Reset,
    ] {
        assert!(
            first.events.iter().any(|event| event.kind == kind),
            "{kind:?}"
        );
    }
    assert_eq!(first.missed, 0);
    assert_eq!(first, run(7));
    assert_ne!(first, run(8), "the seed matters");
}

#[tokio::test(start_paused = true)]
async fn log_keeps_the_first_events_and_counts_the_rest() {
    let network = MemoryNetwork::new(1);
    network.record(3);
    let (here, mut there) = join(&network, "a", "b").await;
    future::join(pour(here, 5, 100), drain(&mut there, 5)).await;
    let trace = network.trace();
    assert_eq!(trace.events.len(), 3);
    // One connection, five frames sent and delivered, one end, and the other way abandoned.
    assert_eq!(trace.missed, 1 + 5 + 5 + 1 + 1 - 3);
    assert_eq!(trace.events[0].kind, TraceKind::Connected);
    assert_eq!(trace.events[1].bytes, 100 - PREFIX);
}
