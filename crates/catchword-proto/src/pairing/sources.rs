//! How often one address may connect while a window is open.

use std::collections::{BTreeMap, VecDeque};
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// Connections from one address in [`SOURCE_PERIOD`]: a person who mistypes needs one in several
/// seconds.
pub const SOURCE_CONNECTIONS_MAX: usize = 3;

/// The time in which [`SOURCE_CONNECTIONS_MAX`] are counted.
pub const SOURCE_PERIOD: Duration = Duration::from_secs(10);

/// Addresses that are remembered: as many as there may be connections. More at once is a flood,
/// and whoever is not remembered yet is turned away.
pub const SOURCES_MAX: usize = 64;

/// When each address connected, within [`SOURCE_PERIOD`].
#[derive(Debug, Default)]
pub(super) struct Sources {
    /// Invariant: at most [`SOURCES_MAX`] addresses with [`SOURCE_CONNECTIONS_MAX`] instants each.
    seen: BTreeMap<IpAddr, VecDeque<Instant>>,
}

impl Sources {
    /// Notes a connection, and says whether it is within the limits. One that is not is not noted.
    pub(super) fn admit(&mut self, source: IpAddr, now: Instant) -> bool {
        self.seen.retain(|_, instants| {
            while instants.front().is_some_and(|instant| *instant + SOURCE_PERIOD <= now) {
                instants.pop_front();
            }
            !instants.is_empty()
        });
        // An IPv4 address that arrives on a socket of both families is the same source.
        let source = source.to_canonical();
        if self.seen.len() == SOURCES_MAX && !self.seen.contains_key(&source) {
            return false;
        }
        let instants = self.seen.entry(source).or_default();
        if instants.len() == SOURCE_CONNECTIONS_MAX {
            return false;
        }
        instants.push_back(now);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Only differences of instants count.
    #[expect(clippy::disallowed_methods, reason = "an instant can be had in no other way")]
    fn any_instant() -> Instant {
        Instant::now()
    }

    #[test]
    fn a_fourth_connection_waits_until_the_first_is_ten_seconds_old() {
        let (mut sources, start) = (Sources::default(), any_instant());
        let source = IpAddr::from([192, 168, 0, 7]);
        let mapped = IpAddr::from([0, 0, 0, 0, 0, 0xFFFF, 0xC0A8, 7_u16]);
        for second in 0..3 {
            assert!(sources.admit(source, start + Duration::from_secs(second)));
        }

        assert!(!sources.admit(source, start + Duration::from_millis(9_999)));
        assert!(!sources.admit(mapped, start + Duration::from_millis(9_999)));
        assert!(sources.admit(IpAddr::from([192, 168, 0, 8]), start));
        assert!(sources.admit(source, start + SOURCE_PERIOD));
        assert!(!sources.admit(source, start + SOURCE_PERIOD));
    }

    #[test]
    fn a_flood_from_many_addresses_is_not_remembered_beyond_the_limit() {
        let (mut sources, start) = (Sources::default(), any_instant());
        let admitted = (0..=u8::MAX).filter(|n| sources.admit(IpAddr::from([10, 0, 0, *n]), start));
        assert_eq!(admitted.count(), SOURCES_MAX);
        assert!(sources.admit(IpAddr::from([10, 0, 1, 1]), start + SOURCE_PERIOD));
        assert_eq!(sources.seen.len(), 1);
    }
}
