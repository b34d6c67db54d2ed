//! An S3 service in memory for measurements: as little work as the protocol allows, a delay for each request, and a count of all of them.
//!
//! `s3_server --latency-ms N` prints its URL and serves any bucket to anybody, without looking at signatures or checksums, until its standard
//! input closes. A line `counts` there is answered with the requests by method since the last one, as JSON.
//! Knows what restic, `object_store` and the calls of `lifeboat store` need: put (also `If-None-Match: *`), get with ranges, head, delete, list
//! version 2. Every other call is refused as not implemented. Must not be used to prove anything about correctness.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::string_slice,
    clippy::disallowed_methods,
    reason = "a tool for measurements"
)]

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::BufRead as _;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::{Bytes, BytesMut};
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::header::{CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, ETAG, HeaderValue, IF_NONE_MATCH, LAST_MODIFIED, RANGE};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;

/// A whole answer.
struct Whole(Option<Bytes>);

impl Body for Whole {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        Poll::Ready(self.0.take().map(|bytes| Ok(Frame::data(bytes))))
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.0.as_ref().map_or(0, |bytes| bytes.len() as u64))
    }
}

struct File {
    bytes: Bytes,
    stored_at: u64,
    etag: String,
}

#[derive(Default)]
struct State {
    files: BTreeMap<String, File>,
    counts: BTreeMap<String, u64>,
    puts: u64,
}

type Shared = Arc<Mutex<State>>;
type Answer = Response<Whole>;

fn answer(status: StatusCode, body: impl Into<Bytes>) -> Answer {
    let body = body.into();
    let mut answer = Response::new(Whole((!body.is_empty()).then_some(body)));
    *answer.status_mut() = status;
    answer
}

fn xml(status: StatusCode, body: String) -> Answer {
    let mut answer = answer(status, body);
    answer
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static("application/xml"));
    answer
}

fn refused(status: StatusCode, code: &str) -> Answer {
    xml(
        status,
        format!("<?xml version=\"1.0\"?><Error><Code>{code}</Code><Message>{code}</Message></Error>"),
    )
}

/// Year, month, day, hour, minute, second.
fn civil(seconds: u64) -> (u64, u64, u64, u64, u64, u64) {
    // Days since 0000-03-01; the algorithm counts in eras of 400 years.
    let days = seconds / 86_400 + 719_468;
    let (era, of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    let of_day = seconds % 86_400;
    (year, month, day, of_day / 3600, of_day / 60 % 60, of_day % 60)
}

fn iso_date(seconds: u64) -> String {
    let (year, month, day, hour, minute, second) = civil(seconds);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.000Z")
}

fn http_date(seconds: u64) -> String {
    const DAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
    const MONTHS: [&str; 12] = [
        "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
    ];
    let (year, month, day, hour, minute, second) = civil(seconds);
    let weekday = DAYS[usize::try_from(seconds / 86_400 % 7).unwrap()];
    let month = MONTHS[usize::try_from(month - 1).unwrap()];
    format!("{weekday}, {day:02} {month} {year:04} {hour:02}:{minute:02}:{second:02} GMT")
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

async fn collect(mut body: Incoming) -> Result<Bytes, hyper::Error> {
    let mut whole = BytesMut::new();
    while let Some(frame) = std::future::poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
        if let Ok(data) = frame?.into_data() {
            whole.extend_from_slice(&data);
        }
    }
    Ok(whole.freeze())
}

/// Takes the chunks of a signed stream apart: `size;chunk-signature=…\r\n bytes \r\n`, the last of size 0.
fn unchunked(bytes: &Bytes) -> Option<Bytes> {
    let mut whole = BytesMut::with_capacity(bytes.len());
    let mut at = 0;
    loop {
        let rest = bytes.get(at..)?;
        let end = rest.windows(2).position(|pair| pair == b"\r\n")?;
        let head = std::str::from_utf8(rest.get(..end)?).ok()?;
        let size = usize::from_str_radix(head.split(';').next()?, 16).ok()?;
        if size == 0 {
            return Some(whole.freeze());
        }
        let from = at + end + 2;
        whole.extend_from_slice(bytes.get(from..from + size)?);
        at = from + size + 2;
    }
}

fn decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, behind)) = rest.split_first() {
        let hex = behind.get(..2).and_then(|hex| std::str::from_utf8(hex).ok());
        match (first, hex.and_then(|hex| u8::from_str_radix(hex, 16).ok())) {
            (b'%', Some(byte)) => {
                bytes.push(byte);
                rest = &behind[2..];
            }
            (b'+', _) => {
                bytes.push(b' ');
                rest = behind;
            }
            _ => {
                bytes.push(first);
                rest = behind;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn list(state: &State, bucket: &str, query: &BTreeMap<String, String>) -> Answer {
    let get = |name: &str| query.get(name).map(String::as_str).unwrap_or_default();
    let (prefix, delimiter, token) = (get("prefix"), get("delimiter"), get("continuation-token"));
    let after = get("start-after").max(token);
    let limit: usize = get("max-keys").parse().unwrap_or(1000);
    let from = format!("{bucket}/{prefix}");
    let (mut contents, mut folders, mut count, mut next) = (String::new(), Vec::<String>::new(), 0, String::new());
    for (name, file) in state
        .files
        .range(from.clone()..)
        .take_while(|(name, _)| name.starts_with(&from))
    {
        let key = &name[bucket.len() + 1..];
        let below = &key[prefix.len()..];
        let folder = (!delimiter.is_empty())
            .then(|| {
                below
                    .split_once(delimiter)
                    .map(|(first, _)| format!("{prefix}{first}{delimiter}"))
            })
            .flatten();
        if !after.is_empty() && (key <= after || folder.as_deref().is_some_and(|folder| after.starts_with(folder))) {
            continue;
        }
        if folder.as_ref().is_some_and(|folder| folders.contains(folder)) {
            continue;
        }
        if count == limit {
            contents.push_str(&format!("<NextContinuationToken>{next}</NextContinuationToken>"));
            break;
        }
        count += 1;
        key.clone_into(&mut next);
        match folder {
            Some(folder) => folders.push(folder),
            None => write!(
                contents,
                "<Contents><Key>{key}</Key><LastModified>{}</LastModified><ETag>&quot;{}&quot;</ETag><Size>{}</Size><StorageClass>STANDARD</StorageClass></Contents>",
                iso_date(file.stored_at),
                file.etag,
                file.bytes.len()
            )
            .unwrap(),
        }
    }
    let truncated = contents.contains("<NextContinuationToken>");
    let folders: String = folders
        .iter()
        .map(|folder| format!("<CommonPrefixes><Prefix>{folder}</Prefix></CommonPrefixes>"))
        .collect();
    xml(
        StatusCode::OK,
        format!(
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?><ListBucketResult xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\"><Name>{bucket}</Name>\
             <Prefix>{prefix}</Prefix><KeyCount>{count}</KeyCount><MaxKeys>{limit}</MaxKeys><IsTruncated>{truncated}</IsTruncated>{contents}{folders}</ListBucketResult>"
        ),
    )
}

fn of_bucket(state: &State, method: &Method, bucket: &str, query: &BTreeMap<String, String>) -> Answer {
    match *method {
        Method::GET if query.contains_key("location") => xml(
            StatusCode::OK,
            "<?xml version=\"1.0\"?><LocationConstraint xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\"></LocationConstraint>"
                .to_owned(),
        ),
        Method::GET if query.contains_key("list-type") => list(state, bucket, query),
        Method::HEAD => answer(StatusCode::OK, ""),
        Method::PUT if query.is_empty() => answer(StatusCode::OK, ""),
        _ => refused(StatusCode::NOT_IMPLEMENTED, "NotImplemented"),
    }
}

/// First and last byte that a range asks for.
fn range(header: &str, size: usize) -> Option<(usize, usize)> {
    let (first, last) = header.strip_prefix("bytes=")?.split_once('-')?;
    let end = size.checked_sub(1)?;
    let (first, last) = match (first.parse::<usize>().ok(), last.parse::<usize>().ok()) {
        (Some(first), Some(last)) => (first, last.min(end)),
        (Some(first), None) => (first, end),
        (None, Some(length)) => (size.saturating_sub(length), end),
        (None, None) => return None,
    };
    (first <= last).then_some((first, last))
}

fn read(file: &File, asked: Option<&HeaderValue>, head: bool) -> Answer {
    let size = file.bytes.len();
    let mut answer = match asked.and_then(|header| header.to_str().ok()) {
        None => answer(StatusCode::OK, if head { Bytes::new() } else { file.bytes.clone() }),
        Some(header) => match range(header, size) {
            None => return refused(StatusCode::RANGE_NOT_SATISFIABLE, "InvalidRange"),
            Some((first, last)) => {
                let mut answer = answer(StatusCode::PARTIAL_CONTENT, file.bytes.slice(first..=last));
                let says = format!("bytes {first}-{last}/{size}");
                answer
                    .headers_mut()
                    .insert(CONTENT_RANGE, HeaderValue::try_from(says).unwrap());
                answer
            }
        },
    };
    let headers = answer.headers_mut();
    if head {
        headers.insert(CONTENT_LENGTH, HeaderValue::from(size));
    }
    headers.insert(LAST_MODIFIED, HeaderValue::try_from(http_date(file.stored_at)).unwrap());
    headers.insert(ETAG, HeaderValue::try_from(format!("\"{}\"", file.etag)).unwrap());
    answer
}

async fn serve(state: Shared, latency: Duration, request: Request<Incoming>) -> Result<Answer, hyper::Error> {
    let (parts, body) = request.into_parts();
    let body = collect(body).await?;
    if !latency.is_zero() {
        tokio::time::sleep(latency).await;
    }
    let query: BTreeMap<String, String> = parts
        .uri
        .query()
        .unwrap_or_default()
        .split('&')
        .filter(|part| !part.is_empty())
        .map(|part| part.split_once('=').unwrap_or((part, "")))
        .map(|(name, value)| (decoded(name), decoded(value)))
        .collect();
    let path = decoded(parts.uri.path().trim_start_matches('/'));
    let mut state = state.lock().unwrap();
    *state.counts.entry(parts.method.to_string()).or_default() += 1;
    let (bucket, key) = path.split_once('/').unwrap_or((&path, ""));
    if key.is_empty() {
        return Ok(of_bucket(&state, &parts.method, bucket, &query));
    }
    Ok(match parts.method {
        Method::PUT if query.is_empty() || query.contains_key("x-id") => {
            if parts.headers.contains_key(IF_NONE_MATCH) && state.files.contains_key(&path) {
                return Ok(refused(StatusCode::PRECONDITION_FAILED, "PreconditionFailed"));
            }
            let streamed = parts
                .headers
                .get("x-amz-content-sha256")
                .is_some_and(|digest| digest.as_bytes().starts_with(b"STREAMING-"));
            let bytes = if streamed { unchunked(&body) } else { Some(body) };
            let Some(bytes) = bytes else {
                return Ok(refused(StatusCode::BAD_REQUEST, "IncompleteBody"));
            };
            state.puts += 1;
            let etag = format!("{:032x}", state.puts);
            let mut answer = answer(StatusCode::OK, "");
            answer
                .headers_mut()
                .insert(ETAG, HeaderValue::try_from(format!("\"{etag}\"")).unwrap());
            let stored_at = now();
            state.files.insert(path, File { bytes, stored_at, etag });
            answer
        }
        Method::GET | Method::HEAD => match state.files.get(&path) {
            Some(file) => read(file, parts.headers.get(RANGE), parts.method == Method::HEAD),
            None if parts.method == Method::HEAD => answer(StatusCode::NOT_FOUND, ""),
            None => refused(StatusCode::NOT_FOUND, "NoSuchKey"),
        },
        Method::DELETE => {
            state.files.remove(&path);
            answer(StatusCode::NO_CONTENT, "")
        }
        _ => refused(StatusCode::NOT_IMPLEMENTED, "NotImplemented"),
    })
}

/// Answers `counts` until the input closes.
fn obey(state: &Shared) {
    for line in std::io::stdin().lock().lines().map_while(Result::ok) {
        if line == "counts" {
            let counts = std::mem::take(&mut state.lock().unwrap().counts);
            let fields: Vec<String> = counts
                .iter()
                .map(|(method, count)| format!("\"{method}\": {count}"))
                .collect();
            println!("{{{}}}", fields.join(", "));
        }
    }
}

#[tokio::main]
async fn main() {
    let mut words = std::env::args().skip(1);
    let mut latency = Duration::ZERO;
    while let Some(word) = words.next() {
        assert_eq!(word, "--latency-ms", "usage: s3_server [--latency-ms N]");
        latency = Duration::from_millis(words.next().unwrap().parse().unwrap());
    }
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    println!("http://{}", listener.local_addr().unwrap());
    let state = Shared::default();
    let ours = Arc::clone(&state);
    std::thread::spawn(move || {
        obey(&ours);
        std::process::exit(0);
    });
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        stream.set_nodelay(true).unwrap();
        let state = Arc::clone(&state);
        tokio::spawn(async move {
            let service = service_fn(move |request| serve(Arc::clone(&state), latency, request));
            // A client that goes away in the middle is its own affair.
            drop(
                hyper::server::conn::http1::Builder::new()
                    .serve_connection(TokioIo::new(stream), service)
                    .await,
            );
        });
    }
}
