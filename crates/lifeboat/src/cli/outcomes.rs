//! What came of the same verb on several components: one that fails does not stop the others, and the exit code tells the worst.

use lifeboat_model::{Error, Result};
use serde_json::{Value, json};

use super::Cx;
use crate::exit::Exit;
use crate::render;

/// Collects results in order.
#[derive(Debug)]
pub(super) struct Outcomes {
    expected: usize,
    noun: &'static str,
    rows: Vec<Value>,
    text: String,
    exit: Exit,
    /// What the next row ends with besides.
    next: Exit,
    only: Option<Error>,
    /// What stands beside the rows.
    beside: Option<(&'static str, Value)>,
}

impl Outcomes {
    /// For as many components.
    pub(super) fn new(expected: usize) -> Self {
        Self {
            expected,
            noun: "component",
            rows: Vec::new(),
            text: String::new(),
            exit: Exit::OK,
            next: Exit::OK,
            only: None,
            beside: None,
        }
    }

    /// For as many stores.
    pub(super) fn of_stores(expected: usize) -> Self {
        Self {
            noun: "store",
            ..Self::new(expected)
        }
    }

    /// A component came out well: its JSON, and its part of the text.
    pub(super) fn good(&mut self, cx: &Cx, json: Value, text: &str) {
        cx.told.row(&json, self.next);
        self.next = Exit::OK;
        self.rows.push(json);
        self.text.push_str(text);
        if !text.is_empty() && !text.ends_with('\n') {
            self.text.push('\n');
        }
    }

    /// The same of what changed and proved nothing: the ledger does not hear of it.
    pub(super) fn seen(&mut self, json: Value, text: &str) {
        self.next = Exit::OK;
        self.rows.push(json);
        self.text.push_str(text);
    }

    /// What belongs to no row: a field of its own, and its part of the text.
    pub(super) fn beside(&mut self, name: &'static str, json: Value, text: &str) {
        self.beside = Some((name, json));
        self.text.push_str(text);
        self.next = Exit::OK;
    }

    /// Besides, what is told next ends with `exit`.
    pub(super) fn but(&mut self, exit: Exit) {
        self.exit = self.exit.worse(exit);
        self.next = self.next.worse(exit);
    }

    /// Besides, what was told last ends with `exit`.
    pub(super) fn but_then(&mut self, cx: &Cx, exit: Exit) {
        self.exit = self.exit.worse(exit);
        cx.told.worsen(exit);
    }

    /// A component failed. People are told at once, because the next one may take an hour.
    pub(super) fn bad(&mut self, cx: &Cx, component: &str, error: Error) {
        cx.env.progress.finish();
        self.but(Exit::of(error.kind()));
        cx.told.row(
            &json!({ (self.noun): component, "error": render::json::error(&error) }),
            self.next,
        );
        self.next = Exit::OK;
        if self.expected == 1 {
            self.only = Some(error);
            return;
        }
        if !cx.out.json {
            render::tell(&render::error::for_people(&error));
        }
        self.rows
            .push(json!({ (self.noun): component, "error": render::json::error(&error) }));
    }

    /// A component was not reached.
    pub(super) fn not_begun(&mut self, component: &str) {
        self.rows.push(json!({ "component": component, "not_begun": true }));
    }

    /// Prints the result as `lifeboat/v1/<kind>`. The failure of a single component is the failure of the command.
    pub(super) fn finish(self, cx: &Cx, kind: &str) -> Result<Exit> {
        self.finish_with(cx, kind, |text| text)
    }

    /// The same, where the text gets a frame.
    pub(super) fn finish_with(self, cx: &Cx, kind: &str, frame: impl FnOnce(String) -> String) -> Result<Exit> {
        if let Some(error) = self.only {
            return Err(error);
        }
        let mut body = json!({ (format!("{}s", self.noun)): self.rows, "exit_code": self.exit.code() });
        if let (Some((name, json)), Some(fields)) = (self.beside, body.as_object_mut()) {
            fields.insert(name.to_owned(), json);
        }
        let text = frame(self.text);
        if cx.out.json || !text.is_empty() {
            cx.out.result(kind, body, &text)?;
        }
        Ok(self.exit)
    }
}
