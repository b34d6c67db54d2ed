//! Rows that a real server wrote as text, brought into it as binary, and read back as text.

use std::io::Read;

use lifeboat_engine::postgres::logical::binary::{self, Encoder};
use lifeboat_engine::postgres::logical::session::Worker;
use lifeboat_engine::postgres::logical::{Digest, Name, Table, parts};
use lifeboat_engine::postgres::{ConnInfo, Surroundings};
use lifeboat_testkit::postgres::{Cluster, Options, majors};

/// A column of each type that is understood.
const COLUMNS: [(&str, &str); 21] = [
    ("b", "bool"),
    ("i2", "int2"),
    ("i4", "int4"),
    ("i8", "int8"),
    ("o", "oid"),
    ("f4", "float4"),
    ("f8", "float8"),
    ("n", "numeric"),
    ("np", "numeric(12, 3)"),
    ("t", "text"),
    ("v", "varchar(60)"),
    ("c", "char(5)"),
    ("nm", "name"),
    ("j", "json"),
    ("jb", "jsonb"),
    ("by", "bytea"),
    ("u", "uuid"),
    ("d", "date"),
    ("tm", "time"),
    ("ts", "timestamp"),
    ("tz", "timestamptz(3)"),
];

/// Values at the edges of each type, by column.
const EDGES: &str = r#"
insert into a (b) values (true), (false), (null);
insert into a (i2) values (-32768), (32767), (0); insert into a (i4) values (-2147483648), (2147483647), (-0);
insert into a (i8) values (-9223372036854775808), (9223372036854775807), (1000000000000000000); insert into a (o) values (0), (4294967295);
insert into a (f4) select unnest('{0,-0,1,-1.5,3.4028235e+38,1.1754944e-38,0.1,NaN,Infinity,-Infinity,1e-20,16777216}'::float4[]);
insert into a (f8) select unnest('{0,-0,1,-1.5,1.7976931348623157e+308,2.2250738585072014e-308,0.1,NaN,Infinity,-Infinity,1e-200,9007199254740993}'::float8[]);
insert into a (n) select unnest('{0,0.0,0.000,1,-1,10,9999,10000,99999999,100000000,0.1,-0.0001,0.00001,1234.5678,12345.67890,NaN,1e100,-1e-100,1.10,100.00}'::numeric[]);
insert into a (n) select v from (select ('1e' || e)::numeric * m as v from generate_series(-30, 30) e, unnest('{1,-1,7.05,12345.6789}'::numeric[]) m) x;
insert into a (n) values (repeat('9', 5000)::numeric), (('0.' || repeat('1', 5000))::numeric), ((repeat('12345', 300) || '.' || repeat('00009', 300))::numeric);
insert into a (n) select unnest(case when current_setting('server_version_num')::int >= 140000 then '{Infinity,-Infinity}'::numeric[] end);
insert into a (np) values (0), (-0.001), (999999999.999), (12.5);
insert into a (t) values (''), ('\N'), (E'\\N'), (E'\\'), (E'\\\\'), (E'a\tb\nc\rd\be\ff\x0bg'), (E'\t'), (E'\n'), (E'\\.'), ('ünï — 漢字 🜚'), (repeat(E'x\\\n', 100000)), (null);
insert into a (v, c, nm) values ('', '', ''), ('a', 'b', 'c'), (E'\t', 'x  ', E'\\');
insert into a (j) values ('{ "a" :  [1, 2.50] }'), ('null'), ('"\n"'); insert into a (jb) values ('{"a": [1, 2.50, null, "x\ty"]}'), ('null'), ('[]'), ('1e400'), ('"漢"');
insert into a (by) values (''), ('\x00'), ('\x5c5c0a09'), (decode(repeat('00ff', 50000), 'hex')); insert into a (u) values ('00000000-0000-0000-0000-000000000000'), ('ffffffff-ffff-ffff-ffff-ffffffffffff');
insert into a (d) select unnest('{infinity,-infinity,2000-01-01,1999-12-31,0001-01-01,9999-12-31,10000-01-01,294276-12-31,2000-02-29,2100-02-28,1582-10-15}'::date[]);
insert into a (d) select date '0001-01-01' + i from generate_series(0, 800000, 37) i; insert into a (d) select date '1890-01-01' + i from generate_series(0, 80000) i;
insert into a (tm) values ('00:00'), ('24:00'), ('23:59:59.999999'), ('12:34:56.7'), ('00:00:00.000001');
insert into a (ts, tz) select v, v from unnest('{infinity,-infinity,2000-01-01 00:00:00,1999-12-31 23:59:59.999999,0001-01-01 00:00:00,294276-12-31 23:59:59.999,12345-06-07 08:09:10.1,1970-01-01 00:00:00.000001}'::timestamp[]) v;
insert into a (ts, tz) select timestamp '1600-01-01' + random() * interval '900 years', timestamptz '1600-01-01' + random() * interval '900 years' from generate_series(1, 20000);
"#;

/// Many rows that have a value in every column.
const MANY: &str = r"
insert into a select random() < 0.5, (random() * 65535)::int - 32768, (random() * 4e9 - 2e9)::int, (random() * 1.8e19 - 9e18)::int8, (random() * 4e9)::int8::oid,
  (random() - 0.5)::float4 * 10 ^ (random() * 40 - 20), (random() - 0.5) * 10 ^ (random() * 400 - 200), round(((random() - 0.5) * 10 ^ (random() * 12))::numeric, (random() * 12)::int),
  round(((random() - 0.5) * 1e9)::numeric, 3), repeat(md5(random()::text), (random() * 3)::int), left(md5(random()::text), 20), left(md5(random()::text), (random() * 5)::int),
  md5(random()::text), json_build_object('k', random(), 't', E'\\' || md5(random()::text)), jsonb_build_object('k', random(), 't', E'a\n' || md5(random()::text)), decode(md5(random()::text), 'hex'),
  md5(random()::text)::uuid, date '1900-01-01' + (random() * 73000)::int, time '00:00' + random() * interval '24 hours', timestamp '1950-01-01' + random() * interval '100 years',
  timestamptz '1950-01-01' + random() * interval '100 years' from generate_series(1, 3000);
";

fn table(name: &str, columns: &[&str]) -> Table {
    Table {
        name: Name {
            schema: "public".into(),
            name: name.into(),
        },
        columns: columns.iter().map(|column| (*column).to_owned()).collect(),
        heap_bytes: 0,
        condition: None,
        of: None,
        parts: Vec::new(),
        text_bytes: 0,
        digest: Digest::default(),
    }
}

/// As text out of `from`, as binary into `to`.
fn carried(worker: &mut Worker, from: &Table, to: &Table) -> lifeboat_model::Result<()> {
    let mut text = Vec::new();
    let mut copy = worker.copy_out(&parts::copy_out(from)).unwrap();
    copy.read_to_end(&mut text).unwrap();
    copy.end().unwrap();
    let types = worker.value("ask for types", &binary::asks_for_types(to)).unwrap().unwrap();
    let mut encoder = Encoder::new(to, &types).expect("every type is understood");
    worker.begin_copy_in(&parts::copy_binary_in(to, false)).unwrap();
    let (mut rest, mut length) = (&text[..], 1);
    while !rest.is_empty() {
        // Pieces of many lengths.
        length = (length * 7 + 3) % 70_001;
        let (piece, behind) = rest.split_at(length.min(rest.len()));
        let mut made = Vec::new();
        encoder.feed(piece, &mut made)?;
        worker.copy_in(&made)?;
        rest = behind;
    }
    let mut last = Vec::new();
    encoder.end(&mut last)?;
    worker.copy_in(&last)?;
    worker.end_copy_in().map(drop)
}

#[test]
fn what_the_server_wrote_as_text_it_takes_as_binary_and_writes_as_the_same_text() {
    for major in majors() {
        let cluster = Cluster::start(major, &Options::new());
        let columns: Vec<String> = COLUMNS.iter().map(|(name, sort)| format!("{name} {sort}")).collect();
        cluster.query(&format!(
            "create type mood as enum ('so so', E'a\\tb'); create table a ({}, e mood); create table b (like a)",
            columns.join(", ")
        ));
        cluster.query(EDGES);
        cluster.query(MANY);
        cluster.query("insert into a (e) select unnest(enum_range(null::mood))");
        let names: Vec<&str> = COLUMNS.iter().map(|(name, _)| *name).chain(["e"]).collect();
        let (from, to) = (table("a", &names), table("b", &names));
        let info = ConnInfo::parse(&cluster.dsn("postgres", "postgres"), &Surroundings::default()).unwrap();
        let mut worker = Worker::connect(&info).unwrap();
        carried(&mut worker, &from, &to).unwrap();
        let (wanted, found) = (parts::copy_out(&from), parts::copy_out(&to));
        let wanted = worker.digest(&wanted).unwrap();
        assert!(wanted.rows > 120_000, "{wanted}");
        assert_eq!(worker.digest(&found).unwrap(), wanted, "PostgreSQL {major}");
    }
}

#[test]
fn what_is_not_told_exactly_goes_in_as_text() {
    let cluster = Cluster::start(majors()[0], &Options::new());
    let info = ConnInfo::parse(&cluster.dsn("postgres", "postgres"), &Surroundings::default()).unwrap();
    for (place, (sort, value)) in [
        ("date", "0044-03-15 BC"),
        ("date", "5874897-12-31"),
        ("timestamp", "4713-01-01 00:00:00 BC"),
        ("float8", "5e-324"),
        ("float4", "1e-45"),
    ]
    .iter()
    .enumerate()
    {
        cluster.query(&format!(
            "create table a{place} (v {sort}); create table b{place} (v {sort}); insert into a{place} values ('{value}')"
        ));
        let mut worker = Worker::connect(&info).unwrap();
        let (from, to) = (table(&format!("a{place}"), &["v"]), table(&format!("b{place}"), &["v"]));
        let error = carried(&mut worker, &from, &to).unwrap_err();
        assert!(binary::asks_for_text(&error), "{value}: {error}");
    }
    // What the server does not take is its to tell, in words that are about the text.
    cluster.query("create table long (v varchar(3)); create table words (v text); insert into words values ('four')");
    let mut worker = Worker::connect(&info).unwrap();
    let error = carried(&mut worker, &table("words", &["v"]), &table("long", &["v"])).unwrap_err();
    assert!(binary::asks_for_text(&error), "{error}");
    cluster.query("create table arrays (v int[])");
    let mut worker = Worker::connect(&info).unwrap();
    let arrays = table("arrays", &["v"]);
    let types = worker
        .value("ask for types", &binary::asks_for_types(&arrays))
        .unwrap()
        .unwrap();
    assert!(Encoder::new(&arrays, &types).is_none(), "{types}");
}
