//! The N-Kudo guide: the certificate authority, the environment, the control plane's database, a service that speaks S3.

use lifeboat_testkit::postgres::{Cluster, Options};

use super::{Guide, read};
use crate::logical::id_of;
use crate::world::World;

const BUCKET: super::Bucket = (
    "s3: { bucket: my-backups, prefix: n-kudo, endpoint: \"https://minio.example.com\" }",
    "n-kudo",
);
const SECRET: &str = "nobody-may-read-this";

/// An authority and a server's certificate of the real program, valid for so many days, and its revocation list.
fn make(world: &World, days: u32) {
    world.script(&format!(
        "mkdir ca tls && cd ca && touch index.txt && echo 01 > crlnumber
         printf '[ca]\\ndefault_ca=d\\n[d]\\ndatabase=index.txt\\ncrlnumber=crlnumber\\ndefault_md=sha256\\ndefault_crl_days=365\\n[req]\\ndistinguished_name=n\\n[n]\\n[v]\\nbasicConstraints=critical,CA:TRUE\\nkeyUsage=keyCertSign,cRLSign\\n' > ca.cnf
         openssl req -x509 -newkey rsa:2048 -nodes -keyout ca.key -out ca.crt -days {days} -subj /CN=n-kudo -config ca.cnf -extensions v
         openssl ca -gencrl -config ca.cnf -keyfile ca.key -cert ca.crt -out ca.crl
         chmod 600 ca.key; cp ca.crt ../tls/server.crt"
    ));
    world.write(
        "control-plane.env",
        &format!("DATABASE_URL=postgres://n-kudo:{SECRET}@db/nkudo\n"),
    );
    world.write("docker-compose.yml", "services: { control-plane: {} }\n");
}

/// The control plane's database.
pub(super) fn control_plane() -> Cluster {
    let cluster = Cluster::start(15, &Options::new());
    cluster.query("create database nkudo");
    cluster.query_in(
        "nkudo",
        "create table tenants(id int primary key, name text not null); create table agents(id int primary key, tenant_id int not null references tenants, name text); \
         insert into tenants select i, 'tenant ' || i from generate_series(1, 12) i; insert into agents select i, 1 + i % 12, 'agent ' || i from generate_series(1, 300) i",
    );
    cluster
}

pub(super) fn guide(cluster: &Cluster, days: u32) -> Guide {
    let guide = Guide::set_up_with("n-kudo", BUCKET, |world| {
        make(world, days);
        world.set_env("DATABASE_URL", &cluster.url("postgres", "postgres"));
    });
    let binaries = format!("databases: [nkudo], binaries: [{}]", cluster.bindir().display());
    guide.world.edit_config("databases: [nkudo]", &binaries);
    guide
}

/// The guide's "Manual Restore Steps": a dump of its script is restored, tenants and agents are counted, the control plane starts again.
#[test]
fn a_dump_of_the_script_brings_the_control_plane_back() {
    let cluster = control_plane();
    let guide = guide(&cluster, 3650);
    let world = &guide.world;
    // `BACKUP_ENCRYPTION_KEY=… ./scripts/backup.sh --encrypt`, some time ago.
    let dump = cluster.run("pg_dump", &["-d", "nkudo"]).stdout;
    world.write("backup_20260101_120000.sql", &String::from_utf8(dump).unwrap());
    world.script(
        "export BACKUP_ENCRYPTION_KEY=sesame
         gzip backup_20260101_120000.sql
         openssl enc -aes-256-cbc -salt -in backup_20260101_120000.sql.gz -out backup_20260101_120000.sql.gz.enc -pass env:BACKUP_ENCRYPTION_KEY
         head -c 700 backup_20260101_120000.sql.gz > cut.sql.gz",
    );
    let run = |words: &[&str]| world.finish(world.command().args(words).env("BACKUP_ENCRYPTION_KEY", "sesame"));
    // Somebody's clean-up.
    cluster.query_in(
        "nkudo",
        "delete from agents; drop table agents; delete from tenants where id > 3",
    );
    let counts = "select (select count(*) from tenants), (select count(*) from agents)";
    run(&["check", "n-kudo/db"]).ends(5);
    // A file that was cut off would have been half of a database, and rc 0.
    run(&["restore", "n-kudo/db", "--from", "cut.sql.gz", "--to", "nkudo_recovered"]).ends(5);
    let dump = "backup_20260101_120000.sql.gz.enc";
    run(&["verify", "--from", dump]).ends(0);
    let restored = run(&["restore", "n-kudo/db", "--from", dump, "--to", "nkudo_recovered"]).ends(0);
    // "Verify restore", before anybody sees it.
    run(&["check", "n-kudo/db", "--on", "nkudo_recovered"]).ends(0);
    assert_eq!(cluster.query_in("nkudo_recovered", counts), "12|300");
    run(&["restore", "promote", &id_of(&restored.stdout), "--yes"]).ends(0);
    assert_eq!(cluster.query_in("nkudo", counts), "12|300");
    run(&["check", "n-kudo/db"]).ends(0);
}

#[test]
fn a_pki_and_its_environment_come_back_on_a_new_server() {
    let cluster = control_plane();
    let guide = guide(&cluster, 3650);
    let world = &guide.world;
    world.run(&["backup", "n-kudo"]).ends(0);
    let show = world.run(&["show", "n-kudo/pki"]).ends(0);
    assert!(show.stdout.contains("n-kudo"), "{}", show.stdout);
    // Encrypted wherever it rests.
    for folder in ["backups", "lifeboat-state"] {
        for (path, bytes) in world.files(folder) {
            let text = String::from_utf8_lossy(&bytes);
            assert!(!text.contains(SECRET) && !text.contains("PRIVATE KEY"), "{}", path.display());
        }
    }

    // Complete server failure: certificates first, then the configuration, from the service.
    let mut server = guide.another_machine();
    server.set_env("DATABASE_URL", &cluster.url("postgres", "postgres"));
    cluster.query_in("nkudo", "drop table agents");
    let restored = server
        .run(&["restore", "n-kudo", "--from", "minio", "--in-place", "--yes"])
        .ends(3);
    assert!(
        restored.stderr.contains("n-kudo/pki → n-kudo/config → n-kudo/db"),
        "{}",
        restored.stderr
    );
    assert_eq!(read(&server, "ca/ca.key"), read(world, "ca/ca.key"));
    assert_eq!(read(&server, "control-plane.env"), read(world, "control-plane.env"));
    assert_eq!(read(&server, "tls/server.crt"), read(world, "ca/ca.crt"));
    assert_eq!(cluster.query_in("nkudo", "select count(*) from agents"), "300");
    server.script("openssl verify -CAfile ca/ca.crt tls/server.crt && test $(stat -c %a ca/ca.key) = 600");

    // `verify-backup.sh`, `ls /var/backups/n-kudo`.
    world.run(&["verify", "n-kudo", "--from", "minio"]).ends(0);
    world.run(&["list", "n-kudo"]).ends(0);
    // What lies in a backup, as one file.
    world.run(&["restore", "export", "n-kudo/pki", "--to", "pki.tar"]).ends(0);
    world.script("mkdir out && tar -C out -xf pki.tar && cmp out/ca.key ca/ca.key");
}

#[test]
fn what_is_wrong_with_a_pki_is_said_and_it_is_backed_up_all_the_same() {
    let cluster = control_plane();
    let guide = guide(&cluster, 10);
    let world = &guide.world;
    let soon = world.run(&["backup", "n-kudo/pki"]).ends(0);
    assert!(
        format!("{}{}", soon.stdout, soon.stderr).contains("ca.crt"),
        "{}",
        soon.stderr
    );
    let status = world.run(&["status", "n-kudo/pki"]);
    assert!(status.stdout.contains("ca.crt"), "{}", status.stdout);
    // A key that belongs to nothing.
    world.script("cd ca && openssl genpkey -algorithm ed25519 -out ca.key");
    let broken = world.run(&["backup", "n-kudo/pki"]).ends(0);
    assert!(broken.stderr.contains("PROBLEM"), "{}", broken.stderr);
    // Without encryption nothing leaves the machine, whatever the rest of the configuration says.
    world.edit_config("encrypt: main", "encrypt: none");
    let refused = world.run(&["backup", "n-kudo/pki"]).ends(7);
    assert!(refused.stderr.contains("would not be encrypted"), "{}", refused.stderr);
}
