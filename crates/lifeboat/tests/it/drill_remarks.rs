//! What people say of a whole drill behind it: who accepts its report, and what has to be done about what it found.

use crate::drill::report;
use crate::world::{Ran, World};

/// SHA-256 of a report, by another program than ours.
fn sum_of(world: &World, id: &str) -> String {
    let path = world.state_dir().join("drills").join(id).join("report.json");
    let told = world.shell(&format!("sha256sum '{}'", path.display())).ends(0).stdout;
    told.split(' ').next().unwrap().to_owned()
}

/// A drill with an item for people, whose tester is ada; its id.
fn drilled(world: &World) -> String {
    let words = ["drill", "--json", "--manual", "the page loads", "--tester", "ada"];
    let done = report(&world.run(&words).ends(0));
    done["id"].as_str().unwrap().to_owned()
}

/// `drill VERB ID …`, words parted by `|`.
fn say(world: &World, verb: &str, id: &str, words: &str) -> Ran {
    let mut all = vec!["drill", verb, &id[id.len() - 6..]];
    all.extend(words.split('|').filter(|word| !word.is_empty()));
    world.run(&all)
}

#[test]
fn somebody_else_than_the_tester_accepts_a_report_when_nothing_is_open() {
    let world = World::protected();
    let id = drilled(&world);
    let sum = sum_of(&world, &id);
    let told = say(&world, "approve", &id, "--by|Ada").ends(6);
    assert!(told.stderr.contains("ada did the drill"), "{}", told.stderr);
    let told = say(&world, "approve", &id, "--by|frida").ends(6);
    assert!(told.stderr.contains("items still wait"), "{}", told.stderr);
    say(&world, "tick", &id, "1").ends(0);
    // Whoever refuses says why.
    say(&world, "approve", &id, "--by|frida|--refuse").ends(2);
    say(&world, "approve", &id, "--by|frida|--refuse|--note|what of the images?").ends(0);
    let text = say(&world, "report", &id, "").ends(0).stdout;
    assert!(
        text.contains("not accepted, says frida at ") && text.contains(": what of the images?"),
        "{text}"
    );
    let last = say(&world, "approve", &id, "--by|frida|--json").ends(0).json("drill-report");
    // Whoever accepts it says of which bytes.
    assert_eq!(last["remarks"][1]["report_sha256"], sum);
    for format in ["text", "markdown", "html"] {
        let shown = say(&world, "report", &id, &format!("--format|{format}")).ends(0).stdout;
        assert!(shown.contains("accepted by frida at "), "{format}: {shown}");
    }
    // What is said of an item afterwards was not accepted.
    assert!(!say(&world, "report", &id, "").ends(0).stdout.contains("ticked anew"));
    let told = say(&world, "tick", &id, "1|--failed").ends(5).stdout;
    assert!(
        told.contains("accepted by frida at ") && told.contains("; items were ticked anew since"),
        "{told}"
    );
    say(&world, "tick", &id, "1|--took|3m").ends(2);
    // The report itself does not change, and the ledger knows who accepted it.
    assert_eq!(sum_of(&world, &id), sum);
    let ledger = world.run(&["audit", "list", "--json"]).ends(0).stdout;
    assert!(ledger.contains("drill-approve") && ledger.contains(&sum), "{ledger}");
}

#[test]
fn what_has_to_be_done_has_an_owner_and_is_told_until_it_is_done() {
    let world = World::protected();
    let id = drilled(&world);
    for (verb, words, why) in [
        ("action", "look|--owner|erin|--due|soon", "use as a date"),
        ("action", " |--owner|erin", "says not what"),
        ("done", "1", "it has no action 1"),
    ] {
        let told = say(&world, verb, &id, words).ends(2);
        assert!(told.stderr.contains(why), "{}", told.stderr);
    }
    let listed = |words: &[&str], code: i32| world.run(&[&["drill", "actions"], words].concat()).ends(code);
    assert_eq!(listed(&[], 0).stdout, "nothing is open\n");
    say(&world, "action", &id, "back the images up|--owner|erin|--due|2099-01-31").ends(0);
    let open = listed(&["--json"], 0).json("drill-actions");
    assert_eq!(open["actions"][0]["owner"], "erin");
    assert_eq!(open["actions"][0]["overdue"], false);
    say(&world, "action", &id, "a second key|--owner|ada|--due|2020-02-01").ends(0);
    let late = listed(&[], 4).stdout;
    assert!(
        late.contains("2020-02-01, overdue") && late.contains("back the images up"),
        "{late}"
    );
    say(&world, "done", &id, "2|--by|ada|--note|in the safe").ends(0);
    say(&world, "done", &id, "2").ends(6);
    assert!(!listed(&[], 0).stdout.contains("a second key"));
    assert!(listed(&["--all"], 0).stdout.contains("a second key"));
    for format in ["text", "markdown", "html"] {
        let shown = say(&world, "report", &id, &format!("--format|{format}")).ends(0).stdout;
        for part in ["back the images up", "erin, until 2099-01-31", "done, says ada"] {
            assert!(shown.contains(part), "{format} has no {part:?}: {shown}");
        }
    }
}
