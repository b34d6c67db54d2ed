//! `.env` files as structure: the keys stay, every value goes.
//!
//! Whatever is not understood is dropped, never kept: a comment or a stray line may hold what was a value once.

use super::entry::EnvKeys;

/// The structure of a file of `KEY=value` lines: one line `KEY=` each, and what is told about it. Takes bytes, because a value may be
/// anything.
pub(super) fn structure(bytes: &[u8]) -> (Vec<u8>, EnvKeys) {
    let (mut kept, mut about) = (Vec::new(), EnvKeys::default());
    // A line that is no assignment may be the middle of a value that nobody quoted: a key in several lines ends in `=`, too.
    let mut stray = false;
    let mut rest = bytes.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(bytes);
    while !rest.is_empty() {
        let (line, after) = split_line(rest);
        let trimmed = line.trim_ascii();
        let found = assignment(trimmed)
            .filter(|(_, key, value)| !value.starts_with(b"=") && !(value.is_empty() && (stray || is_like_base64(key))));
        let Some((prefix, key, value)) = found else {
            if !trimmed.is_empty() {
                about.dropped += 1;
                stray = !trimmed.starts_with(b"#");
            }
            rest = after;
            continue;
        };
        stray = false;
        kept.extend_from_slice(prefix.as_bytes());
        kept.extend_from_slice(key.as_bytes());
        kept.extend_from_slice(b"=\n");
        about.keys.push(key);
        // A quoted value may go on over many lines, a bare one after a backslash at its end.
        let value_at = rest.len() - after.len() - line_end(rest, after) - (line.len() - offset_of(line, value));
        rest = after_value(rest, value_at, after);
    }
    (kept, about)
}

/// The keys of such a file.
#[must_use]
pub fn keys_of(bytes: &[u8]) -> Vec<String> {
    structure(bytes).1.keys
}

/// Whether it holds keys and not one value: what a restore makes of a file that was kept as structure.
#[must_use]
pub fn is_skeleton(bytes: &[u8]) -> bool {
    let (kept, about) = structure(bytes);
    !about.keys.is_empty() && kept == bytes
}

/// A line that looks like `KEY=` may be the end of a value in several lines that nobody quoted, such as the padding of a long base64 text. Keys
/// that people choose are not long mixtures of small and capital letters and digits.
fn is_like_base64(key: &str) -> bool {
    let has = |fits: fn(char) -> bool| key.contains(fits);
    key.len() >= 16
        && !key.contains(['_', '.', '-'])
        && has(|letter| letter.is_ascii_lowercase())
        && has(|letter| letter.is_ascii_uppercase())
        && has(|letter| letter.is_ascii_digit())
}

/// A line without its end, and what follows.
fn split_line(bytes: &[u8]) -> (&[u8], &[u8]) {
    match bytes.iter().position(|byte| *byte == b'\n') {
        Some(end) => (&bytes[..end], &bytes[end + 1..]),
        None => (bytes, &[]),
    }
}

/// One where the line ended with a line feed.
fn line_end(bytes: &[u8], after: &[u8]) -> usize {
    usize::from(bytes.len() > after.len() && bytes.get(bytes.len() - after.len() - 1) == Some(&b'\n'))
}

/// Where `part`, a tail of `line` but for white space behind it, begins.
fn offset_of(line: &[u8], part: &[u8]) -> usize {
    line.trim_ascii_end().len() - part.len()
}

/// `export `, the key, and everything behind `=`.
fn assignment(line: &[u8]) -> Option<(&'static str, String, &[u8])> {
    let (prefix, rest) = match line.strip_prefix(b"export") {
        Some(rest) if rest.first().is_some_and(u8::is_ascii_whitespace) => ("export ", rest.trim_ascii_start()),
        _ => ("", line),
    };
    let equals = rest.iter().position(|byte| *byte == b'=')?;
    let key = rest[..equals].trim_ascii_end();
    let named = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-');
    let sound = key.first().is_some_and(|first| first.is_ascii_alphabetic() || *first == b'_')
        && key.iter().all(named)
        && key.len() <= 256;
    if !sound {
        return None;
    }
    let key = std::str::from_utf8(key).ok()?.to_owned();
    Some((prefix, key, &rest[equals + 1..]))
}

/// What follows the value that begins at `at`; `after` is what follows its first line.
fn after_value<'a>(bytes: &'a [u8], at: usize, after: &'a [u8]) -> &'a [u8] {
    let value = &bytes[at.min(bytes.len())..];
    let skipped = value.iter().take_while(|byte| matches!(byte, b' ' | b'\t')).count();
    let value = &value[skipped..];
    let value = match value {
        [b'$', b'"' | b'\'', ..] => &value[1..],
        _ => value,
    };
    match value.first() {
        Some(quote @ (b'"' | b'\'' | b'`')) => match closing(&value[1..], *quote) {
            Some(end) => split_line(&value[1 + end..]).1,
            // A quote that never ends: nothing behind it can be told from a value.
            None => &[],
        },
        _ => {
            let mut rest = value;
            loop {
                let (line, following) = split_line(rest);
                let goes_on = line.strip_suffix(b"\r").unwrap_or(line).last() == Some(&b'\\');
                if !goes_on || following.is_empty() {
                    return if rest.len() == value.len() { after } else { following };
                }
                rest = following;
            }
        }
    }
}

/// Where a quoted value ends, behind its closing quote.
fn closing(value: &[u8], quote: u8) -> Option<usize> {
    let mut escaped = false;
    for (index, byte) in value.iter().enumerate() {
        if escaped {
            escaped = false;
        } else if *byte == b'\\' && quote != b'\'' {
            escaped = true;
        } else if *byte == quote {
            return Some(index + 1);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> (String, Vec<String>, u64) {
        let (kept, about) = structure(text.as_bytes());
        (String::from_utf8(kept).unwrap(), about.keys, about.dropped)
    }

    #[test]
    fn keys_stay_and_values_go() {
        let text = "# PASSWORD=old\nA=1\nexport B = 'two'\n\nC=\"x\\\"y\n z\" # tail\nD=bare # c\r\nnonsense\nE=\n F.g-h=`a\nb`\nI=one\\\n two\\\n three\nJ=last";
        let (kept, keys, dropped) = of(text);
        // What stands behind a line that is not understood and has no value may be the end of one.
        assert_eq!(kept, "A=\nexport B=\nC=\nD=\nF.g-h=\nI=\nJ=\n");
        assert_eq!(keys, ["A", "B", "C", "D", "F.g-h", "I", "J"]);
        assert_eq!(dropped, 3);
    }

    #[test]
    fn a_skeleton_is_known() {
        assert!(is_skeleton(b"A=\nexport B=\n"));
        assert!(!is_skeleton(b"A=\nB=1\n") && !is_skeleton(b"") && !is_skeleton(b"# A=\nA=\n"));
        assert_eq!(keys_of(b"A=1\n# x\nB='2\nC=3'\n"), ["A", "B"]);
    }

    #[test]
    fn an_open_quote_swallows_the_rest() {
        assert_eq!(of("A=\"open\nB=secret\nC=secret").0, "A=\n");
        assert_eq!(of("A=$'x\nB=1'\nC=1").0, "A=\nC=\n");
    }

    #[test]
    fn a_key_file_that_nobody_quoted_leaves_nothing_behind() {
        let text = "KEY=-----BEGIN PRIVATE KEY-----\nMIIEvQIBADANBg+/\nSECRET==\n-----END PRIVATE KEY-----\nB=2\nX=-----BEGIN\nabc+\nSECRET=\nY=1";
        assert_eq!(of(text).1, ["KEY", "B", "X", "Y"]);
        // The last line of a certificate in base64 follows the first one at once.
        let text = "CERT=MIIDXTCCAkWgAwIBAgIJAJC1\nMIIEvQIBADANBgkqhkiG9w0=\nAUTH_TOKEN_V2=x\nsecretUrl2=\n";
        assert_eq!(of(text).1, ["CERT", "AUTH_TOKEN_V2", "secretUrl2"]);
    }

    #[test]
    fn nothing_of_a_value_ever_stays() {
        // Values that try to look like keys, in every quoting.
        let secret = "SECRET";
        for quote in ["", "'", "\"", "`"] {
            for inner in ["SECRET", "SECRET=SECRET", "x\\\nSECRET=1", "SECRET#SECRET", "é\u{0}SECRET"] {
                for head in ["K=", "export K=", "K =", "\u{feff}K="] {
                    let (kept, keys, _) = of(&format!("{head}{quote}{inner}{quote}\nL=1\n"));
                    assert!(!kept.contains(secret), "{head}{quote}{inner}: {kept}");
                    assert_eq!(keys, ["K", "L"], "{head}{quote}{inner}");
                }
            }
        }
        let mut broken = b"K=\"\xff\xfe\nSECRET=1\"\nL=\xff\n".to_vec();
        broken.extend_from_slice(b"\xff=SECRET\n");
        let (kept, about) = structure(&broken);
        assert_eq!(kept, b"K=\nL=\n");
        assert_eq!(about.dropped, 1);
    }
}
