//! The bytes of a content as an HTTP response (RFC 9110).

use std::collections::VecDeque;
use std::io::{self, SeekFrom};
use std::ops::Range;

use axum::body::{Body, Bytes};
use axum::http::response::Builder;
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::response::Response;
use bt_lite::{Content, ContentReader};
use futures::{StreamExt, stream};
use headers::{ETag, HeaderMapExt, IfMatch, IfNoneMatch, IfRange};
use http_range_header::parse_range_header;
use tokio::io::{AsyncReadExt, AsyncSeekExt};

/// How many bytes are handed to the network at a time.
const PIECE: usize = 64 << 10;

/// How many ranges a request may have. More are refused: each is a seek.
const MAX_RANGES: usize = 32;

/// Separates the parts of a response with several ranges. The bytes of a content would
/// have to contain it by design, and then a client that relies on it would see more parts;
/// each part tells its length as well.
const BOUNDARY: &str = "bt_lite-5f1f0a3c9d7e4b62";

/// Which bytes are asked for.
enum Wanted {
    All,
    Ranges(Vec<Range<u64>>),
    Nothing,
}

/// Answers a request for a content, when the first of its bytes are here.
///
/// # Errors
/// That of the first read. Later ones end the connection.
pub(crate) async fn respond(
    content: &Content,
    reader: ContentReader,
    method: &Method,
    request: &HeaderMap,
) -> io::Result<Response> {
    let (response, parts) = head_of(content, method, request)?;
    let body = match *method == Method::HEAD {
        true => Body::empty(),
        false => body_of(parts, reader).await?,
    };
    response.body(body).map_err(io::Error::other)
}

/// The head of the answer, and what its body consists of.
fn head_of(
    content: &Content,
    method: &Method,
    request: &HeaderMap,
) -> io::Result<(Builder, VecDeque<Part>)> {
    let tag = format!("\"{}\"", content.id).parse::<ETag>();
    let tag = tag.map_err(io::Error::other)?;
    let mut response = Response::builder().header(header::ACCEPT_RANGES, "bytes");
    if let Some(headers) = response.headers_mut() {
        headers.typed_insert(tag.clone());
    }
    let wants_other = |wanted: IfMatch| !wanted.precondition_passes(&tag);
    if request.typed_get().is_some_and(wants_other) {
        let response = response.status(StatusCode::PRECONDITION_FAILED);
        return Ok((response, VecDeque::new()));
    }
    let known = request.typed_get::<IfNoneMatch>();
    if known.is_some_and(|known| !known.precondition_passes(&tag)) {
        let response = response.status(StatusCode::NOT_MODIFIED);
        return Ok((response, VecDeque::new()));
    }
    let kind = kind_of(content.name.as_str());
    let (response, parts) = match wanted(content.length, &tag, method, request) {
        Wanted::Nothing => {
            let range = format!("bytes */{}", content.length);
            let response = response.status(StatusCode::RANGE_NOT_SATISFIABLE);
            let response = response.header(header::CONTENT_RANGE, range);
            return Ok((response, VecDeque::new()));
        }
        Wanted::All => {
            let all = VecDeque::from([Part::Bytes(0..content.length)]);
            (response.header(header::CONTENT_TYPE, kind), all)
        }
        Wanted::Ranges(ranges) => {
            let response = response.status(StatusCode::PARTIAL_CONTENT);
            some(response, &ranges, kind, content.length)
        }
    };
    let length: u64 = parts.iter().map(Part::len).sum();
    Ok((response.header(header::CONTENT_LENGTH, length), parts))
}

/// One range, or several as the parts of one body.
fn some(
    response: Builder,
    ranges: &[Range<u64>],
    kind: &str,
    length: u64,
) -> (Builder, VecDeque<Part>) {
    if let [range] = ranges {
        let response = response.header(header::CONTENT_TYPE, kind);
        let place = content_range(range, length);
        let part = Part::Bytes(range.clone());
        return (
            response.header(header::CONTENT_RANGE, place),
            VecDeque::from([part]),
        );
    }
    let multipart = format!("multipart/byteranges; boundary={BOUNDARY}");
    let response = response.header(header::CONTENT_TYPE, multipart);
    (response, multipart_of(ranges, kind, length))
}

/// What a request asks for. A range that cannot be read as one is ignored, and so are
/// those of another version of the content.
fn wanted(length: u64, tag: &ETag, method: &Method, request: &HeaderMap) -> Wanted {
    if *method != Method::GET || !has_part_of(tag, request) {
        return Wanted::All;
    }
    let text = request
        .get(header::RANGE)
        .and_then(|range| range.to_str().ok());
    let Some(parsed) = text.and_then(|text| parse_range_header(text).ok()) else {
        return Wanted::All;
    };
    // The ranges that can be satisfied; an error if there are none.
    let Ok(ranges) = parsed.validate(length) else {
        return Wanted::Nothing;
    };
    match ranges.len() {
        // The end of a content without a byte.
        0 => Wanted::All,
        1..=MAX_RANGES => {
            let ranges = ranges
                .into_iter()
                .map(|range| *range.start()..range.end() + 1);
            Wanted::Ranges(ranges.collect())
        }
        _ => Wanted::Nothing,
    }
}

/// Whether a client that has a part of some version of the content has it of this one. What
/// cannot be read as a version is another one.
fn has_part_of(tag: &ETag, request: &HeaderMap) -> bool {
    let part_of = request.typed_get::<IfRange>();
    !request.contains_key(header::IF_RANGE)
        || part_of.is_some_and(|part_of| !part_of.is_modified(Some(tag), None))
}

fn content_range(range: &Range<u64>, length: u64) -> String {
    format!("bytes {}-{}/{length}", range.start, range.end - 1)
}

/// A part of a body.
enum Part {
    Text(Bytes),
    Bytes(Range<u64>),
}

impl Part {
    fn len(&self) -> u64 {
        match self {
            Self::Text(text) => text.len() as u64,
            Self::Bytes(range) => range.end - range.start,
        }
    }
}

fn multipart_of(ranges: &[Range<u64>], kind: &str, length: u64) -> VecDeque<Part> {
    let mut parts = VecDeque::new();
    for range in ranges {
        let place = content_range(range, length);
        let head =
            format!("\r\n--{BOUNDARY}\r\nContent-Type: {kind}\r\nContent-Range: {place}\r\n\r\n");
        parts.push_back(Part::Text(head.into()));
        parts.push_back(Part::Bytes(range.clone()));
    }
    parts.push_back(Part::Text(format!("\r\n--{BOUNDARY}--\r\n").into()));
    parts
}

/// Reads the parts one after the other, as fast as they are sent.
async fn body_of(parts: VecDeque<Part>, reader: ContentReader) -> io::Result<Body> {
    let Some((first, rest)) = next_piece((parts, reader)).await? else {
        return Ok(Body::empty());
    };
    let first = stream::iter([Ok(first)]);
    let rest = stream::try_unfold(rest, next_piece);
    Ok(Body::from_stream(first.chain(rest)))
}

type BodyState = (VecDeque<Part>, ContentReader);

async fn next_piece((mut parts, mut reader): BodyState) -> io::Result<Option<(Bytes, BodyState)>> {
    loop {
        let range = match parts.pop_front() {
            None => return Ok(None),
            Some(Part::Text(text)) => return Ok(Some((text, (parts, reader)))),
            Some(Part::Bytes(range)) if range.is_empty() => continue,
            Some(Part::Bytes(range)) => range,
        };
        if reader.position() != range.start {
            reader.seek(SeekFrom::Start(range.start)).await?;
        }
        let len = (range.end - range.start).min(PIECE as u64);
        let mut piece = Vec::with_capacity(len as usize);
        let read = (&mut reader).take(len).read_buf(&mut piece).await?;
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let rest = range.start + read as u64..range.end;
        parts.push_front(Part::Bytes(rest));
        return Ok(Some((piece.into(), (parts, reader))));
    }
}

/// The type of a content by its name: what browsers play or show without running anything.
fn kind_of(name: &str) -> &'static str {
    let ending = name
        .rsplit_once('.')
        .map(|(_, ending)| ending.to_lowercase());
    match ending.as_deref() {
        Some("mp4" | "m4v") => "video/mp4",
        Some("webm") => "video/webm",
        Some("ogv") => "video/ogg",
        Some("mp3") => "audio/mpeg",
        Some("ogg" | "oga" | "opus") => "audio/ogg",
        Some("flac") => "audio/flac",
        Some("png") => "image/png",
        Some("jpg" | "jpeg") => "image/jpeg",
        Some("gif") => "image/gif",
        Some("webp") => "image/webp",
        Some("txt") => "text/plain; charset=utf-8",
        _ => "application/octet-stream",
    }
}
