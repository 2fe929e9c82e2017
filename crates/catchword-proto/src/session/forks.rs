//! Where chains of one actor that fork still agree, found by halving.

use std::collections::BTreeMap;

use crate::session::{Chain, ShortHash, Spot, Violation};

/// The last number at which both sides agree, with its hash; `None`: they agree nowhere.
pub(crate) type Floor = Option<(u32, ShortHash)>;

/// The search in several chains at once: one round trip halves all of them.
#[derive(Debug)]
pub(crate) struct Halving {
    forks: Vec<Fork>,
    /// Invariant: one for each unsettled fork, in their order.
    probes: Vec<(Spot, ShortHash)>,
}

#[derive(Debug)]
struct Fork {
    chain: Chain,
    agreed: Floor,
    /// Invariant: above what is agreed, and both have something else there.
    differs: u32,
}

impl Halving {
    /// Begins with numbers that both sides have with different hashes.
    pub(crate) fn new(forks: impl IntoIterator<Item = Spot>) -> Self {
        let mut first = BTreeMap::new();
        for spot in forks {
            let differs = first.entry(spot.chain).or_insert(spot.seq);
            *differs = spot.seq.min(*differs);
        }
        let fork = |(chain, differs)| Fork { chain, agreed: None, differs };
        Self { forks: first.into_iter().map(fork).collect(), probes: Vec::new() }
    }

    /// Returns the numbers of which this device's hashes are wanted; none: the search is over.
    pub(crate) fn spots(&self) -> Vec<Spot> {
        self.forks.iter().filter_map(Fork::middle).collect()
    }

    /// Takes the hashes at [`spots`](Self::spots), and returns what to ask the peer.
    pub(crate) fn probes(&mut self, mine: &[Option<ShortHash>]) -> Vec<(Spot, ShortHash)> {
        let unsettled = self.forks.iter_mut().filter(|fork| fork.middle().is_some());
        for (fork, mine) in unsettled.zip(mine) {
            // What the store had a moment ago is gone: there is nothing to agree on.
            if mine.is_none() {
                fork.differs = fork.low() + 1;
            }
        }
        let spots = self.forks.iter().filter_map(Fork::middle);
        self.probes = spots.zip(mine.iter().flatten().copied()).collect();
        self.probes.clone()
    }

    /// Takes whether the peer has the same at each probe.
    pub(crate) fn agreements(&mut self, agreements: &[bool]) -> Result<(), Violation> {
        if self.probes.len() != agreements.len() {
            return Err(Violation::Unasked);
        }
        let unsettled = self.forks.iter_mut().filter(|fork| fork.middle().is_some());
        for (fork, ((spot, hash), agrees)) in unsettled.zip(self.probes.drain(..).zip(agreements)) {
            if *agrees {
                fork.agreed = Some((spot.seq, hash));
            } else {
                fork.differs = spot.seq;
            }
        }
        Ok(())
    }

    /// Returns for each chain the first number at which it differs, and what is agreed before it.
    pub(crate) fn floors(&self) -> impl Iterator<Item = (Spot, Floor)> {
        let spot = |fork: &Fork| Spot { chain: fork.chain, seq: fork.differs };
        self.forks.iter().map(move |fork| (spot(fork), fork.agreed))
    }
}

impl Fork {
    fn low(&self) -> u32 {
        self.agreed.map_or(0, |(seq, _)| seq)
    }

    /// A number between what is agreed and what differs, if there is one.
    fn middle(&self) -> Option<Spot> {
        let low = self.low();
        let seq = low + (self.differs - low) / 2;
        (low < seq).then_some(Spot { chain: self.chain, seq })
    }
}

#[cfg(test)]
mod tests {
    use catchword_model::id::{ActorId, DocumentId};
    use proptest::prelude::*;

    use super::*;
    use crate::session::Log;

    fn spot(actor: u8, seq: u32) -> Spot {
        let (document, log) = (DocumentId([1; 32]), Log::Changes);
        Spot { chain: Chain { document, log, actor: ActorId([actor; 16]) }, seq }
    }

    /// Chains that agree up to a number, looked for from the end of the shorter one.
    fn search(agreeing: &[u32], seen: u32) -> (Vec<(u32, u32)>, u32) {
        let actors = (0_u8..).zip(agreeing);
        let mut halving = Halving::new(actors.map(|(actor, _)| spot(actor, seen)));
        let mut round_trips = 0;
        while !halving.spots().is_empty() {
            let mine: Vec<_> = halving.spots().iter().map(|_| Some([7; 8])).collect();
            let probes = halving.probes(&mine);
            let agrees = |(spot, _): &(Spot, ShortHash)| {
                spot.seq <= agreeing[usize::from(spot.chain.actor.0[0])]
            };
            halving.agreements(&probes.iter().map(agrees).collect::<Vec<_>>()).unwrap();
            round_trips += 1;
        }
        let floor = |(spot, floor): (Spot, Floor)| (floor.map_or(0, |(seq, _)| seq), spot.seq);
        (halving.floors().map(floor).collect(), round_trips)
    }

    #[test]
    fn a_fork_in_a_hundred_thousand_changes_takes_17_round_trips() {
        assert_eq!(search(&[33_333, 0, 99_998], 100_000).1, 17);
    }

    #[test]
    fn the_lowest_of_several_spots_of_a_chain_counts() {
        let halving = Halving::new([spot(1, 9), spot(1, 4), spot(1, 6)]);
        assert_eq!(halving.floors().map(|(spot, _)| spot.seq).collect::<Vec<_>>(), [4]);
    }

    #[test]
    fn what_the_store_no_longer_has_ends_the_search() {
        let mut halving = Halving::new([spot(1, 100), spot(2, 100)]);
        assert_eq!(halving.probes(&[None, Some([7; 8])]), [(spot(2, 50), [7; 8])]);
        assert_eq!(halving.agreements(&[]), Err(Violation::Unasked));
        assert_eq!(halving.spots(), [spot(2, 50)]);
    }

    proptest! {
        #[test]
        fn the_last_agreement_and_the_first_difference_are_found(
            agreeing in proptest::collection::vec(0..500_u32, 1..6),
            seen in 500..1_000_u32,
        ) {
            let (floors, round_trips) = search(&agreeing, seen);
            let expected: Vec<_> = agreeing.iter().map(|agrees| (*agrees, agrees + 1)).collect();
            prop_assert_eq!(floors, expected);
            prop_assert!(round_trips <= 10);
        }
    }
}
