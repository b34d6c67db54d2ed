//! What a command tells while it runs: the rows of its document, and the steps with their times.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use lifeboat_model::{Clock, Progress};
use serde_json::{Value, json};

use super::facts::plain;
use crate::exit::Exit;

/// What came of one component, or one store.
#[derive(Debug, Clone)]
pub(crate) struct Row {
    pub(super) component: Option<String>,
    pub(super) store: Option<String>,
    pub(super) exit: Exit,
    pub(super) value: Value,
    pub(super) steps: Vec<(String, Duration)>,
}

#[derive(Debug, Default)]
struct State {
    rows: Vec<Row>,
    steps: Vec<(String, Duration)>,
    current: Option<(String, Duration)>,
}

/// Collects it.
#[derive(Debug)]
pub(crate) struct Told {
    clock: Arc<dyn Clock>,
    began: Duration,
    state: Mutex<State>,
}

impl Told {
    pub(crate) fn new(clock: Arc<dyn Clock>) -> Self {
        Self {
            began: clock.monotonic(),
            clock,
            state: Mutex::default(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn began(&self) -> Duration {
        self.began
    }

    /// A row of the document, and how that part ends.
    pub(crate) fn row(&self, value: &Value, exit: Exit) {
        let text = |name: &str| value.get(name).and_then(Value::as_str).map(str::to_owned);
        let (component, store) = (text("component"), text("store"));
        let mut state = self.state();
        let steps = std::mem::take(&mut state.steps);
        state.rows.push(Row {
            component,
            store,
            exit,
            value: plain(value),
            steps,
        });
    }

    /// A document that is about one component, or names several.
    pub(crate) fn document(&self, body: &Value) {
        for list in ["components", "holds"] {
            if let Some(rows) = body.get(list).and_then(Value::as_array) {
                rows.iter().for_each(|row| self.row(row, Exit::OK));
                return;
            }
        }
        self.row(body, Exit::OK);
    }

    /// What was told last ends worse than it seemed.
    pub(crate) fn worsen(&self, exit: Exit) {
        if let Some(row) = self.state().rows.last_mut() {
            row.exit = row.exit.worse(exit);
        }
    }

    /// The components that were told of.
    pub(super) fn components(&self) -> Vec<String> {
        self.state().rows.iter().filter_map(|row| row.component.clone()).collect()
    }

    /// What was told of a component, or of one of `stores` alone; and how many rows there are of all.
    pub(super) fn rows(&self, component: &str, stores: &[String]) -> (Vec<Row>, usize) {
        let state = self.state();
        let is_of = |row: &&Row| match (&row.component, &row.store) {
            (Some(of), _) => of == component,
            (None, Some(store)) => stores.contains(store),
            (None, None) => false,
        };
        (state.rows.iter().filter(is_of).cloned().collect(), state.rows.len())
    }

    /// Steps since the last row, the one that did not end among them.
    pub(super) fn steps_left(&self) -> Vec<(String, Duration)> {
        let state = self.state();
        let mut steps = state.steps.clone();
        steps.extend(
            state
                .current
                .as_ref()
                .map(|(name, since)| (name.clone(), self.clock.monotonic().saturating_sub(*since))),
        );
        steps
    }

    fn step(&self, name: Option<&str>) {
        let now = self.clock.monotonic();
        let mut state = self.state();
        if let Some((before, since)) = state.current.take() {
            state.steps.push((before, now.saturating_sub(since)));
        }
        state.current = name.map(|name| (name.to_owned(), now));
    }
}

/// Steps as JSON.
pub(super) fn steps_as_json(steps: &[(String, Duration)]) -> Value {
    steps
        .iter()
        .map(|(name, took)| json!({ "step": name, "took_s": took.as_secs_f64() }))
        .collect()
}

/// Watches progress for somebody else, and notes when steps begin and end.
#[derive(Debug)]
pub(crate) struct Steps {
    inner: Arc<dyn Progress>,
    told: Arc<Told>,
}

impl Steps {
    pub(crate) fn new(inner: Arc<dyn Progress>, told: Arc<Told>) -> Self {
        Self { inner, told }
    }
}

impl Progress for Steps {
    fn step(&self, name: &str, total_bytes: Option<u64>) {
        self.told.step(Some(name));
        self.inner.step(name, total_bytes);
    }

    fn advance(&self, bytes: u64) {
        self.inner.advance(bytes);
    }

    fn finish(&self) {
        self.told.step(None);
        self.inner.finish();
    }
}
