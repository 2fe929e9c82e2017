//! How often, how much at once: bounds per account and per address, in memory of this process.
//!
//! # Invariants
//!
//! 1. What is remembered is bounded: the oldest is forgotten first.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use catchword_proto::cloud::api::AccountId;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Calls of an account that are carried out at once.
pub(crate) const CONCURRENT_MAX: usize = 4;
/// Calls of an account in a second, on average.
pub(crate) const CALLS_PER_SECOND: u32 = 50;
/// Calls of an account at once, after a pause.
pub(crate) const CALLS_BURST: u32 = 200;
/// Wrong passwords of an account before the next is not looked at.
pub(crate) const ACCOUNT_FAILURES_MAX: u32 = 5;
/// Wrong passwords from an address before the next is not looked at.
pub(crate) const ADDRESS_FAILURES_MAX: u32 = 20;
/// Failures are forgotten this long after the last.
pub(crate) const FAILURES_WINDOW: Duration = Duration::from_secs(15 * 60);
/// Live connections of an account.
pub(crate) const LIVE_MAX: usize = 64;
/// How long a call waits for others of its account.
const CONCURRENT_WAIT_MAX: Duration = Duration::from_secs(2);
/// The first wait after too many failures; each further one doubles it.
const FAILURE_WAIT_MIN: Duration = Duration::from_secs(1);
/// Entries of each table.
const REMEMBERED_MAX: usize = 100_000;

/// Whose failures.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Who {
    Account(AccountId),
    /// An IPv6 address stands for its /64: whoever has one has all of them.
    Address(IpAddr),
}

impl Who {
    pub(crate) fn address(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(_) => Self::Address(address),
            IpAddr::V6(v6) => match v6.to_ipv4_mapped() {
                Some(v4) => Self::Address(v4.into()),
                None => Self::Address(IpAddr::from((v6.to_bits() >> 64 << 64).to_be_bytes())),
            },
        }
    }

    const fn failures_max(self) -> u32 {
        match self {
            Self::Account(_) => ACCOUNT_FAILURES_MAX,
            Self::Address(_) => ADDRESS_FAILURES_MAX,
        }
    }
}

#[derive(Debug, Clone, Copy)]
struct Failures {
    count: u32,
    last: Instant,
}

#[derive(Debug)]
struct Calls {
    /// Full at [`CALLS_BURST`].
    left: f64,
    at: Instant,
    running: Arc<Semaphore>,
    live: Arc<Semaphore>,
}

/// Everything that is counted.
#[derive(Debug, Default)]
pub(crate) struct Limits {
    failures: Mutex<BTreeMap<Who, Failures>>,
    calls: Mutex<BTreeMap<AccountId, Calls>>,
}

impl Limits {
    /// Returns how long to wait before a password of theirs is looked at, if at all.
    pub(crate) fn failure_wait(&self, who: &[Who], now: Instant) -> Option<Duration> {
        let failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        let wait = |who: &Who| {
            let of = failures.get(who)?;
            let beyond = of.count.checked_sub(who.failures_max())?;
            let wait =
                FAILURE_WAIT_MIN.saturating_mul(1_u32.checked_shl(beyond).unwrap_or(u32::MAX));
            let until = of.last + wait.min(FAILURES_WINDOW);
            until.checked_duration_since(now).filter(|wait| !wait.is_zero())
        };
        who.iter().filter_map(wait).max()
    }

    /// Counts a wrong password. It is counted before it is looked at, so that many at once do not pass.
    pub(crate) fn count_failure(&self, who: &[Who], now: Instant) {
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        for who in who {
            let of = failures.entry(*who).or_insert(Failures { count: 0, last: now });
            if FAILURES_WINDOW <= now.saturating_duration_since(of.last) {
                of.count = 0;
            }
            (of.count, of.last) = (of.count.saturating_add(1), now);
        }
        if REMEMBERED_MAX < failures.len() {
            failures.retain(|_, of| now.saturating_duration_since(of.last) < FAILURES_WINDOW);
        }
        while REMEMBERED_MAX < failures.len() {
            let oldest = failures.iter().min_by_key(|(_, of)| of.last).map(|(who, _)| *who);
            let Some(oldest) = oldest else { break };
            failures.remove(&oldest);
        }
    }

    /// Takes back one count of each: the password was right.
    pub(crate) fn forgive(&self, who: &[Who]) {
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        for who in who {
            match failures.get_mut(who) {
                Some(of) if 1 < of.count => of.count -= 1,
                Some(_) => drop(failures.remove(who)),
                None => (),
            }
        }
    }

    /// Lets a call of an account begin, or says how long to wait.
    pub(crate) async fn call(
        &self,
        account: AccountId,
        now: Instant,
    ) -> Result<OwnedSemaphorePermit, Duration> {
        let running = self.of_account(account, now, |calls| {
            if calls.left < 1.0 {
                let missing = (1.0 - calls.left) / f64::from(CALLS_PER_SECOND);
                return Err(Duration::from_secs_f64(missing));
            }
            calls.left -= 1.0;
            Ok(Arc::clone(&calls.running))
        })?;
        let permit = tokio::time::timeout(CONCURRENT_WAIT_MAX, running.acquire_owned()).await;
        permit.ok().and_then(Result::ok).ok_or(CONCURRENT_WAIT_MAX)
    }

    /// Lets a live connection of an account begin, if there are not too many.
    pub(crate) fn live(&self, account: AccountId, now: Instant) -> Option<OwnedSemaphorePermit> {
        let live = self.of_account(account, now, |calls| Arc::clone(&calls.live));
        live.try_acquire_owned().ok()
    }

    fn of_account<T>(
        &self,
        account: AccountId,
        now: Instant,
        with: impl FnOnce(&mut Calls) -> T,
    ) -> T {
        let mut all = self.calls.lock().unwrap_or_else(PoisonError::into_inner);
        if REMEMBERED_MAX < all.len() {
            // Whoever runs nothing and has not called for a while begins anew.
            all.retain(|_, calls| {
                let idle =
                    Arc::strong_count(&calls.running) == 1 && Arc::strong_count(&calls.live) == 1;
                !idle || now.saturating_duration_since(calls.at) < Duration::from_secs(10)
            });
        }
        let calls = all.entry(account).or_insert_with(|| Calls {
            left: f64::from(CALLS_BURST),
            at: now,
            running: Arc::new(Semaphore::new(CONCURRENT_MAX)),
            live: Arc::new(Semaphore::new(LIVE_MAX)),
        });
        let passed = now.saturating_duration_since(calls.at).as_secs_f64();
        let filled = calls.left + passed * f64::from(CALLS_PER_SECOND);
        calls.left = filled.min(f64::from(CALLS_BURST));
        calls.at = now;
        with(calls)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANNA: AccountId = AccountId([1; 16]);

    #[test]
    fn after_too_many_failures_each_further_one_doubles_the_wait() {
        let (limits, start) = (Limits::default(), Instant::now());
        let who = [Who::Account(ANNA)];
        for _ in 1..ACCOUNT_FAILURES_MAX {
            limits.count_failure(&who, start);
            assert_eq!(limits.failure_wait(&who, start), None);
        }
        for seconds in [1, 2, 4, 8] {
            limits.count_failure(&who, start);
            assert_eq!(limits.failure_wait(&who, start), Some(Duration::from_secs(seconds)));
        }
        let later = start + Duration::from_secs(8);
        assert_eq!(limits.failure_wait(&who, later), None);
        for _ in 0..40 {
            limits.count_failure(&who, start);
        }
        assert_eq!(limits.failure_wait(&who, start), Some(FAILURES_WINDOW));

        limits.count_failure(&who, start + FAILURES_WINDOW);
        assert_eq!(limits.failure_wait(&who, start + FAILURES_WINDOW), None, "forgotten");
    }

    #[test]
    fn an_address_has_more_tries_and_a_right_password_counts_for_nothing() {
        let (limits, now) = (Limits::default(), Instant::now());
        let address = Who::address("10.0.0.1".parse().unwrap());
        for _ in 0..30 {
            limits.count_failure(&[address], now);
            limits.forgive(&[address]);
        }
        for _ in 1..ADDRESS_FAILURES_MAX {
            limits.count_failure(&[address], now);
        }
        assert_eq!(limits.failure_wait(&[Who::Account(ANNA), address], now), None);
        limits.count_failure(&[address], now);
        assert!(limits.failure_wait(&[Who::Account(ANNA), address], now).is_some());
    }

    #[test]
    fn addresses_of_one_network_are_one() {
        let of = |text: &str| Who::address(text.parse().unwrap());
        assert_eq!(of("2001:db8::1"), of("2001:db8::ffff:1:2:3"));
        assert_ne!(of("2001:db8::1"), of("2001:db8:0:1::1"));
        assert_eq!(of("::ffff:10.0.0.1"), of("10.0.0.1"));
        assert_ne!(of("10.0.0.1"), of("10.0.0.2"));
    }

    #[tokio::test(start_paused = true)]
    async fn an_account_makes_so_many_calls_at_once_and_in_a_second() {
        let (limits, start) = (Limits::default(), Instant::now());
        let mut running = Vec::new();
        for _ in 0..CONCURRENT_MAX {
            running.push(limits.call(ANNA, start).await.unwrap());
        }
        assert_eq!(limits.call(ANNA, start).await.unwrap_err(), CONCURRENT_WAIT_MAX);
        running.clear();
        for _ in CONCURRENT_MAX + 1..CALLS_BURST as usize {
            drop(limits.call(ANNA, start).await.unwrap());
        }
        let wait = limits.call(ANNA, start).await.unwrap_err();
        assert_eq!(wait, Duration::from_millis(20));
        drop(limits.call(ANNA, start + wait).await.unwrap());
        drop(limits.call(AccountId([2; 16]), start).await.unwrap());
    }
}
