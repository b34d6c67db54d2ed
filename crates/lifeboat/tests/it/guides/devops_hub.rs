//! The DevOps Hub guide: database and configuration, locally and in S3.
#![allow(
    clippy::disallowed_methods,
    reason = "the disasters of the guide, and what is left after them"
)]

use super::{Guide, execute, number, read};
use crate::world::{Ran, World};

const BUCKET: super::Bucket = (
    "s3: { bucket: your-bucket, prefix: backups, region: eu-central-1 }",
    "backups",
);
const DATABASE: &str = "data/devops_hub.db";
const SECRET: &str = "never-store-this-value";
const HASH: &str = "a-hash-that-stays-secret";

fn make(world: &World) {
    for folder in ["data", "k8s", "frontend"] {
        std::fs::create_dir(world.path(folder)).unwrap();
    }
    execute(
        world,
        DATABASE,
        &format!(
            "PRAGMA journal_mode = wal;
             CREATE TABLE agents (id INTEGER PRIMARY KEY, name TEXT);
             INSERT INTO agents (name) VALUES ('one'), ('two'), ('three');
             CREATE TABLE api_keys (id INTEGER PRIMARY KEY, name TEXT, scopes TEXT, hash TEXT);
             INSERT INTO api_keys (name, scopes, hash) VALUES ('ci', 'read,write', '{HASH}')"
        ),
    );
    world.write("docker-compose.yml", "services: {}\n");
    world.write("docker-compose.prod.yml", "services: { backend: {} }\n");
    world.write("k8s/backend.yaml", "kind: Deployment\n");
    world.write("k8s/README.md", "not part of it\n");
    world.write("frontend/nginx.conf", "server { listen 80; }\n");
    world.write(
        ".env",
        &format!("# keys\nSECRET_KEY={SECRET}\nexport DATABASE_PATH=./data/devops_hub.db\n"),
    );
}

pub(super) fn guide() -> Guide {
    Guide::set_up("devops-hub", BUCKET, make)
}

fn agents(world: &World, name: &str) -> i64 {
    number(world, name, "SELECT count(*) FROM agents")
}

fn says(ran: &Ran, words: &[&str]) {
    for word in words {
        assert!(ran.stdout.contains(word), "{word} is not in {}", ran.stdout);
    }
}

/// `./scripts/backup.sh`, `--db-only`, `--config-only`, `--to s3://…`; `ls -la backups/`; what gets backed up, and what does not.
#[test]
fn backup_of_everything_of_one_thing_and_to_s3_alone() {
    let guide = guide();
    let world = &guide.world;
    let backup = world.run(&["backup", "devops-hub", "--json"]).ends(0).json("backup");
    for component in backup["components"].as_array().unwrap() {
        assert!(
            component["copies"]
                .as_array()
                .unwrap()
                .iter()
                .all(|copy| copy["stored"] == true),
            "{component:#}"
        );
    }
    world.run(&["backup", "devops-hub/db"]).ends(0);
    world.run(&["backup", "devops-hub/config"]).ends(0);
    world.run(&["backup", "devops-hub", "--to", "s3"]).ends(0);
    let list = world.run(&["list", "devops-hub"]).ends(0);
    says(&list, &["devops-hub/db", "devops-hub/config"]);

    // Row counts for verification; the metadata of the API keys; the SQL dump.
    let show = world.run(&["show", "devops-hub/db", "--json"]).ends(0).json("show");
    let facts = &show["components"][0]["backup"]["facts"];
    assert_eq!(facts["tables"]["agents"], 3);
    world
        .run(&[
            "restore",
            "export",
            "devops-hub/db",
            "--extract",
            "api_keys_metadata.csv",
            "--to",
            "keys.csv",
        ])
        .ends(0);
    assert_eq!(
        read(world, "keys.csv").replace('\r', ""),
        "id,name,scopes\n1,ci,\"read,write\"\n"
    );
    world
        .run(&["restore", "export", "devops-hub/db", "--to", "devops_hub.sql"])
        .ends(0);
    assert!(read(world, "devops_hub.sql").contains("CREATE TABLE agents"));

    // Of the environment only the structure; nothing else from beside it.
    world.run(&["restore", "devops-hub/config", "--to", "look"]).ends(0);
    assert_eq!(read(world, "look/.env"), "SECRET_KEY=\nexport DATABASE_PATH=\n");
    assert_eq!(read(world, "look/k8s/backend.yaml"), "kind: Deployment\n");
    assert!(!world.path("look/k8s/README.md").exists() && !world.path("look/data").exists());
    for folder in ["backups", "lifeboat-state", "look", "home"] {
        for (path, bytes) in world.files(folder) {
            let text = String::from_utf8_lossy(&bytes);
            assert!(!text.contains(SECRET) && !text.contains(HASH), "{} tells it", path.display());
        }
    }
}

/// `./scripts/restore.sh`: dry run, everything, database only, configuration only.
#[test]
fn restore_of_everything_of_the_database_and_of_the_configuration() {
    let guide = guide();
    let world = &guide.world;
    world.run(&["backup"]).ends(0);

    // Accidental deletion: what would come back, then back.
    execute(world, DATABASE, "DELETE FROM agents WHERE id > 1");
    let diff = world
        .run(&["diff", "latest", "live", "devops-hub/db", "--table", "agents"])
        .ends(0);
    says(&diff, &["2 missing"]);
    let plan = world.run(&["restore", "devops-hub", "--dry-run"]).ends(0);
    says(&plan, &["devops-hub/db", "devops-hub/config"]);
    assert_eq!(agents(world, DATABASE), 1);
    world.run(&["restore", "devops-hub/db", "--in-place", "--yes"]).ends(0);
    assert_eq!(agents(world, DATABASE), 3);

    // Corruption: `PRAGMA integrity_check`, then the database alone; the configuration is not touched.
    world.write(DATABASE, "this was a database once");
    world.write("docker-compose.yml", "services: { mine: {} }\n");
    world.run(&["restore", "devops-hub/db", "--in-place", "--yes"]).ends(0);
    assert_eq!(agents(world, DATABASE), 3);
    assert_eq!(read(world, "docker-compose.yml"), "services: { mine: {} }\n");
    let check = world.run(&["check", "devops-hub/db"]).ends(0);
    says(&check, &["integrity", "good"]);

    // The configuration alone: what differs, and never the values of the environment.
    std::fs::remove_dir_all(world.path("k8s")).unwrap();
    let diff = world.run(&["diff", "latest", "live", "devops-hub/config"]).ends(0);
    says(&diff, &["docker-compose.yml", "k8s/backend.yaml"]);
    let restored = world
        .run(&["restore", "devops-hub/config", "--in-place", "--yes", "--json"])
        .ends(0)
        .json("restore");
    assert_eq!(read(world, "docker-compose.yml"), "services: {}\n");
    assert_eq!(read(world, "k8s/backend.yaml"), "kind: Deployment\n");
    assert!(read(world, ".env").contains(SECRET));
    let id = restored["components"][0]["id"].as_str().unwrap().to_owned();
    world.run(&["restore", "undo", &id]).ends(0);
    assert_eq!(read(world, "docker-compose.yml"), "services: { mine: {} }\n");

    // Everything, in the order of recovery.
    std::fs::remove_dir_all(world.path("data")).unwrap();
    let all = world.run(&["restore", "devops-hub", "--in-place", "--yes"]).ends(0);
    assert!(all.stderr.contains("devops-hub/db → devops-hub/config"), "{}", all.stderr);
    assert_eq!(agents(world, DATABASE), 3);
    assert_eq!(
        read(world, "docker-compose.yml"),
        "services: {}\n",
        "as the newest backup has it"
    );
}

/// Scenario 3, the server is lost: `restore.sh --from-s3`, on a new machine that has the key.
#[test]
fn a_new_server_is_restored_from_s3() {
    let guide = guide();
    guide.world.run(&["backup"]).ends(0);
    let server = guide.another_machine();
    let list = server.run(&["list", "--from", "s3"]).ends(0);
    says(&list, &["devops-hub/db"]);
    server.run(&["restore", "devops-hub", "--from", "s3", "--dry-run"]).ends(0);
    assert!(!server.path("data").exists());
    // What comes after it, a fresh backup, is not possible before the machine has a signing key: the restore says so, and is done.
    let restored = server
        .run(&["restore", "devops-hub", "--from", "s3", "--in-place", "--yes"])
        .ends(3);
    assert!(restored.stdout.contains("NOT BACKED UP YET"), "{}", restored.stdout);
    assert_eq!(agents(&server, DATABASE), 3);
    assert_eq!(read(&server, "frontend/nginx.conf"), "server { listen 80; }\n");
    assert_eq!(read(&server, ".env"), "SECRET_KEY=\nexport DATABASE_PATH=\n");
    assert!(restored.stdout.contains("SECRET_KEY, DATABASE_PATH"), "{}", restored.stdout);

    // A store that no configuration names, as the guide types it.
    let address = format!("s3://{}/backups", lifeboat_testkit::s3::BUCKET);
    let endpoint = guide.service.server.endpoint();
    let mut command = server.command();
    command.args(["restore", "devops-hub/db", "--from", &address, "--to", "from-address.db"]);
    server
        .finish(command.env("AWS_ENDPOINT_URL", endpoint).env("AWS_REGION", "us-east-1"))
        .ends(0);
    assert_eq!(agents(&server, "from-address.db"), 3);
}

/// The monthly test and its checklist; the lists before, during and after a recovery.
#[test]
fn the_checklists_are_commands() {
    let guide = guide();
    let world = &guide.world;
    world.run(&["backup"]).ends(0);
    // Downloads, checksums, restores, counts that match: from the place that would be used.
    for store in ["local", "s3"] {
        world.run(&["verify", "devops-hub", "--from", store]).ends(0);
    }
    world
        .run(&["restore", "devops-hub/db", "--to", "data/test_restore.db"])
        .ends(0);
    assert_eq!(agents(world, "data/test_restore.db"), 3);
    world.run(&["check", "devops-hub/db", "--on", "data/test_restore.db"]).ends(0);
    // Recovery tested, objectives met, the newest backup known, its integrity proven.
    let status = world.run(&["status"]).ends(0);
    says(&status, &["devops-hub/db", "devops-hub/config", "ready"]);
    world.run(&["points", "devops-hub"]).ends(0);
    world.run(&["verify", "devops-hub", "--level", "decrypt"]).ends(0);
    let doctor = world.run(&["doctor"]);
    assert!(!doctor.stdout.contains('✗'), "{}", doctor.stdout);
    // Thirty days are kept: nothing goes yet, and the reason stands beside every backup.
    let prune = world.run(&["prune", "--dry-run"]).ends(0);
    says(&prune, &["devops-hub/db", "devops-hub/config"]);
}
