//! Trackers over HTTP (BEP 3).

use reqwest::Client;

use super::announce::{Announce, Announced, NotAnnounced};
use crate::bittorrent::tracker::http::{
    AnnounceAnswer, AnnounceQuery, AnswerError, MAX_ANSWER_LEN, with_query,
};

pub(super) async fn announce(
    client: &Client,
    url: &str,
    announce: &Announce,
) -> Result<Announced, NotAnnounced> {
    let mut query = AnnounceQuery::new(announce.info_hash, announce.client.0, announce.port);
    query.uploaded = announce.uploaded;
    query.downloaded = announce.downloaded;
    query.left = announce.left;
    query.event = announce.event;
    query.num_want = Some(announce.wanted);
    query.key = Some(format!("{:08x}", announce.key));
    query.tracker_id = announce.tracker_id.clone();
    let mut response = client
        .get(with_query(url, &query.to_query()))
        .send()
        .await?;
    let status = response.status();
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await? {
        if body.len() + chunk.len() > MAX_ANSWER_LEN {
            return Err(NotAnnounced::Answer("it is too long".into()));
        }
        body.extend_from_slice(&chunk);
    }
    // Some trackers refuse with a status of their own, and still say why.
    match AnnounceAnswer::decode(&body) {
        Ok(answer) if status.is_success() => {
            let peers = answer.peers.iter().map(|peer| peer.addr).collect();
            let mut announced = Announced::new(peers, answer.interval, answer.min_interval);
            announced.tracker_id = answer.tracker_id;
            if let Some(warning) = answer.warning {
                tracing::warn!(%warning, "the tracker warns");
            }
            Ok(announced)
        }
        Err(AnswerError::Refused(refusal)) => Err(NotAnnounced::Refused(refusal.reason)),
        _ if !status.is_success() => Err(NotAnnounced::Status(status.as_u16())),
        Err(error) => Err(NotAnnounced::Answer(error.to_string())),
        Ok(_) => Err(NotAnnounced::Status(status.as_u16())),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    /// Announces at a tracker that answers so.
    async fn answered(status: &str, body: &[u8]) -> Result<Announced, NotAnnounced> {
        let tracker = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/announce", tracker.local_addr().unwrap());
        let head = format!(
            "HTTP/1.1 {status}\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        let answering = async {
            let (mut client, _) = tracker.accept().await.unwrap();
            let mut asked = Vec::new();
            while !asked.ends_with(b"\r\n\r\n") {
                assert!(client.read_buf(&mut asked).await.unwrap() > 0);
            }
            let asked = String::from_utf8(asked).unwrap();
            assert!(asked.contains("&key=00000003"), "{asked}");
            // A client that has read enough goes.
            let _ = client.write_all(&[head.as_bytes(), body].concat()).await;
            std::future::pending().await
        };
        let client = super::super::build(Duration::from_secs(60)).unwrap();
        let sample = Announce::sample();
        tokio::select! {
            announced = announce(&client, &url, &sample) => announced,
            never = answering => never,
        }
    }

    #[tokio::test]
    async fn answer_counts_with_a_status_of_success_and_a_refusal_with_any() {
        let answer = b"d8:intervali900e5:peers6:\x0a\x00\x00\x01\x00\x07e";
        let announced = answered("200 OK", answer).await.unwrap();
        assert_eq!(announced.peers, [([10, 0, 0, 1], 7).into()]);
        let failed = answered("503 Busy", answer).await.unwrap_err();
        assert!(matches!(failed, NotAnnounced::Status(503)), "{failed}");
        let failed = answered("404 Not Found", b"<html>").await.unwrap_err();
        assert!(matches!(failed, NotAnnounced::Status(404)), "{failed}");
        let failed = answered("200 OK", b"<html>").await.unwrap_err();
        assert!(matches!(failed, NotAnnounced::Answer(_)), "{failed}");
        for status in ["200 OK", "403 Forbidden"] {
            let refused = answered(status, b"d14:failure reason4:gonee").await;
            let refused = refused.unwrap_err();
            assert!(matches!(&refused, NotAnnounced::Refused(why) if why == "gone"));
        }
    }

    #[tokio::test]
    async fn answer_that_is_too_long_is_none() {
        let answer = |len: usize| [b"d5:peers0:e".as_slice(), &vec![b' '; len]].concat();
        let longest = MAX_ANSWER_LEN - answer(0).len();
        assert!(answered("200 OK", &answer(longest)).await.is_ok());
        let failed = answered("200 OK", &answer(longest + 1)).await.unwrap_err();
        assert_eq!(
            failed.to_string(),
            "its answer cannot be read: it is too long"
        );
    }
}
