//! One of 200 tenants: exported, deleted, restored from the backup of the whole database and from the extract, with everybody else untouched. There is no
//! peer that does it; the times are stated.

use anyhow::{Result, bail, ensure};
use serde_json::Value;

use super::alternate::{Side, alternate};
use super::cluster::Home;
use super::measure::measured;
use super::postgres::Server;
use super::{Figures, Options, data};

/// A hotel chain whose rows point at rows of their own tenant only.
const TABLES: &str = "
select setseed(0.42);
create table tenants (id uuid primary key, name text not null);
insert into tenants select md5('t' || i)::uuid, 'Hotel ' || i from generate_series(0, 199) i;
create table guests (id bigint primary key, tenant_id uuid not null references tenants, name text, email text, address text);
insert into guests select i, md5('t' || i % 200)::uuid, initcap(substr(md5('n' || i), 1, 9)), substr(md5('n' || i), 1, 12) || '@example.com',
  (random() * 200)::int || ' Main Street, ' || (10000 + (random() * 89999)::int) from generate_series(0, GUESTS - 1) i;
create table reservations (id bigint primary key, tenant_id uuid not null references tenants, guest_id bigint not null references guests,
  arrival date, rate numeric(10,2), note text, created_at timestamptz);
insert into reservations select i, md5('t' || i % 200)::uuid, i % GUESTS, date '2022-01-01' + (i / 2000)::int, round((random() * 300)::numeric, 2),
  case when random() < 0.3 then md5(random()::text) end, timestamptz '2022-01-01 00:00:00+00' + i * interval '31 seconds'
  from generate_series(0, GUESTS * 4::bigint - 1) i;
create table payments (id bigint primary key, tenant_id uuid not null references tenants, reservation_id bigint not null references reservations,
  amount numeric(12,2), reference text, paid_at timestamptz);
insert into payments select i, md5('t' || i % 200)::uuid, i, round((random() * 900)::numeric, 2), upper(substr(md5('p' || i), 1, 16)),
  timestamptz '2022-01-01 00:00:00+00' + i * interval '33 seconds' from generate_series(0, GUESTS * 4::bigint - 1) i;
create table messages (id bigint primary key, tenant_id uuid not null references tenants, body text);
insert into messages select i, md5('t' || i % 200)::uuid, 'Dear guest, your code is ' || substr(md5(random()::text), 1, 8) || '. ' || md5(random()::text)
  from generate_series(0, GUESTS * 2::bigint - 1) i;
create index on reservations (tenant_id, arrival); create index on payments (reservation_id); create index on guests (tenant_id);
analyze;
checkpoint;
";

/// Those with a tenant, in the order in which their rows may go.
const OWNED: [&str; 4] = ["payments", "reservations", "messages", "guests"];
/// The tenant.
const TENANT: &str = "md5('t17')::uuid";

/// The figures of one run.
pub(super) fn run(options: &Options) -> Result<Figures> {
    let server = Server::start("-c fsync=on -c checkpoint_timeout=1h")?;
    let guests = if options.quick { "20000" } else { "800000" };
    server.sql(&TABLES.replace("GUESTS", guests))?;
    println!(
        "  the database has {} MiB",
        server.ask("select pg_database_size('bench') >> 20")?.trim()
    );
    let tenants =
        "auto, method: logical, databases: [bench], tenants: { root: public.tenants.id, key: tenant_id, map: tenant-map.yaml }";
    let home = Home::make(options, &server, "disk", "fs: { path: store }", tenants)?;
    let map = measured(&mut home.lifeboat(&["tenant-map", "bench/db"]))?.stdout;
    std::fs::write(home.folder.join("tenant-map.yaml"), map)?;
    measured(&mut home.lifeboat(&["backup"]))?;
    let id = server.ask(&format!("select {TENANT}"))?.trim().to_owned();
    let bench = Bench { server, home, id };
    let (tenant, others) = (bench.digest("=")?, bench.digest("<>")?);
    let extract = std::cell::RefCell::new(String::new());
    let times = alternate(
        "tenant",
        options.rounds,
        vec![
            Side::new("export", |_| {
                let (seconds, newest) = bench.export()?;
                *extract.borrow_mut() = newest;
                Ok(seconds)
            }),
            Side::new("from whole", |_| bench.restore("1")),
        ],
    )?;
    let newest = extract.borrow().clone();
    let small = alternate(
        "tenant",
        options.rounds,
        vec![Side::new("from extract", |_| bench.restore(&newest))],
    )?;
    ensure!(bench.digest("=")? == tenant, "the tenant's rows are not what they were");
    ensure!(bench.digest("<>")? == others, "rows of others have changed");
    let ([exported, whole], [extracted]) = (times.as_slice(), small.as_slice()) else {
        bail!("three sides make three medians");
    };
    bench.server.stop()?;
    bench.server.remove()?;
    Ok(vec![
        ("tenant_export_seconds", *exported),
        ("tenant_restore_seconds", *whole),
        ("tenant_restore_from_extract_seconds", *extracted),
    ])
}

struct Bench {
    server: Server,
    home: Home,
    id: String,
}

impl Bench {
    /// Of the rows of the tenant (`=`) or of all others (`<>`).
    fn digest(&self, is: &str) -> Result<String> {
        let one = |table: &str| {
            format!(
                "(select count(*) || ' ' || coalesce(sum(hashtextextended(t::text, 7)::numeric), 0) from {table} t where tenant_id {is} {TENANT})"
            )
        };
        let all: Vec<String> = OWNED.iter().map(|table| one(table)).collect();
        self.server.ask(&format!("select concat_ws('; ', {})", all.join(", ")))
    }

    /// How long it takes, and the extract.
    fn export(&self) -> Result<(f64, String)> {
        data::sync(&self.server.folder)?;
        let run = measured(&mut self.home.lifeboat(&["--json", "backup", "bench/db", "--tenant", &self.id]))?;
        let said: Value = serde_json::from_str(&run.stdout)?;
        let Some(id) = said["components"][0]["backup"]["id"].as_str() else {
            bail!("no extract in {said:#}");
        };
        Ok((run.seconds, id.to_owned()))
    }

    /// Deletes the tenant, and brings him back.
    fn restore(&self, backup: &str) -> Result<f64> {
        for table in OWNED.iter().chain(&["tenants"]) {
            let key = if *table == "tenants" { "id" } else { "tenant_id" };
            self.server.sql(&format!(
                "set session_replication_role = replica; delete from {table} where {key} = {TENANT}"
            ))?;
        }
        self.server.sql("checkpoint")?;
        data::sync(&self.server.folder)?;
        let words = [
            "restore",
            "bench/db",
            "--tenant",
            &self.id,
            "--backup",
            backup,
            "--in-place",
            "--yes",
        ];
        let seconds = measured(&mut self.home.lifeboat(&words))?.seconds;
        let left = self
            .server
            .ask(&format!("select count(*) from tenants where id = {TENANT}"))?;
        ensure!(left.trim() == "1", "the tenant is not back");
        Ok(seconds)
    }
}
