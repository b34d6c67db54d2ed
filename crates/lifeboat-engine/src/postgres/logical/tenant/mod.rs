//! Rows of one tenant among those of others: which table belongs to whom (docs/tenants.md).

pub mod merge;
pub mod relations;
mod steps;

use std::collections::{BTreeMap, BTreeSet};

use lifeboat_model::{Error, ErrorKind, Result};
use serde::{Deserialize, Serialize};

use super::catalog;
use super::facts::Name;
use super::{quoted_name, quoted_text};
use crate::postgres::sql::Sql;
use crate::postgres::sqlstate;
use relations::{Link, Relation, Relations, list, same};

const OP: &str = "select the rows of a tenant in";
/// Rows that are named where something is wrong.
const NAMED: usize = 5;

/// Whose the rows of a table are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Class {
    /// It is the table of tenants.
    Root,
    /// A column says the tenant.
    Direct(String),
    /// They belong to whom the row belongs that this foreign key leads to.
    Through(String),
    /// Everybody's: they come along, and are never changed by a restore of a tenant.
    Shared,
    /// They are left out.
    Ignored,
    /// Nobody has said it yet.
    Unclassified,
}

impl Class {
    /// Whether its rows are those of tenants.
    #[must_use]
    pub fn is_scoped(&self) -> bool {
        matches!(self, Self::Root | Self::Direct(_) | Self::Through(_))
    }
}

/// What is said of a database: where its tenants are, and whose each table is.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct TenantMap {
    /// The table of tenants, `TABLE` or `SCHEMA.TABLE`.
    pub root: String,
    /// Its column that names a tenant.
    pub id: String,
    /// Each table, as `SCHEMA.TABLE`.
    pub tables: BTreeMap<String, Class>,
}

/// Rows of one database: those of one tenant, or those of some tables.
#[derive(Debug, Clone)]
pub struct Scope {
    /// What there is.
    pub relations: Relations,
    /// Whose each table is.
    classes: BTreeMap<Name, Class>,
    /// Tables of which all rows are meant.
    whole: BTreeSet<Name>,
    root: Name,
    id_column: String,
    /// The tenant, or the tables.
    pub what: String,
}

/// A map for what was found: what can be seen is said, the rest is `Unclassified`.
///
/// # Errors
/// `ConfigInvalid` where there is no such root.
pub fn propose(relations: &Relations, root: &str, id: &str, key: &str) -> Result<TenantMap> {
    let root_table = root_of(relations, root, id)?;
    let mut classes: BTreeMap<&Name, Class> = BTreeMap::new();
    for table in &relations.tables {
        if table.name == root_table.name {
            classes.insert(&table.name, Class::Root);
        } else if table.columns.iter().any(|column| column == key) {
            classes.insert(&table.name, Class::Direct(key.to_owned()));
        }
    }
    // From table to table, by foreign keys that no row leaves out first.
    let mut links: Vec<&Link> = relations.links.iter().filter(|link| link.child != link.parent).collect();
    links.sort_by_key(|link| !link.not_null);
    loop {
        let next = links
            .iter()
            .find(|link| !classes.contains_key(&link.child) && classes.get(&link.parent).is_some_and(Class::is_scoped));
        let Some(link) = next else { break };
        classes.insert(&link.child, Class::Through(link.name.clone()));
    }
    for link in &relations.links {
        if !classes.contains_key(&link.parent) && classes.get(&link.child).is_some_and(Class::is_scoped) {
            classes.insert(&link.parent, Class::Shared);
        }
    }
    let tables = relations.tables.iter().map(|table| {
        let class = classes.get(&table.name).cloned().unwrap_or(Class::Unclassified);
        (table.name.to_string(), class)
    });
    Ok(TenantMap {
        root: root_table.name.to_string(),
        id: id.to_owned(),
        tables: tables.collect(),
    })
}

fn root_of<'a>(relations: &'a Relations, root: &str, id: &str) -> Result<&'a Relation> {
    let missing = |detail: String| {
        Error::new(ErrorKind::ConfigInvalid, "find the tenants of", "the database", detail)
            .with_hint("mend `tenants: { root: SCHEMA.TABLE.COLUMN }` in lifeboat.yaml")
    };
    let table = relations
        .meant(root)
        .ok_or_else(|| missing(format!("there is no table {root}, or there are several")))?;
    if table.columns.iter().any(|column| column == id) {
        Ok(table)
    } else {
        Err(missing(format!("{root} has no column {id}")))
    }
}

/// What is wrong with a map, for what was found; nothing where all is well.
#[must_use]
pub fn problems(relations: &Relations, map: &TenantMap) -> Vec<String> {
    let mut problems = wrong_ways(relations, map);
    for table in &relations.tables {
        if matches!(map.tables.get(&table.name.to_string()), None | Some(Class::Unclassified)) {
            problems.push(format!("{} is not classified", table.name));
        }
    }
    for name in map.tables.keys() {
        if !relations.tables.iter().any(|table| table.name.to_string() == *name) {
            problems.push(format!("{name} is classified, and there is no such table"));
        }
    }
    problems
}

/// What of a map cannot be true of the tables that are there.
fn wrong_ways(relations: &Relations, map: &TenantMap) -> Vec<String> {
    let mut problems = Vec::new();
    if let Err(error) = root_of(relations, &map.root, &map.id) {
        problems.push(error.detail().to_owned());
    }
    for table in &relations.tables {
        match map.tables.get(&table.name.to_string()) {
            Some(Class::Direct(column)) if !table.columns.contains(column) => {
                problems.push(format!("{} has no column {column}", table.name));
            }
            Some(Class::Through(link)) => problems.extend(astray(relations, map, table, link)),
            Some(Class::Root) if relations.meant(&map.root).is_none_or(|root| root.name != table.name) => {
                problems.push(format!("{} is not the root", table.name));
            }
            other
                if other != Some(&Class::Root)
                    && root_of(relations, &map.root, &map.id).is_ok_and(|root| root.name == table.name) =>
            {
                problems.push(format!(
                    "{} is the table of tenants, and is to be classified as root",
                    table.name
                ));
            }
            None | Some(_) => {}
        }
    }
    for link in &relations.links {
        let class = |name: &Name| map.tables.get(&name.to_string());
        if class(&link.child).is_some_and(|class| *class != Class::Ignored && *class != Class::Unclassified)
            && class(&link.parent) == Some(&Class::Ignored)
        {
            problems.push(format!(
                "{} refers to {} ({}), which is ignored: its rows would be missing",
                link.child, link.parent, link.name
            ));
        }
        if class(&link.child) == Some(&Class::Shared) && class(&link.parent).is_some_and(Class::is_scoped) {
            problems.push(format!(
                "{} is shared and refers to {} ({}), whose rows are a tenant's",
                link.child, link.parent, link.name
            ));
        }
    }
    problems
}

/// Whether foreign keys lead from a table to the root, or to a column that says the tenant.
fn astray(relations: &Relations, map: &TenantMap, table: &Relation, link: &str) -> Option<String> {
    let mut seen = BTreeSet::new();
    let (mut at, mut by) = (&table.name, link);
    loop {
        let Some(step) = relations.links.iter().find(|step| step.child == *at && step.name == by) else {
            return Some(format!("{at} has no foreign key {by}"));
        };
        if !seen.insert(at) {
            return Some(format!(
                "{}: its foreign keys lead in a circle, and never to a tenant",
                table.name
            ));
        }
        match map.tables.get(&step.parent.to_string()) {
            Some(Class::Root | Class::Direct(_)) => return None,
            Some(Class::Through(next)) => (at, by) = (&step.parent, next),
            _ => {
                return Some(format!(
                    "{}: {by} leads to {}, whose rows are no tenant's",
                    table.name, step.parent
                ));
            }
        }
    }
}

/// The map does not say whose each row is.
#[must_use]
pub fn unfit(problems: &[String]) -> Error {
    let detail = format!("the tenant map does not fit the database: {}", problems.join("; "));
    Error::new(ErrorKind::ConfigInvalid, OP, "the database", detail)
        .with_hint("`lifeboat tenant-map WHAT` proposes what is missing; look at it, and write it into the file")
}

impl Scope {
    /// The rows of `tenant` by this map, which must fit.
    ///
    /// # Errors
    /// `ConfigInvalid` where it does not, with everything that is wrong.
    pub fn new(relations: Relations, map: &TenantMap, tenant: &str) -> Result<Self> {
        let problems = problems(&relations, map);
        if !problems.is_empty() {
            return Err(unfit(&problems));
        }
        Self::of_older(relations, map, tenant)
    }

    /// The same for a database of another time: tables that the map does not know are left out, and what it names may be missing.
    ///
    /// # Errors
    /// `ConfigInvalid` where what it says cannot be true of the tables that are there.
    pub fn of_older(relations: Relations, map: &TenantMap, tenant: &str) -> Result<Self> {
        // A column that is not there would be looked for in the query around it, and found.
        let problems = wrong_ways(&relations, map);
        if !problems.is_empty() {
            return Err(unfit(&problems));
        }
        let root = root_of(&relations, &map.root, &map.id)?.name.clone();
        let known = |table: &Relation| Some((table.name.clone(), map.tables.get(&table.name.to_string())?.clone()));
        let classes = relations.tables.iter().filter_map(known).collect();
        Ok(Self {
            relations,
            classes,
            whole: BTreeSet::new(),
            root,
            id_column: map.id.clone(),
            what: tenant.to_owned(),
        })
    }

    /// All rows of some tables, `TABLE` or `SCHEMA.TABLE`.
    ///
    /// # Errors
    /// `Usage` where one is not there, or means several.
    pub fn of_tables(relations: Relations, tables: &[String]) -> Result<Self> {
        let mut whole = BTreeSet::new();
        for wanted in tables {
            let found = relations.meant(wanted).ok_or_else(|| {
                let detail = "the database has no table of this name, or several";
                Error::new(ErrorKind::Usage, "find the table", wanted, detail)
                    .with_hint("write SCHEMA.TABLE; of a table with partitions, the table itself")
            })?;
            whole.insert(found.name.clone());
        }
        Ok(Self {
            classes: BTreeMap::new(),
            root: Name {
                schema: String::new(),
                name: String::new(),
            },
            id_column: String::new(),
            what: tables.join(", "),
            relations,
            whole,
        })
    }

    /// Whether rows of this table are meant.
    #[must_use]
    pub fn is_scoped(&self, table: &Name) -> bool {
        self.whole.contains(table) || self.class(table).is_scoped()
    }

    /// Whose the rows of a table are.
    #[must_use]
    pub fn class(&self, table: &Name) -> &Class {
        self.classes.get(table).unwrap_or(&Class::Unclassified)
    }

    /// Tables with rows that are meant.
    pub fn scoped(&self) -> impl Iterator<Item = &Relation> {
        self.relations.tables.iter().filter(|table| self.is_scoped(&table.name))
    }

    /// What holds for a row that is meant, with columns unqualified; none for a table of which none is.
    #[must_use]
    pub fn condition(&self, table: &Name) -> Option<String> {
        if self.whole.contains(table) {
            return Some("true".to_owned());
        }
        let tenant = quoted_text(&self.what);
        match self.class(table) {
            Class::Root => Some(format!("{} = {tenant}", quoted_name(&self.id_column))),
            Class::Direct(column) => Some(format!("{} = {tenant}", quoted_name(column))),
            Class::Through(name) => {
                let link = self
                    .relations
                    .links
                    .iter()
                    .find(|link| link.child == *table && link.name == *name)?;
                let parent = self.relations.table(&link.parent)?;
                Some(format!(
                    "({}) IN (SELECT {} FROM {} WHERE {})",
                    list("", &link.columns),
                    list("", &link.parent_columns),
                    parent.from(),
                    self.condition(&link.parent)?
                ))
            }
            Class::Shared | Class::Ignored | Class::Unclassified => None,
        }
    }

    /// The columns that say the tenant, table by table: that of the root, those of direct tables, and those of foreign keys that refer to such.
    #[must_use]
    pub fn tenant_columns(&self) -> BTreeMap<&Name, BTreeSet<&String>> {
        let mut columns: BTreeMap<&Name, BTreeSet<&String>> = BTreeMap::new();
        for table in self.scoped() {
            let own = match self.class(&table.name) {
                Class::Root => Some(&self.id_column),
                Class::Direct(column) => Some(column),
                _ => None,
            };
            columns.entry(&table.name).or_default().extend(own);
        }
        loop {
            let count: usize = columns.values().map(BTreeSet::len).sum();
            for link in self.relations.links.iter().filter(|link| self.is_scoped(&link.child)) {
                let Some(parent) = columns.get(&link.parent).cloned() else {
                    continue;
                };
                let pairs = link.columns.iter().zip(&link.parent_columns);
                let said = pairs.filter(|(_, there)| parent.contains(there)).map(|(here, _)| here);
                columns.entry(&link.child).or_default().extend(said);
            }
            if columns.values().map(BTreeSet::len).sum::<usize>() == count {
                return columns;
            }
        }
    }

    /// The rows that are meant, or all others, as a table of a query.
    #[must_use]
    pub fn rows(&self, table: &Relation, others: bool) -> Option<String> {
        let condition = self.condition(&table.name)?;
        let which = if others {
            format!("({condition}) IS NOT TRUE")
        } else {
            condition
        };
        Some(format!("(SELECT * FROM {} WHERE {which})", table.from()))
    }

    /// From now on the tenant is called as the server writes him: `42`, where somebody typed `042`. A column of another type would not be equal otherwise,
    /// and its rows would be missed.
    ///
    /// # Errors
    /// `Usage` where nobody could be called so.
    pub async fn settle(&mut self, sql: &Sql) -> Result<()> {
        let Some(root) = self.relations.table(&self.root).filter(|_| self.whole.is_empty()) else {
            return Ok(());
        };
        // As one column, a text of no type gets that of the other.
        let asked = format!(
            "SELECT to_json(v::text) FROM (SELECT {} AS v FROM {} WHERE false UNION ALL SELECT {}) t",
            quoted_name(&self.id_column),
            root.from(),
            quoted_text(&self.what)
        );
        let written = catalog::ask::<String>(sql, &asked).await;
        self.what = written.map_err(|error| self.misnamed(error))?;
        Ok(())
    }

    /// Looks whether there is such a tenant.
    ///
    /// # Errors
    /// `NoSuchPoint` where there is none, `Usage` where nobody could be called so.
    pub async fn find(&self, sql: &Sql) -> Result<()> {
        let condition = self.condition(&self.root).unwrap_or_default();
        let asked = format!("SELECT count(*) FROM {} WHERE {condition}", self.root.sql());
        let none = |kind, detail: String| {
            Error::new(kind, "find the tenant", &self.what, detail).with_hint(format!("look into {}", self.root))
        };
        match catalog::ask::<u64>(sql, &asked).await.map_err(|error| self.misnamed(error))? {
            0 => Err(none(
                ErrorKind::NoSuchPoint,
                format!("{} has no row with {} = {:?}", self.root, self.id_column, self.what),
            )),
            _ => Ok(()),
        }
    }

    /// Where a name cannot be that of a tenant: `invalid_text_representation` and its kin, class 22, a value that the type does not take.
    pub(super) fn misnamed(&self, error: Error) -> Error {
        if !sqlstate(&error).is_some_and(|code| code.starts_with("22")) {
            return error;
        }
        let detail = format!("{}.{} cannot be {:?}", self.root, self.id_column, self.what);
        Error::new(ErrorKind::Usage, "find the tenant", &self.what, detail)
            .with_hint(format!("look into {}", self.root))
            .with_source(error)
    }

    /// Looks whether a row of the tenant refers to one that is not his.
    ///
    /// # Errors
    /// `Refused`, with the rows.
    pub async fn check_leaks(&self, sql: &Sql) -> Result<()> {
        let mut leaks = Vec::new();
        for link in &self.relations.links {
            let tables = (self.relations.table(&link.child), self.relations.table(&link.parent));
            let (Some(child), Some(parent)) = tables else { continue };
            let rows = (self.rows(child, false), self.rows(parent, false));
            let (Some(child_rows), Some(parent_rows)) = rows else {
                continue;
            };
            if *self.class(&link.child) == Class::Through(link.name.clone()) {
                continue;
            }
            let asked = format!(
                "SELECT coalesce(json_agg(ROW({named})::text), '[]') FROM (SELECT {named} FROM {child_rows} c WHERE {filled} \
                 AND NOT EXISTS (SELECT FROM {parent_rows} p WHERE {same}) LIMIT {NAMED}) c",
                named = list("c.", naming(child, link)),
                filled = filled("c", &link.columns),
                same = same("p", &link.parent_columns, "c", &link.columns),
            );
            let rows: Vec<String> = catalog::ask(sql, &asked).await?;
            if !rows.is_empty() {
                leaks.push(format!(
                    "{} ({}) of {} to {}",
                    link.child,
                    rows.join(", "),
                    link.name,
                    link.parent
                ));
            }
        }
        if leaks.is_empty() {
            return Ok(());
        }
        let detail = format!("rows of the tenant refer to rows that are not his: {}", leaks.join("; "));
        Err(Error::new(ErrorKind::Refused, OP, &self.what, detail)
            .with_hint("mend these rows, or say in the tenant map whose they are"))
    }
}

/// The columns that name a row in a message.
fn naming<'a>(table: &'a Relation, link: &'a Link) -> &'a [String] {
    if table.key.is_empty() { &link.columns } else { &table.key }
}

/// That none of them is NULL: only then a foreign key says something.
fn filled(of: &str, columns: &[String]) -> String {
    let terms: Vec<String> = columns
        .iter()
        .map(|column| format!("{of}.{} IS NOT NULL", quoted_name(column)))
        .collect();
    terms.join(" AND ")
}
