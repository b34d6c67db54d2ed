//! A small S3 server in this process, on loopback: keeps objects in memory, checks signatures and checksums, and goes wrong as told.
//!
//! The faults are those of a wire and of a real service: an answer that never arrives, a service that is overloaded, a conflict, a page
//! of a listing that fails, a body that breaks off. They come by script ([`S3Server::script`]), first come first served, for the
//! first request that fits, or by the number of a request ([`S3Server::plan`]). In any request somebody can be struck down
//! ([`S3Server::strike`]). Must not be used by the product.

mod objects;
mod plan;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
pub use hyper::Method;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use lifeboat_model::{Error, Result};
use lifeboat_store::cloud::{S3Credentials, S3Settings, Secret};
use objects::Objects;
pub use objects::Snapshot;
use plan::{Aim, Come, Planned};
pub use plan::{Asked, Moment, S3Fault, Strike};
use s3s::auth::SimpleAuth;
use s3s::service::{S3Service, S3ServiceBuilder};
use s3s::{Body, HttpError};
use tokio::net::TcpListener;
use tokio::task::{AbortHandle, JoinSet};

/// The one bucket that is there.
pub const BUCKET: &str = "backups";
/// The access key that is known.
pub const ACCESS_KEY: &str = "AKIATESTKIT";
/// Its secret key.
pub const SECRET_KEY: &str = "a secret that no message holds";

/// How often the server was asked.
#[derive(Debug, Default)]
pub struct Requests {
    put: AtomicU64,
    get: AtomicU64,
    head: AtomicU64,
    list: AtomicU64,
    delete: AtomicU64,
}

impl Requests {
    fn count(&self, request: &Request<Incoming>) {
        let listing = request.uri().query().is_some_and(|query| query.contains("list-type"));
        let counter = match *request.method() {
            Method::PUT => &self.put,
            Method::HEAD => &self.head,
            Method::DELETE => &self.delete,
            _ if listing => &self.list,
            _ => &self.get,
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    /// Puts, reads, looks, listings (pages) and deletions so far.
    #[must_use]
    pub fn so_far(&self) -> [u64; 5] {
        [&self.put, &self.get, &self.head, &self.list, &self.delete].map(|counter| counter.load(Ordering::Relaxed))
    }
}

#[derive(Debug)]
struct Inner {
    objects: Objects,
    planned: Mutex<Planned>,
    latency: Duration,
    requests: Requests,
    late: Mutex<Vec<Late>>,
}

/// What is done once more, or at last, when [`S3Server::settle`] is called.
#[derive(Debug)]
struct Late {
    head: hyper::http::request::Parts,
    body: Bytes,
}

impl Late {
    fn request(self) -> Request<Body> {
        Request::from_parts(self.head, Body::from(self.body))
    }
}

/// A running server; it ends when this is dropped.
#[derive(Debug)]
pub struct S3Server {
    inner: Arc<Inner>,
    service: S3Service,
    address: SocketAddr,
    accepting: AbortHandle,
    /// Holds the accept loop, which holds the connections.
    tasks: JoinSet<()>,
}

/// How the server behaves from the beginning.
#[derive(Debug, Clone, Copy)]
pub struct S3Options {
    /// Waits so long before each request is looked at.
    pub latency: Duration,
    /// Whether `If-None-Match` is heeded; some services pass over it.
    pub conditions: bool,
    /// Names on a page of a listing.
    pub page: usize,
    /// The port, or 0 for any that is free.
    pub port: u16,
}

impl Default for S3Options {
    fn default() -> Self {
        Self {
            latency: Duration::ZERO,
            conditions: true,
            page: 1000,
            port: 0,
        }
    }
}

impl S3Server {
    /// Starts a server on a free port of loopback.
    pub async fn start(options: S3Options) -> Result<Self> {
        let failed = |error| Error::io("listen on", "127.0.0.1", error);
        let listener = TcpListener::bind(("127.0.0.1", options.port)).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        let objects = Objects::new(options.conditions, options.page);
        let mut builder = S3ServiceBuilder::new(objects.clone());
        builder.set_auth(SimpleAuth::from_single(ACCESS_KEY, SECRET_KEY));
        let service = builder.build();
        let inner = Arc::new(Inner {
            objects,
            planned: Mutex::default(),
            latency: options.latency,
            requests: Requests::default(),
            late: Mutex::default(),
        });
        let mut tasks = JoinSet::new();
        let accepting = tasks.spawn(accept(listener, service.clone(), Arc::clone(&inner)));
        Ok(Self {
            inner,
            service,
            address,
            accepting,
            tasks,
        })
    }

    /// `http://127.0.0.1:PORT`.
    #[must_use]
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// What a store needs to know to use the bucket of this server.
    #[must_use]
    pub fn settings(&self) -> S3Settings {
        settings_for(&self.endpoint())
    }

    fn planned(&self) -> std::sync::MutexGuard<'_, Planned> {
        self.inner.planned.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next `times` requests of `method` with `part` in their address go wrong as `fault` says.
    pub fn script(&self, method: Method, part: &'static str, fault: S3Fault, times: usize) {
        self.planned().script(Aim { method, part }, fault, times);
    }

    /// Whether every scripted fault has come.
    #[must_use]
    pub fn script_is_done(&self) -> bool {
        self.planned().script_is_done()
    }

    /// Counts requests from 0 anew; those with a number in `faults` go wrong so, where the fault is one for such a request.
    pub fn plan(&self, faults: BTreeMap<u64, S3Fault>) {
        self.planned().begin(faults);
    }

    /// The requests since [`Self::plan`], each with the faults that would fit it.
    #[must_use]
    pub fn asked(&self) -> Vec<Asked> {
        self.planned().asked().to_vec()
    }

    /// How many of the planned faults have come.
    #[must_use]
    pub fn came(&self) -> u64 {
        self.planned().came()
    }

    /// In a request, counted from 0 anew, somebody is struck down.
    pub fn strike(&self, strike: Strike) {
        let mut planned = self.planned();
        planned.begin(BTreeMap::new());
        planned.strike(strike);
    }

    /// Everything that is stored.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        self.inner.objects.snapshot()
    }

    /// Stores exactly what `snapshot` holds.
    pub fn load(&self, snapshot: Snapshot) {
        self.inner.objects.load(snapshot);
    }

    /// Makes everything that is stored older.
    pub fn age(&self, by: Duration) {
        self.inner.objects.age(by);
    }

    /// How often it was asked.
    #[must_use]
    pub fn requests(&self) -> &Requests {
        &self.inner.requests
    }

    /// The names that are there, in order.
    #[must_use]
    pub fn names(&self) -> Vec<String> {
        self.inner.objects.names()
    }

    /// The storage class of an object, where one was given.
    #[must_use]
    pub fn storage_class(&self, name: &str) -> Option<String> {
        self.inner.objects.storage_class(name)
    }

    /// Does what was put off, and what is done once more; whatever it answers, nobody hears it.
    pub async fn settle(&self) {
        let late = std::mem::take(&mut *self.inner.late.lock().unwrap_or_else(PoisonError::into_inner));
        for late in late {
            drop(self.service.call(late.request()).await);
        }
    }

    /// Serves until it is aborted or its listener fails: for a server that is a program.
    pub async fn wait(mut self) {
        while self.tasks.join_next().await.is_some() {}
    }
}

impl Drop for S3Server {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

/// What a store needs to know to use the bucket of the server with this endpoint, which may be in another process.
#[must_use]
pub fn settings_for(endpoint: &str) -> S3Settings {
    S3Settings {
        bucket: BUCKET.to_owned(),
        region: Some("us-east-1".to_owned()),
        endpoint: Some(endpoint.to_owned()),
        path_style: true,
        credentials: Some(S3Credentials {
            access_key: ACCESS_KEY.to_owned(),
            secret_key: Secret::new(SECRET_KEY),
            session_token: None,
        }),
        ..S3Settings::default()
    }
}

async fn accept(listener: TcpListener, service: S3Service, inner: Arc<Inner>) {
    let mut connections = JoinSet::new();
    loop {
        let Ok((stream, _)) = listener.accept().await else { return };
        // Small answers would wait for the client's acknowledgement otherwise.
        if stream.set_nodelay(true).is_err() {
            continue;
        }
        let (service, inner) = (service.clone(), Arc::clone(&inner));
        connections.spawn(async move {
            let answer = service_fn(|request| answer(&service, &inner, request));
            let served = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), answer)
                .await;
            // A connection that breaks is the client's matter, and here often the fault that was asked for.
            drop(served);
        });
        while connections.try_join_next().is_some() {}
    }
}

async fn answer(
    service: &S3Service,
    inner: &Inner,
    request: Request<Incoming>,
) -> std::result::Result<Response<Body>, HttpError> {
    inner.requests.count(&request);
    if !inner.latency.is_zero() {
        tokio::time::sleep(inner.latency).await;
    }
    let (parts, body) = request.into_parts();
    let come = inner.planned.lock().unwrap_or_else(PoisonError::into_inner).next(&parts);
    match come {
        Come::Calm => service.call(Request::from_parts(parts, Body::from(body))).await,
        Come::Fault(fault) => go_wrong(service, inner, parts, http_body_bytes(body).await?, fault).await,
        Come::Strike(strike) => struck(service, parts, body, strike).await,
    }
}

async fn go_wrong(
    service: &S3Service,
    inner: &Inner,
    parts: hyper::http::request::Parts,
    whole: Bytes,
    fault: S3Fault,
) -> std::result::Result<Response<Body>, HttpError> {
    let again = || Request::from_parts(parts.clone(), Body::from(whole.clone()));
    let later = || {
        let (head, body) = (parts.clone(), whole.clone());
        let mut late = inner.late.lock().unwrap_or_else(PoisonError::into_inner);
        late.push(Late { head, body });
    };
    match fault {
        S3Fault::ReplyLost => {
            service.call(again()).await?;
            Err(broken())
        }
        S3Fault::SlowDown => Ok(refusal(503, "SlowDown")),
        S3Fault::Internal => Ok(refusal(500, "InternalError")),
        S3Fault::Conflict => Ok(refusal(409, "ConditionalRequestConflict")),
        S3Fault::Refused(status, code) => Ok(refusal(status, code)),
        S3Fault::Twice => {
            service.call(again()).await?;
            service.call(again()).await
        }
        S3Fault::Again => {
            later();
            service.call(again()).await
        }
        S3Fault::Late => {
            later();
            Err(broken())
        }
        S3Fault::CutBody => {
            let (head, body) = service.call(again()).await?.into_parts();
            Ok(Response::from_parts(head, cut(body, || {}).await?))
        }
        S3Fault::Shortened | S3Fault::WrongByte => changed(service.call(again()).await?, fault).await,
        S3Fault::Later => {
            later();
            let mut answer = Response::new(Body::empty());
            *answer.status_mut() = StatusCode::NO_CONTENT;
            Ok(answer)
        }
    }
}

/// An answer that is well-formed and not what is stored; what is no success stays as it is.
async fn changed(answer: Response<Body>, fault: S3Fault) -> std::result::Result<Response<Body>, HttpError> {
    let (mut head, mut body) = answer.into_parts();
    let mut bytes = body.store_all_limited(usize::MAX).await.map_err(HttpError::new)?.to_vec();
    if head.status.is_success() {
        match fault {
            S3Fault::Shortened => {
                bytes.truncate(bytes.len() / 2);
                head.headers.insert(hyper::header::CONTENT_LENGTH, bytes.len().into());
            }
            _ => {
                let middle = bytes.len() / 2;
                if let Some(byte) = bytes.get_mut(middle) {
                    *byte ^= 1;
                }
            }
        }
    }
    Ok(Response::from_parts(head, Body::from(Bytes::from(bytes))))
}

/// Somebody dies in this request; nobody hears an answer.
async fn struck(
    service: &S3Service,
    parts: hyper::http::request::Parts,
    body: Incoming,
    strike: Strike,
) -> std::result::Result<Response<Body>, HttpError> {
    match strike.moment {
        Moment::Before => {
            strike.fall();
            Err(broken())
        }
        Moment::Middle if parts.method == Method::PUT => {
            let length = parts.headers.get(hyper::header::CONTENT_LENGTH);
            let length = length
                .and_then(|value| value.to_str().ok()?.parse::<usize>().ok())
                .unwrap_or(0);
            let (mut body, mut read) = (Body::from(body), 0);
            while read < length.div_ceil(2) {
                match futures_util::TryStreamExt::try_next(&mut body).await {
                    Ok(Some(piece)) => read += piece.len(),
                    Ok(None) | Err(_) => break,
                }
            }
            strike.fall();
            Err(broken())
        }
        Moment::Middle if parts.method == Method::GET => {
            let (head, body) = service.call(Request::from_parts(parts, Body::from(body))).await?.into_parts();
            Ok(Response::from_parts(head, cut(body, move || strike.fall()).await?))
        }
        Moment::Middle | Moment::After => {
            let answer = service.call(Request::from_parts(parts, Body::from(body))).await;
            strike.fall();
            answer.and_then(|_| Err(broken()))
        }
    }
}

fn broken() -> HttpError {
    HttpError::new(Box::new(std::io::Error::from(std::io::ErrorKind::ConnectionReset)))
}

async fn http_body_bytes(body: Incoming) -> std::result::Result<Bytes, HttpError> {
    let mut body = Body::from(body);
    body.store_all_limited(usize::MAX).await.map_err(HttpError::new)
}

/// The first half of a body, then what happens there, and then a broken connection.
async fn cut(mut body: Body, then: impl FnOnce() + Send + Sync + 'static) -> std::result::Result<Body, HttpError> {
    let whole = body.store_all_limited(usize::MAX).await.map_err(HttpError::new)?;
    let half = futures_util::stream::iter([Ok(whole.slice(..whole.len() / 2))]);
    let end = futures_util::stream::once(async move {
        then();
        Err(std::io::Error::from(std::io::ErrorKind::ConnectionReset))
    });
    let pieces = Box::pin(futures_util::StreamExt::chain(half, end));
    Ok(Body::from(s3s::dto::StreamingBlob::wrap(pieces)))
}

fn refusal(status: u16, code: &str) -> Response<Body> {
    let text =
        format!("<?xml version=\"1.0\" encoding=\"UTF-8\"?><Error><Code>{code}</Code><Message>as scripted</Message></Error>");
    let mut answer = Response::new(Body::from(text));
    *answer.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    answer
}
