//! The statements that find and do what is to be done to a live table: the plan is a temporary table of the transaction.

use super::merge::Staged;
use super::relations::{list, same};
use super::{NAMED, Scope};

/// Letters that are shown of a row.
const SHOWN: usize = 120;

/// What is done to a table.
pub(super) struct Steps {
    /// The statement that makes the plan of a table.
    pub(super) plan: String,
    /// Those that carry it out.
    pub(super) apply: Vec<String>,
}

/// The temporary table with what is to be done to a table.
pub(super) fn plan_name(number: usize) -> String {
    format!("lifeboat_plan_{number}")
}

/// What a plan comes to.
pub(super) fn told(number: usize) -> String {
    let plan = plan_name(number);
    let count = |what: &str| format!("(SELECT coalesce(sum(lifeboat_n), 0) FROM pg_temp.{plan} WHERE lifeboat_what = '{what}')");
    format!(
        "SELECT json_build_object('inserts', {}, 'updates', {}, 'deletes', {}, \
         'clashes', (SELECT coalesce(json_agg(r), '[]') FROM (SELECT lifeboat_row AS r FROM pg_temp.{plan} WHERE lifeboat_what = 'clash' LIMIT {NAMED}) c), \
         'samples', (SELECT coalesce(json_agg(w || ' ' || left(r, {SHOWN})), '[]') FROM (SELECT w, r FROM (SELECT lifeboat_what AS w, lifeboat_row AS r, \
            row_number() OVER (PARTITION BY lifeboat_what ORDER BY lifeboat_row) AS nth FROM pg_temp.{plan}) p WHERE nth <= {NAMED} ORDER BY w, r) s), \
         'fingerprint', (SELECT coalesce(sum(hashtextextended(concat_ws(' ', lifeboat_what, lifeboat_row, lifeboat_old), 0)::numeric * lifeboat_n), 0)::text FROM pg_temp.{plan}))",
        count("insert"),
        count("update"),
        count("delete"),
    )
}

impl Staged {
    /// The key was captured.
    pub(super) fn has_key(&self) -> bool {
        !self.live.key.is_empty() && self.live.key.iter().all(|column| self.columns.contains(column))
    }

    /// The live table has columns that the backup does not know: a row that stays keeps what is in them.
    pub(super) fn has_more(&self) -> bool {
        self.live.columns.iter().any(|column| !self.columns.contains(column))
    }

    pub(super) fn steps(&self, scope: &Scope, number: usize) -> Option<Steps> {
        let mine = scope.rows(&self.live, false)?;
        Some(if self.has_key() {
            self.by_key(&mine, number)
        } else {
            self.as_a_whole(&mine, number)
        })
    }

    /// Rows are known by their key.
    fn by_key(&self, mine: &str, number: usize) -> Steps {
        let (plan, key, staged, live) = (plan_name(number), &self.live.key, self.staged.sql(), self.live.from());
        // What is there now is part of what was agreed to: it must not go unseen.
        let row = |of: &str, old: &str| {
            format!(
                "{keys}, ROW({keys})::text AS lifeboat_row, {old} AS lifeboat_old, 1 AS lifeboat_n",
                keys = list(of, key)
            )
        };
        let equal = |left: &str, right: &str| same(left, key, right, key);
        let text = |of: &str| format!("ROW({})::text", list(of, &self.columns));
        let planned = format!(
            "CREATE TEMPORARY TABLE {plan} ON COMMIT DROP AS \
             SELECT 'delete' AS lifeboat_what, {gone} FROM {mine} m WHERE NOT EXISTS (SELECT FROM {staged} s WHERE {sm}) \
             UNION ALL SELECT 'insert', {new} FROM {staged} s WHERE NOT EXISTS (SELECT FROM {live} l WHERE {ls}) \
             UNION ALL SELECT 'clash', {new} FROM {staged} s WHERE EXISTS (SELECT FROM {live} l WHERE {ls}) \
               AND NOT EXISTS (SELECT FROM {mine} m WHERE {ms}) \
             UNION ALL SELECT 'update', {changed} FROM {staged} s JOIN {mine} m ON {ms} WHERE {was} IS DISTINCT FROM {is}",
            gone = row("m.", "hashtextextended(m::text, 0)"),
            new = row("s.", "NULL::bigint"),
            changed = row("s.", "hashtextextended(m::text, 0)"),
            sm = equal("s", "m"),
            ls = equal("l", "s"),
            ms = equal("m", "s"),
            was = text("s."),
            is = text("m."),
        );
        let columns = list("", &self.columns);
        let insert = |which: &str| {
            format!(
                "INSERT INTO {} ({columns}) OVERRIDING SYSTEM VALUE SELECT {} FROM {staged} s JOIN pg_temp.{plan} p ON {} WHERE p.lifeboat_what IN ({which})",
                self.live.name.sql(),
                list("s.", &self.columns),
                equal("p", "s")
            )
        };
        let delete = |which: &str| {
            format!(
                "DELETE FROM {live} l USING pg_temp.{plan} p WHERE p.lifeboat_what IN ({which}) AND {}",
                equal("l", "p")
            )
        };
        let others: Vec<String> = self.columns.iter().filter(|column| !key.contains(column)).cloned().collect();
        let apply = if self.has_more() && !others.is_empty() {
            let update = format!(
                "UPDATE {live} l SET ({}) = ROW({}) FROM {staged} s JOIN pg_temp.{plan} p ON {} WHERE p.lifeboat_what = 'update' AND {}",
                list("", &others),
                list("s.", &others),
                equal("p", "s"),
                equal("l", "s")
            );
            vec![delete("'delete'"), update, insert("'insert'")]
        } else {
            // Two rows may exchange what is unique: all go before one comes.
            vec![delete("'delete', 'update'"), insert("'insert', 'update'")]
        };
        Steps { plan: planned, apply }
    }

    /// Without a key all go and all come, where they are not the same.
    fn as_a_whole(&self, mine: &str, number: usize) -> Steps {
        let (plan, staged) = (plan_name(number), self.staged.sql());
        let (places, columns) = (format!("lifeboat_places_{number}"), list("", &self.columns));
        let text = format!("ROW({})::text", list("x.", &self.columns));
        let rows = |from: &str| format!("SELECT {text} AS lifeboat_row FROM {from} x");
        let (was, is) = (rows(&staged), rows(mine));
        // Where the rows are is written down before anything moves: whose they are may be said by a table that changes too.
        let planned = format!(
            "CREATE TEMPORARY TABLE {plan} ON COMMIT DROP AS \
             SELECT 'delete' AS lifeboat_what, lifeboat_row, NULL::bigint AS lifeboat_old, count(*) AS lifeboat_n FROM ({is} EXCEPT ALL {was}) d GROUP BY lifeboat_row \
             UNION ALL SELECT 'insert', lifeboat_row, NULL, count(*) FROM ({was} EXCEPT ALL {is}) i GROUP BY lifeboat_row; \
             CREATE TEMPORARY TABLE {places} ON COMMIT DROP AS SELECT x.tableoid AS lifeboat_t, x.ctid AS lifeboat_c FROM {} x \
             WHERE {text} IN (SELECT lifeboat_row FROM pg_temp.{plan})",
            mine.replacen("SELECT *", "SELECT *, tableoid, ctid", 1),
        );
        let apply = vec![
            format!(
                "DELETE FROM {} l USING pg_temp.{places} p WHERE l.tableoid = p.lifeboat_t AND l.ctid = p.lifeboat_c",
                self.live.from()
            ),
            format!(
                "INSERT INTO {} ({columns}) OVERRIDING SYSTEM VALUE SELECT {} FROM {staged} x WHERE {text} IN (SELECT lifeboat_row FROM pg_temp.{plan})",
                self.live.name.sql(),
                list("x.", &self.columns),
            ),
        ];
        Steps { plan: planned, apply }
    }
}
