//! Where an actor's changes lie in the log, and what is in their past.
//!
//! One entry for each change or block. A clock is written where it is not the one before plus one;
//! an entry names the last change before it that has one, so that no past is ever walked.

use crate::bytes::{Reader, Writer};
use crate::error::LoadError;

/// For each writer but the owner: place in the document's list, and its last change in the past.
pub(crate) type Clock = Vec<(u16, u32)>;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Chain {
    /// The local sequence under which the change or block stands in the log.
    pub(crate) log: u64,
    /// How many changes.
    pub(crate) count: u32,
    /// The counter of the first operation.
    pub(crate) start_op: u64,
    /// The last change of this writer before this entry that has a clock; 0 if there is none.
    pub(crate) clock_before: u32,
    /// The changes of this entry that have a clock, ascending.
    pub(crate) clocks: Vec<(u32, Clock)>,
}

impl Chain {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Writer::with_capacity(24);
        out.number(self.log).number(u64::from(self.count)).number(self.start_op);
        out.number(u64::from(self.clock_before)).len(self.clocks.len());
        for (seq, clock) in &self.clocks {
            out.number(u64::from(*seq)).len(clock.len());
            for (writer, last) in clock {
                out.number(u64::from(*writer)).number(u64::from(*last));
            }
        }
        out.0
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, LoadError> {
        let mut input = Reader(bytes);
        let (log, count, start_op) = (input.number()?, input.small()?, input.number()?);
        let clock_before = input.small()?;
        let mut clocks = Vec::new();
        for _ in 0..input.count()? {
            let seq = input.small()?;
            let mut clock = Vec::new();
            for _ in 0..input.count()? {
                clock.push((input.small()?, input.small()?));
            }
            clocks.push((seq, clock));
        }
        Ok(Self { log, count, start_op, clock_before, clocks })
    }

    /// Returns the last change up to `seq` that has a clock, in this entry or before; 0 if none.
    pub(crate) fn clock_at(&self, seq: u32) -> u32 {
        let within = self.clocks.iter().rev().find(|(at, _)| *at <= seq);
        within.map_or(self.clock_before, |(at, _)| *at)
    }

    pub(crate) fn clock(&self, seq: u32) -> Option<&Clock> {
        self.clocks.iter().find(|(at, _)| *at == seq).map(|(_, clock)| clock)
    }
}

/// Takes the greater of two numbers for each writer.
pub(crate) fn join(clock: &mut Clock, writer: u16, seq: u32) {
    match clock.binary_search_by_key(&writer, |(at, _)| *at) {
        Ok(place) => {
            if let Some((_, last)) = clock.get_mut(place) {
                *last = (*last).max(seq);
            }
        }
        Err(place) => clock.insert(place, (writer, seq)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_says_where_the_clock_of_each_of_its_changes_is() {
        let chain = Chain {
            log: 900,
            count: 10,
            start_op: 77,
            clock_before: 3,
            clocks: vec![(12, vec![(0, 5)]), (15, vec![(0, 6), (2, 1)])],
        };
        assert_eq!(Chain::decode(&chain.encode()).unwrap(), chain);
        assert_eq!(chain.clock_at(11), 3);
        assert_eq!(chain.clock_at(14), 12);
        assert_eq!(chain.clock_at(19), 15);
        assert_eq!(chain.clock(15), Some(&vec![(0, 6), (2, 1)]));
    }
}
