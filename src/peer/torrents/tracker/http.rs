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
