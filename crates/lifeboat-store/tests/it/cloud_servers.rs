//! The cloud stores against services that others wrote: `versitygw` for S3, Azurite for Azure.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use lifeboat_store::cloud::{self, AzureSettings, CloudSettings, S3Credentials, S3Settings, Secret};
use lifeboat_store::s3admin::Bucket;
use lifeboat_store::{BlobStore, Key};
use lifeboat_testkit::conformance::store::run;
use lifeboat_testkit::servers::{ACCESS_KEY, AZURE_ACCOUNT, AZURE_KEY, SECRET_KEY, Server};

use crate::key;

/// The whole suite, each store in a folder of its own.
async fn conformance(settings: impl Fn(Key) -> CloudSettings) {
    let number = AtomicUsize::new(0);
    run(async || {
        let folder = key(&format!("run/{}", number.fetch_add(1, Ordering::SeqCst)));
        let store = cloud::open(settings(folder)).await.unwrap();
        assert!(store.probe().await.unwrap().conditional_put);
        Arc::new(store) as Arc<dyn BlobStore>
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn versitygw_keeps_the_contract() {
    let server = Server::versitygw();
    let settings = S3Settings {
        bucket: server.name("contract"),
        region: Some("us-east-1".to_owned()),
        endpoint: Some(server.endpoint()),
        path_style: true,
        credentials: Some(S3Credentials {
            access_key: ACCESS_KEY.to_owned(),
            secret_key: Secret::new(SECRET_KEY),
            session_token: None,
        }),
        ..S3Settings::default()
    };
    Bucket::open(&settings).unwrap().create(false).await.unwrap();
    let in_folder = |folder| {
        CloudSettings::S3(S3Settings {
            prefix: Some(folder),
            ..settings.clone()
        })
    };
    conformance(in_folder).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn azurite_keeps_the_contract() {
    let server = Server::azurite();
    let settings = AzureSettings {
        account: AZURE_ACCOUNT.to_owned(),
        container: server.azure_container("contract"),
        endpoint: Some(format!("{}/{AZURE_ACCOUNT}", server.endpoint())),
        account_key: Some(Secret::new(AZURE_KEY)),
        ..AzureSettings::default()
    };
    let in_folder = |folder| {
        CloudSettings::Azure(AzureSettings {
            prefix: Some(folder),
            ..settings.clone()
        })
    };
    conformance(in_folder).await;
}
