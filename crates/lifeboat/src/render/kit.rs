//! The recovery kit as a page, for paper: Markdown, or HTML that needs nothing but itself.

use super::drill_page::escape;

/// A part of the page.
#[derive(Debug)]
pub(crate) struct Section {
    title: String,
    lines: Vec<Line>,
}

/// What stands in a part.
#[derive(Debug)]
pub(crate) enum Line {
    /// A name and what it is.
    Pair(String, String),
    /// A sentence.
    Text(String),
    /// A command.
    Command(String),
    /// Commands, one after the other.
    Commands(Vec<String>),
    /// Something that a person does, to be ticked off.
    Step(String),
    /// Something that only people know, to be written by hand.
    Blank(String),
}

impl Line {
    /// A name and what it is.
    pub(crate) fn pair(name: &str, says: String) -> Self {
        Self::Pair(name.to_owned(), says)
    }
}

impl Section {
    /// A part with this title.
    pub(crate) fn new(title: &str, lines: Vec<Line>) -> Self {
        Self {
            title: title.to_owned(),
            lines,
        }
    }
}

/// For a document.
#[must_use]
pub(crate) fn markdown(title: &str, sections: &[Section]) -> String {
    let mut text = format!("# {title}\n");
    for section in sections {
        text.push_str(&format!("\n## {}\n\n", section.title));
        let mut in_list = false;
        for line in &section.lines {
            // A paragraph behind a list would belong to its last line.
            let is_item = matches!(line, Line::Pair(..) | Line::Step(_) | Line::Blank(_));
            if in_list && !is_item {
                text.push('\n');
            }
            in_list = is_item;
            text.push_str(&match line {
                Line::Pair(name, says) => format!("- {name}: {says}\n"),
                Line::Text(says) => format!("{says}\n\n"),
                Line::Command(command) => format!("    {command}\n\n"),
                Line::Commands(commands) => {
                    let lines: String = commands.iter().map(|command| format!("    {command}\n")).collect();
                    format!("{lines}\n")
                }
                Line::Step(step) => format!("- [ ] {step}\n"),
                Line::Blank(label) => format!("- {label}: ______________________________\n"),
            });
        }
    }
    text
}

const STYLE: &str = "
body{margin:0;background:#fff;color:#111;font:15px/1.45 system-ui,sans-serif}main{max-width:48rem;margin:0 auto;padding:2rem 1.25rem}
h1{font-size:1.5rem;margin:0 0 1rem}h2{font-size:1.05rem;margin:1.75rem 0 .5rem;border-bottom:1px solid #999}
dl{margin:0}dl div{display:flex;gap:1rem;padding:.25rem 0;border-bottom:1px solid #ddd}dt{flex:0 0 13rem;color:#444}dd{margin:0;flex:1;overflow-wrap:anywhere}
pre{background:#f2f2f2;padding:.6rem .8rem;margin:.5rem 0;white-space:pre-wrap;overflow-wrap:anywhere}.blank dd{border-bottom:1px solid #111;min-height:1.6rem}
section{break-inside:avoid}p{margin:.5rem 0}@media print{main{padding:0;max-width:none}}
";

/// A page to print.
#[must_use]
pub(crate) fn html(title: &str, sections: &[Section]) -> String {
    let mut body = format!("<h1>{}</h1>\n", escape(title));
    for section in sections {
        body.push_str(&format!("<section>\n<h2>{}</h2>\n", escape(&section.title)));
        let row = |class: &str, name: &str, says: &str| {
            format!(
                "<dl><div{class}><dt>{}</dt><dd>{}</dd></div></dl>\n",
                escape(name),
                escape(says)
            )
        };
        for line in &section.lines {
            body.push_str(&match line {
                Line::Pair(name, says) => row("", name, says),
                Line::Text(says) => format!("<p>{}</p>\n", escape(says)),
                Line::Command(command) => format!("<pre>{}</pre>\n", escape(command)),
                Line::Commands(commands) => format!("<pre>{}</pre>\n", escape(&commands.join("\n"))),
                Line::Step(step) => format!("<p>☐ {}</p>\n", escape(step)),
                Line::Blank(label) => row(" class=\"blank\"", label, ""),
            });
        }
        body.push_str("</section>\n");
    }
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n<title>{}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<main>\n{body}</main>\n</body>\n</html>\n",
        escape(title)
    )
}
