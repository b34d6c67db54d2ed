//! The S3 store against the server of the testkit, which goes wrong as told.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use lifeboat_model::ErrorKind;
use lifeboat_store::cloud::{self, CloudSettings, CloudStore, S3Settings, Secret, StorageClass};
use lifeboat_store::layer::retry::{Policy, Sleep};
use lifeboat_store::{BlobStore, Put};
use lifeboat_testkit::conformance::store::run;
use lifeboat_testkit::pages::random_bytes;
use lifeboat_testkit::s3::{Method, S3Fault, S3Options, S3Server, SECRET_KEY};

use crate::conformance::NoSleep;
use crate::{key, put_new};

/// The method of a scripted request.
fn method(name: &str) -> Method {
    name.parse().unwrap()
}

async fn server() -> S3Server {
    S3Server::start(S3Options::default()).await.unwrap()
}

async fn open(settings: S3Settings) -> CloudStore {
    let policy = Policy {
        attempts: 5,
        ..Policy::default()
    };
    let sleep: Arc<dyn Sleep> = Arc::new(NoSleep::default());
    cloud::open_with(CloudSettings::S3(settings), policy, sleep).await.unwrap()
}

/// One server and a folder of its own for each store.
async fn conformance(options: S3Options) {
    let server = S3Server::start(options).await.unwrap();
    let number = AtomicUsize::new(0);
    run(async || {
        let settings = S3Settings {
            prefix: Some(key(&format!("run/{}", number.fetch_add(1, Ordering::SeqCst)))),
            ..server.settings()
        };
        let store = open(settings).await;
        assert_eq!(store.probe().await.unwrap().conditional_put, options.conditions);
        Arc::new(store) as Arc<dyn BlobStore>
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn s3_keeps_the_contract() {
    conformance(S3Options::default()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn s3_with_small_pages_keeps_the_contract() {
    let options = S3Options {
        page: 2,
        ..S3Options::default()
    };
    conformance(options).await;
}

/// Everything but the race of different contents for one name, which the suite asks only of stores that refuse by themselves.
#[tokio::test(flavor = "multi_thread")]
async fn s3_that_ignores_conditions_keeps_what_it_can() {
    let options = S3Options {
        conditions: false,
        ..S3Options::default()
    };
    conformance(options).await;
}

#[tokio::test]
async fn the_probe_leaves_nothing_behind_and_tries_once() {
    let server = server().await;
    let store = open(server.settings()).await;
    assert!(!store.capabilities().conditional_put, "nothing is known before it was tried");
    assert_eq!(store.put(&key("a"), Bytes::from_static(b"1")).await.unwrap(), Put::Created);
    assert!(store.capabilities().conditional_put);
    let [puts, ..] = server.requests().so_far();
    assert_eq!(store.put(&key("b"), Bytes::from_static(b"2")).await.unwrap(), Put::Created);
    assert_eq!(server.requests().so_far()[0], puts + 1, "one request for one put");
    assert_eq!(server.names(), ["a", "b"]);
}

/// Design test 7, the puts: whatever the wire does, a put that succeeded is there, and one that failed says so.
#[tokio::test]
async fn a_put_survives_the_lies_of_the_wire() {
    let faults = [
        (S3Fault::ReplyLost, Put::AlreadyThere),
        (S3Fault::SlowDown, Put::Created),
        (S3Fault::Internal, Put::Created),
        (S3Fault::Conflict, Put::Created),
        (S3Fault::Twice, Put::AlreadyThere),
        (S3Fault::Refused(400, "RequestTimeout"), Put::Created),
    ];
    let server = server().await;
    let store = open(server.settings()).await;
    store.probe().await.unwrap();
    for (number, (fault, expected)) in faults.into_iter().enumerate() {
        // What is done twice is answered at once.
        let most = if fault == S3Fault::Twice { 1 } else { 3 };
        for times in 1..=most {
            let name = key(&format!("f{number}/{times}"));
            let body = Bytes::from(random_bytes(number as u64, 100_000));
            server.script(method("PUT"), "/f", fault, times);
            let put = store.put(&name, body.clone()).await.unwrap();
            assert!(server.script_is_done(), "{fault:?} came {times} times");
            // An answer that was lost once and then comes finds its own file.
            assert_eq!(put, expected, "{fault:?} × {times}");
            assert_eq!(store.get(&name, u64::MAX).await.unwrap(), body, "{fault:?} × {times}");
        }
    }
}

#[tokio::test]
async fn what_does_not_pass_is_an_error_in_the_end() {
    let server = server().await;
    let store = open(server.settings()).await;
    store.probe().await.unwrap();
    server.script(method("PUT"), "/x", S3Fault::SlowDown, 1000);
    let error = store.put(&key("x"), Bytes::from_static(b"1")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unreachable);
    assert!(error.detail().contains("503 SlowDown"), "{error}");
    assert_eq!(server.names(), Vec::<String>::new());
}

/// INV-13: a listing that fails in its middle page fails whole.
#[tokio::test]
async fn a_listing_that_fails_in_a_middle_page_fails_whole() {
    let options = S3Options {
        page: 3,
        ..S3Options::default()
    };
    let server = S3Server::start(options).await.unwrap();
    let store = open(server.settings()).await;
    for number in 0..10 {
        put_new(&store, &key(&format!("c/{number}")), Bytes::from_static(b"x")).await;
    }
    server.script(method("GET"), "continuation-token", S3Fault::Internal, 1000);
    let error = store.list(&key("c")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unreachable, "{error}");

    let server = S3Server::start(options).await.unwrap();
    let store = open(server.settings()).await;
    for number in 0..10 {
        put_new(&store, &key(&format!("c/{number}")), Bytes::from_static(b"x")).await;
    }
    server.script(method("GET"), "continuation-token", S3Fault::Internal, 2);
    server.script(method("GET"), "continuation-token", S3Fault::CutBody, 2);
    assert_eq!(store.list(&key("c")).await.unwrap().len(), 10, "what passes is tried again");
}

#[tokio::test]
async fn a_body_that_breaks_off_is_read_again() {
    let server = server().await;
    let store = open(server.settings()).await;
    let body = Bytes::from(random_bytes(1, 3 << 20));
    let name = key("c/file");
    put_new(&store, &name, body.clone()).await;
    for times in 1..=4 {
        server.script(method("GET"), "/c/file", S3Fault::CutBody, times);
        assert_eq!(store.get(&name, u64::MAX).await.unwrap(), body, "cut {times} times");
        server.script(method("GET"), "/c/file", S3Fault::CutBody, times);
        let part = store.get_range(&name, 1_000..2_000_000).await.unwrap();
        assert_eq!(part, body.slice(1_000..2_000_000), "cut {times} times");
        assert!(server.script_is_done());
    }
}

/// A file that vanishes only later is still seen, and the name can be used again afterwards.
#[tokio::test]
async fn a_deletion_may_come_late() {
    let server = server().await;
    let store = open(server.settings()).await;
    let name = key("c/file");
    put_new(&store, &name, Bytes::from_static(b"1")).await;
    server.script(method("DELETE"), "/c/file", S3Fault::Later, 1);
    store.delete(&name).await.unwrap();
    assert_eq!(store.list(&key("c")).await.unwrap().len(), 1);
    server.settle().await;
    assert_eq!(store.list(&key("c")).await.unwrap().len(), 0);
    assert_eq!(store.put(&name, Bytes::from_static(b"2")).await.unwrap(), Put::Created);
}

#[tokio::test]
async fn a_bucket_that_is_not_there_is_no_empty_store() {
    let server = server().await;
    let store = open(S3Settings {
        bucket: "other".to_owned(),
        ..server.settings()
    })
    .await;
    let name = key("c/file");
    let errors = [
        store.list(&key("c")).await.unwrap_err(),
        store.get(&name, 1).await.unwrap_err(),
        store.head(&name).await.unwrap_err(),
        store.get_range(&name, 0..1).await.unwrap_err(),
        store.put(&name, Bytes::new()).await.unwrap_err(),
        store.delete(&name).await.unwrap_err(),
    ];
    for error in errors {
        assert_eq!(error.kind(), ErrorKind::Unreachable, "{error}");
        assert!(error.detail().contains("s3://other is not there"), "{error}");
        assert!(error.hint().unwrap().contains("lifeboat store setup"), "{error}");
    }
}

/// Everything that an error shows: itself, its hint, its debug form and all its causes.
fn everything(error: &lifeboat_model::Error) -> String {
    let mut text = format!("{error}\n{error:?}\n{:?}", error.hint());
    let mut cause = std::error::Error::source(error);
    while let Some(inner) = cause {
        text.push_str(&format!("\n{inner} {inner:?}"));
        cause = inner.source();
    }
    text
}

#[tokio::test]
async fn what_the_service_refuses_is_said_clearly_and_without_secrets() {
    let server = server().await;
    let mut wrong_secret = server.settings();
    let mut unknown_key = server.settings();
    if let (Some(wrong), Some(unknown)) = (&mut wrong_secret.credentials, &mut unknown_key.credentials) {
        wrong.secret_key = Secret::new("QUITE-ANOTHER-SECRET");
        unknown.access_key = "AKIAUNKNOWN".to_owned();
    }
    for (settings, says) in [(wrong_secret, "secret key does not fit"), (unknown_key, "access")] {
        let store = open(settings).await;
        let error = store.list(&key("c")).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unreachable);
        let text = everything(&error);
        assert!(text.contains(says), "{text}");
        assert!(!text.contains("QUITE-ANOTHER") && !text.contains(SECRET_KEY), "{text}");
    }
    let store = open(server.settings()).await;
    store.probe().await.unwrap();
    let cases = [
        ("PUT", 403, "AccessDenied", "s3:PutObject"),
        ("GET", 403, "AccessDenied", "s3:GetObject"),
        ("DELETE", 403, "AccessDenied", "s3:DeleteObject"),
        ("GET", 403, "RequestTimeTooSkewed", "clock"),
        ("GET", 400, "ExpiredToken", "temporary credentials"),
        ("GET", 301, "PermanentRedirect", "region"),
        ("GET", 403, "InvalidObjectState", "cold storage class"),
        ("PUT", 507, "XMinioStorageFull", "quota"),
    ];
    for (number, (verb, status, code, says)) in cases.into_iter().enumerate() {
        // A full service is asked once more inside the same request; everything else not even that.
        let times = if status == 507 { 2 } else { 1 };
        server.script(method(verb), "/c/", S3Fault::Refused(status, code), times);
        let name = key(&format!("c/{number}"));
        let error = match verb {
            "PUT" => store.put(&name, Bytes::new()).await.unwrap_err(),
            "DELETE" => store.delete(&name).await.unwrap_err(),
            _ => store.get(&name, 1).await.unwrap_err(),
        };
        let text = everything(&error);
        assert!(text.contains(says), "{code}: {text}");
        assert!(
            error
                .hint()
                .is_some_and(|hint| hint.contains("lifeboat") || hint.contains("command")),
            "{text}"
        );
        assert!(!text.contains(SECRET_KEY), "{text}");
        assert!(server.script_is_done(), "{code} is not tried again");
    }
}

#[tokio::test]
async fn a_service_that_is_not_there_is_unreachable() {
    let server = server().await;
    let settings = server.settings();
    drop(server);
    let store = open(settings).await;
    let error = store.list(&key("c")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unreachable);
    assert!(error.hint().unwrap().contains("endpoint"), "{error}");
}

#[tokio::test]
async fn only_the_files_that_it_is_for_get_the_storage_class() {
    let server = server().await;
    let store = open(S3Settings {
        storage_class: Some(StorageClass {
            name: "STANDARD_IA".to_owned(),
            applies: |key| key.as_str().starts_with("packs/"),
        }),
        ..server.settings()
    })
    .await;
    for name in ["packs/a", "backups/a"] {
        put_new(&store, &key(name), Bytes::from_static(b"1")).await;
    }
    assert_eq!(server.storage_class("packs/a").as_deref(), Some("STANDARD_IA"));
    assert_eq!(server.storage_class("backups/a"), None);
}
