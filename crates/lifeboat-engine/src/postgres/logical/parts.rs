//! Which rows are read by which COPY.

use super::catalog::Found;
use super::facts::Name;
use super::{Table, quoted_name};

/// Bytes of a table's file whose rows make a part. Parts begin at multiples of it: what the server did not touch is the same text next time.
pub const PART_BYTES: u64 = 128 << 20;
/// Bytes of a page.
const PAGE_BYTES: u64 = 8192;
/// Pages of a part.
const PART_PAGES: u64 = PART_BYTES / PAGE_BYTES;

/// Rows that one COPY reads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// Which table, by its place in the list.
    pub table: usize,
    /// The file, below the folder of the database.
    pub file: String,
    /// The statement.
    pub sql: String,
    /// Bytes of the table's file that it reads, about.
    pub bytes: u64,
}

/// A name as part of a path: what is neither a letter, a digit, `_` nor `-` is written as `%` and two digits for each of its bytes.
#[must_use]
pub fn path_part(name: &str) -> String {
    let mut path = String::new();
    for byte in name.bytes() {
        if byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-' {
            path.push(char::from(byte));
        } else {
            path.push_str(&format!("%{byte:02x}"));
        }
    }
    path
}

/// The columns as a list in SQL.
fn list(columns: &[String]) -> String {
    let names: Vec<String> = columns.iter().map(|column| quoted_name(column)).collect();
    names.join(", ")
}

/// ` (a, b)`, or nothing where there are no columns: a list of none is no SQL.
fn in_brackets(columns: &[String]) -> String {
    if columns.is_empty() {
        String::new()
    } else {
        format!(" ({})", list(columns))
    }
}

/// COPY of a whole table. A list of columns leaves out those that are generated.
fn whole(name: &Name, columns: &[String], condition: Option<&str>) -> String {
    match condition {
        Some(condition) => format!(
            "COPY (SELECT {} FROM ONLY {} {condition}) TO STDOUT",
            list(columns),
            name.sql()
        ),
        None => format!("COPY {}{} TO STDOUT", name.sql(), in_brackets(columns)),
    }
}

/// COPY of all rows of a captured table, out of whatever database holds it now.
#[must_use]
pub fn copy_out(table: &Table) -> String {
    whole(&table.name, &table.columns, table.condition.as_deref())
}

/// COPY of rows into a captured table, as text.
#[must_use]
pub fn copy_in(table: &Table, frozen: bool) -> String {
    copy_in_with(table, if frozen { " (FREEZE)" } else { "" })
}

/// The same in the form that [`super::binary`] makes of them.
#[must_use]
pub fn copy_binary_in(table: &Table, frozen: bool) -> String {
    copy_in_with(
        table,
        if frozen {
            " (FORMAT binary, FREEZE)"
        } else {
            " (FORMAT binary)"
        },
    )
}

fn copy_in_with(table: &Table, options: &str) -> String {
    format!("COPY {}{} FROM STDIN{options}", table.name.sql(), in_brackets(&table.columns))
}

/// The parts of all tables, the largest table first and its parts in order: the last to be begun are small.
#[must_use]
pub fn plan(tables: &[Found]) -> Vec<Part> {
    let mut order: Vec<(usize, &Found)> = tables.iter().enumerate().collect();
    order.sort_by_key(|(_, table)| std::cmp::Reverse(table.bytes));
    order.into_iter().flat_map(|(index, table)| of_table(index, table)).collect()
}

fn of_table(index: usize, table: &Found) -> Vec<Part> {
    let folder = format!("{}.{}", path_part(&table.name.schema), path_part(&table.name.name));
    let part = |number: u64, sql: String, bytes: u64| Part {
        table: index,
        file: format!("{folder}/{number:05}.copy"),
        sql,
        bytes,
    };
    let count = table.bytes.div_ceil(PART_BYTES);
    let condition = table.only.as_ref().or(table.condition.as_ref()).map(String::as_str);
    if count < 2 || !table.heap || condition.is_some() || table.columns.is_empty() {
        let sql = whole(&table.name, &table.columns, condition);
        return vec![part(0, sql, table.bytes)];
    }
    let columns = list(&table.columns);
    let parts = (0..count).map(|number| {
        let first = number * PART_PAGES;
        // The last one goes on to wherever the table ends.
        let below = if number + 1 < count {
            format!(" AND ctid < '({},0)'", first + PART_PAGES)
        } else {
            String::new()
        };
        let sql = format!(
            "COPY (SELECT {columns} FROM ONLY {} WHERE ctid >= '({first},0)'{below}) TO STDOUT",
            table.name.sql()
        );
        part(number, sql, PART_BYTES.min(table.bytes - number * PART_BYTES))
    });
    parts.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(name: &str, bytes: u64) -> Found {
        Found {
            oid: 1,
            name: Name {
                schema: "public".into(),
                name: name.into(),
            },
            columns: vec!["id".into(), "a \"b\"".into()],
            bytes,
            heap: true,
            condition: None,
            only: None,
            of: None,
            readable: true,
            filtered: false,
        }
    }

    #[test]
    fn large_tables_are_read_in_parts_that_leave_nothing_out() {
        let parts = plan(&[table("small", 8192), table("large", 2 * PART_BYTES + 1)]);
        let sql: Vec<&str> = parts.iter().map(|part| part.sql.as_str()).collect();
        let from = "COPY (SELECT \"id\", \"a \"\"b\"\"\" FROM ONLY \"public\".\"large\" WHERE ctid >=";
        assert_eq!(
            sql,
            [
                format!("{from} '(0,0)' AND ctid < '(16384,0)') TO STDOUT").as_str(),
                format!("{from} '(16384,0)' AND ctid < '(32768,0)') TO STDOUT").as_str(),
                format!("{from} '(32768,0)') TO STDOUT").as_str(),
                "COPY \"public\".\"small\" (\"id\", \"a \"\"b\"\"\") TO STDOUT",
            ]
        );
        assert_eq!(parts.iter().map(|part| part.bytes).sum::<u64>(), 2 * PART_BYTES + 1 + 8192);
    }

    #[test]
    fn names_become_paths_that_are_all_different() {
        assert_eq!(path_part("order_items-2"), "order_items-2");
        let odd = ["a/b", "a.b", "..", "%2e", "a b", "é", ""];
        let paths: std::collections::BTreeSet<String> = odd.iter().map(|name| path_part(name)).collect();
        assert_eq!(paths.len(), odd.len());
        assert!(paths.iter().all(|path| !path.contains(['/', '.'])), "{paths:?}");
    }

    #[test]
    fn a_table_without_columns_has_no_list_of_them() {
        let mut none = table("none", 4 * PART_BYTES);
        none.columns.clear();
        assert_eq!(plan(&[none])[0].sql, "COPY \"public\".\"none\" TO STDOUT");
    }
}
