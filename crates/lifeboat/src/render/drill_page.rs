//! The report of a drill as a page that needs nothing but itself: no script, no font, no other file, so that it still opens in years.

use lifeboat_model::drill::Standing;
use lifeboat_ops::drill::Written;
use lifeboat_ops::drill::evidence::Signature;
use lifeboat_ops::drill::remarks::Action;
use lifeboat_ops::drill::report::Phase;

use super::drill::{about, beside_plan, facts, whose};

/// Width of the drawings, in their own units.
const WIDTH: f64 = 860.0;
/// Height of a step's row.
const ROW: f64 = 26.0;
/// Where bars begin: names stand in front.
const LEFT: f64 = 190.0;
/// Room behind the longest bar for its time.
const RIGHT: f64 = 90.0;
/// Height of the trend.
const TREND: f64 = 170.0;
/// Drills that the trend shows.
const SHOWN: usize = 30;

const STYLE: &str = "
:root{--ink:#1a2230;--soft:#5a6675;--line:#d8dee6;--paper:#fff;--band:#f5f7fa;--good:#1a7f4b;--bad:#b3261e;--warn:#8a5a00;--bar:#2f6fb2;color-scheme:light dark}
@media(prefers-color-scheme:dark){:root{--ink:#e6ebf2;--soft:#9aa7b8;--line:#333d4a;--paper:#12171e;--band:#1a212b;--good:#5cc98d;--bad:#ff8a80;--warn:#e0b050;--bar:#6fa8e0}}
*{box-sizing:border-box}body{margin:0;background:var(--paper);color:var(--ink);font:16px/1.5 system-ui,sans-serif}
main{max-width:60rem;margin:0 auto;padding:2rem 1.25rem 4rem}h1{font-size:1.6rem;line-height:1.25;margin:0}h2{font-size:1.1rem;margin:2.5rem 0 .75rem}
.word{display:inline-block;margin:.75rem 0 0;padding:.15rem .7rem;border-radius:1rem;border:2px solid;font-weight:600}
.good{color:var(--good)}.bad{color:var(--bad)}.warn{color:var(--warn)}
.figures{display:flex;flex-wrap:wrap;gap:1px;background:var(--line);border:1px solid var(--line);margin:1.5rem 0}
.figures div{flex:1 1 13rem;background:var(--paper);padding:.75rem 1rem}.figures dt{color:var(--soft);font-size:.85rem}.figures dd{margin:0;overflow-wrap:anywhere}
.wide{overflow-x:auto}table{border-collapse:collapse;width:100%}th,td{text-align:left;vertical-align:top;padding:.4rem .75rem .4rem 0;border-bottom:1px solid var(--line);overflow-wrap:anywhere}
th{color:var(--soft);font-weight:600;font-size:.85rem}td.n{white-space:nowrap}code{font-size:.85rem;color:var(--soft)}
svg{display:block;width:100%;height:auto;max-width:100%}svg text{font:13px system-ui,sans-serif;fill:var(--ink)}svg .soft{fill:var(--soft)}
ul{padding-left:1.2rem}@media print{main{padding:0}}
";

/// The whole page.
#[must_use]
pub(crate) fn page(written: &Written, signature: &Signature, earlier: &[Written]) -> String {
    let report = &written.report;
    let standing = written.standing();
    let title = format!("Drill of {}: {}", report.component, standing.words());
    let mut body = format!(
        "<h1>{}</h1>\n<p class=\"word {}\">{}</p>\n",
        escape(&title),
        class(standing),
        escape(standing.words())
    );
    let why = report.why();
    if !why.is_empty() {
        body.push_str(&list(&why));
    }
    body.push_str("<dl class=\"figures\">\n");
    for (name, says) in facts(report) {
        body.push_str(&format!("<div><dt>{}</dt><dd>{}</dd></div>\n", escape(name), escape(&says)));
    }
    body.push_str("</dl>\n<h2>Timeline</h2>\n");
    body.push_str(&timeline(written));
    body.push_str("<h2>Checks</h2>\n");
    body.push_str(&checks(written));
    if !report.manual.is_empty() {
        body.push_str("<h2>For people</h2>\n");
        body.push_str(&manual(written));
    }
    let phases = written.phases();
    if !phases.is_empty() {
        body.push_str("<h2>Phases</h2>\n");
        let line = |phase: &Phase| format!("{}: {}", phase.name, beside_plan(phase));
        body.push_str(&list(&phases.iter().map(line).collect::<Vec<_>>()));
    }
    let actions = written.actions();
    if !actions.is_empty() {
        body.push_str("<h2>What has to be done</h2>\n");
        let line = |action: &Action| format!("{}. {} ({})", action.action, action.text, whose(action));
        body.push_str(&list(&actions.iter().map(line).collect::<Vec<_>>()));
    }
    body.push_str("<h2>Drills of this component</h2>\n");
    body.push_str(&trend(earlier));
    body.push_str("<h2>Evidence</h2>\n<div class=\"wide\"><table>\n");
    for (name, says) in about(written, signature) {
        body.push_str(&format!(
            "<tr><th scope=\"row\">{}</th><td>{}</td></tr>\n",
            escape(name),
            escape(&says)
        ));
    }
    body.push_str("</table></div>\n");
    if !report.notes.is_empty() {
        body.push_str("<h2>Notes</h2>\n");
        body.push_str(&list(&report.notes));
    }
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n<title>{}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<main>\n{body}</main>\n</body>\n</html>\n",
        escape(&title)
    )
}

/// Text for HTML.
pub(super) fn escape(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\'' => safe.push_str("&#39;"),
            other => safe.push(other),
        }
    }
    safe
}

fn class(standing: Standing) -> &'static str {
    match standing {
        Standing::Passed => "good",
        Standing::Waiting | Standing::Incomplete => "warn",
        Standing::ObjectiveMissed | Standing::Failed => "bad",
    }
}

fn list(lines: &[String]) -> String {
    let items: String = lines.iter().map(|line| format!("<li>{}</li>\n", escape(line))).collect();
    format!("<ul>\n{items}</ul>\n")
}

/// Each step as a bar from when it began.
fn timeline(written: &Written) -> String {
    let steps = &written.report.steps;
    let whole = steps.iter().map(|step| step.offset_s + step.took_s).fold(0.001, f64::max);
    let scale = (WIDTH - LEFT - RIGHT) / whole;
    let mut drawn = String::new();
    let mut y = 0.0;
    for step in steps {
        let (x, width) = (LEFT + step.offset_s * scale, (step.took_s * scale).max(2.0));
        drawn.push_str(&format!(
            "<text x=\"0\" y=\"{:.0}\">{}</text><rect x=\"{x:.1}\" y=\"{:.0}\" width=\"{width:.1}\" height=\"14\" rx=\"2\" fill=\"var(--bar)\"/><text class=\"soft\" x=\"{:.1}\" y=\"{:.0}\">{:.3} s</text>\n",
            y + 17.0,
            escape(&step.name),
            y + 6.0,
            x + width + 6.0,
            y + 17.0,
            step.took_s
        ));
        y += ROW;
    }
    let label = format!("Steps of the drill, {whole:.3} seconds in all");
    format!(
        "<svg viewBox=\"0 0 {WIDTH} {:.0}\" role=\"img\" aria-label=\"{}\">\n{drawn}</svg>\n",
        y.max(ROW),
        escape(&label)
    )
}

fn checks(written: &Written) -> String {
    let mut text = "<div class=\"wide\"><table>\n<tr><th scope=\"col\">verdict</th><th scope=\"col\">check</th><th scope=\"col\">what was seen</th></tr>\n".to_owned();
    for check in &written.report.checks {
        let class = match check.verdict.as_str() {
            "passed" => "good",
            "failed" => "bad",
            _ => "warn",
        };
        let evidence: String = check
            .evidence
            .iter()
            .map(|line| format!("<br><code>{}</code>", escape(line)))
            .collect();
        text.push_str(&format!(
            "<tr><td class=\"n {class}\">{}</td><td>{}</td><td>{}{evidence}</td></tr>\n",
            escape(check.outcome().verdict.words()),
            escape(&check.name),
            escape(&check.says)
        ));
    }
    text.push_str("</table></div>\n");
    text
}

fn manual(written: &Written) -> String {
    let mut text = "<div class=\"wide\"><table>\n<tr><th scope=\"col\">item</th><th scope=\"col\">said</th></tr>\n".to_owned();
    for item in &written.report.manual {
        let said: Vec<String> = (written.said.iter().filter(|said| said.item == *item))
            .map(|said| {
                let word = if said.good { "good" } else { "not good" };
                let note = said.note.as_deref().map(|note| format!(": {note}")).unwrap_or_default();
                format!("{word}, {} at {}{note}", said.who, said.at)
            })
            .collect();
        let (class, said) = match said.is_empty() {
            true => ("warn", "open".to_owned()),
            false => ("", said.join("; ")),
        };
        text.push_str(&format!(
            "<tr><td>{}</td><td class=\"{class}\">{}</td></tr>\n",
            escape(item),
            escape(&said)
        ));
    }
    text.push_str("</table></div>\n");
    text
}

/// Recovery times of the newest drills, with what is promised; below, the list.
fn trend(earlier: &[Written]) -> String {
    let newest = earlier.get(earlier.len().saturating_sub(SHOWN)..).unwrap_or_default();
    let times: Vec<Option<f64>> = newest.iter().map(|written| written.report.measures.recovery_s).collect();
    let promised = newest.last().and_then(|written| written.report.objectives.rto_s);
    let longest = times.iter().flatten().copied().fold(0.001, f64::max);
    // A promise of hours above seconds would leave nothing to see.
    let promised = promised.filter(|promised| *promised <= longest * 20.0);
    let top = promised.map_or(longest, |promised| longest.max(promised)) * 1.1;
    let (height, slot) = (
        TREND - 30.0,
        (WIDTH - 10.0) / f64::from(u32::try_from(newest.len().max(8)).unwrap_or(8)),
    );
    let (mut drawn, mut x) = (String::new(), 5.0);
    for (written, time) in newest.iter().zip(&times) {
        let day: String = written.report.began_at.chars().skip(5).take(5).collect();
        match time {
            Some(time) => {
                let tall = (time / top * height).max(2.0);
                let colour = match class(written.standing()) {
                    "good" => "var(--good)",
                    "warn" => "var(--warn)",
                    _ => "var(--bad)",
                };
                drawn.push_str(&format!(
                    "<rect x=\"{x:.1}\" y=\"{:.1}\" width=\"{:.1}\" height=\"{tall:.1}\" fill=\"{colour}\"/><text class=\"soft\" x=\"{x:.1}\" y=\"{:.1}\">{}</text>\n",
                    height - tall + 14.0,
                    (slot - 6.0).max(2.0),
                    height - tall + 9.0,
                    escape(&super::drill::seconds(*time))
                ));
            }
            None => drawn.push_str(&format!(
                "<text class=\"soft\" x=\"{x:.1}\" y=\"{:.1}\">none</text>\n",
                height + 9.0
            )),
        }
        drawn.push_str(&format!(
            "<text class=\"soft\" x=\"{x:.1}\" y=\"{:.1}\">{day}</text>\n",
            TREND - 2.0
        ));
        x += slot;
    }
    if let Some(promised) = promised {
        let y = height - promised / top * height + 14.0;
        drawn.push_str(&format!(
            "<line x1=\"0\" x2=\"{WIDTH}\" y1=\"{y:.1}\" y2=\"{y:.1}\" stroke=\"var(--bad)\" stroke-dasharray=\"6 4\"/><text x=\"{:.0}\" y=\"{:.1}\" text-anchor=\"end\">promised {}</text>\n",
            WIDTH - 4.0,
            y - 4.0,
            escape(&super::drill::seconds(promised))
        ));
    }
    let mut text = format!(
        "<svg viewBox=\"0 0 {WIDTH} {TREND}\" role=\"img\" aria-label=\"Recovery times of the newest {} drills\">\n{drawn}</svg>\n",
        newest.len()
    );
    text.push_str("<div class=\"wide\"><table>\n<tr><th scope=\"col\">Date</th><th scope=\"col\">Backup used</th><th scope=\"col\">Restore time</th><th scope=\"col\">Issues found</th><th scope=\"col\">Tester</th></tr>\n");
    for written in earlier.iter().rev() {
        let row = super::drill::row(written);
        let cells: String = [0, 2, 3, 4, 5]
            .iter()
            .filter_map(|column| row.get(*column))
            .map(|cell| format!("<td>{}</td>", escape(cell)))
            .collect();
        text.push_str(&format!("<tr>{cells}</tr>\n"));
    }
    text.push_str("</table></div>\n");
    text
}

#[cfg(test)]
mod tests {
    #[test]
    fn text_cannot_become_markup() {
        assert_eq!(super::escape("<b a=\"'&'\">"), "&lt;b a=&quot;&#39;&amp;&#39;&quot;&gt;");
    }
}
