//! `lifeboat status --nagios`: one line and one of four exit codes, as monitoring plugins answer
//! (<https://www.monitoring-plugins.org/doc/guidelines.html>).

use lifeboat_model::Result;
use lifeboat_model::readiness::{Readiness, Standing};
use lifeboat_ops::status::Status;

use super::super::Cx;
use super::super::context::Context;
use crate::exit::Exit;
use crate::render;

/// What the system that asks understands.
fn exit(standing: Standing) -> (Exit, &'static str) {
    match standing {
        Standing::Ready => (Exit::OK, "OK"),
        Standing::AtRisk => (Exit::WARNING, "WARNING"),
        Standing::NotReady => (Exit::CRITICAL, "CRITICAL"),
    }
}

/// What could not even be asked (a configuration that is wrong, a name that nobody has) is unknown, and says so on the same line.
pub(super) async fn run(cx: &Cx, what: &[String]) -> Result<Exit> {
    match line(cx, what).await {
        Ok((line, exit)) => {
            render::print(&line)?;
            Ok(exit)
        }
        Err(error) => {
            render::print(&format!("LIFEBOAT UNKNOWN - {}\n", one_line(&error.to_string())))?;
            Ok(Exit::UNKNOWN)
        }
    }
}

async fn line(cx: &Cx, what: &[String]) -> Result<(String, Exit)> {
    let context = Context::load(cx)?;
    let mut all = Vec::new();
    for component in context.select(what)? {
        let (status, _) = super::of(cx, &context, component).await?;
        let readiness = status.readiness();
        all.push((status, readiness));
    }
    cx.env.progress.finish();
    Ok(answer(&all))
}

fn answer(all: &[(Status, Readiness)]) -> (String, Exit) {
    let worst = all.iter().map(|(_, readiness)| readiness.standing).max();
    let Some(worst) = worst else {
        return ("LIFEBOAT UNKNOWN - nothing is protected\n".to_owned(), Exit::UNKNOWN);
    };
    let (exit, word) = exit(worst);
    let bad: Vec<String> = all
        .iter()
        .filter(|(_, readiness)| readiness.standing == worst && worst != Standing::Ready)
        .map(|(status, readiness)| {
            let first = readiness.reasons.iter().find(|reason| reason.standing == worst);
            let more = readiness.reasons.len().saturating_sub(1);
            let more = if more > 0 {
                format!(" (and {more} more)")
            } else {
                String::new()
            };
            let says = first.map_or("", |reason| reason.says.as_str());
            format!("{} is {}: {}{more}", status.component, worst.words(), one_line(says))
        })
        .collect();
    let says = if bad.is_empty() {
        let count = all.len();
        format!("{count} of {count} can be recovered as promised")
    } else {
        bad.join("; ")
    };
    let figures: Vec<String> = all.iter().flat_map(|(status, _)| figures(status)).collect();
    let figures = figures.join(" ");
    (format!("LIFEBOAT {word} - {says} | {figures}\n"), exit)
}

/// `'LABEL'=VALUE[UNIT];WARN;CRIT;MIN`: what would be lost and how long a restore takes, in seconds, with what was promised.
fn figures(status: &Status) -> Vec<String> {
    // A label has neither quotes nor an equals sign.
    let name = status.component.replace(['\'', '='], "_");
    let promised = |limit: Option<std::time::Duration>| limit.map(|limit| limit.as_secs().to_string()).unwrap_or_default();
    let mut figures = Vec::new();
    if let Some(loss) = status.loss() {
        let limit = promised(status.facts.rpo);
        figures.push(format!("'{name} loss'={}s;{limit};;0", loss.as_secs()));
    }
    if let Some(restore) = &status.restore {
        let limit = promised(status.facts.rto);
        figures.push(format!("'{name} restore'={}s;{limit};;0", restore.expected.as_secs()));
    }
    figures.push(format!("'{name} backups'={};;;0", status.backups));
    figures
}

/// Neither line ends nor the sign that begins the figures.
fn one_line(text: &str) -> String {
    text.replace(['\n', '\r', '|'], " ")
}

#[cfg(test)]
mod tests {
    use lifeboat_model::{Error, ErrorKind};

    use super::*;

    #[test]
    fn one_line_tells_the_worst() {
        let error = Error::new(ErrorKind::Unreachable, "reach", "the store", "no | route\nat all");
        let bad = Status::unknown("shop/db", &error);
        let readiness = bad.readiness();
        let (line, exit) = answer(&[(bad, readiness)]);
        assert_eq!(exit, Exit::CRITICAL);
        assert!(line.starts_with("LIFEBOAT CRITICAL - shop/db is not ready: "), "{line}");
        assert_eq!(line.matches('|').count(), 1, "{line}");
        assert_eq!(line.lines().count(), 1, "{line}");
        let good = Status {
            component: "shop/db".into(),
            ..Status::default()
        };
        let ready = Readiness {
            standing: Standing::Ready,
            reasons: Vec::new(),
        };
        let (line, exit) = answer(&[(good, ready)]);
        assert_eq!(
            line,
            "LIFEBOAT OK - 1 of 1 can be recovered as promised | 'shop/db backups'=0;;;0\n"
        );
        assert_eq!(exit, Exit::OK);
        assert_eq!(answer(&[]).1, Exit::UNKNOWN);
    }
}
