//! Whoever does not know the key, or not the code, gets no further than the attempts.

use std::time::Duration;

use catchword_proto::pairing::host::{Approval, Attempts, KeyOnly, Outcome, Reason, Window};
use catchword_proto::pairing::joiner::{self, Invitation};
use catchword_proto::pairing::{
    ATTEMPTS_MAX, CloseCode, PairingId, Pake, QrSecret, Spake2, WINDOW,
};
use rand::{Rng, RngExt};

use crate::pairing_support::{
    HOST, HostDevice, IMPOSTOR, JOINER, JoinerDevice, Said, Session, StandIn, attempt, key,
    scanned, seeded, typed, window,
};
use crate::report;

struct Guesses {
    windows: u32,
    hits: u32,
    fourth_attempts_refused: u32,
}

/// Opens windows with a key out of a small space, guesses three different keys of it in each, and
/// tries a fourth time whatever came of it.
fn guess<P: Pake>(windows: u32, key_space: u32, seed: u64) -> Guesses {
    let mut rng = seeded(seed);
    let mut guesses = Guesses { windows, hits: 0, fourth_attempts_refused: 0 };
    for _ in 0..windows {
        let drawn = key(rng.random_range(0..key_space));
        let settings = Window { key: drawn, approval: Approval::Given, ..window(&mut rng) };
        let mut host = HostDevice::<P>::open(settings, &mut rng);
        let first = rng.random_range(0..key_space);
        for more in 0..u32::from(ATTEMPTS_MAX) {
            let number = (first + more) % key_space;
            let (device, _) = attempt(&mut host, &typed(number), IMPOSTOR, &mut rng);
            if matches!(device.outcome, Some(joiner::Outcome::Paired(_))) {
                guesses.hits += 1;
                assert_eq!(host.promoted, [IMPOSTOR]);
                break;
            }
        }
        let (device, recording) = attempt(&mut host, &typed(0), IMPOSTOR, &mut rng);
        let refused = joiner::Outcome::Failed(joiner::Failure::Refused);
        if device.outcome == Some(refused) && recording.by_host.is_empty() {
            guesses.fourth_attempts_refused += 1;
        }
        assert!(host.promoted.len() <= 1);
    }
    guesses
}

/// Goal: who guesses has three chances in the number of keys for each window, and no fourth.
///
/// Method: 20,000 windows with keys out of 1,000 instead of 1,000,000, so that hits become visible:
/// 60 are expected, with a standard deviation of 7.7. The exchange is a stand-in here that costs
/// nothing; the test after this one uses the real one.
#[test]
fn t_pair_1_three_guesses_have_three_chances_in_a_thousand() {
    let Guesses { windows, hits, fourth_attempts_refused } = guess::<StandIn>(20_000, 1_000, 1);
    report(&format!(
        "T-PAIR-1: {windows} windows, {hits} hits (37 to 83), {fourth_attempts_refused} fourth \
         attempts refused"
    ));
    assert!((37..=83).contains(&hits), "{hits} hits");
    assert_eq!(fourth_attempts_refused, windows);
}

/// As above with the real exchange: 500 windows, keys out of 50, so 30 hits are expected, with a
/// standard deviation of 5.3.
#[test]
fn t_pair_1_the_real_exchange_gives_no_better_chances() {
    let Guesses { windows, hits, fourth_attempts_refused } = guess::<Spake2>(500, 50, 2);
    report(&format!(
        "T-PAIR-1, SPAKE2: {windows} windows, {hits} hits (14 to 46), {fourth_attempts_refused} \
         fourth attempts refused"
    ));
    assert!((14..=46).contains(&hits), "{hits} hits");
    assert_eq!(fourth_attempts_refused, windows);
}

/// Takes M2 and leaves.
fn look_and_leave(host: &mut HostDevice, invitation: &Invitation, rng: &mut impl Rng) -> Vec<Said> {
    let session = Session(rng.random());
    let mut guest = host.connect(session, IMPOSTOR);
    let (_, first) = JoinerDevice::<Spake2>::start(invitation, (HOST, IMPOSTOR), session, rng);
    let [Said::Bytes(first)] = first.as_slice() else { panic!("no first message: {first:?}") };
    let answers = guest.say(host, first);
    guest.leave(host);
    answers
}

#[test]
fn t_pair_2_leaving_after_the_second_message_is_no_free_look() {
    let mut rng = seeded(2);
    let mut host = HostDevice::open(window(&mut rng), &mut rng);
    let key_only = typed(1);
    for spent in 1..=3 {
        let answers = look_and_leave(&mut host, &key_only, &mut rng);
        assert!(matches!(answers.as_slice(), [Said::Bytes(_)]), "{answers:?}");
        assert_eq!(host.left(), Attempts { scanned: 3, key_only: 3 - spent });
    }
    let answers = look_and_leave(&mut host, &key_only, &mut rng);
    assert_eq!(answers, [Said::Close(CloseCode::Refused)]);
    assert_eq!(host.ended, None, "who has the code may still come");

    let code = scanned(&host, 1);
    for spent in 1..=3 {
        look_and_leave(&mut host, &code, &mut rng);
        assert_eq!(host.left(), Attempts { scanned: 3 - spent, key_only: 0 });
    }
    let ending = host.ended.expect("nobody has an attempt left");

    report(&format!("T-PAIR-2: {} attempts used after 3 + 3 aborts", ending.attempts_spent));
    assert_eq!((ending.outcome, ending.attempts_spent), (Outcome::AttemptsSpent, 6));
    assert!(ending.has_failed());
    assert!(host.is_untouched());
}

#[test]
fn t_pair_8_a_code_is_of_no_use_after_success_expiry_or_three_failures() {
    let mut rng = seeded(8);
    let mut refused = 0;
    let mut come_late = |host: &mut HostDevice, invitation: &Invitation, rng: &mut _| {
        let kept = host.kept.len();
        let (device, recording) = attempt(host, invitation, IMPOSTOR, rng);
        assert_eq!(device.outcome, Some(joiner::Outcome::Failed(joiner::Failure::Refused)));
        assert!(recording.by_host.is_empty(), "a late joiner was answered");
        assert_eq!(host.kept.len(), kept);
        refused += 1;
    };

    let mut host = HostDevice::open(window(&mut rng), &mut rng);
    let code = scanned(&host, 123_456);
    attempt(&mut host, &code, JOINER, &mut rng);
    assert_eq!(host.promoted, [JOINER]);
    come_late(&mut host, &code, &mut rng);

    let mut host = HostDevice::open(window(&mut rng), &mut rng);
    let code = scanned(&host, 123_456);
    host.now += WINDOW;
    come_late(&mut host, &code, &mut rng);
    assert_eq!(host.ended.map(|ending| ending.outcome), Some(Outcome::Expired));

    let mut host = HostDevice::open(window(&mut rng), &mut rng);
    let code = scanned(&host, 123_456);
    let wrong = scanned(&host, 654_321);
    for _ in 0..3 {
        attempt(&mut host, &wrong, IMPOSTOR, &mut rng);
    }
    assert_eq!(host.left(), Attempts { scanned: 0, key_only: 3 });
    come_late(&mut host, &code, &mut rng);

    report(&format!("T-PAIR-8: {refused} of 3 late joiners refused"));
    assert_eq!(refused, 3);
}

#[test]
fn a_joiner_in_the_last_instant_of_the_window_is_paired() {
    let mut rng = seeded(80);
    let mut host = HostDevice::open(window(&mut rng), &mut rng);
    host.now += WINDOW.checked_sub(Duration::from_nanos(1)).unwrap();
    let code = scanned(&host, 123_456);
    attempt::<Spake2>(&mut host, &code, JOINER, &mut rng);
    assert_eq!(host.promoted, [JOINER]);
}

#[test]
fn t_pair_9_the_code_alone_is_refused_within_the_attempts_and_the_key_alone_without_one() {
    let mut rng = seeded(9);

    // The code was photographed, the key not seen.
    let mut host = HostDevice::<Spake2>::open(window(&mut rng), &mut rng);
    for number in 0..20 {
        let photographed = scanned(&host, number);
        attempt(&mut host, &photographed, IMPOSTOR, &mut rng);
    }
    let with_code = 3 - host.left().scanned;
    let wrong_keys = host.turned_away.iter().filter(|reason| **reason == Reason::WrongKey).count();
    assert_eq!((with_code, wrong_keys), (3, 3));
    assert!(host.is_untouched());

    // The key was overheard, and the host wants the code.
    let settings = Window { key_only: KeyOnly::Refused, ..window(&mut rng) };
    let mut host = HostDevice::<Spake2>::open(settings, &mut rng);
    let mut refused = 0;
    for forged in 0..20 {
        let mut code = host.code();
        code.secret = QrSecret::new([forged; 16]);
        let invitation = match forged % 2 {
            0 => Invitation::Scanned { code, key: key(123_456) },
            _ => Invitation::KeyOnly { id: code.id, key: key(123_456) },
        };
        let (_, recording) = attempt(&mut host, &invitation, IMPOSTOR, &mut rng);
        refused += usize::from(recording.by_host.is_empty());
    }
    let reasons = |reason| host.turned_away.iter().filter(|it| **it == reason).count();

    report(&format!(
        "T-PAIR-9: code alone {with_code} attempts, 0 successes; key alone {refused} of 20 refused, 0 attempts"
    ));
    assert_eq!((reasons(Reason::WrongCode), reasons(Reason::KeyOnlyRefused)), (10, 10));
    assert_eq!(host.left(), Attempts { scanned: 3, key_only: 0 });
    assert!(host.is_untouched());
}

#[test]
fn whoever_has_code_and_key_is_paired_and_both_share_a_secret() {
    let mut rng = seeded(90);
    for unnamed in [false, true] {
        let mut host = HostDevice::<Spake2>::open(window(&mut rng), &mut rng);
        let code = scanned(&host, 123_456);
        let only_address = Invitation::KeyOnly { id: PairingId::UNNAMED, key: key(123_456) };
        let invitation = if unnamed { &only_address } else { &code };

        let (device, recording) = attempt(&mut host, invitation, JOINER, &mut rng);

        assert_eq!(device.outcome, Some(joiner::Outcome::Paired(HOST)));
        assert_eq!(host.ended.map(|ending| ending.outcome), Some(Outcome::Paired(JOINER)));
        assert_eq!((recording.by_joiner.len(), recording.by_host.len()), (3, 2));
        let ([host_kept], [joiner_kept]) = (host.kept.as_slice(), device.kept.as_slice()) else {
            panic!("not each side has kept the other");
        };
        assert_eq!(host_kept.secret.expose(), joiner_kept.secret.expose());
        assert_eq!((host_kept.fingerprint, joiner_kept.fingerprint), (JOINER, HOST));
        assert_eq!(host_kept.introduction.name(), "joiner");
        assert_eq!(joiner_kept.introduction.name(), "host");
        let asked: Vec<&str> = host.asked.iter().map(|(_, who)| who.name()).collect();
        assert_eq!(asked, ["joiner"]);
    }
}

#[test]
fn two_pairings_with_one_key_share_different_secrets() {
    let mut rng = seeded(91);
    let mut secret = || {
        let mut host = HostDevice::<Spake2>::open(window(&mut rng), &mut rng);
        attempt(&mut host, &typed(123_456), JOINER, &mut rng);
        *host.kept[0].secret.expose()
    };
    assert_ne!(secret(), secret());
}
