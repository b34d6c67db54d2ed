//! The roles that a dump names: they have to be there before its first statement runs, or the last one fails hours later.
//!
//! Only statements as `pg_dump` writes them are understood: owners, rights, default rights, policies, user mappings, and the session's user in dumps of
//! the kind `--use-set-session-authorization`.

use std::collections::BTreeSet;

use lifeboat_model::Result;

use super::script::Taker;

/// Words in the place of a role that are none.
const NOBODY: [&str; 6] = ["public", "current_user", "current_role", "session_user", "default", "none"];
/// With which words a statement begins that may name roles.
const NAMING: [&str; 6] = ["alter", "create", "grant", "revoke", "set", "reassign"];

/// Collects the roles that statements name.
#[derive(Debug, Default)]
pub struct Roles {
    /// Their names, as they are stored.
    pub names: BTreeSet<String>,
}

impl Taker for Roles {
    fn statement(&mut self, sql: &str) -> Result<()> {
        self.names.extend(named_in(sql));
        Ok(())
    }

    fn begin_rows(&mut self, _: &str) -> Result<()> {
        Ok(())
    }

    fn rows(&mut self, _: &[u8]) -> Result<()> {
        Ok(())
    }

    fn end_rows(&mut self) -> Result<()> {
        Ok(())
    }
}

/// What stands outside of brackets.
#[derive(Debug, PartialEq, Eq)]
enum Token {
    /// In small letters.
    Word(String),
    /// `"…"` or `'…'`, as it is meant.
    Quoted(String),
    Comma,
    Other,
}

impl Token {
    fn is(&self, word: &str) -> bool {
        matches!(self, Self::Word(found) if found == word)
    }

    /// As the name of a role.
    fn role(&self) -> Option<&str> {
        match self {
            Self::Word(word) if NOBODY.contains(&word.as_str()) => None,
            Self::Word(name) | Self::Quoted(name) => Some(name),
            Self::Comma | Self::Other => None,
        }
    }
}

fn is_of_word(letter: char) -> bool {
    letter.is_alphanumeric() || letter == '_' || letter == '$'
}

fn tokens(sql: &str) -> Vec<Token> {
    let mut tokens = Vec::new();
    let mut letters = sql.chars().peekable();
    let mut depth = 0_u32;
    while let Some(letter) = letters.next() {
        let token = match letter {
            quote @ ('"' | '\'') => {
                let mut text = String::new();
                while let Some(letter) = letters.next() {
                    if letter != quote {
                        text.push(letter);
                    } else if letters.next_if_eq(&quote).is_some() {
                        text.push(quote);
                    } else {
                        break;
                    }
                }
                Token::Quoted(text)
            }
            '(' => {
                depth += 1;
                Token::Other
            }
            ')' => {
                depth = depth.saturating_sub(1);
                Token::Other
            }
            ',' => Token::Comma,
            letter if letter.is_whitespace() => continue,
            letter if is_of_word(letter) => {
                let mut word = letter.to_lowercase().to_string();
                while let Some(more) = letters.next_if(|letter| is_of_word(*letter)) {
                    word.extend(more.to_lowercase());
                }
                Token::Word(word)
            }
            _ => Token::Other,
        };
        if depth == 0 {
            tokens.push(token);
        }
    }
    tokens
}

/// The roles that a statement names.
#[must_use]
pub fn named_in(sql: &str) -> Vec<String> {
    let first = sql.split_whitespace().next().unwrap_or_default().to_ascii_lowercase();
    if !NAMING.contains(&first.as_str()) {
        return Vec::new();
    }
    let second = sql.split_whitespace().nth(1).unwrap_or_default().to_ascii_lowercase();
    // Bodies of functions and views say anything.
    if first == "create" && !["policy", "user", "schema"].contains(&second.as_str()) {
        return Vec::new();
    }
    let tokens = tokens(sql);
    let behind = |words: &[&str]| -> Vec<usize> {
        let found = tokens.windows(words.len()).enumerate();
        let found = found.filter(|(_, window)| window.iter().zip(words).all(|(token, word)| token.is(word)));
        found.map(|(at, _)| at + words.len()).collect()
    };
    let mut places: Vec<usize> = Vec::new();
    match (first.as_str(), second.as_str()) {
        ("alter", "default") => {
            places.extend(behind(&["for", "role"]));
            places.extend(behind(&["for", "user"]));
            places.extend(behind(&["to"]));
            places.extend(behind(&["from"]));
        }
        ("alter", _) => places.extend(behind(&["owner", "to"])),
        // The last one: `GRANT … ON SCHEMA "to" TO …`.
        ("grant", _) => places.extend(behind(&["to"]).pop()),
        ("revoke", _) => places.extend(behind(&["from"]).pop()),
        ("create", "policy") => places.extend(behind(&["to"])),
        ("create", "schema") => places.extend(behind(&["authorization"])),
        ("create", _) => places.extend(behind(&["mapping", "for"])),
        ("set", "session") => places.extend(behind(&["session", "authorization"])),
        ("set", "role") => places.push(2),
        _ => {}
    }
    let mut roles = Vec::new();
    for place in places {
        let mut rest = tokens.iter().skip(place).peekable();
        loop {
            rest.next_if(|token| token.is("group") || token.is("role"));
            let Some(token) = rest.next() else { break };
            roles.extend(token.role().map(str::to_owned));
            if rest.next_if(|token| **token == Token::Comma).is_none() {
                break;
            }
        }
    }
    roles
}

#[cfg(test)]
mod tests {
    use super::named_in;

    #[test]
    fn roles_are_found_in_the_statements_of_pg_dump() {
        for (sql, roles) in [
            ("ALTER TABLE public.guests OWNER TO hotel", vec!["hotel"]),
            (
                "ALTER TABLE public.\"owner to\" OWNER TO \"Hotel \"\"A\"\"\"",
                vec!["Hotel \"A\""],
            ),
            ("ALTER FUNCTION public.f(a integer, b text) OWNER TO Hotel", vec!["hotel"]),
            ("ALTER TABLE public.a ALTER COLUMN b SET DEFAULT 'OWNER TO nobody'", vec![]),
            (
                "GRANT SELECT,INSERT ON TABLE public.\"to\" TO reader WITH GRANT OPTION",
                vec!["reader"],
            ),
            ("GRANT ALL ON SCHEMA public TO PUBLIC", vec![]),
            ("REVOKE USAGE ON SCHEMA public FROM PUBLIC", vec![]),
            ("REVOKE ALL ON FUNCTION public.f(a text) FROM hotel", vec!["hotel"]),
            (
                "ALTER DEFAULT PRIVILEGES FOR ROLE hotel IN SCHEMA public GRANT SELECT ON TABLES TO reader",
                vec!["hotel", "reader"],
            ),
            (
                "CREATE POLICY mine ON public.rows FOR SELECT TO app, \"App 2\" USING ((owner = CURRENT_USER))",
                vec!["app", "App 2"],
            ),
            ("CREATE POLICY all_of_them ON public.rows USING ((x ~ 'TO me'::text))", vec![]),
            ("CREATE SCHEMA a AUTHORIZATION b", vec!["b"]),
            ("CREATE USER MAPPING FOR app SERVER other OPTIONS (\"user\" 'x')", vec!["app"]),
            ("SET SESSION AUTHORIZATION 'hotel'", vec!["hotel"]),
            ("SET SESSION AUTHORIZATION DEFAULT", vec![]),
            ("SET statement_timeout = 0", vec![]),
            ("CREATE FUNCTION f() RETURNS text AS $$ GRANT x TO nobody $$", vec![]),
            ("INSERT INTO t VALUES ('ALTER TABLE x OWNER TO nobody')", vec![]),
        ] {
            assert_eq!(named_in(sql), roles, "{sql}");
        }
    }
}
