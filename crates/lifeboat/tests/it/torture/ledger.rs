//! Who wrote what, when it was answered, and what a restore has to make of it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use lifeboat_engine::postgres::sql::Sql;
use lifeboat_engine::postgres::{ConnInfo, Surroundings};
use lifeboat_model::Lsn;
use lifeboat_testkit::env::real_env;
use lifeboat_testkit::postgres::Cluster;

/// A client and its number.
pub type Row = (u32, u32);

/// A transaction that was answered.
#[derive(Debug, Clone, Copy)]
pub struct Entry {
    row: Row,
    /// It was written when the log ended there: the commit lies behind.
    before: Lsn,
    /// The log's end after the answer: the commit lies in front; unknown where the server went.
    after: Option<Lsn>,
    /// When the client had the answer.
    answered_us: i64,
}

/// Clients that write.
pub struct Load {
    entries: Arc<Mutex<Vec<Entry>>>,
    stop: Arc<AtomicBool>,
    clients: Vec<std::thread::JoinHandle<()>>,
}

impl Load {
    /// Has `clients` write into the table `ledger`, whatever happens to the server.
    pub fn begin(cluster: &Cluster, clients: u32) -> Self {
        cluster.query("create table ledger (client int, number int, payload text, primary key (client, number))");
        cluster.query("alter table ledger alter payload set storage external");
        let info = ConnInfo::parse(&cluster.dsn("postgres", "postgres"), &Surroundings::default()).unwrap();
        let (entries, stop) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicBool::new(false)));
        let begin = |client| {
            let (info, entries, stop) = (info.clone(), Arc::clone(&entries), Arc::clone(&stop));
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            std::thread::spawn(move || runtime.unwrap().block_on(work(client, info, entries, stop)))
        };
        let clients = (0..clients).map(begin).collect();
        Self { entries, stop, clients }
    }

    /// Ends them; what was answered.
    pub fn end(self) -> Vec<Entry> {
        self.stop.store(true, Ordering::SeqCst);
        for client in self.clients {
            client.join().unwrap();
        }
        std::mem::take(&mut *self.entries.lock().unwrap())
    }
}

async fn work(client: u32, info: ConnInfo, entries: Arc<Mutex<Vec<Entry>>>, stop: Arc<AtomicBool>) {
    let clock = real_env().clock;
    let mut number = 0;
    while !stop.load(Ordering::SeqCst) {
        let Ok(sql) = Sql::connect(&info).await else {
            tokio::time::sleep(Duration::from_millis(20)).await;
            continue;
        };
        while !stop.load(Ordering::SeqCst) {
            number += 1;
            // Some are long: 160 KB.
            let words = if number % 50 == 0 { 5000 } else { number % 40 };
            let insert = format!(
                "insert into ledger select {client}, {number}, (select string_agg(md5((i * {number})::text), '') \
                 from generate_series(1, {words}) i) returning pg_current_wal_insert_lsn()::text"
            );
            // It may be there or not: nobody knows, and the next one gets another number.
            let Ok(answer) = sql.text("write to", &insert).await else {
                break;
            };
            let answered_us = clock.wall_us();
            let after = sql.text("ask", "select pg_current_wal_insert_lsn()::text").await.ok();
            let lsn = |rows: &[Vec<Option<String>>]| rows[0][0].as_deref().unwrap().parse::<Lsn>().unwrap();
            let entry = Entry {
                row: (client, number),
                before: lsn(&answer),
                after: after.as_deref().map(lsn),
                answered_us,
            };
            entries.lock().unwrap().push(entry);
            if entry.after.is_none() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(u64::from(number % 5))).await;
        }
    }
}

/// What is wanted back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Goal {
    Latest,
    Lsn(Lsn),
    /// Microseconds since 1970.
    Time(i64),
}

/// What a restore is worth.
#[derive(Debug)]
pub struct Verdict {
    /// So many had to be there.
    pub expected: usize,
    /// They were answered before the moment, and are not there.
    pub lost: Vec<Row>,
    /// They came after the moment, or were never committed, and are there.
    pub surplus: Vec<Row>,
    /// Neither answered before nor committed after it: they were under way.
    pub open: usize,
}

/// What was answered, and what the server knows of it.
pub struct Ledger {
    entries: Vec<Entry>,
    /// All that is committed, with the time of the commit.
    pub committed: BTreeMap<Row, i64>,
}

impl Ledger {
    /// Asks the server.
    pub fn new(entries: Vec<Entry>, cluster: &Cluster) -> Self {
        let sql = "select client, number, (extract(epoch from pg_xact_commit_timestamp(xmin)) * 1000000)::bigint from ledger";
        let committed: BTreeMap<Row, i64> = cluster
            .query(sql)
            .lines()
            .map(|line| {
                let mut numbers = line.split('|').map(|number| number.parse::<i64>().unwrap());
                let mut next = || numbers.next().unwrap();
                let row = (u32::try_from(next()).unwrap(), u32::try_from(next()).unwrap());
                (row, next())
            })
            .collect();
        for entry in &entries {
            let at = committed.get(&entry.row).expect("the server itself has lost it");
            assert!(*at <= entry.answered_us, "{entry:?} was committed at {at}");
        }
        assert!(entries.len() > 10, "{} entries", entries.len());
        Self { entries, committed }
    }

    /// Compares what a restored cluster has with what it must have.
    pub fn judge(&self, goal: Goal, there: &BTreeSet<Row>) -> Verdict {
        let must = |entry: &Entry| match goal {
            Goal::Latest => true,
            Goal::Lsn(lsn) => entry.after.is_some_and(|after| after <= lsn),
            Goal::Time(at_us) => entry.answered_us <= at_us,
        };
        let wanted: BTreeSet<Row> = self
            .entries
            .iter()
            .filter(|entry| must(entry))
            .map(|entry| entry.row)
            .collect();
        let mut never: BTreeSet<Row> = there
            .iter()
            .filter(|row| !self.committed.contains_key(row))
            .copied()
            .collect();
        match goal {
            Goal::Latest => {}
            Goal::Lsn(lsn) => never.extend(self.entries.iter().filter(|entry| entry.before >= lsn).map(|entry| entry.row)),
            Goal::Time(at_us) => never.extend(self.committed.iter().filter(|(_, at)| **at > at_us).map(|(row, _)| *row)),
        }
        Verdict {
            expected: wanted.len(),
            lost: wanted.difference(there).copied().collect(),
            surplus: never.intersection(there).copied().collect(),
            open: there.difference(&wanted).count(),
        }
    }

    /// Positions behind commits.
    pub fn positions(&self) -> Vec<Lsn> {
        self.entries.iter().filter_map(|entry| entry.after).collect()
    }
}
