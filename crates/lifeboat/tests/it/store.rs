//! `store setup | check | extend-lock` against an S3 service in memory, and folders.

use lifeboat_store::s3admin::{Bucket, Place, plain_http};
use lifeboat_testkit::moto::Moto;

use crate::world::{Ran, World};

/// A protected world with a second store in a bucket that is not there yet.
fn world(bucket: &str, more: &str) -> World {
    let world = World::protected();
    let endpoint = Moto::shared().endpoint();
    let store = format!(
        "stores:\n  s3-eu:\n    s3:\n      bucket: {bucket}\n      prefix: eu\n      region: eu-central-1\n      endpoint: {endpoint}\n      \
         access_key: {{ env: TEST_KEY }}\n      secret_key: {{ env: TEST_SECRET }}\n{more}"
    );
    world.edit_config("stores:\n", &store);
    world
}

const LOCK: &str = "      object_lock: { mode: governance, days: 14 }\n";

fn run(world: &World, args: &[&str]) -> Ran {
    let mut command = world.command();
    command.env("TEST_KEY", "test-key").env("TEST_SECRET", "test-secret");
    world.finish(command.args(args))
}

#[test]
fn a_bucket_is_set_up_and_stays_good() {
    let bucket = Moto::shared().bucket("cli-setup");
    let world = world(&bucket, LOCK);
    let before = run(&world, &["store", "check", "s3-eu"]).ends(1);
    assert!(before.stdout.contains("there is no bucket"), "{}", before.stdout);
    let done = run(&world, &["store", "setup", "s3-eu", "--json"])
        .ends(0)
        .json("store-setup");
    let steps = done["stores"][0]["done"].to_string();
    for step in ["made the bucket", "object lock of 14 days", "lifeboat-tidy", "public access"] {
        assert!(steps.contains(step), "{step} is not in {steps}");
    }
    let after = run(&world, &["store", "check", "s3-eu"]).ends(0);
    assert!(
        after.stdout.contains("locked for 14 days") && !after.stdout.contains("✗"),
        "{}",
        after.stdout
    );
    // A second time there is nothing to do.
    let again = run(&world, &["store", "setup", "s3-eu", "--json"])
        .ends(0)
        .json("store-setup");
    assert_eq!(again["stores"][0]["done"], serde_json::json!([]));
    assert!(!format!("{}{}", after.stdout, after.stderr).contains("test-secret"));
}

#[tokio::test]
async fn a_rule_by_age_is_called_bad() {
    let name = Moto::shared().bucket("cli-guide");
    let world = world(&name, "");
    run(&world, &["store", "setup", "s3-eu"]).ends(0);
    let place = Place {
        endpoint: Some(Moto::shared().endpoint().to_owned()),
        region: "eu-central-1".to_owned(),
        bucket: name,
        path_style: true,
    };
    let bucket = Bucket::new(place, "eu", plain_http().unwrap(), Bucket::fixed_credentials("k", "s", None)).unwrap();
    bucket
        .put_lifecycle_document(
            "<LifecycleConfiguration><Rule><ID>Archive</ID><Prefix></Prefix><Status>Enabled</Status>\
             <Transition><Days>30</Days><StorageClass>GLACIER</StorageClass></Transition>\
             <Expiration><Days>90</Days></Expiration></Rule></LifecycleConfiguration>",
        )
        .await
        .unwrap();
    let check = run(&world, &["store", "check", "s3-eu"]).ends(1);
    assert!(
        check.stdout.contains("moves files to GLACIER after 30 days"),
        "{}",
        check.stdout
    );
    assert!(check.stdout.contains("deletes files after 90 days"), "{}", check.stdout);
}

#[test]
fn a_plan_is_printed_and_nothing_is_done() {
    let world = world(&Moto::shared().bucket("cli-plan"), LOCK);
    let plan = run(&world, &["store", "setup", "s3-eu", "--print"]).ends(0);
    for part in [
        "aws s3api create-bucket",
        "put-object-lock-configuration",
        "s3:BypassGovernanceRetention",
        "NoncurrentDays",
    ] {
        assert!(plan.stdout.contains(part), "{part} is not in {}", plan.stdout);
    }
    assert!(!plan.stdout.contains("test-secret"));
    run(&world, &["store", "check", "s3-eu"]).ends(1);
}

#[test]
fn a_folder_that_others_can_write_to_is_bad() {
    use std::os::unix::fs::PermissionsExt;
    let world = World::protected();
    world.run(&["store", "check", "disk"]).ends(0);
    std::fs::set_permissions(world.path("lifeboat-backups"), std::fs::Permissions::from_mode(0o777)).unwrap();
    let check = world.run(&["store", "check", "disk"]).ends(1);
    assert!(check.stdout.contains("others can write into it"), "{}", check.stdout);
    let doctor = world.run(&["doctor"]).ends(1);
    assert!(doctor.stdout.contains("others can write into it"), "{}", doctor.stdout);
    world.run(&["store", "check", "nowhere"]).ends(2);
}

#[test]
fn a_lock_that_was_not_configured_is_not_extended() {
    let world = world(&Moto::shared().bucket("cli-no-lock"), "");
    let refused = run(&world, &["store", "extend-lock", "s3-eu"]).ends(2);
    assert!(refused.stderr.contains("object_lock"), "{}", refused.stderr);
}

#[test]
fn a_wrong_lock_and_a_wrong_class_are_told_with_their_line() {
    let world = world(
        "b",
        "      object_lock: { mode: soft, days: 14 }\n      cold: { unreached_for: 30d, storage_class: FRIDGE }\n",
    );
    let check = run(&world, &["config", "check"]).ends(7);
    assert!(check.stderr.contains("`soft` is no mode of a lock"), "{}", check.stderr);
    assert!(check.stderr.contains("`FRIDGE`"), "{}", check.stderr);
}
