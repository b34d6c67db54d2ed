//! Every major is there, starts, survives a kill and is gone afterwards.

use lifeboat_testkit::postgres::{Cluster, Options, Stop, majors};

#[test]
fn every_major_starts_and_says_its_version() {
    for major in majors() {
        let cluster = Cluster::start(major, &Options::new());
        let version = cluster.query("select version()");
        assert!(version.starts_with(&format!("PostgreSQL {major}.")), "{version}");
        assert_eq!(cluster.query("show data_checksums"), "on");
        let folder = cluster.folder().to_owned();
        let pid = cluster.pid().unwrap();
        drop(cluster);
        assert!(!folder.try_exists().unwrap() && !std::fs::exists(format!("/proc/{pid}")).unwrap());
    }
}

#[test]
fn what_was_committed_survives_a_kill_and_a_standby_takes_over() {
    for major in majors() {
        let mut primary = Cluster::start(major, &Options::new().set("wal_level", "replica"));
        primary.query("create table t as select generate_series(1, 1000) as i");
        primary.kill_9();
        assert!(!primary.is_running());
        primary.begin();
        assert_eq!(primary.query("select count(*) from t"), "1000");
        let standby = primary.standby(&Options::new());
        primary.query("insert into t select 1001");
        standby.wait_for_replay(&primary);
        assert_eq!(standby.query("select count(*), pg_is_in_recovery() from t"), "1001|t");
        assert_eq!(standby.system_identifier(), primary.system_identifier());
        primary.stop(Stop::Fast);
        standby.promote();
        assert_eq!(standby.query("select pg_is_in_recovery()"), "f");
        let other = Cluster::start(major, &Options::new().fresh(&["--wal-segsize=1"]));
        assert_ne!(other.system_identifier(), standby.system_identifier());
        assert_eq!(other.query("show wal_segment_size"), "1MB");
    }
}
