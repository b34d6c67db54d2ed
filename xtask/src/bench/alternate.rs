//! Runs what is compared in turn and takes medians.

use anyhow::Result;

/// One of the things compared: what it is called and how it runs once, returning seconds.
pub(crate) struct Side<'bench> {
    name: &'static str,
    run: Box<dyn FnMut(usize) -> Result<f64> + 'bench>,
}

impl std::fmt::Debug for Side<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name)
    }
}

impl<'bench> Side<'bench> {
    /// `run` gets the number of the round and measures only what is compared.
    pub(crate) fn new(name: &'static str, run: impl FnMut(usize) -> Result<f64> + 'bench) -> Self {
        Self {
            name,
            run: Box::new(run),
        }
    }
}

/// Every side once in each round, in an order that turns around; the median of each.
pub(crate) fn alternate(what: &str, rounds: usize, mut sides: Vec<Side<'_>>) -> Result<Vec<Option<f64>>> {
    let mut times = vec![Vec::new(); sides.len()];
    for round in 0..rounds {
        let mut order: Vec<usize> = (0..sides.len()).collect();
        if round % 2 == 1 {
            order.reverse();
        }
        for index in order {
            if let (Some(side), Some(list)) = (sides.get_mut(index), times.get_mut(index)) {
                let seconds = (side.run)(round)?;
                println!("  {what}, round {}: {:<10} {seconds:8.3} s", round + 1, side.name);
                list.push(seconds);
            }
        }
    }
    Ok(times.into_iter().map(median).collect())
}

/// The middle value, or the mean of the two in the middle.
pub(crate) fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    let upper = *values.get(middle)?;
    if values.len() % 2 == 1 {
        return Some(upper);
    }
    let lower = *values.get(middle.checked_sub(1)?)?;
    Some(f64::midpoint(lower, upper))
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;

    #[test]
    fn medians_are_in_the_middle() {
        assert_eq!(median(vec![3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(vec![4.0, 1.0, 2.0, 3.0]), Some(2.5));
        assert_eq!(median(vec![]), None);
    }

    #[test]
    fn sides_run_in_turn_and_the_order_turns_around() {
        let seen = RefCell::new(String::new());
        let side = |name: &'static str, seconds: f64| {
            let seen = &seen;
            Side::new(name, move |_| {
                seen.borrow_mut().push_str(name);
                Ok(seconds)
            })
        };
        let medians = alternate("test", 3, vec![side("a", 1.0), side("b", 2.0)]).unwrap();
        assert_eq!(medians, [Some(1.0), Some(2.0)]);
        assert_eq!(*seen.borrow(), "abbaab");
    }
}
