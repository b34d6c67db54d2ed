//! Breadth-first search over all states of a [`World`]: every state once, the shortest way to a violation.
//! It knows nothing about the protocol.

use std::collections::HashSet;
use std::fmt::Write as _;
use std::hash::{BuildHasherDefault, Hasher};

use super::world::{Label, State, World};

/// A multiplicative hash: the states are small and nobody chooses them to collide.
#[derive(Default)]
pub struct Quick(u64);

impl Hasher for Quick {
    fn finish(&self) -> u64 {
        self.0 ^ (self.0 >> 32)
    }
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u8(*byte);
        }
    }
    fn write_u8(&mut self, value: u8) {
        self.0 = (self.0.rotate_left(5) ^ u64::from(value)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }
    fn write_usize(&mut self, value: usize) {
        self.0 = (self.0.rotate_left(5) ^ value as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }
}

/// What a complete search found.
pub struct Found {
    pub states: usize,
    /// The shortest run that breaks something, one step per line, and what it breaks.
    pub violation: Option<String>,
    /// Which of the asked-for situations were reached.
    pub witnessed: Vec<bool>,
}

/// Visits every state that can be reached, or stops at the first violation.
pub fn explore(world: &World, alike: bool, witnesses: &[fn(&World, &State) -> bool]) -> Found {
    let mut seen: HashSet<State, BuildHasherDefault<Quick>> = HashSet::default();
    let mut nodes: Vec<(State, u32, Label)> = vec![(world.start(), 0, Label::Tick)];
    let mut witnessed = vec![false; witnesses.len()];
    let mut next = Vec::new();
    seen.insert(world.start());
    let mut at = 0;
    while at < nodes.len() {
        let state = nodes[at].0;
        for (met, witness) in witnessed.iter_mut().zip(witnesses) {
            *met = *met || witness(world, &state);
        }
        next.clear();
        let mut violation = world.broken(&state).map(|what| (None, what));
        if violation.is_none() {
            violation = world.next(&state, &mut next).err().map(|(label, what)| (Some(label), what));
        }
        if violation.is_none() && next.is_empty() && !World::over(&state) {
            violation = Some((None, "nobody can go on, and not all have ended".into()));
        }
        if let Some((last, what)) = violation {
            return Found {
                states: seen.len(),
                violation: Some(trace(&nodes, at, last, &what)),
                witnessed,
            };
        }
        let from = u32::try_from(at).unwrap();
        for (label, state) in next.drain(..) {
            let state = world.canonical(state, alike);
            if seen.insert(state) {
                nodes.push((state, from, label));
            }
        }
        at += 1;
    }
    Found {
        states: seen.len(),
        violation: None,
        witnessed,
    }
}

fn trace(nodes: &[(State, u32, Label)], at: usize, last: Option<Label>, what: &str) -> String {
    let mut labels: Vec<Label> = last.into_iter().collect();
    let mut at = at;
    while at != 0 {
        labels.push(nodes[at].2);
        at = nodes[at].1 as usize;
    }
    let mut text = String::new();
    for (number, label) in labels.iter().rev().enumerate() {
        writeln!(text, "  {:2}  {label}", number + 1).unwrap();
    }
    writeln!(text, "  =>  {what}").unwrap();
    text
}
