//! The guides' own commands, done with the configurations in `examples/`, through the real binary. `docs/how-to/` has a page for each guide.

mod architect_go;
mod devops_hub;
mod drills;
mod n_kudo;
mod sortie;
mod tartware;

use std::path::{Path, PathBuf};

use lifeboat_testkit::s3::{ACCESS_KEY, BUCKET, S3Options, S3Server, SECRET_KEY};
use tokio::runtime::Runtime;

use crate::world::World;

fn examples() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples")
}

/// A service that speaks S3, with one bucket.
struct Service {
    server: S3Server,
    _runtime: Runtime,
}

impl Service {
    fn start() -> Self {
        let runtime = Runtime::new().unwrap();
        let server = runtime.block_on(S3Server::start(S3Options::default())).unwrap();
        Self {
            server,
            _runtime: runtime,
        }
    }

    /// The place of a store, for a configuration.
    fn place(&self, prefix: &str) -> String {
        let endpoint = self.server.endpoint();
        format!("s3: {{ bucket: {BUCKET}, prefix: {prefix}, region: us-east-1, endpoint: \"{endpoint}\" }}")
    }
}

/// A guide's machine: its files, its configuration, and the service where the second copies go.
struct Guide {
    world: World,
    service: Service,
}

/// What an example says about its bucket, and what stands there instead: the bucket of the service in this process.
type Bucket = (&'static str, &'static str);

impl Guide {
    /// A machine with one of the examples in it, set up as its first lines say.
    fn set_up(example: &str, bucket: Bucket, make: impl FnOnce(&World)) -> Self {
        Self::set_up_with(example, bucket, |world| make(world))
    }

    /// The same, where the machine's environment is part of it.
    fn set_up_with(example: &str, (written, prefix): Bucket, make: impl FnOnce(&mut World)) -> Self {
        let service = Service::start();
        let mut world = World::empty();
        credentials(&mut world);
        make(&mut world);
        let text = std::fs::read_to_string(examples().join(example).join("lifeboat.yaml")).unwrap();
        world.write("lifeboat.yaml", &text);
        world.edit_config(written, &service.place(prefix));
        let made = world
            .run(&["key", "new", "lifeboat-key.txt", "--json"])
            .ends(0)
            .json("key-new");
        world.edit_config(
            "age1lvyvwawkr0mcnnnncaghunadrqkmuf9e6507x9y920xxpp866cnql7dp2z",
            made["public_key"].as_str().unwrap(),
        );
        let init = world.run(&["init"]).ends(7);
        let public = init
            .stderr
            .split_whitespace()
            .find(|word| word.contains("ed25519:"))
            .unwrap_or_else(|| panic!("no public key in {}", init.stderr))
            .trim_matches('"')
            .to_owned();
        world.edit_config(
            "ed25519:d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
            &public,
        );
        world.run(&["config", "check"]).ends(0);
        Self { world, service }
    }

    /// Another machine, which has the configuration, the private key and the credentials, and nothing else.
    fn another_machine(&self) -> World {
        let mut world = World::empty();
        credentials(&mut world);
        for name in ["lifeboat.yaml", "lifeboat-key.txt"] {
            world.write(name, &std::fs::read_to_string(self.world.path(name)).unwrap());
        }
        world
    }
}

fn credentials(world: &mut World) {
    world.set_env("AWS_ACCESS_KEY_ID", ACCESS_KEY);
    world.set_env("AWS_SECRET_ACCESS_KEY", SECRET_KEY);
}

/// The one number that a query gives.
#[track_caller]
fn number(world: &World, database: &str, query: &str) -> i64 {
    let connection = world.open(database);
    let number = connection.query_row(query, [], |row| row.get(0)).unwrap();
    connection.close().unwrap();
    number
}

#[track_caller]
fn execute(world: &World, database: &str, sql: &str) {
    let connection = world.open(database);
    connection.execute_batch(sql).unwrap();
    connection.close().unwrap();
}

#[track_caller]
fn read(world: &World, name: &str) -> String {
    std::fs::read_to_string(world.path(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

#[test]
fn every_example_is_a_right_configuration() {
    let world = World::empty();
    for name in ["devops-hub", "sortie", "n-kudo", "architect-go", "tartware"] {
        let file = examples().join(name).join("lifeboat.yaml");
        let checked = world
            .run(&["--config", &file.display().to_string(), "config", "check"])
            .ends(0);
        assert!(!checked.stdout.contains("warning"), "{}", checked.stdout);
    }
}
