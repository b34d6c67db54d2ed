//! Scripts as `pg_dump` writes them, and as somebody could have changed them.

use super::*;

const END: &str = "\n--\n-- PostgreSQL database dump complete\n--\n\n";

#[derive(Default)]
struct Seen(Vec<String>);

impl Taker for Seen {
    fn statement(&mut self, sql: &str) -> Result<()> {
        self.0.push(sql.to_owned());
        Ok(())
    }

    fn begin_rows(&mut self, sql: &str) -> Result<()> {
        self.0.push(format!("rows of {sql}"));
        Ok(())
    }

    fn rows(&mut self, text: &[u8]) -> Result<()> {
        self.0.push(String::from_utf8_lossy(text).into_owned());
        Ok(())
    }

    fn end_rows(&mut self) -> Result<()> {
        self.0.push("end".to_owned());
        Ok(())
    }
}

fn seen(text: &str) -> Vec<String> {
    let mut seen = Seen::default();
    read(format!("{text}{END}").as_bytes(), "x.sql", &mut seen).unwrap();
    seen.0
}

fn refused(text: &str) -> ErrorKind {
    read(text.as_bytes(), "x.sql", &mut Nobody).unwrap_err().kind()
}

#[test]
fn statements_are_found_whatever_is_in_them() {
    for one in [
        "SELECT 'a;''\\'",
        "SELECT E'a\\';b', \"x;y\"",
        "CREATE FUNCTION f() RETURNS int LANGUAGE sql AS $a1$ select 1; $b$ ; $a1$",
        "CREATE FUNCTION f() RETURNS int\n    LANGUAGE sql\n    BEGIN ATOMIC\n SELECT CASE WHEN true THEN 1 END;\n SELECT 2;\nEND",
        "CREATE OR REPLACE PROCEDURE p()\n    BEGIN ATOMIC\n SELECT 2;\nEND",
        "CREATE RULE r AS ON INSERT TO t DO ALSO ( INSERT INTO a VALUES (1); INSERT INTO b VALUES (2); )",
        "CREATE TABLE t (a$b$ int, c text DEFAULT '--')",
        "PREPARE x AS SELECT $1",
        "BEGIN",
        "COPY t TO STDOUT",
    ] {
        assert_eq!(seen(&format!("{one};\nSELECT 2;")), [one, "SELECT 2"], "{one}");
    }
    assert_eq!(seen("SELECT 1; SELECT 2;\n;\n"), ["SELECT 1", "SELECT 2"]);
    assert_eq!(seen("-- a; \\! b\nSELECT /* x; /* \\! */ ' */ 1; -- b\n"), ["SELECT   1"]);
    assert_eq!(
        seen("SET standard_conforming_strings = off;\nSELECT 'a\\';b';\n"),
        ["SET standard_conforming_strings = off", "SELECT 'a\\';b'"]
    );
}

#[test]
fn rows_are_taken_up_to_their_end() {
    let copy = "COPY public.t (a, \"from stdin\") FROM stdin;\n1\t;\n\\\\.\t'\n\\.\nSELECT 1;";
    assert_eq!(
        seen(copy),
        [
            "rows of COPY public.t (a, \"from stdin\") FROM stdin",
            "1\t;\n\\\\.\t'\n",
            "end",
            "SELECT 1"
        ]
    );
    assert_eq!(seen("COPY t FROM stdin;\r\n\\.\r\n"), ["rows of COPY t FROM stdin", "end"]);
}

#[test]
fn commands_for_psql_are_refused_wherever_they_stand() {
    for command in [
        "\\! touch x",
        "SELECT 1 \\! touch x\n",
        "SELECT 1 \\g |touch x\n;",
        "SELECT 1;\\! touch x\n",
        "SELECT 'a' \\gexec\n",
        "\\connect other",
        "\\copy t from program 'touch x'",
        "\\i file",
        "\\.",
        "\\restrict a b",
        "/* \n */ \\! x",
        "SELECT $$ $$ \\! x\n",
        "SELECT E'\\'' \\! x\n",
    ] {
        assert_eq!(refused(&format!("{command}\n{END}")), ErrorKind::Refused, "{command}");
    }
    assert_eq!(seen("\\restrict abc\n\nSELECT 1;\n\\unrestrict abc\n"), ["SELECT 1"]);
    assert_eq!(
        refused(&format!("--\n-- PostgreSQL database cluster dump\n--\n{END}")),
        ErrorKind::Incompatible
    );
}

#[test]
fn a_script_that_is_cut_off_anywhere_is_recognised() {
    let whole = format!("SET a = 1;\nCOPY t FROM stdin;\n1\n\\.\n\nSELECT 'a';\n{END}\\unrestrict x\n");
    read(whole.as_bytes(), "x.sql", &mut Nobody).unwrap();
    let last = whole.find("complete").unwrap() + "complete".len();
    for length in 0..last {
        let found = refused(whole.split_at(length).0);
        assert!(found == ErrorKind::Corrupt || found == ErrorKind::Refused, "{length}");
    }
    // What says that it is complete counts only at the end.
    assert_eq!(refused(&format!("{END}SELECT 1;\n")), ErrorKind::Corrupt);
}
