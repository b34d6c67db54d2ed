//! The S3 store against `moto`, a service that knows versions and locks.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use lifeboat_store::BlobStore;
use lifeboat_store::cloud::{self, CloudSettings, S3Credentials, S3Settings, Secret};
use lifeboat_store::s3admin::Bucket;
use lifeboat_testkit::conformance::store::run;
use lifeboat_testkit::moto::Moto;

use crate::key;

/// A bucket that was made for this test.
async fn bucket(test: &str, with_lock: bool) -> S3Settings {
    let moto = Moto::shared();
    let settings = S3Settings {
        bucket: moto.bucket(test),
        region: Some("us-east-1".to_owned()),
        endpoint: Some(moto.endpoint().to_owned()),
        path_style: true,
        credentials: Some(S3Credentials {
            access_key: "AKIATEST".to_owned(),
            secret_key: Secret::new("any"),
            session_token: None,
        }),
        ..S3Settings::default()
    };
    Bucket::open(&settings).unwrap().create(with_lock).await.unwrap();
    settings
}

async fn conformance(settings: S3Settings) {
    let number = AtomicUsize::new(0);
    run(async || {
        let settings = S3Settings {
            prefix: Some(key(&format!("run/{}", number.fetch_add(1, Ordering::SeqCst)))),
            ..settings.clone()
        };
        let store = cloud::open(CloudSettings::S3(settings)).await.unwrap();
        assert!(store.probe().await.unwrap().conditional_put);
        Arc::new(store) as Arc<dyn BlobStore>
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn moto_keeps_the_contract() {
    conformance(bucket("contract", false).await).await;
}

/// Deletions leave old versions behind, and nobody sees them.
#[tokio::test(flavor = "multi_thread")]
async fn moto_with_versions_and_lock_keeps_the_contract() {
    let settings = bucket("locked", true).await;
    let store = cloud::open(CloudSettings::S3(settings.clone())).await.unwrap();
    assert!(
        store.probe().await.unwrap().versioning,
        "a bucket with object lock keeps versions"
    );
    conformance(settings).await;
}
