//! Questions to people: only on a terminal. Where nobody can answer, the command that would go on is printed and nothing happens.

use std::io::{IsTerminal as _, stderr, stdin};

use lifeboat_model::{Error, ErrorKind, Result};
use zeroize::Zeroizing;

use super::Cx;

/// Whether somebody can answer.
#[must_use]
pub(super) fn can_ask(cx: &Cx) -> bool {
    !cx.out.json && stdin().is_terminal() && stderr().is_terminal()
}

/// Asks whether to go on; `command` is what would go on without asking.
pub(super) fn confirm(cx: &Cx, question: &str, op: &'static str, subject: &str, command: &str) -> Result<()> {
    if !can_ask(cx) {
        return Err(Error::new(
            ErrorKind::Refused,
            op,
            subject,
            "it needs a yes, and there is no terminal to ask on",
        )
        .with_hint(format!("this goes on without asking: {command}")));
    }
    match inquire::Confirm::new(question).with_default(false).prompt() {
        Ok(true) => Ok(()),
        Ok(false) => Err(Error::new(
            ErrorKind::Refused,
            op,
            subject,
            "the answer was no; nothing was changed",
        )),
        Err(error) => Err(prompt_failed(&error)),
    }
}

/// Asks for a passphrase without showing it; twice where it is new. Blocks.
pub(super) fn ask_passphrase(question: &str, is_new: bool) -> Result<Zeroizing<String>> {
    let mut prompt = inquire::Password::new(question).with_display_mode(inquire::PasswordDisplayMode::Hidden);
    if !is_new {
        prompt = prompt.without_confirmation();
    }
    prompt.prompt().map(Zeroizing::new).map_err(|error| prompt_failed(&error))
}

/// A question that got no answer.
pub(super) fn prompt_failed(error: &inquire::InquireError) -> Error {
    match error {
        inquire::InquireError::OperationCanceled | inquire::InquireError::OperationInterrupted => Error::new(
            ErrorKind::Interrupted,
            "go on with",
            "the command",
            "it was interrupted at a question; nothing was changed",
        ),
        other => Error::new(ErrorKind::Failed, "ask on", "the terminal", other.to_string()),
    }
}

/// This very command line with more arguments, ready to be pasted into a shell.
#[must_use]
pub(super) fn this_command_with(more: &[&str]) -> String {
    let given = std::env::args_os().skip(1).map(|arg| arg.to_string_lossy().into_owned());
    command_line(given.chain(more.iter().map(|arg| (*arg).to_owned())))
}

/// `lifeboat` with these arguments, quoted for a shell.
#[must_use]
pub(super) fn command_line(args: impl IntoIterator<Item = String>) -> String {
    let mut line = "lifeboat".to_owned();
    for arg in args {
        line.push(' ');
        line.push_str(&quoted(&arg));
    }
    line
}

fn quoted(arg: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_./=:,+@%[]".contains(&byte);
    if !arg.is_empty() && arg.bytes().all(plain) {
        arg.to_owned()
    } else {
        format!("'{}'", arg.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::command_line;

    #[test]
    fn what_a_shell_would_split_is_quoted() {
        let words = [
            "restore",
            "shop",
            "--reason",
            "it's 5 o'clock",
            "--to",
            "/a b/c.db",
            "",
            "$HOME",
            "x.db",
        ]
        .map(str::to_owned);
        assert_eq!(
            command_line(words),
            r"lifeboat restore shop --reason 'it'\''s 5 o'\''clock' --to '/a b/c.db' '' '$HOME' x.db"
        );
    }
}
