//! The payloads of extensions, as BEP 9, 10, 11 and 21 have them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use bt_lite::bittorrent::wire::{
    ExtendedHandshake, MAX_CLIENT_NAME_LEN, MAX_PEX_PEERS, MetadataMessage, OWN_EXTENSIONS,
    PexMessage, PexPeer, WireError,
};
use bytes::Bytes;

use crate::value::Value;

#[test]
fn extended_handshake_says_what_bep_10_has() {
    let payload = b"d1:md11:ut_metadatai3e6:ut_pexi1ee13:metadata_sizei31235e1:pi6881e4:reqqi500e\
        11:upload_onlyi1e1:v13:uTorrent 1.2\x006:yourip4\x3a\x01\x02\x03\x04e";
    let read = ExtendedHandshake::decode(payload).unwrap();
    assert_eq!(read.extensions.ut_metadata, Some(3));
    assert_eq!(read.extensions.ut_pex, Some(1));
    assert_eq!(read.extensions.lt_donthave, None);
    assert_eq!((read.metadata_size, read.reqq), (Some(31_235), Some(500)));
    assert_eq!((read.port, read.upload_only), (Some(6881), Some(true)));
    assert_eq!(read.client.as_deref(), Some("uTorrent 1.2."));
    assert_eq!(read.your_ip, Some(IpAddr::from([1, 2, 3, 4])));
}

#[test]
fn extended_handshake_goes_both_ways() {
    let mut about = ExtendedHandshake::default();
    let read = |about: &ExtendedHandshake| ExtendedHandshake::decode(&about.encode()).unwrap();
    assert_eq!(read(&about), about);
    about.extensions = OWN_EXTENSIONS;
    about.client = Some("bt_lite 0.1".into());
    about.port = Some(6881);
    about.reqq = Some(512);
    about.metadata_size = Some(9);
    about.your_ip = Some(IpAddr::from(Ipv6Addr::LOCALHOST));
    about.upload_only = Some(false);
    about.ipv4 = Some(Ipv4Addr::LOCALHOST);
    about.ipv6 = Some(Ipv6Addr::LOCALHOST);
    assert_eq!(read(&about), about);
    // Canonical: a strict reader takes it.
    let strict = about.encode();
    let mut decoder = bendy::decoding::Decoder::new(&strict);
    let object = decoder.next_object().unwrap().unwrap();
    assert!(object.try_into_dictionary().unwrap().consume_all().is_ok());
}

#[test]
fn fields_with_impossible_values_count_as_missing() {
    let payload = b"d1:md6:ut_pexi300ee1:pi70000e4:reqqi-1e1:vi3e6:yourip2:abe";
    let read = ExtendedHandshake::decode(payload).unwrap();
    assert_eq!(read, ExtendedHandshake::default());
    let what = "extended handshake";
    let error = ExtendedHandshake::decode(b"le").unwrap_err();
    assert_eq!(error, WireError::Dictionary { what });
}

#[test]
fn client_name_is_bounded_and_printable() {
    let name = "\u{1b}é".repeat(1000);
    let payload = format!("d1:v{}:{name}e", name.len());
    let client = ExtendedHandshake::decode(payload.as_bytes())
        .unwrap()
        .client
        .unwrap();
    assert!(client.len() <= MAX_CLIENT_NAME_LEN && client.starts_with(".é."));
}

#[test]
fn second_handshake_updates_what_it_mentions() {
    let mut ids = OWN_EXTENSIONS;
    let payload = b"d1:md6:ut_pexi0eee";
    ids.update(ExtendedHandshake::decode(payload).unwrap().extensions);
    assert_eq!(ids.ut_pex, Some(0));
    assert_eq!(ids.ut_metadata, OWN_EXTENSIONS.ut_metadata);
}

#[test]
fn metadata_has_raw_bytes_behind_its_dictionary() {
    let payload = Bytes::from_static(b"d8:msg_typei1e5:piecei0e10:total_sizei3eeabc");
    let data = MetadataMessage::Data {
        piece: 0,
        total_size: Some(3),
        data: Bytes::from_static(b"abc"),
    };
    assert_eq!(MetadataMessage::decode(&payload), Ok(data.clone()));
    assert_eq!(data.encode(), payload);
    let request = Bytes::from_static(b"d8:msg_typei0e5:piecei7ee");
    assert_eq!(
        MetadataMessage::decode(&request),
        Ok(MetadataMessage::Request { piece: 7 })
    );
    let unknown = Bytes::from_static(b"d8:msg_typei9ee");
    assert_eq!(
        MetadataMessage::decode(&unknown),
        Ok(MetadataMessage::Unknown)
    );
    assert!(MetadataMessage::decode(&Bytes::from_static(b"d8:msg_typei1ee")).is_err());
    let long = [&b"d8:msg_typei1e5:piecei0ee"[..], &[0; 16_385]].concat();
    assert!(MetadataMessage::decode(&long.into()).is_err());
}

#[test]
fn peers_of_both_families_are_exchanged() {
    let addr = |text: &str| text.parse::<SocketAddr>().unwrap();
    let peers = PexMessage {
        added: vec![
            PexPeer {
                addr: addr("1.2.3.4:5"),
                flags: PexPeer::REACHABLE,
            },
            PexPeer {
                addr: addr("[::1]:6"),
                flags: PexPeer::UPLOAD_ONLY,
            },
        ],
        dropped: vec![addr("1.2.3.5:5"), addr("[::2]:6")],
    };
    assert_eq!(PexMessage::decode(&peers.encode()), Ok(peers));
    let odd = b"d5:added6:\x01\x02\x03\x04\0\x05e";
    let read = PexMessage::decode(odd).unwrap();
    assert_eq!(read.added[0].flags, 0);
    let portless = b"d5:added6:\x01\x02\x03\x04\0\0e";
    assert_eq!(PexMessage::decode(portless), Ok(PexMessage::default()));
    assert!(PexMessage::decode(b"d5:added5:12345e").is_err());
}

#[test]
fn peers_beyond_the_bound_are_passed_over() {
    let payload = [b"d5:added6000:".to_vec(), vec![1; 6000], b"e".to_vec()].concat();
    let read = PexMessage::decode(&payload).unwrap();
    assert_eq!(read.added.len(), MAX_PEX_PEERS);
    // No more are sent, of each family.
    let addrs = (0..=MAX_PEX_PEERS as u16).flat_map(|n| {
        let ips = [IpAddr::from([1, 2, 3, 4]), IpAddr::from([7; 16])];
        ips.map(|ip| SocketAddr::new(ip, n + 1))
    });
    let all = PexMessage {
        added: addrs
            .clone()
            .map(|addr| PexPeer { addr, flags: 0 })
            .collect(),
        dropped: addrs.collect(),
    };
    let sent = Value::parse(&all.encode());
    let Value::Dict(sent) = sent else {
        panic!("{sent:?}")
    };
    let len = |key: &str| match &sent[key.as_bytes()] {
        Value::Bytes(bytes) => bytes.len(),
        other => panic!("{other:?}"),
    };
    for (v4, v6) in [("added", "added6"), ("dropped", "dropped6")] {
        assert_eq!((len(v4), len(v6)), (6 * MAX_PEX_PEERS, 18 * MAX_PEX_PEERS));
    }
}
