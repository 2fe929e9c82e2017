//! Contestants take turns, so that what the machine does meanwhile falls on all alike.

use std::time::Duration;

/// One contestant: does the same work once, and says how long it took.
pub struct Contestant<'a> {
    /// Who it is.
    pub name: &'static str,
    /// Does the work of one turn.
    pub turn: Box<dyn FnMut(usize) -> anyhow::Result<Duration> + 'a>,
}

impl std::fmt::Debug for Contestant<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Contestant").field("name", &self.name).finish_non_exhaustive()
    }
}

/// Turns whose mean is taken together: several times what waits before it is moved to the rows, and
/// more than SQLite takes between two checkpoints.
const GROUP_TURNS: usize = 1_024;

/// The times of one contestant, in the order of the turns.
#[derive(Debug, Clone, PartialEq)]
pub struct Times {
    /// Whose they are.
    pub name: &'static str,
    turns: Vec<Duration>,
}

impl Times {
    /// Returns the time that half of the turns did not exceed, in microseconds.
    pub fn median_us(&self) -> f64 {
        self.share_us(50)
    }

    /// Returns the time that 99 of 100 turns did not exceed, in microseconds.
    pub fn p99_us(&self) -> f64 {
        self.share_us(99)
    }

    /// Returns the mean of a turn with everything that follows from it later, in microseconds: the
    /// median over groups of turns, since one stall of the machine would move a mean over all.
    pub fn mean_us(&self) -> f64 {
        let mut means: Vec<f64> = self.turns.chunks(GROUP_TURNS).map(mean_us).collect();
        means.sort_unstable_by(f64::total_cmp);
        means.get(means.len() / 2).copied().unwrap_or(0.0)
    }

    fn share_us(&self, percent: usize) -> f64 {
        let mut sorted = self.turns.clone();
        sorted.sort_unstable();
        sorted.get(sorted.len() * percent / 100).copied().map_or(0.0, micros)
    }
}

fn mean_us(turns: &[Duration]) -> f64 {
    let count = u32::try_from(turns.len().max(1)).unwrap_or(u32::MAX);
    micros(turns.iter().sum()) / f64::from(count)
}

/// Returns a time in microseconds.
pub fn micros(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}

/// Lets every contestant take `rounds` turns, each round in another order.
///
/// # Errors
///
/// What a contestant met.
pub fn interleave(rounds: usize, contestants: &mut [Contestant<'_>]) -> anyhow::Result<Vec<Times>> {
    let mut times: Vec<Times> = contestants
        .iter()
        .map(|contestant| Times { name: contestant.name, turns: Vec::with_capacity(rounds) })
        .collect();
    let count = contestants.len().max(1);
    for round in 0..rounds {
        for place in 0..contestants.len() {
            let whose = (place + round) % count;
            let (Some(contestant), Some(times)) =
                (contestants.get_mut(whose), times.get_mut(whose))
            else {
                continue;
            };
            times.turns.push((contestant.turn)(round)?);
        }
    }
    Ok(times)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everybody_takes_as_many_turns_and_none_is_always_first() {
        let order = std::cell::RefCell::new(Vec::new());
        let order = &order;
        let contestant = |name: &'static str| Contestant {
            name,
            turn: Box::new(move |_| {
                order.borrow_mut().push(name);
                Ok(Duration::from_micros(name.len() as u64))
            }),
        };
        let mut contestants = [contestant("a"), contestant("bb")];
        let times = interleave(2, &mut contestants).unwrap();
        assert_eq!(*order.borrow(), ["a", "bb", "bb", "a"]);
        let close = |a: f64, b: f64| (a - b).abs() < 1e-9;
        assert!(close(times[1].median_us(), 2.0) && close(times[1].mean_us(), 2.0));
    }
}
