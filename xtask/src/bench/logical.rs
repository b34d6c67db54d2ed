//! Databases by definitions and rows, against `pg_dump` and `pg_restore`.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Result, bail};
use serde_json::Value;

use super::alternate::{Side, alternate};
use super::cluster::{Home, float};
use super::measure::{Measured, measured};
use super::postgres::Server;
use super::{Figures, Options, data, ratio};
use crate::sh;

/// Ten tables as a hotel has them: keys, foreign keys, times, words, documents; the seed is set in the same session.
const TABLES: &str = "
select setseed(0.42);
create table tenants (id uuid primary key, name text not null, settings jsonb);
insert into tenants select md5('t' || i)::uuid, 'Hotel ' || i, jsonb_build_object('currency', 'EUR', 'stars', i % 5) from generate_series(1, 200) i;
create table rooms (id int primary key, tenant_id uuid not null, number text, kind text, price numeric(10,2));
insert into rooms select i, md5('t' || (1 + i % 200))::uuid, (i % 900)::text, (array['single','double','suite'])[1 + i % 3], 50 + i % 200
  from generate_series(1, GUESTS / 20) i;
create table guests (id bigint primary key, tenant_id uuid not null, name text, email text, phone text, address text, born date);
insert into guests select i, md5('t' || (1 + i % 200))::uuid, initcap(substr(md5('n' || i), 1, 7)) || ' ' || initcap(substr(md5('f' || i % 5000), 1, 9)),
  substr(md5('n' || i), 1, 12) || '@example.com', '+49 ' || (100000000 + (random() * 899999999)::int), (random() * 200)::int || ' ' ||
  (array['Main Street','Station Road','Park Avenue','High Street','Church Lane'])[1 + (random() * 4)::int] || ', ' || (10000 + (random() * 89999)::int),
  date '1940-01-01' + (random() * 25000)::int from generate_series(1, GUESTS) i;
create table reservations (id bigint primary key, tenant_id uuid not null, guest_id bigint not null,
  room_id int not null, arrival date, departure date, rate numeric(10,2), status text, note text, created_at timestamptz);
insert into reservations select i, md5('t' || (1 + i % 200))::uuid, 1 + (random() * (GUESTS - 1))::int, 1 + (random() * (GUESTS / 20 - 1))::int,
  date '2022-01-01' + (i / 2000)::int, date '2022-01-01' + (i / 2000)::int + 1 + (random() * 9)::int, round((random() * 300)::numeric, 2),
  (array['booked','paid','cancelled','stayed'])[1 + (random() * 3)::int], case when random() < 0.3 then 'late arrival, ' || md5(random()::text) end,
  timestamptz '2022-01-01 00:00:00+00' + i * interval '31 seconds' from generate_series(1::bigint, GUESTS * 4::bigint) i;
create table payments (id bigint primary key, tenant_id uuid not null, reservation_id bigint not null,
  amount numeric(12,2), currency text, method text, reference text, paid_at timestamptz);
insert into payments select i, md5('t' || (1 + i % 200))::uuid, 1 + (random() * (GUESTS * 4::bigint - 1))::bigint, round((random() * 900)::numeric, 2), 'EUR',
  (array['card','cash','transfer'])[1 + (random() * 2)::int], upper(substr(md5('p' || i), 1, 16)), timestamptz '2022-01-01 00:00:00+00' + i * interval '33 seconds'
  from generate_series(1::bigint, GUESTS * 4::bigint) i;
create table rates (room_id int not null, day date, price numeric(10,2), primary key (room_id, day));
insert into rates select r.id, date '2024-01-01' + d, r.price + (d % 7) * 3.5 from rooms r, generate_series(0, 29) d;
create table audit_log (id bigint primary key, tenant_id uuid, at timestamptz, actor text, action text, message text);
insert into audit_log select i, md5('t' || (1 + i % 200))::uuid, timestamptz '2024-01-01 00:00:00+00' + i * interval '17 seconds', 'user' || (random() * 3000)::int,
  (array['login','update','delete','export'])[1 + (random() * 3)::int], 'request ' || md5(random()::text) || ' to /api/v1/reservations/' || (random() * 4000000)::int ||
  ' took ' || (random() * 900)::int || ' ms and answered ' || (array['200 OK','201 Created','404 Not Found','403 Forbidden'])[1 + (random() * 3)::int]
  from generate_series(1::bigint, GUESTS * 2::bigint) i;
create table events (id uuid primary key, tenant_id uuid, at timestamptz, kind text, body jsonb);
insert into events select md5('e' || i)::uuid, md5('t' || (1 + i % 200))::uuid, timestamptz '2026-01-01 00:00:00+00' + i * interval '1.7 seconds',
  (array['created', 'updated', 'viewed', 'deleted', 'exported'])[1 + (random() * 4)::int],
  jsonb_build_object('user', md5('u' || (random() * 20000)::int), 'amount', round((random() * 10000)::numeric, 2),
    'path', '/api/v1/items/' || (random() * 1000000)::int, 'ok', random() > 0.1) from generate_series(1::bigint, GUESTS * 2::bigint) i;
create table sessions (id bigint primary key, guest_id bigint, token text, agent text, seen_at timestamptz);
insert into sessions select i, 1 + (random() * (GUESTS - 1))::int, md5(random()::text) || md5(random()::text),
  'Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.' || (random() * 40)::int || ' (KHTML, like Gecko) Chrome/' || (90 + (random() * 50)::int) || '.0.0.0 Safari/537.36',
  timestamptz '2025-01-01 00:00:00+00' + i * interval '9 seconds' from generate_series(1::bigint, GUESTS * 2::bigint) i;
create table messages (id bigint primary key, tenant_id uuid, subject text, body text);
insert into messages select i, md5('t' || (1 + i % 200))::uuid, 'Your stay ' || i, 'Dear guest, thank you for booking room ' || (random() * 900)::int ||
  '. We look forward to seeing you on ' || (date '2025-01-01' + (random() * 700)::int) || '. Your code is ' || substr(md5(random()::text), 1, 8) || '.'
  from generate_series(1::bigint, GUESTS * 2::bigint) i;
alter table rooms add foreign key (tenant_id) references tenants; alter table guests add foreign key (tenant_id) references tenants;
alter table reservations add foreign key (tenant_id) references tenants; alter table reservations add foreign key (guest_id) references guests;
alter table reservations add foreign key (room_id) references rooms; alter table payments add foreign key (tenant_id) references tenants;
alter table payments add foreign key (reservation_id) references reservations; alter table rates add foreign key (room_id) references rooms;
create index on reservations (tenant_id, arrival); create index on payments (reservation_id); create index on events (tenant_id, at); create index on guests (email);
analyze;
checkpoint;
";

/// Tables whose newest rows are changed, by their keys.
const CHANGED: [&str; 6] = ["guests", "reservations", "payments", "audit_log", "sessions", "messages"];

/// The figures of one run.
pub(super) fn run(options: &Options) -> Result<Figures> {
    let room = Room::new(options)?;
    let capture = alternate(
        "capture",
        options.rounds,
        vec![
            Side::new("lifeboat", |_| room.capture()),
            Side::new("pg_dump -Fc", |_| room.dump(&["-Fc", "-f"], "dump.custom")),
            Side::new("pg_dump -Fd", |_| room.dump(&["-Fd", "-j2", "-Z0", "-f"], "dump.folder")),
        ],
    )?;
    let [ours, custom, folder] = capture.as_slice() else {
        bail!("three sides make three medians");
    };
    let first = room.home.stored()?;
    let theirs = room.server.folder.join("dump.custom").metadata()?.len();
    println!("  stored: lifeboat {} MiB, pg_dump -Fc {} MiB", first >> 20, theirs >> 20);
    // The first restore pays for what the captures left, whoever makes it: log files that the server has to make, blocks that the disk is told are free.
    let unmeasured = room.pg_restore()?;
    println!("  a first pg_restore: {unmeasured:.1} s");
    let restore = alternate(
        "restore",
        options.rounds,
        vec![
            Side::new("lifeboat", |_| room.restore()),
            Side::new("pg_restore", |_| room.pg_restore()),
        ],
    )?;
    let [our_restore, their_restore] = restore.as_slice() else {
        bail!("two sides make two medians");
    };
    for table in CHANGED {
        room.server.sql(&format!(
            "update {table} set {0} where id > (select max(id) * 0.99 from {table})",
            change(table)
        ))?;
    }
    let newest = room.again(first)?;
    let before = room.home.stored()?;
    for table in CHANGED {
        room.server
            .sql(&format!("update {table} set {} where random() < 0.01", change(table)))?;
    }
    let uniform = room.again(before)?;
    let peak = room.peak_kib.get();
    room.remove()?;
    let share = |stored: u64| ratio(Some(float(stored)), Some(float(first)));
    Ok(vec![
        ("capture_vs_pg_dump_fc", ratio(*custom, *ours)),
        ("capture_vs_pg_dump_fd_j2", ratio(*folder, *ours)),
        ("stored_vs_pg_dump_fc", ratio(Some(float(first)), Some(float(theirs)))),
        ("second_stored_vs_first", share(newest)),
        ("second_stored_uniform", share(uniform)),
        ("restore_vs_pg_restore_j2", ratio(*their_restore, *our_restore)),
        ("peak_rss_mib", Some(float(peak) / 1024.0)),
        ("capture_seconds", *ours),
        ("restore_seconds", *our_restore),
    ])
}

/// A column that changes.
fn change(table: &str) -> &'static str {
    match table {
        "guests" => "phone = phone || '1'",
        "reservations" => "note = 'changed ' || id",
        "payments" => "amount = amount + 1",
        "audit_log" => "actor = actor || 'x'",
        "sessions" => "seen_at = seen_at + interval '1 day'",
        _ => "subject = subject || '!'",
    }
}

/// The server, and where both sides put what they make.
struct Room<'bench> {
    server: Server,
    home: Home,
    options: &'bench Options,
    peak_kib: std::cell::Cell<u64>,
}

impl<'bench> Room<'bench> {
    fn new(options: &'bench Options) -> Result<Self> {
        // Durable, as a server that matters is, and with settings that let it build indexes.
        let server = Server::start("-c fsync=on -c checkpoint_timeout=1h")?;
        let guests = if options.quick { "20000" } else { "800000" };
        server.sql(&TABLES.replace("GUESTS", guests))?;
        server.sql("vacuum")?;
        let home = Home::make(
            options,
            &server,
            "disk",
            "fs: { path: store }",
            "auto, method: logical, databases: [bench]",
        )?;
        let size = server.ask("select pg_database_size('bench') >> 20")?;
        println!("  the database has {} MiB", size.trim());
        Ok(Self {
            server,
            home,
            options,
            peak_kib: std::cell::Cell::new(0),
        })
    }

    fn remove(self) -> Result<()> {
        self.server.stop()?;
        self.server.remove()
    }

    /// A new store each time, of which this host remembers nothing.
    fn capture(&self) -> Result<f64> {
        self.home.empty()?;
        data::sync(&self.server.folder)?;
        let run = self.timed(&mut self.home.lifeboat(&["backup"]))?;
        self.peak_kib.set(self.peak_kib.get().max(run.peak_rss_kib));
        Ok(run.seconds)
    }

    /// Bytes that one more backup adds to `before`.
    fn again(&self, before: u64) -> Result<u64> {
        let run = self.timed(&mut self.home.lifeboat(&["backup"]))?;
        let added = self.home.stored()? - before;
        println!("  another backup: {:.1} s, {} KiB", run.seconds, added >> 10);
        Ok(added)
    }

    fn dump(&self, words: &[&str], name: &str) -> Result<f64> {
        let to: PathBuf = self.server.folder.join(name);
        sh::run(self.server.command("rm".as_ref()).arg("-rf").arg(&to))?;
        data::sync(&self.server.folder)?;
        let mut command = self.server.program("pg_dump");
        self.timed(command.args(words).arg(&to).arg("bench")).map(|run| run.seconds)
    }

    fn restore(&self) -> Result<f64> {
        self.server.sql("checkpoint")?;
        data::sync(&self.server.folder)?;
        let run = self.timed(&mut self.home.lifeboat(&["--json", "restore", "bench/db", "--to", "restored"]))?;
        let said: Value = serde_json::from_str(&run.stdout)?;
        println!("  steps: {}", said["components"][0]["steps"]);
        self.peak_kib.set(self.peak_kib.get().max(run.peak_rss_kib));
        self.server.sql("drop database restored")?;
        Ok(run.seconds)
    }

    fn pg_restore(&self) -> Result<f64> {
        self.server.sql("create database restored template template0")?;
        self.server.sql("checkpoint")?;
        data::sync(&self.server.folder)?;
        let mut command = self.server.program("pg_restore");
        let dump = self.server.folder.join("dump.custom");
        let run = self.timed(command.args(["-j2", "-d", "restored"]).arg(&dump))?;
        self.server.sql("drop database restored")?;
        Ok(run.seconds)
    }

    /// Ends with everything on the disk.
    fn timed(&self, command: &mut Command) -> Result<Measured> {
        let mut run = measured(command)?;
        let began = std::time::Instant::now();
        data::sync(&self.server.folder)?;
        data::sync(&self.options.folder)?;
        run.seconds += began.elapsed().as_secs_f64();
        Ok(run)
    }
}
