//! The ledger under faults (INV-18): stores that are away, state that is lost, set back or copied, clocks that step, and a catalog that is not what
//! it should be.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use lifeboat_model::{Env, Error, ErrorKind};
use lifeboat_ops::Protected;
use lifeboat_ops::ledger::{self, Appended, Audit, Catalog, Entry, Outcome, Weight};
use lifeboat_ops::proof::{self, Level};
use lifeboat_ops::protected::Place;
use lifeboat_repo::{Instance, LedgerRecord, Repository};
use lifeboat_store::away::AwayStore;
use lifeboat_store::fs::FsStore;
use lifeboat_testkit::env::{SimClock, sim_env};
use lifeboat_testkit::faulty::{FaultyStore, Op, Plan};
use serde_json::{Map, Value, json};

use crate::world::World;

const DAY: Duration = Duration::from_secs(24 * 3600);

struct Host {
    world: World,
    env: Env,
    clock: Arc<SimClock>,
}

impl Host {
    async fn new() -> Self {
        let (env, clock) = sim_env(7);
        Self {
            world: World::new(1).await,
            env,
            clock,
        }
    }

    fn entry(what: &str, outcome: Outcome) -> Entry {
        Entry {
            verb: "backup".to_owned(),
            outcome,
            facts: Map::from_iter([("what".to_owned(), json!(what))]),
        }
    }

    async fn append_as(&self, protected: &Protected, what: &str) -> Appended {
        self.clock.advance(Duration::from_secs(1));
        let entry = Self::entry(what, Outcome::Done);
        ledger::append(&self.env, protected, &self.world.instance, entry)
            .await
            .unwrap()
    }

    async fn append(&self, what: &str) -> Appended {
        self.append_as(&self.world.protected, what).await
    }

    /// The same component of a host with another state folder.
    fn with_state(&self, folder: &Path) -> Protected {
        Protected {
            state_dir: folder.to_path_buf(),
            ..self.world.protected.clone()
        }
    }

    async fn with_second(mut self) -> Self {
        let path = self.world.folder.join("second");
        let store = Arc::new(FsStore::create(&path).await.unwrap());
        let repository = self.world.protected.repository().await.unwrap();
        repository.replicate(Arc::<FsStore>::clone(&store)).await.unwrap();
        self.world.protected.stores.push(Place::folder("second", store, path));
        self
    }

    /// The same component, whose store of this number does not answer.
    fn without(&self, number: usize) -> Protected {
        let mut protected = self.world.protected.clone();
        let reason = Error::new(ErrorKind::Unreachable, "reach", "the store", "it is away");
        protected.stores[number].store = Arc::new(AwayStore::new("away", reason));
        protected
    }

    async fn whats(&self) -> Vec<String> {
        whats(&ledger::read(&self.world.protected).await.unwrap().records)
    }

    async fn audit(&self) -> Audit {
        ledger::audit(&self.world.protected).await.unwrap()
    }

    async fn is_whole(&self) {
        let audit = self.audit().await;
        assert!(audit.findings.is_empty(), "{:?}", audit.findings);
    }

    /// The files of the ledger in a store, in order.
    fn files(&self, store: &str) -> Vec<PathBuf> {
        let folder = self.world.folder.join(store).join("c/test~2Fdb/ledger");
        let mut files = Vec::new();
        for chain in std::fs::read_dir(folder).unwrap() {
            for file in std::fs::read_dir(chain.unwrap().path()).unwrap() {
                files.push(file.unwrap().path());
            }
        }
        files.sort();
        files
    }

    fn state(&self) -> PathBuf {
        self.world.protected.state_dir.join("ledger")
    }
}

fn whats(records: &[LedgerRecord]) -> Vec<String> {
    let what = |record: &LedgerRecord| {
        record
            .facts
            .get("what")
            .and_then(Value::as_str)
            .unwrap_or_default()
            .to_owned()
    };
    records.iter().map(what).collect()
}

fn wrong(audit: &Audit) -> Vec<&str> {
    let wrong = audit.findings.iter().filter(|finding| finding.weight == Weight::Wrong);
    wrong.map(|finding| finding.says.as_str()).collect()
}

fn copy_folder(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_folder(&entry.path(), &to);
        } else {
            std::fs::copy(entry.path(), to).unwrap();
        }
    }
}

#[tokio::test]
async fn records_stand_in_every_store_in_order_and_nothing_waits() {
    let host = Host::new().await.with_second().await;
    for what in ["a", "b", "c"] {
        let appended = host.append(what).await;
        assert_eq!(
            (appended.stored.len(), appended.pending, appended.missing.len()),
            (2, 0, 0),
            "{appended:?}"
        );
        assert!(appended.notes.is_empty(), "{appended:?}");
    }
    assert_eq!(host.whats().await, ["a", "b", "c"]);
    assert_eq!(host.files("store").len(), 3);
    assert_eq!(host.files("second").len(), 3);
    host.is_whole().await;
}

#[tokio::test]
async fn a_record_costs_one_put_and_no_listing() {
    let mut host = Host::new().await;
    drop(host.append("first").await);
    let inner = Arc::clone(&host.world.protected.stores[0].store);
    let store = Arc::new(FaultyStore::new(inner, Plan::calm()));
    host.world.protected.stores[0].store = Arc::<FaultyStore<_>>::clone(&store);
    drop(host.append("second").await);
    let done: Vec<Op> = store.log().iter().map(|record| record.op).collect();
    assert_eq!(done, [Op::Get, Op::Put]);
}

#[tokio::test]
async fn what_a_store_misses_while_it_is_away_comes_with_the_next_record() {
    let host = Host::new().await.with_second().await;
    drop(host.append("a").await);
    let away = host.without(1);
    for what in ["b", "c"] {
        let appended = host.append_as(&away, what).await;
        assert_eq!(appended.missing.len(), 1);
        assert_eq!(appended.missing[0].0, "second");
    }
    assert_eq!(host.files("second").len(), 1);
    let audit = host.audit().await;
    assert_eq!(audit.worst(), Some(Weight::Lacks), "{:?}", audit.findings);
    let appended = host.append("d").await;
    assert_eq!((appended.missing.len(), appended.pending), (0, 0));
    assert_eq!(host.files("second").len(), 4);
    host.is_whole().await;
}

#[tokio::test]
async fn with_all_stores_away_records_wait_here_and_are_read() {
    let host = Host::new().await;
    drop(host.append("a").await);
    let appended = host.append_as(&host.without(0), "b").await;
    assert_eq!((appended.pending, appended.records.len()), (1, 1), "{appended:?}");
    assert_eq!(host.whats().await, ["a", "b"]);
    assert_eq!(host.files("store").len(), 1);
    let shipped = ledger::ship(&host.env, &host.world.protected, Some(&host.world.instance))
        .await
        .unwrap();
    assert_eq!(shipped.own.pending, 0);
    assert_eq!(host.files("store").len(), 2);
    host.is_whole().await;
}

#[tokio::test]
async fn a_new_machine_whose_stores_are_away_forgets_nothing() {
    let host = Host::new().await;
    for what in ["a", "b"] {
        let appended = host.append_as(&host.without(0), what).await;
        assert!(appended.records.is_empty());
    }
    assert!(ledger::read(&host.without(0)).await.is_err());
    let appended = host.append("c").await;
    assert_eq!(appended.records.len(), 3, "{appended:?}");
    assert_eq!(host.whats().await, ["a", "b", "c"]);
    host.is_whole().await;
}

#[tokio::test]
async fn a_lost_state_folder_goes_on_where_the_stores_end() {
    let host = Host::new().await;
    for what in ["a", "b"] {
        drop(host.append(what).await);
    }
    std::fs::remove_dir_all(host.state()).unwrap();
    let appended = host.append("c").await;
    assert!(
        appended.notes.iter().any(|note| note.contains("behind record 2")),
        "{appended:?}"
    );
    assert_eq!(host.whats().await, ["a", "b", "c"]);
    host.is_whole().await;
}

#[tokio::test]
async fn a_state_that_was_set_back_and_notices_goes_on_without_a_fork() {
    let host = Host::new().await;
    drop(host.append("a").await);
    let then = host.world.folder.join("then");
    copy_folder(&host.state(), &then);
    for what in ["b", "c"] {
        drop(host.append(what).await);
    }
    std::fs::remove_dir_all(host.state()).unwrap();
    copy_folder(&then, &host.state());
    host.clock.advance(DAY);
    let appended = host.append("d").await;
    assert!(
        appended.notes.iter().any(|note| note.contains("does not remember")),
        "{appended:?}"
    );
    assert_eq!(host.whats().await, ["a", "b", "c", "d"]);
    host.is_whole().await;
}

#[tokio::test]
async fn a_record_that_was_shipped_before_the_state_was_set_back_is_not_told_twice() {
    let host = Host::new().await;
    drop(host.append("a").await);
    drop(host.append_as(&host.without(0), "b").await);
    let then = host.world.folder.join("then");
    copy_folder(&host.state(), &then);
    drop(host.append("c").await);
    std::fs::remove_dir_all(host.state()).unwrap();
    copy_folder(&then, &host.state());
    host.clock.advance(DAY);
    drop(host.append("d").await);
    assert_eq!(host.whats().await, ["a", "b", "c", "d"]);
    host.is_whole().await;
}

#[tokio::test]
async fn two_copies_of_a_machine_fork_the_chain_and_both_halves_are_shown() {
    let host = Host::new().await;
    drop(host.append("a").await);
    let clone = host.world.folder.join("clone");
    copy_folder(&host.world.protected.state_dir, &clone);
    let clone = host.with_state(&clone);
    drop(host.append("b").await);
    drop(host.append_as(&clone, "b of the copy").await);
    drop(host.append("c").await);
    let audit = host.audit().await;
    let says = wrong(&audit);
    assert!(
        says.iter().any(|says| says.contains("2 records have the number 2")),
        "{says:?}"
    );
    assert_eq!(host.files("store").len(), 4, "nothing was overwritten");
    let mut all = host.whats().await;
    all.sort();
    assert_eq!(all, ["a", "b", "b of the copy", "c"]);
    // Within a day both find out.
    host.clock.advance(DAY);
    let appended = host.append_as(&clone, "d of the copy").await;
    assert!(!appended.notes.is_empty(), "{appended:?}");
    let appended = host.append("e").await;
    assert!(!appended.notes.is_empty(), "{appended:?}");
    // No record was lost on the way, and no number was given out again.
    assert_eq!(host.whats().await.len(), 6);
    let forks = wrong(&host.audit().await)
        .iter()
        .filter(|says| says.contains("have the number"))
        .count();
    assert!(forks <= 2, "{:?}", host.audit().await.findings);
}

#[tokio::test]
async fn removed_edited_exchanged_and_foreign_records_are_found() {
    let host = Host::new().await;
    for what in ["a", "b", "c", "d"] {
        drop(host.append(what).await);
    }
    let files = host.files("store");
    let bytes: Vec<Vec<u8>> = files.iter().map(|file| std::fs::read(file).unwrap()).collect();
    for file in &files {
        // In the middle, at the beginning, and at the end, which only this machine can know.
        let kept = std::fs::read(file).unwrap();
        std::fs::remove_file(file).unwrap();
        assert_eq!(host.audit().await.worst(), Some(Weight::Wrong), "{}", file.display());
        std::fs::write(file, kept).unwrap();
        host.is_whole().await;
    }
    set(&files[1], &bytes[2]);
    assert!(
        wrong(&host.audit().await)
            .iter()
            .any(|says| says.contains("hash to its name"))
    );
    set(&files[1], &bytes[1]);
    let mut edited = bytes[2].clone();
    edited[200] ^= 1;
    set(&files[2], &edited);
    assert_eq!(host.audit().await.worst(), Some(Weight::Wrong));
    set(&files[2], &bytes[2]);
    host.is_whole().await;
    let mut stranger = host.world.protected.clone();
    stranger.trust = lifeboat_repo::Trust::new();
    let audit = ledger::audit(&stranger).await.unwrap();
    assert_eq!(
        audit
            .findings
            .iter()
            .filter(|finding| finding.says.contains("not among the configured"))
            .count(),
        4
    );
    std::fs::write(files[0].with_file_name("note.txt"), b"x").unwrap();
    assert!(
        wrong(&host.audit().await)
            .iter()
            .any(|says| says.contains("no name of a record"))
    );
}

/// What no store of ours would do.
fn set(file: &Path, bytes: &[u8]) {
    std::fs::remove_file(file).unwrap();
    std::fs::write(file, bytes).unwrap();
}

#[tokio::test]
async fn an_end_that_is_cut_off_is_missed_by_others_who_saw_it() {
    let mut host = Host::new().await;
    for what in ["a", "b"] {
        drop(host.append(what).await);
    }
    let other = Instance::create(&host.env, "other", &host.world.folder.join("other.key")).unwrap();
    host.world.protected.trust.add("other", other.public_key());
    let elsewhere = host.with_state(&host.world.folder.join("elsewhere"));
    let entry = Host::entry("of the other", Outcome::Done);
    drop(ledger::append(&host.env, &elsewhere, &other, entry.clone()).await.unwrap());
    let record = ledger::read(&elsewhere)
        .await
        .unwrap()
        .records
        .into_iter()
        .find(|record| record.instance == "other")
        .unwrap();
    assert_eq!(record.heads.values().map(|head| head.seq).collect::<Vec<_>>(), [2]);
    let second = host
        .files("store")
        .into_iter()
        .find(|file| file.to_string_lossy().contains("/0000000000000002-"))
        .unwrap();
    std::fs::remove_file(second).unwrap();
    let bare = host.with_state(&host.world.folder.join("bare"));
    let audit = ledger::audit(&bare).await.unwrap();
    assert!(
        wrong(&audit).iter().any(|says| says.contains("saw record")),
        "{:?}",
        audit.findings
    );
}

#[tokio::test]
async fn what_one_store_lost_is_wrong_and_shipped_again_from_the_other() {
    let host = Host::new().await.with_second().await;
    for what in ["a", "b", "c"] {
        drop(host.append(what).await);
    }
    std::fs::remove_file(&host.files("second")[1]).unwrap();
    let audit = host.audit().await;
    assert_eq!(audit.worst(), Some(Weight::Wrong), "{:?}", audit.findings);
    assert_eq!(audit.findings[0].store.as_deref(), Some("second"));
    let shipped = ledger::ship(&host.env, &host.world.protected, Some(&host.world.instance))
        .await
        .unwrap();
    assert_eq!(shipped.copied, [("second".to_owned(), 1)]);
    host.is_whole().await;
}

#[tokio::test]
async fn a_new_store_lacks_the_beginning_until_it_is_shipped() {
    let host = Host::new().await;
    for what in ["a", "b"] {
        drop(host.append(what).await);
    }
    let host = host.with_second().await;
    drop(host.append("c").await);
    let audit = host.audit().await;
    assert_eq!(audit.worst(), Some(Weight::Lacks), "{:?}", audit.findings);
    drop(ledger::ship(&host.env, &host.world.protected, None).await.unwrap());
    host.is_whole().await;
}

#[tokio::test]
async fn a_store_that_holds_another_repository_gets_nothing() {
    let mut host = Host::new().await;
    drop(host.append("a").await);
    let path = host.world.folder.join("foreign");
    let store = Arc::new(FsStore::create(&path).await.unwrap());
    Repository::init(&host.env, Arc::<FsStore>::clone(&store)).await.unwrap();
    host.world
        .protected
        .stores
        .push(Place::folder("foreign", store, path.clone()));
    let appended = host.append("b").await;
    assert_eq!(appended.missing.len(), 1);
    assert_eq!(appended.missing[0].1.kind(), ErrorKind::Refused);
    assert!(!path.join("c").exists());
    // Where every store is another one now, its ledger is another one, too.
    host.world.protected.stores.remove(0);
    let appended = host.append("c").await;
    assert!(
        appended.notes.iter().any(|note| note.contains("another repository")),
        "{appended:?}"
    );
    drop(host.append("d").await);
    assert_eq!(host.whats().await, ["c", "d"]);
}

#[tokio::test]
async fn clocks_that_step_change_no_order() {
    let host = Host::new().await;
    drop(host.append("a").await);
    host.clock.step_wall_us(-3_600_000_000);
    drop(host.append("b").await);
    host.clock.step_wall_us(7_200_000_000);
    drop(host.append("c").await);
    assert_eq!(host.whats().await, ["a", "b", "c"]);
    let audit = host.audit().await;
    assert_eq!(audit.worst(), Some(Weight::Told));
    assert_eq!(audit.findings.len(), 1);
    assert!(
        audit.findings[0].says.contains("a clock was set back"),
        "{:?}",
        audit.findings
    );
}

#[tokio::test]
async fn two_runs_at_once_give_out_no_number_twice() {
    let host = Arc::new(Host::new().await);
    drop(host.append("first").await);
    let mut runs = tokio::task::JoinSet::new();
    for number in 0..8 {
        let host = Arc::clone(&host);
        runs.spawn(async move { drop(host.append(&format!("{number}")).await) });
    }
    runs.join_all().await;
    drop(host.append("last").await);
    assert_eq!(host.whats().await.len(), 10);
    host.is_whole().await;
}

#[tokio::test]
async fn long_facts_keep_their_beginning() {
    let host = Host::new().await;
    let mut entry = Host::entry("a", Outcome::Failed);
    let long: Vec<String> = (0..100_000).map(|number| format!("file {number}")).collect();
    entry.facts.insert("files".to_owned(), json!(long));
    drop(
        ledger::append(&host.env, &host.world.protected, &host.world.instance, entry)
            .await
            .unwrap(),
    );
    let records = ledger::read(&host.world.protected).await.unwrap().records;
    assert_eq!(records[0].outcome, "failed");
    let files = records[0].facts["files"].as_array().unwrap();
    assert_eq!(files.len(), 201);
    assert_eq!(files[200]["left_out"], 99_800);
}

async fn by_catalog(host: &Host) -> (Vec<String>, bool) {
    let state_dir = &host.world.protected.state_dir;
    let mut catalog = Catalog::open(state_dir, Some(host.world.instance.public_key()));
    let is_new = catalog.is_new();
    let chains = ledger::read_with(&host.world.protected, &mut catalog).await.unwrap();
    (whats(&chains.records), is_new)
}

#[tokio::test]
async fn a_catalog_that_is_deleted_damaged_or_foreign_changes_nothing() {
    let host = Host::new().await;
    for what in ["a", "b"] {
        drop(host.append(what).await);
    }
    let wanted = vec!["a".to_owned(), "b".to_owned()];
    let file = host.world.protected.state_dir.join("catalog.sqlite");
    assert_eq!(by_catalog(&host).await, (wanted.clone(), true));
    assert_eq!(by_catalog(&host).await, (wanted.clone(), false));
    std::fs::remove_file(&file).unwrap();
    assert_eq!(by_catalog(&host).await, (wanted.clone(), true));
    std::fs::write(&file, b"this is no database, and was one a moment ago").unwrap();
    assert_eq!(by_catalog(&host).await, (wanted.clone(), true));
    let other = Instance::create(&host.env, "other", &host.world.folder.join("other.key")).unwrap();
    assert!(Catalog::open(&host.world.protected.state_dir, Some(other.public_key())).is_new());
    assert_eq!(by_catalog(&host).await, (wanted.clone(), true));
    // What is in it is believed no more than what is in a store.
    let connection = rusqlite::Connection::open(&file).unwrap();
    connection.execute("UPDATE records SET stored = x'00'", []).unwrap();
    drop(connection);
    assert_eq!(by_catalog(&host).await, (wanted, false));
}

#[tokio::test]
async fn records_in_the_catalog_are_not_fetched_again() {
    let mut host = Host::new().await;
    drop(host.append("a").await);
    drop(by_catalog(&host).await);
    let inner = Arc::clone(&host.world.protected.stores[0].store);
    let store = Arc::new(FaultyStore::new(inner, Plan::calm()));
    host.world.protected.stores[0].store = Arc::<FaultyStore<_>>::clone(&store);
    drop(by_catalog(&host).await);
    let done: Vec<Op> = store.log().iter().map(|record| record.op).collect();
    assert_eq!(done, [Op::Get, Op::List], "the descriptor and the names");
}

fn proven(backup: &str, level: &str) -> Entry {
    let proof = json!({ "backup": { "name": backup }, "level": level, "took_s": 2.5, "bytes": 77 });
    let facts = json!({ "result": { "component": "test/db", "proofs": [proof] } });
    Entry {
        verb: "verify".to_owned(),
        outcome: Outcome::Done,
        facts: facts.as_object().unwrap().clone(),
    }
}

#[tokio::test]
async fn a_rebuilt_catalog_tells_a_new_machine_what_was_proven_and_nothing_older_than_bad_news() {
    let host = Host::new().await;
    let append = async |entry| {
        host.clock.advance(DAY);
        drop(
            ledger::append(&host.env, &host.world.protected, &host.world.instance, entry)
                .await
                .unwrap(),
        );
    };
    append(proven("1-a", "restore")).await;
    let mut bad = proven("2-a", "hash");
    bad.outcome = Outcome::Failed;
    bad.facts = json!({ "error": { "kind": "corrupt" } }).as_object().unwrap().clone();
    append(bad).await;
    append(proven("3-a", "app")).await;
    let fresh = host.with_state(&host.world.folder.join("fresh"));
    let mut catalog = Catalog::remake(&fresh.state_dir, None).unwrap();
    let rebuilt = ledger::rebuild(&fresh, &mut catalog).await.unwrap();
    assert_eq!((rebuilt.records, rebuilt.proofs, rebuilt.refused), (3, 1, 0));
    let proofs = proof::load(&fresh.state_dir, &fresh.component);
    assert_eq!(proofs.len(), 1);
    assert_eq!(
        (proofs[0].backup.as_str(), proofs[0].level, proofs[0].bytes),
        ("3-a", Level::App, 77)
    );
    assert_eq!(ledger::rebuild(&fresh, &mut catalog).await.unwrap().proofs, 0);
    let mut stranger = host.with_state(&host.world.folder.join("stranger"));
    stranger.trust = lifeboat_repo::Trust::new();
    let rebuilt = ledger::rebuild(&stranger, &mut catalog).await.unwrap();
    assert_eq!((rebuilt.proofs, rebuilt.refused), (0, 3));
    assert!(proof::load(&stranger.state_dir, &stranger.component).is_empty());
}
