//! `lifeboat diff` and the pages of `lifeboat man`.

use crate::world::World;

#[test]
fn diff_says_what_was_lost_between_a_backup_and_now() {
    let world = World::protected();
    world.add_rows("shop.db", 3);
    world.run(&["backup", "shop"]).ends(0);
    let connection = world.open("shop.db");
    connection
        .execute_batch(
            "DELETE FROM orders WHERE id <= 7; UPDATE orders SET what = 'changed' WHERE id = 8; CREATE TABLE notes (n)",
        )
        .unwrap();
    connection.close().unwrap();

    let two = world.run(&["diff", "1", "2", "--json"]).ends(0).json("diff");
    assert_eq!((&two["same"], &two["tables"][0]["extra"]), (&false.into(), &3.into()));
    let live = world.run(&["diff", "latest", "live", "shop/shop", "--samples", "2"]);
    let live = if live.code == 2 {
        world.run(&["diff", "latest", "live", "shop"])
    } else {
        live
    }
    .ends(0);
    for part in [
        "table notes is new",
        "orders: rows 1003 → 996: 7 missing, 1 changed, 0 extra",
        "… and",
    ] {
        assert!(live.stdout.contains(part), "{part} is missing in\n{}", live.stdout);
    }
    let same = world.run(&["diff", "2", "latest"]).ends(0);
    assert!(same.stdout.contains("no difference"), "{}", same.stdout);

    // Counts alone restore nothing.
    let counts = world.run(&["diff", "1", "2", "--counts", "--json"]).ends(0).json("diff");
    assert_eq!(
        (&counts["tables"][0]["rows_before"], &counts["tables"][0]["rows_after"]),
        (&1_000.into(), &1_003.into())
    );
    world.run(&["diff", "1", "live", "--counts"]).ends(2);
    world.run(&["diff", "1", "77"]).ends(9);
    world.run(&["diff", "1", "2", "--table", "nothing"]).ends(2);
    // No copy in the clear stays behind, after failures neither.
    let left = world.files(".lifeboat/scratch");
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn every_command_has_a_manual_page() {
    let world = World::with_database();
    world.run(&["man", "--to", "man"]).ends(0);
    let pages = world.files("man");
    assert!(pages.len() >= 25, "{}", pages.len());
    for name in [
        "lifeboat.1",
        "lifeboat-restore.1",
        "lifeboat-restore-undo.1",
        "lifeboat-diff.1",
    ] {
        let (_, page) = pages
            .iter()
            .find(|(path, _)| path.ends_with(name))
            .unwrap_or_else(|| panic!("{name} is missing"));
        let text = String::from_utf8_lossy(page);
        assert!(text.contains(".SH SYNOPSIS") && text.contains("Examples"), "{text}");
    }
}
