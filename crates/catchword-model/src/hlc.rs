//! Hybrid logical clock: timestamps that follow wall time and never run backwards.
//!
//! Automerge orders the operations *inside* one document. This clock orders things that live in
//! different documents, such as "the book read most recently", across devices whose wall clocks
//! disagree; and it is the time that every change carries.
//!
//! # Invariants
//!
//! 1. Stamps issued by one [`HlcClock`] are strictly increasing below [`Hlc::LAST`], even when the
//!    wall clock is set back. There the clock stays, and operation counters decide.
//! 2. A stamp issued after [`HlcClock::observe`] is greater than the stamp observed.
//! 3. No stamp at or above [`CEILING_MS`] is ever issued or observed, so nobody can exhaust a clock.
//!
//! # What is not here
//!
//! The wall clock. Every method takes `now_ms`, so a test can replay any schedule.

/// First instant that no stamp may carry: 1 January 2200, in milliseconds since the Unix epoch, UTC.
///
/// A fixed bound, because devices with different wall clocks must agree on which stamps count.
pub const CEILING_MS: u64 = 7_258_118_400_000;

const COUNTER_BITS: u32 = 16;

const _: () = assert!(CEILING_MS < 1 << 47, "a packed stamp leaves the top bit of an i64 at 0");

/// A point in hybrid logical time: 48 bits of milliseconds since the Unix epoch and a 16-bit
/// counter, packed into one number whose order is the order of time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Hlc(u64);

impl Hlc {
    /// The stamp of what has no valid stamp: earlier than every other.
    pub const ZERO: Self = Self(0);

    /// The last stamp below the ceiling. A clock that has reached it stays there.
    pub const LAST: Self = Self((CEILING_MS << COUNTER_BITS) - 1);

    /// Makes a stamp, or `None` at or above the ceiling.
    ///
    /// `wall_ms` is in milliseconds since the Unix epoch, UTC; `counter` orders stamps that share it.
    pub const fn new(wall_ms: u64, counter: u16) -> Option<Self> {
        if wall_ms < CEILING_MS {
            Some(Self(wall_ms << COUNTER_BITS | counter as u64))
        } else {
            None
        }
    }

    /// Reads a packed stamp, or `None` if it is at or above the ceiling.
    pub const fn from_packed(packed: u64) -> Option<Self> {
        if packed <= Self::LAST.0 { Some(Self(packed)) } else { None }
    }

    /// Reads the time of a change: an invalid one counts as [`Hlc::ZERO`].
    pub fn of_change(time: i64) -> Self {
        u64::try_from(time).ok().and_then(Self::from_packed).unwrap_or(Self::ZERO)
    }

    /// Returns the packed form.
    pub const fn packed(self) -> u64 {
        self.0
    }

    /// Returns the packed form as the time of a change. It is never negative.
    pub const fn to_time(self) -> i64 {
        self.0.cast_signed()
    }

    /// Returns the milliseconds since the Unix epoch, UTC.
    pub const fn wall_ms(self) -> u64 {
        self.0 >> COUNTER_BITS
    }

    /// Returns the counter that orders stamps of one millisecond.
    pub const fn counter(self) -> u16 {
        (self.0 & 0xFFFF) as u16
    }
}

/// The mutable clock of one device. See the [module documentation](self).
#[derive(Debug, Clone)]
pub struct HlcClock {
    /// Invariant: the greatest stamp issued or observed so far.
    latest: Hlc,
}

impl HlcClock {
    /// Resumes from the greatest stamp this device has stored, [`Hlc::ZERO`] for a new one.
    pub const fn resume(latest: Hlc) -> Self {
        Self { latest }
    }

    /// Returns the greatest stamp issued or observed so far.
    pub const fn latest(&self) -> Hlc {
        self.latest
    }

    /// Issues the next stamp.
    ///
    /// `now_ms` is the wall clock in milliseconds since the Unix epoch. It may go backwards; the
    /// returned stamp does not. A wall clock at or past the ceiling counts as no clock. Once the
    /// clock has reached [`Hlc::LAST`], that stamp is returned again.
    pub fn tick(&mut self, now_ms: u64) -> Hlc {
        let next = Hlc(self.latest.0.saturating_add(1)).min(Hlc::LAST);
        let wall = Hlc::new(now_ms, 0).unwrap_or(Hlc::ZERO);
        self.latest = next.max(wall);
        self.latest
    }

    /// Takes a stamp received from another device into account.
    ///
    /// Every stamp issued afterwards is greater than `remote`, however far ahead of our wall clock
    /// the other device's is: what is written after seeing a stamp must sort after it. Observing a
    /// stamp twice, or one older than the clock, changes nothing.
    ///
    /// # Source
    ///
    /// The receive rule of Kulkarni et al., "Logical Physical Clocks" (OPODIS 2014), with two
    /// changes: receiving issues no stamp of its own, and the drift bound is replaced by a ceiling.
    /// A bound against the local wall clock would let an edit lose to one that it has seen.
    ///
    /// # Examples
    ///
    /// ```
    /// use catchword_model::hlc::{Hlc, HlcClock};
    ///
    /// let mut clock = HlcClock::resume(Hlc::ZERO);
    /// let remote = Hlc::new(1_000, 7).expect("1970 is below the ceiling");
    ///
    /// clock.observe(remote);
    /// assert!(remote < clock.tick(990));
    /// ```
    pub fn observe(&mut self, remote: Hlc) {
        self.latest = self.latest.max(remote);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn stamps_keep_rising_when_the_wall_clock_is_set_back() {
        let mut clock = HlcClock::resume(Hlc::ZERO);
        let before = clock.tick(2_000);
        let after = clock.tick(1_000);
        assert!(before < after);
        assert_eq!(after.wall_ms(), 2_000);
    }

    #[test]
    fn a_full_counter_rolls_into_the_next_millisecond() {
        let mut clock = HlcClock::resume(Hlc::new(5, u16::MAX).unwrap());
        assert_eq!(clock.tick(5), Hlc::new(6, 0).unwrap());
    }

    #[test]
    fn a_stamp_at_the_ceiling_is_invalid_by_its_bytes() {
        assert_eq!(Hlc::new(CEILING_MS, 0), None);
        assert_eq!(Hlc::from_packed(CEILING_MS << 16), None);
        assert_eq!(Hlc::of_change((CEILING_MS << 16).cast_signed()), Hlc::ZERO);
        assert_eq!(Hlc::of_change(-1), Hlc::ZERO);
        assert_eq!(Hlc::from_packed(Hlc::LAST.packed()), Some(Hlc::LAST));
    }

    #[test]
    fn a_clock_at_the_ceiling_stays_there() {
        let mut clock = HlcClock::resume(Hlc::LAST);
        assert_eq!(clock.tick(1), Hlc::LAST);
        assert_eq!(clock.tick(u64::MAX), Hlc::LAST);
    }

    #[test]
    fn a_wall_clock_past_the_ceiling_counts_as_no_clock() {
        let mut clock = HlcClock::resume(Hlc::new(10, 0).unwrap());
        assert_eq!(clock.tick(CEILING_MS), Hlc::new(10, 1).unwrap());
    }

    proptest! {
        /// Invariants 1 and 2, for any interleaving of local edits and stamps from elsewhere.
        #[test]
        fn stamps_are_strictly_increasing_for_any_schedule(schedule in arb_schedule()) {
            let mut clock = HlcClock::resume(Hlc::ZERO);
            let mut floor = None;
            for step in schedule {
                match step {
                    Step::Edit { now_ms } => {
                        let stamp = clock.tick(now_ms);
                        prop_assert!(floor < Some(stamp), "{stamp:?} is not after {floor:?}");
                        floor = Some(stamp);
                    }
                    Step::Receive { remote } => {
                        clock.observe(remote);
                        floor = floor.max(Some(remote));
                    }
                }
            }
        }
    }

    #[derive(Debug, Clone)]
    enum Step {
        Edit { now_ms: u64 },
        Receive { remote: Hlc },
    }

    fn arb_schedule() -> impl Strategy<Value = Vec<Step>> {
        // A tight range makes equal and reversed wall clocks common instead of rare.
        let ms = 1_000..1_010_u64;
        let hlc = (ms.clone(), 0..3_u16).prop_map(|(ms, counter)| Hlc::new(ms, counter).unwrap());
        let step = prop_oneof![
            ms.prop_map(|now_ms| Step::Edit { now_ms }),
            hlc.prop_map(|remote| Step::Receive { remote }),
        ];
        proptest::collection::vec(step, 0..64)
    }
}
