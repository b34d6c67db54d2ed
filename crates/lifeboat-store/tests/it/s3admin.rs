//! The owner's calls against moto, which keeps versions, locks and archive classes.

use std::time::Duration;

use lifeboat_model::ErrorKind;
use lifeboat_model::lifecycle::{Harm, Rule, When, harms};
use lifeboat_store::s3admin::{Bucket, Lock, LockMode, Place, Restoring, Setting};
use lifeboat_testkit::moto::Moto;

use crate::key;

const DAY_US: i64 = 86_400_000_000;

fn bucket(test: &str, prefix: &str) -> Bucket {
    let moto = Moto::shared();
    let place = Place {
        endpoint: Some(moto.endpoint().to_owned()),
        region: "eu-central-1".to_owned(),
        bucket: moto.bucket(test),
        path_style: true,
    };
    Bucket::new(
        place,
        prefix,
        lifeboat_store::s3admin::plain_http().unwrap(),
        Bucket::fixed_credentials("test", "test", None),
    )
    .unwrap()
}

fn now_us() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    i64::try_from(since.as_micros()).unwrap()
}

#[tokio::test]
async fn a_bucket_is_made_and_set_up_and_says_so() {
    let bucket = bucket("set-up", "eu");
    assert!(!bucket.is_there().await.unwrap());
    assert_eq!(bucket.versioning().await.unwrap_err().kind(), ErrorKind::Unreachable);
    bucket.create(true).await.unwrap();
    assert!(bucket.is_there().await.unwrap());
    assert_eq!(bucket.region().await.unwrap(), Setting::Is("eu-central-1".to_owned()));

    bucket.enable_versioning().await.unwrap();
    assert_eq!(bucket.versioning().await.unwrap(), Setting::Is(true));

    assert_eq!(bucket.lock().await.unwrap(), Setting::Is(None));
    let lock = Lock {
        mode: LockMode::Governance,
        days: 14,
    };
    bucket.set_lock(lock).await.unwrap();
    assert_eq!(bucket.lock().await.unwrap(), Setting::Is(Some(lock)));

    bucket.enable_encryption().await.unwrap();
    assert_eq!(bucket.encryption().await.unwrap(), Setting::Is("AES256".to_owned()));

    assert_eq!(bucket.public_access_blocked().await.unwrap(), Setting::NotSet);
    bucket.block_public_access().await.unwrap();
    assert_eq!(bucket.public_access_blocked().await.unwrap(), Setting::Is(true));

    // Making it again is fine.
    bucket.create(true).await.unwrap();
}

#[tokio::test]
async fn a_bucket_without_lock_says_so() {
    let bucket = bucket("no-lock", "");
    bucket.create(false).await.unwrap();
    assert_eq!(bucket.lock().await.unwrap(), Setting::NotSet);
    assert_eq!(bucket.versioning().await.unwrap(), Setting::NotSet);
}

#[tokio::test]
async fn rules_of_others_survive_ours() {
    let bucket = bucket("rules", "eu");
    bucket.create(false).await.unwrap();
    assert_eq!(bucket.lifecycle().await.unwrap(), Setting::NotSet);
    let ours = Rule {
        id: "lifeboat-tidy".to_owned(),
        enabled: true,
        prefix: "eu/".to_owned(),
        old_versions_days: Some(15),
        ends_uploads_days: Some(3),
        ..Rule::default()
    };
    bucket
        .set_lifecycle_rule(&lifeboat_store::s3admin::Lifecycle::default(), &ours)
        .await
        .unwrap();
    let Setting::Is(now) = bucket.lifecycle().await.unwrap() else {
        panic!("the rule is not there")
    };
    assert_eq!(now.rules, std::slice::from_ref(&ours));
    let changed = Rule {
        ends_uploads_days: Some(7),
        ..ours.clone()
    };
    let other = Rule {
        id: "somebody-else".to_owned(),
        prefix: "logs/".to_owned(),
        ..ours.clone()
    };
    bucket.set_lifecycle_rule(&now, &other).await.unwrap();
    let Setting::Is(now) = bucket.lifecycle().await.unwrap() else {
        panic!("the rules are not there")
    };
    bucket.set_lifecycle_rule(&now, &changed).await.unwrap();
    let Setting::Is(now) = bucket.lifecycle().await.unwrap() else {
        panic!("the rules are not there")
    };
    assert_eq!(now.rules, [other, changed]);
    assert!(harms(&now.rules, "eu/").is_empty());
}

#[tokio::test]
async fn the_rule_of_the_guide_is_read_as_harm() {
    let bucket = bucket("guide", "eu");
    bucket.create(false).await.unwrap();
    bucket
        .put_lifecycle_document(
            "<LifecycleConfiguration><Rule><ID>Archive</ID><Prefix></Prefix><Status>Enabled</Status>\
             <Transition><Days>30</Days><StorageClass>GLACIER</StorageClass></Transition>\
             <Expiration><Days>90</Days></Expiration></Rule></LifecycleConfiguration>",
        )
        .await
        .unwrap();
    let Setting::Is(now) = bucket.lifecycle().await.unwrap() else {
        panic!("the rule is not there")
    };
    let found: Vec<Harm> = harms(&now.rules, bucket.prefix()).into_iter().map(|(_, harm)| harm).collect();
    assert_eq!(
        found,
        [
            Harm::Deletes(When::Days(90)),
            Harm::Freezes(When::Days(30), "GLACIER".to_owned())
        ]
    );
}

#[tokio::test]
async fn a_locked_version_cannot_be_deleted_and_the_lock_can_be_made_longer() {
    let bucket = bucket("locked", "eu");
    bucket.create(true).await.unwrap();
    bucket
        .set_lock(Lock {
            mode: LockMode::Governance,
            days: 2,
        })
        .await
        .unwrap();
    let name = key("c/db/packs/1");
    bucket.put_small(&name, "content".into()).await.unwrap();
    let state = bucket.file(&name).await.unwrap();
    assert_eq!(state.size_bytes, 7);
    let (mode, until_us) = state.lock.unwrap();
    assert_eq!(mode, LockMode::Governance);
    let expected = now_us() + 2 * DAY_US;
    assert!((until_us - expected).abs() < DAY_US / 24, "{until_us} is not near {expected}");

    let version = state.version.unwrap();
    let error = bucket.delete_version(&name, &version).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Refused, "{error}");
    assert!(error.to_string().contains("locked until"), "{error}");

    let longer_us = now_us() + 30 * DAY_US;
    bucket.set_retention(&name, &version, mode, longer_us).await.unwrap();
    let (_, until_us) = bucket.file(&name).await.unwrap().lock.unwrap();
    assert!((until_us - longer_us).abs() <= 1_000_000, "{until_us} is not {longer_us}");

    // A deletion without a version leaves a marker; the version stays.
    let versions = bucket.versions("c/").await.unwrap();
    assert_eq!(versions.len(), 1);
    assert!(versions[0].current && !versions[0].marker && versions[0].name == "eu/c/db/packs/1");
}

#[tokio::test]
async fn versions_are_listed_over_many_pages() {
    let bucket = bucket("versions", "");
    bucket.create(false).await.unwrap();
    bucket.enable_versioning().await.unwrap();
    for number in 0..12 {
        bucket.put_small(&key(&format!("c/{number:02}")), "one".into()).await.unwrap();
        bucket
            .put_small(&key(&format!("c/{number:02}")), "two!".into())
            .await
            .unwrap();
    }
    let versions = bucket.versions_in_pages("c/", 5).await.unwrap();
    assert_eq!(versions.len(), 24);
    assert_eq!(versions.iter().filter(|version| version.current).count(), 12);
    assert!(
        versions
            .iter()
            .filter(|version| version.current)
            .all(|version| version.size_bytes == 4)
    );
}

#[tokio::test]
async fn an_archived_file_cannot_be_read_until_it_was_brought_back() {
    let bucket = bucket("cold", "");
    bucket.create(false).await.unwrap();
    let name = key("c/db/packs/1");
    bucket.put_small(&name, "content".into()).await.unwrap();
    assert!(bucket.file(&name).await.unwrap().is_readable());
    bucket.set_storage_class(&name, "GLACIER").await.unwrap();
    let state = bucket.file(&name).await.unwrap();
    assert_eq!((state.storage_class.as_str(), state.size_bytes), ("GLACIER", 7));
    assert_eq!(state.restoring, Restoring::NotAsked);
    assert!(!state.is_readable());
    let error = bucket.get_small(&name).await.unwrap_err();
    assert!(error.hint().unwrap().contains("archive class"), "{error:?}");

    bucket.bring_back(&name, 3).await.unwrap();
    // moto brings it back at once, or on the next look.
    let deadline = std::time::Instant::now() + Duration::from_secs(20);
    while !bucket.file(&name).await.unwrap().is_readable() {
        assert!(std::time::Instant::now() < deadline, "it never came back");
    }
    assert_eq!(&bucket.get_small(&name).await.unwrap()[..], b"content");
}

#[tokio::test]
async fn a_service_that_is_not_there_is_unreachable() {
    let place = Place {
        endpoint: Some("http://127.0.0.1:9".to_owned()),
        region: "us-east-1".to_owned(),
        bucket: "b".to_owned(),
        path_style: true,
    };
    let bucket = Bucket::new(
        place,
        "",
        lifeboat_store::s3admin::plain_http().unwrap(),
        Bucket::fixed_credentials("a", "SECRET", None),
    )
    .unwrap();
    let error = bucket.is_there().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unreachable);
    assert!(!format!("{error:?}{bucket:?}").contains("SECRET"));
}
