//! Runs of local sequences: of which document they are, and who brought them.

use std::collections::BTreeMap;

use redb::{ReadableTable as _, WriteTransaction};

use crate::bytes::{Reader, Writer};
use crate::error::{LoadError, corrupt, load};
use crate::exchange::{Arrival, Origin};
use crate::snapshot::Snapshot;
use crate::tables;

/// Consecutive local sequences of one document and one origin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Run {
    pub(crate) first: u64,
    pub(crate) count: u64,
    pub(crate) arrival: Arrival,
}

impl Run {
    pub(crate) fn last(&self) -> u64 {
        self.first.saturating_add(self.count).saturating_sub(1)
    }

    fn encode(&self) -> Vec<u8> {
        let mut out = Writer::with_capacity(64);
        out.number(self.count).number(u64::from(self.arrival.number));
        match self.arrival.origin {
            None => out.byte(0),
            Some(origin) => out.byte(1).fixed(&origin.to_bytes()),
        };
        out.0
    }

    fn decode(first: u64, bytes: &[u8]) -> Result<Self, LoadError> {
        let mut input = Reader(bytes);
        let (count, number) = (input.number()?, input.small()?);
        let origin = match input.byte()? {
            0 => None,
            _ => Some(Origin::read(&mut input)?),
        };
        if count == 0 || !input.is_empty() {
            return Err(corrupt("a run of local sequences does not read"));
        }
        Ok(Self { first, count, arrival: Arrival { number, origin } })
    }

    fn take(&mut self, sequence: u64, arrival: Arrival) -> bool {
        let follows = self.last() + 1 == sequence && self.arrival == arrival;
        self.count += u64::from(follows);
        follows
    }
}

/// Writes what arrived, continuing the last run there is where it fits.
pub(super) fn write(
    write: &WriteTransaction,
    arrivals: &BTreeMap<u64, Arrival>,
) -> Result<(), LoadError> {
    let Some((first, _)) = arrivals.first_key_value() else { return Ok(()) };
    let mut table = write.open_table(tables::RECEIVED).map_err(load)?;
    let last = table.range(..*first).map_err(load)?.next_back().transpose().map_err(load)?;
    let last = last.map(|(key, value)| Run::decode(key.value(), value.value())).transpose()?;
    let mut open: Option<Run> = last;
    for (sequence, arrival) in arrivals {
        if open.as_mut().is_some_and(|run| run.take(*sequence, *arrival)) {
            continue;
        }
        if let Some(run) = open.replace(Run { first: *sequence, count: 1, arrival: *arrival }) {
            table.insert(run.first, run.encode().as_slice()).map_err(load)?;
        }
    }
    if let Some(run) = open {
        table.insert(run.first, run.encode().as_slice()).map_err(load)?;
    }
    Ok(())
}

/// Deletes the runs of a document.
pub(crate) fn delete(write: &WriteTransaction, number: u32) -> Result<(), LoadError> {
    let mut table = write.open_table(tables::RECEIVED).map_err(load)?;
    let mut unread = Ok(());
    let mut is_of = |first: u64, bytes: &[u8]| match Run::decode(first, bytes) {
        Ok(run) => run.arrival.number == number,
        Err(error) => {
            unread = Err(error);
            false
        }
    };
    table.retain(|first, bytes| !is_of(first, bytes)).map_err(load)?;
    unread
}

/// Returns the runs that have something above `after`, ascending; the first may begin below.
pub(super) fn above(
    disk: &Snapshot,
    after: u64,
) -> Result<impl Iterator<Item = Result<Run, LoadError>>, LoadError> {
    let from = after.saturating_add(1);
    let first = disk.received.range(..=from).map_err(load)?.next_back().transpose();
    let first = first.map_err(load)?.map_or(from, |(key, _)| key.value());
    let runs = disk.received.range(first..).map_err(load)?.map(|found| {
        let (key, value) = found.map_err(load)?;
        Run::decode(key.value(), value.value())
    });
    Ok(runs.filter(move |run| run.as_ref().map_or(true, |run| after < run.last())))
}
