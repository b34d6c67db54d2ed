//! A small S3 server in this process, on loopback: keeps objects in memory, checks signatures and checksums, and goes wrong as told.
//!
//! The faults are those of a wire and of a real service: an answer that never arrives, a service that is overloaded, a conflict, a page
//! of a listing that fails, a body that breaks off. They come by script ([`S3Server::script`]), first come first served, for the
//! first request that fits. Must not be used by the product.

mod objects;

use std::collections::VecDeque;
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

/// What goes wrong with a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum S3Fault {
    /// The request is done, and the connection breaks before the answer.
    ReplyLost,
    /// Nothing is done; the answer is `503 SlowDown`.
    SlowDown,
    /// Nothing is done; the answer is `500 InternalError`.
    Internal,
    /// Nothing is done; the answer is `409 ConditionalRequestConflict`.
    Conflict,
    /// The request is done twice; the second answer is sent.
    Twice,
    /// The answer's body breaks off in its middle.
    CutBody,
    /// A deletion is answered at once and done when [`S3Server::settle`] is called.
    Later,
    /// Nothing is done; the answer has this status and code.
    Refused(u16, &'static str),
}

/// Which requests a fault is for.
#[derive(Debug, Clone)]
pub struct Aim {
    /// The method.
    pub method: Method,
    /// Part of the path or the query.
    pub part: &'static str,
}

#[derive(Debug)]
struct Scripted {
    aim: Aim,
    fault: S3Fault,
    times: usize,
}

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
    script: Mutex<VecDeque<Scripted>>,
    latency: Duration,
    requests: Requests,
    late: Mutex<Vec<String>>,
}

/// A running server; it ends when this is dropped.
#[derive(Debug)]
pub struct S3Server {
    inner: Arc<Inner>,
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
            script: Mutex::default(),
            latency: options.latency,
            requests: Requests::default(),
            late: Mutex::default(),
        });
        let mut tasks = JoinSet::new();
        let accepting = tasks.spawn(accept(listener, service, Arc::clone(&inner)));
        Ok(Self {
            inner,
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
        S3Settings {
            bucket: BUCKET.to_owned(),
            region: Some("us-east-1".to_owned()),
            endpoint: Some(self.endpoint()),
            path_style: true,
            credentials: Some(S3Credentials {
                access_key: ACCESS_KEY.to_owned(),
                secret_key: Secret::new(SECRET_KEY),
                session_token: None,
            }),
            ..S3Settings::default()
        }
    }

    /// The next `times` requests of `method` with `part` in their address go wrong as `fault` says.
    pub fn script(&self, method: Method, part: &'static str, fault: S3Fault, times: usize) {
        let aim = Aim { method, part };
        let mut script = self.inner.script.lock().unwrap_or_else(PoisonError::into_inner);
        script.push_back(Scripted { aim, fault, times });
    }

    /// Whether every scripted fault has come.
    #[must_use]
    pub fn script_is_done(&self) -> bool {
        self.inner.script.lock().unwrap_or_else(PoisonError::into_inner).is_empty()
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

    /// Does the deletions that were put off.
    pub fn settle(&self) {
        let late: Vec<String> = std::mem::take(&mut *self.inner.late.lock().unwrap_or_else(PoisonError::into_inner));
        for name in late {
            self.inner.objects.remove(&name);
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
    let Some(fault) = next_fault(inner, &parts.method, &parts.uri.to_string()) else {
        return service.call(Request::from_parts(parts, Body::from(body))).await;
    };
    let whole = http_body_bytes(body).await?;
    let again = || Request::from_parts(parts.clone(), Body::from(whole.clone()));
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
        S3Fault::CutBody => {
            let (head, body) = service.call(again()).await?.into_parts();
            Ok(Response::from_parts(head, cut(body).await?))
        }
        S3Fault::Later => {
            let name = parts.uri.path().trim_start_matches('/');
            let name = name.strip_prefix(BUCKET).unwrap_or(name).trim_start_matches('/');
            let mut late = inner.late.lock().unwrap_or_else(PoisonError::into_inner);
            late.push(name.to_owned());
            let mut answer = Response::new(Body::empty());
            *answer.status_mut() = StatusCode::NO_CONTENT;
            Ok(answer)
        }
    }
}

fn next_fault(inner: &Inner, method: &Method, address: &str) -> Option<S3Fault> {
    let mut script = inner.script.lock().unwrap_or_else(PoisonError::into_inner);
    let index = script
        .iter()
        .position(|scripted| scripted.aim.method == *method && address.contains(scripted.aim.part))?;
    let scripted = script.get_mut(index)?;
    let fault = scripted.fault;
    scripted.times = scripted.times.saturating_sub(1);
    if scripted.times == 0 {
        script.remove(index);
    }
    Some(fault)
}

fn broken() -> HttpError {
    HttpError::new(Box::new(std::io::Error::from(std::io::ErrorKind::ConnectionReset)))
}

async fn http_body_bytes(body: Incoming) -> std::result::Result<Bytes, HttpError> {
    let mut body = Body::from(body);
    body.store_all_limited(usize::MAX).await.map_err(HttpError::new)
}

/// The first half of a body, and then a broken connection.
async fn cut(mut body: Body) -> std::result::Result<Body, HttpError> {
    let whole = body.store_all_limited(usize::MAX).await.map_err(HttpError::new)?;
    let half = whole.slice(..whole.len() / 2);
    let pieces = [Ok(half), Err(std::io::Error::from(std::io::ErrorKind::ConnectionReset))];
    Ok(Body::from(s3s::dto::StreamingBlob::wrap(futures_util::stream::iter(pieces))))
}

fn refusal(status: u16, code: &str) -> Response<Body> {
    let text =
        format!("<?xml version=\"1.0\" encoding=\"UTF-8\"?><Error><Code>{code}</Code><Message>as scripted</Message></Error>");
    let mut answer = Response::new(Body::from(text));
    *answer.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    answer
}
