//! PostgreSQL clusters, backed up while they are written to, and brought back.

use lifeboat_engine::postgres::{ConnInfo, Surroundings};
use lifeboat_ops::Source;
use lifeboat_ops::protected::{self, Login, Mode};
use lifeboat_repo::list_log;
use lifeboat_testkit::postgres::{Cluster, Options, majors};

use crate::world::World;

fn source(cluster: &Cluster) -> Source {
    let dsn = cluster.dsn("postgres", "postgres");
    Source::Postgres(protected::Cluster {
        method: lifeboat_ops::protected::Method::Physical,
        logical: lifeboat_ops::protected::Logical::default(),
        login: Login::known(ConnInfo::parse(&dsn, &Surroundings::default()).unwrap()),
        data_dir: None,
        mode: Mode::Auto,
        slot: "lifeboat_test".to_owned(),
        binaries: vec![cluster.bindir()],
        program: "lifeboat".into(),
        care: protected::Care::default(),
    })
}

async fn world(cluster: &Cluster) -> World {
    let mut world = World::new(1).await;
    world.protected.source = source(cluster);
    world
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_holds_its_own_log() {
    for major in majors() {
        let cluster = Cluster::start(major, &Options::new());
        cluster.pgbench_init(2);
        let world = world(&cluster).await;
        let mut load = cluster.spawn("pgbench", &["-T", "60", "-c", "2", "postgres"]);
        for round in 0..2 {
            let report = world.back_up().await.unwrap();
            let facts = report.facts.postgres().unwrap();
            assert_eq!(facts.major, major);
            assert_eq!(facts.bad_page_count, 0);
            let header = &report.backup.header;
            let need = header.log.unwrap();
            assert_eq!(need.range.end.to_string(), facts.end);
            assert_eq!(header.parent.is_some(), round == 1, "{major}");
            let repository = world.protected.repository().await.unwrap();
            let log = list_log(&repository, &world.protected.component, &world.protected.trust)
                .await
                .unwrap();
            let record = log.lineages.last().unwrap();
            assert_eq!((log.lineages.len(), record.system), (1, cluster.system_identifier()));
            assert!(log.candidates(need.lineage).holds(need.range), "{major}: {need:?}");
            if round == 1 {
                let stats = &report.stats;
                assert!(stats.stored_bytes * 3 < stats.read_bytes, "{major}: {stats:?}");
            }
            println!("{major} {round}: {:?} {:?}", report.took, report.stats);
        }
        load.kill().unwrap();
        load.wait().unwrap();
        assert_eq!(
            cluster.query("select count(*) from pg_replication_slots"),
            "0",
            "nothing is left on the server"
        );
    }
}
