//! The N-Kudo guide, as far as it is not PostgreSQL: the certificate authority, the environment, a service that speaks S3.

use super::{Guide, read};
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

#[test]
fn a_pki_and_its_environment_come_back_on_a_new_server() {
    let guide = Guide::set_up("n-kudo", BUCKET, |world| make(world, 3650));
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
    let server = guide.another_machine();
    let restored = server
        .run(&["restore", "n-kudo", "--from", "minio", "--in-place", "--yes"])
        .ends(3);
    assert!(restored.stderr.contains("n-kudo/pki → n-kudo/config"), "{}", restored.stderr);
    assert_eq!(read(&server, "ca/ca.key"), read(world, "ca/ca.key"));
    assert_eq!(read(&server, "control-plane.env"), read(world, "control-plane.env"));
    assert_eq!(read(&server, "tls/server.crt"), read(world, "ca/ca.crt"));
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
    let guide = Guide::set_up("n-kudo", BUCKET, |world| make(world, 10));
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
