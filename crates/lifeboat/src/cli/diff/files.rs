//! What a comparison of files says.

use lifeboat_engine::files::{Aspect, Change, Count, Fate, TreeDifference, shown};
use lifeboat_model::time::human_bytes;
use lifeboat_ops::diff::Of;
use serde_json::{Value, json};

use super::{of_json, title};
use crate::render::text;

const FATES: [(Fate, &str); 3] = [(Fate::Missing, "missing"), (Fate::Changed, "changed"), (Fate::Extra, "extra")];

fn total(found: &TreeDifference, fate: Fate) -> u64 {
    match fate {
        Fate::Missing => found.missing,
        Fate::Changed => found.changed,
        Fate::Extra => found.extra,
    }
}

pub(super) fn for_people(component: &str, (before, after): (&Of, &Of), found: &TreeDifference, counts: bool) -> String {
    let mut text = format!("{component}: {} → {}\n", title(before), title(after));
    text.push_str(&format!("  {} → {}\n", counted(&found.before), counted(&found.after)));
    if found.is_same() {
        text.push_str("  no difference\n");
        return text;
    }
    text.push_str(&format!(
        "  {} missing, {} changed, {} extra\n",
        found.missing, found.changed, found.extra
    ));
    if counts {
        return text;
    }
    for (fate, word) in FATES {
        let samples: Vec<&Change> = found.samples.iter().filter(|change| change.fate == fate).collect();
        for change in &samples {
            text.push_str(&line(change, word));
        }
        let more = total(found, fate).saturating_sub(samples.len() as u64);
        if more > 0 {
            text.push_str(&format!("    … and {more} more {word}\n"));
        }
    }
    text
}

fn counted(count: &Count) -> String {
    format!(
        "{} in {}, {}",
        text::counted(count.files, "file"),
        text::counted(count.folders, "folder"),
        human_bytes(count.size_bytes)
    )
}

fn line(change: &Change, word: &str) -> String {
    // Control characters of a foreign name must not reach a terminal.
    let path: String = shown(&change.path)
        .chars()
        .map(|letter| if letter.is_control() { '�' } else { letter })
        .collect();
    let mut text = format!("    {word:<8} {path}");
    match change.kinds {
        (Some(old), Some(new)) if old != new => text.push_str(&format!(": {old} → {new}")),
        (Some(_), Some(_)) => {
            let words: Vec<String> = change.aspects.iter().map(|aspect| aspect_line(*aspect, change)).collect();
            text.push_str(&format!(": {}", words.join(", ")));
        }
        (Some("file"), None) | (None, Some("file")) => {}
        (Some(kind), None) | (None, Some(kind)) => text.push_str(&format!(" ({kind})")),
        (None, None) => {}
    }
    text.push('\n');
    text
}

fn aspect_line(aspect: Aspect, change: &Change) -> String {
    match (aspect, change.sizes) {
        (Aspect::Content, (Some(old), Some(new))) if old != new => {
            format!("content ({} → {})", human_bytes(old), human_bytes(new))
        }
        _ => aspect.word().to_owned(),
    }
}

pub(super) fn as_json(component: &str, (before, after): (&Of, &Of), found: &TreeDifference, counts: bool) -> Value {
    let count = |count: &Count| json!({ "files": count.files, "folders": count.folders, "links": count.links, "size_bytes": count.size_bytes });
    let samples: Vec<Value> = found.samples.iter().filter(|_| !counts).map(sample).collect();
    json!({
        "component": component,
        "before": of_json(before),
        "after": of_json(after),
        "counts_only": counts,
        "same": found.is_same(),
        "files": {
            "before": count(&found.before),
            "after": count(&found.after),
            "missing": found.missing,
            "changed": found.changed,
            "extra": found.extra,
            "samples": samples,
        },
    })
}

fn sample(change: &Change) -> Value {
    let fate = FATES.iter().find(|(fate, _)| *fate == change.fate).map(|(_, word)| *word);
    let aspects: Vec<&str> = change.aspects.iter().map(|aspect| aspect.word()).collect();
    json!({
        "fate": fate,
        "path": shown(&change.path),
        "kind_before": change.kinds.0,
        "kind_after": change.kinds.1,
        "size_before": change.sizes.0,
        "size_after": change.sizes.1,
        "changed": aspects,
    })
}
