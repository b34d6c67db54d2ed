//! The two ways of writing a connection, as words with values. What the words mean is decided by the neighbour `defaults`.

use std::collections::BTreeMap;

use lifeboat_model::Result;

use super::invalid;

/// Values by keyword.
pub(super) type Words = BTreeMap<String, String>;

/// Reads a URL or a keyword string; an empty text is no words.
pub(super) fn words(text: &str) -> Result<Words> {
    let text = text.trim();
    match text
        .strip_prefix("postgresql://")
        .or_else(|| text.strip_prefix("postgres://"))
    {
        Some(rest) => url(rest),
        None if text.contains("://") => Err(invalid("the URL", "it must begin with postgresql:// or postgres://")),
        None => keywords(text),
    }
}

/// `[user[:password]@][host[:port],…][/database][?word=value&…]`
fn url(rest: &str) -> Result<Words> {
    let mut words = Words::new();
    let (rest, query) = rest.split_once('?').map_or((rest, ""), |(rest, query)| (rest, query));
    let (authority, database) = rest
        .split_once('/')
        .map_or((rest, ""), |(authority, database)| (authority, database));
    // A password may hold an `@` that nobody encoded: hosts never do.
    let (login, hosts) = authority
        .rsplit_once('@')
        .map_or(("", authority), |(login, hosts)| (login, hosts));
    let (user, password) = login
        .split_once(':')
        .map_or((login, None), |(user, password)| (user, Some(password)));
    let mut put = |name: &str, value: String| {
        if !value.is_empty() {
            words.insert(name.to_owned(), value);
        }
    };
    put("user", decoded(user)?);
    if let Some(password) = password {
        put("password", decoded(password)?);
    }
    put("dbname", decoded(database)?);
    if !hosts.is_empty() {
        let (mut names, mut ports) = (Vec::new(), Vec::new());
        for host in hosts.split(',') {
            let (name, port) = host_and_port(host)?;
            names.push(decoded(name)?);
            ports.push(port.to_owned());
        }
        put("host", names.join(","));
        if ports.iter().any(|port| !port.is_empty()) {
            put("port", ports.join(","));
        }
    }
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let Some((name, value)) = pair.split_once('=') else {
            return Err(invalid(
                "the URL",
                "behind the question mark stand words with values, as in ?sslmode=require",
            ));
        };
        let (name, value) = (decoded(name)?, decoded(value)?);
        match (name.as_str(), value.as_str()) {
            ("ssl", "true") => words.insert("sslmode".to_owned(), "require".to_owned()),
            _ => words.insert(name, value),
        };
    }
    Ok(words)
}

/// Parts `host:port` and `[address]:port`.
fn host_and_port(host: &str) -> Result<(&str, &str)> {
    if let Some(rest) = host.strip_prefix('[') {
        let Some((address, behind)) = rest.split_once(']') else {
            return Err(invalid("the URL", "a bracket around an address is not closed"));
        };
        return match (behind.strip_prefix(':'), behind) {
            (Some(port), _) => Ok((address, port)),
            (None, "") => Ok((address, "")),
            _ => Err(invalid(
                "the URL",
                "behind an address in brackets stands a colon and the port, or nothing",
            )),
        };
    }
    Ok(host.split_once(':').unwrap_or((host, "")))
}

/// Undoes percent encoding.
fn decoded(text: &str) -> Result<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let digit = |byte: Option<u8>| {
            byte.and_then(|byte| char::from(byte).to_digit(16))
                .and_then(|digit| u8::try_from(digit).ok())
        };
        match (digit(rest.next()), digit(rest.next())) {
            (Some(high), Some(low)) if (high, low) != (0, 0) => bytes.push(high << 4 | low),
            _ => {
                return Err(invalid(
                    "the URL",
                    "behind a percent sign stand two hexadecimal digits; the sign itself is %25",
                ));
            }
        }
    }
    String::from_utf8(bytes).map_err(|error| invalid("the URL", "it is not UTF-8").with_source(error.utf8_error()))
}

/// `word=value word = 'value with spaces'`, with backslashes before quotes and backslashes.
fn keywords(text: &str) -> Result<Words> {
    let mut words = Words::new();
    let mut rest = text.chars().peekable();
    loop {
        while rest.next_if(|c| c.is_whitespace()).is_some() {}
        if rest.peek().is_none() {
            return Ok(words);
        }
        let mut name = String::new();
        while let Some(c) = rest.next_if(|c| !c.is_whitespace() && *c != '=') {
            name.push(c);
        }
        while rest.next_if(|c| c.is_whitespace()).is_some() {}
        // Only the number of the word is named: without its `=` it may be part of a password.
        if name.is_empty() || rest.next() != Some('=') {
            let number = words.len() + 1;
            return Err(invalid(
                "the keyword string",
                format_args!("an equal sign is missing at word {number}"),
            ));
        }
        while rest.next_if(|c| c.is_whitespace()).is_some() {}
        let quoted = rest.next_if_eq(&'\'').is_some();
        let mut value = String::new();
        loop {
            match rest.next() {
                Some('\\') => value.extend(rest.next()),
                Some('\'') if quoted => break,
                Some(c) if !quoted && c.is_whitespace() => break,
                Some(c) => value.push(c),
                None if quoted => {
                    return Err(invalid(
                        "the keyword string",
                        format_args!("the quote after {name} is not closed"),
                    ));
                }
                None => break,
            }
        }
        words.insert(name, value);
    }
}
