//! Lost 0, surplus 0: `follow` is killed at random moments under load, the server and the network with it, and then the cluster is restored to
//! random moments. Every transaction that was answered before the moment has to be there, and none that came after it.
//!
//! Clients write a ledger, and write down outside of the database what was answered when and where in the log. The server says at the end when
//! each transaction was committed. Everything goes through the real binary. A seed (`LIFEBOAT_TEST_SEED`) draws the moments; `LIFEBOAT_SOAK=1`
//! has 50 kills and 50 restores for each major, otherwise there are five of each in all, two or one for each major.

#[expect(clippy::print_stderr, reason = "what a failed run is understood by; shown only then")]
fn say(words: &str) {
    eprintln!("{words}");
}

macro_rules! tell {
    ($($word:tt)*) => { crate::torture::say(&format!($($word)*)) };
}

mod ledger;
mod scene;

use lifeboat_testkit::postgres::Stop;

use ledger::Goal;
use scene::{Ending, Scene, is_soak};

/// What is done to the server and its surroundings while it is followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Blow {
    Nothing,
    KillServer,
    RestartServer,
    CutNetwork,
    PullCable,
    Recycle,
}

const BLOWS: [Blow; 6] = [
    Blow::KillServer,
    Blow::Nothing,
    Blow::CutNetwork,
    Blow::RestartServer,
    Blow::Recycle,
    Blow::PullCable,
];

fn strike(scene: &mut Scene, blow: Blow) {
    match blow {
        Blow::Nothing => {}
        Blow::KillServer => {
            scene.cluster.kill_9();
            scene.begin_server();
        }
        Blow::RestartServer => {
            let how = [Stop::Fast, Stop::Immediate][scene.below(2)];
            scene.cluster.stop(how);
            scene.begin_server();
        }
        Blow::CutNetwork => scene.proxy.cut(),
        Blow::PullCable => {
            scene.proxy.hold_still(true);
            scene.pause(300);
            scene.proxy.cut();
            scene.proxy.hold_still(false);
        }
        // What was acknowledged goes: whoever acknowledged more than it holds finds a gap.
        Blow::Recycle => drop(scene.cluster.query("select pg_switch_wal(); checkpoint")),
    }
}

/// One life of the follower.
fn round(scene: &mut Scene, number: usize, longest_ms: u64) {
    let mut follower = scene.follow();
    follower.says("following from");
    let blow = BLOWS[(number + scene.below(2)) % BLOWS.len()];
    scene.pause(longest_ms / 2);
    if number % 3 == 1 {
        scene.back_up_beside();
    }
    strike(scene, blow);
    scene.pause(longest_ms);
    follower.kill();
    tell!("PostgreSQL {}, kill {number}, {blow:?} ({})", scene.major, scene.seed());
    scene.cluster.query("checkpoint");
    // Nobody follows: the backup brings its own log, and what lies before that is still the follower's business.
    if number % 4 == 2 || (number == 0 && !is_soak()) {
        scene.pause(longest_ms);
        scene.back_up();
    }
    if scene.keeps_log && number % 5 == 1 {
        // What a backup brought must be joined to what was followed before: a spool that is lost in between is lost for good.
        scene.settle();
        scene.follow_once();
        scene.damage_spool();
    }
}

fn lost_and_surplus(major: u32, kills: usize, restores: usize) {
    let (kills, restores) = if is_soak() { (50, 50) } else { (kills, restores) };
    let mut scene = Scene::new(major);
    scene.back_up();
    let load = scene.begin_load(3);
    for number in 0..kills {
        round(&mut scene, number, if is_soak() { 1500 } else { 400 });
    }
    scene.settle();
    // Something behind the last mark of time.
    let mut follower = scene.follow();
    follower.says("following from");
    scene.pause(200);
    let entries = load.end();
    scene.wait_for_a_later_mark(&mut follower);
    assert_eq!(follower.end(), Ending::Told(0));
    let followed = scene.world.run(&["follow", "--once", "shop/pg", "--json"]).ends(0);
    assert_eq!(followed.json("follow")["components"][0]["gaps"], serde_json::json!([]));

    let ledger = scene.judge(entries);
    let window = scene.only_window();
    let (mut lost, mut surplus) = (0, 0);
    for number in 0..restores {
        let goal = match number % 5 {
            // The last is of everything: the others may be drawn from in front of the first commit.
            _ if number + 1 == restores => Goal::Latest,
            0 | 2 => Goal::Time(scene.between(window.from_us + 1, window.to_us)),
            // Exactly a commit's time, or just before it.
            1 => scene.time_of_a_commit(&ledger, &window),
            3 => Goal::Lsn(scene.position(&ledger, &window)),
            _ => Goal::Latest,
        };
        let restored = scene.restore(goal);
        let verdict = ledger.judge(goal, &restored.rows());
        tell!(
            "PostgreSQL {major}, restore {number} to {goal:?}: {} expected, {} under way, {verdict:?}",
            verdict.expected,
            verdict.open
        );
        restored.agrees_with_itself();
        lost += verdict.lost.len();
        surplus += verdict.surplus.len();
        assert!(
            verdict.expected > 0 || goal != Goal::Latest,
            "nothing was to come back: {window:?}"
        );
    }
    assert_eq!((lost, surplus), (0, 0), "{}", scene.seed());
}

#[test]
fn nothing_is_lost_and_nothing_too_much_comes_back_on_15() {
    lost_and_surplus(15, 2, 2);
}

#[test]
fn nothing_is_lost_and_nothing_too_much_comes_back_on_16() {
    lost_and_surplus(16, 2, 2);
}

#[test]
fn nothing_is_lost_and_nothing_too_much_comes_back_on_18() {
    lost_and_surplus(18, 1, 1);
}

/// What a backup of a later time brought does not hide what lies before it: the follower's slot keeps that, and nobody else.
#[test]
fn a_backup_while_nobody_follows_leaves_no_hole() {
    let mut scene = Scene::keeping(16, false);
    scene.back_up();
    scene.cluster.query("create table t (i int)");
    scene.world.run(&["follow", "--once", "shop/pg"]).ends(0);
    // Segments that only the slot keeps.
    for row in 0..40 {
        scene
            .cluster
            .query(&format!("insert into t values ({row}); select pg_switch_wal()"));
    }
    // It brings the log up to where the server is: so `--once` has everything of its end already.
    scene.back_up();
    scene.world.run(&["follow", "--once", "shop/pg"]).ends(0);
    let window = scene.only_window();
    let middle = scene.between_lsn(window.from, window.to);
    drop(scene.restore(Goal::Lsn(middle)));
}
