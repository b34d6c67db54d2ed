//! The architect-go guide: a SQLite database, and a bucket whose old packs go cold.

use super::Guide;

const BUCKET: super::Bucket = (
    "s3:
      bucket: architect-backups
      region: eu-central-1
      # Only what no backup of the last thirty days needs goes to Glacier. A bucket rule by age would freeze what today's restore needs.
      cold: { unreached_for: 30d, storage_class: GLACIER }",
    "architect",
);

pub(super) fn guide() -> Guide {
    Guide::set_up("architect-go", BUCKET, |world| {
        std::fs::create_dir(world.path("data")).unwrap();
        world.make_database("data/architect.db", 100);
    })
}

#[test]
fn a_live_database_is_not_copied_with_gzip() {
    let guide = guide();
    let world = &guide.world;
    // A transaction is open while the backup runs: what is not committed is not in it.
    let writer = world.open("data/architect.db");
    writer.execute_batch("BEGIN; DELETE FROM orders").unwrap();
    world.run(&["backup"]).ends(0);
    drop(writer);
    world.run(&["restore", "architect-go", "--to", "architect_test.db"]).ends(0);
    assert_eq!(world.rows("architect_test.db"), 100);
    let check = world.run(&["check", "architect-go", "--on", "architect_test.db"]).ends(0);
    assert!(check.stdout.contains("foreign keys"), "{}", check.stdout);

    // Data corruption: the damaged file is kept for forensics, the restored one is in its place.
    world.write("data/architect.db", "corrupt");
    world
        .run(&["restore", "architect-go", "--from", "s3", "--in-place", "--yes"])
        .ends(0);
    assert_eq!(world.rows("data/architect.db"), 100);
    let kept = world
        .files("data")
        .into_iter()
        .filter(|(_, bytes)| bytes == b"corrupt")
        .count();
    assert_eq!(kept, 1);

    // `architect_….db.gz` of the guide's own script is read as it is.
    world.script("gzip -c architect_test.db > architect_20260218_120000.db.gz");
    world
        .run(&[
            "restore",
            "architect-go",
            "--from",
            "architect_20260218_120000.db.gz",
            "--to",
            "old.db",
        ])
        .ends(0);
    assert_eq!(world.rows("old.db"), 100);
}
