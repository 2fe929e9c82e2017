//! Every limit of a pairing, at the bound and one past it, and every way in which one ends.

use std::net::IpAddr;
use std::time::Duration;

use catchword_proto::pairing::host::{Attempts, ConnectionId, Outcome, Reason, WAITING_MAX};
use catchword_proto::pairing::joiner::{self, Failure, Invitation};
use catchword_proto::pairing::{
    APPROVAL_WAIT, CloseCode, Host, MESSAGE_WAIT, PairingId, SOURCE_CONNECTIONS_MAX, SOURCE_PERIOD,
    Spake2, WINDOW, host,
};

use crate::pairing_support::{
    Guest, HOST, HostDevice, IMPOSTOR, JOINER, JoinerDevice, Said, Session, attempt, converse, key,
    scanned, seeded, typed, window,
};

/// The shortest time there is.
const INSTANT: Duration = Duration::from_nanos(1);
const ONE: Session = Session(1);

/// The longest time that is shorter.
fn almost(wait: Duration) -> Duration {
    wait.saturating_sub(INSTANT)
}

/// A host and a joiner that has the key, before the first message.
fn met() -> (HostDevice, Guest, JoinerDevice, Vec<u8>) {
    let mut rng = seeded(20);
    let mut host = HostDevice::<Spake2>::open(window(&mut rng), &mut rng);
    let guest = host.connect(ONE, JOINER);
    let (joiner, first) = JoinerDevice::start(&typed(123_456), (HOST, JOINER), ONE, &mut rng);
    (host, guest, joiner, bytes(&first))
}

fn bytes(said: &[Said]) -> Vec<u8> {
    match said {
        [Said::Bytes(bytes)] => bytes.clone(),
        other => panic!("not one message: {other:?}"),
    }
}

/// The same after so many messages: with the one that was said last.
fn after(messages: usize) -> (HostDevice, Guest, JoinerDevice, Vec<u8>) {
    let (mut host, mut guest, mut joiner, mut last) = met();
    for message in 1..messages {
        let answer = if message % 2 == 1 {
            guest.say(&mut host, &last)
        } else {
            joiner.hear(&Said::Bytes(last))
        };
        last = bytes(&answer);
    }
    (host, guest, joiner, last)
}

fn refused(connection: ConnectionId) -> Vec<(ConnectionId, Said)> {
    vec![(connection, Said::Close(CloseCode::Refused))]
}

fn outcome(host: &HostDevice) -> Option<Outcome> {
    host.ended.map(|ending| ending.outcome)
}

#[test]
fn the_host_waits_ten_seconds_for_each_message_and_not_longer() {
    for (messages, end) in [(1, None), (3, None), (5, Some(Outcome::Unconfirmed(JOINER)))] {
        let (mut host, mut guest, _, last) = after(messages);
        assert_eq!(host.pass(almost(MESSAGE_WAIT)), []);
        let answers = guest.say(&mut host, &last);
        assert_ne!(answers, [Said::Close(CloseCode::Refused)], "message {messages} in time");

        let (mut host, guest, ..) = after(messages);
        assert_eq!(host.pass(MESSAGE_WAIT), refused(guest.connection));
        assert_eq!(host.turned_away, [Reason::Late]);
        assert_eq!(outcome(&host), end);
    }
}

#[test]
fn a_message_that_comes_too_late_does_not_count_because_nobody_looked_at_the_clock() {
    let (mut host, mut guest, _, last) = after(3);
    host.now += MESSAGE_WAIT;
    assert_eq!(guest.say(&mut host, &last), [Said::Close(CloseCode::Refused)]);
    assert_eq!(host.turned_away, [Reason::Late]);
}

#[test]
fn the_person_has_sixty_seconds_and_no_answer_is_a_no() {
    let undecided = || {
        let (mut host, mut guest, _, last) = after(3);
        host.answer = None;
        assert_eq!(guest.say(&mut host, &last), []);
        assert_eq!(host.asked.len(), 1);
        (host, guest)
    };

    let (mut host, _) = undecided();
    assert_eq!(host.pass(almost(APPROVAL_WAIT)), []);
    assert_eq!(host.input(host::Input::Approved).len(), 1);
    assert_eq!(host.kept.len(), 1);

    let (mut host, guest) = undecided();
    assert_eq!(host.pass(APPROVAL_WAIT), refused(guest.connection));
    assert_eq!(outcome(&host), Some(Outcome::Denied));
    host.input(host::Input::Approved);
    assert!(host.is_untouched());

    let (mut host, guest) = undecided();
    assert_eq!(host.input(host::Input::Denied), refused(guest.connection));
    assert_eq!(outcome(&host), Some(Outcome::Denied));
    assert!(host.ended.is_some_and(host::Ending::has_failed));
}

#[test]
fn the_joiner_waits_ten_seconds_for_the_host_and_sixty_more_for_the_person() {
    let waits = [(2, MESSAGE_WAIT), (4, APPROVAL_WAIT + MESSAGE_WAIT)];
    for (messages, wait) in waits {
        let (_, _, mut joiner, last) = after(messages);
        assert_eq!(joiner.pass(almost(wait)), []);
        assert_eq!(joiner.hear(&Said::Bytes(last)).len(), 1);

        let (_, _, mut joiner, last) = after(messages);
        joiner.now += wait;
        assert_eq!(joiner.hear(&Said::Bytes(last)), [Said::Close(CloseCode::Refused)]);
        assert_eq!(joiner.outcome, Some(joiner::Outcome::Failed(Failure::Late)));
    }
}

#[test]
fn a_host_that_does_not_close_is_left_after_ten_seconds_and_is_paired_all_the_same() {
    let (_, _, mut joiner, _) = after(5);
    assert_eq!(joiner.pass(almost(MESSAGE_WAIT)), []);
    assert_eq!(joiner.outcome, None);
    assert_eq!(joiner.pass(INSTANT), [Said::Close(CloseCode::Done)]);
    assert_eq!(joiner.outcome, Some(joiner::Outcome::Paired(HOST)));
}

#[test]
fn an_untouched_window_ends_after_two_minutes_and_does_not_count_as_failed() {
    let mut rng = seeded(21);
    let mut host = HostDevice::<Spake2>::open(window(&mut rng), &mut rng);
    assert_eq!(host.machine.poll_timeout(), Some(host.now + WINDOW));
    host.pass(almost(WINDOW));
    assert_eq!(host.ended, None);
    host.pass(INSTANT);
    assert_eq!(outcome(&host), Some(Outcome::Expired));
    assert!(!host.ended.is_some_and(host::Ending::has_failed));
    assert_eq!(host.machine.poll_timeout(), None);
}

#[test]
fn a_run_that_began_in_time_may_end_after_the_window() {
    let mut rng = seeded(22);
    for key in [123_456, 1] {
        let mut host = HostDevice::<Spake2>::open(window(&mut rng), &mut rng);
        host.now += almost(WINDOW);
        let mut guest = host.connect(ONE, JOINER);
        let (mut joiner, first) =
            JoinerDevice::<Spake2>::start(&typed(key), (HOST, JOINER), ONE, &mut rng);
        let second = guest.say(&mut host, &bytes(&first));
        let third = joiner.hear(&second[0]);
        assert_eq!(host.pass(almost(MESSAGE_WAIT)), []);
        guest.say(&mut host, &bytes(&third));

        let expected = if key == 1 { Outcome::Expired } else { Outcome::Unconfirmed(JOINER) };
        host.pass(MESSAGE_WAIT);
        assert_eq!(outcome(&host), Some(expected));
    }
}

#[test]
fn a_second_joiner_is_told_to_come_again_and_costs_no_attempt() {
    let mut rng = seeded(23);
    let (mut host, _, _, _) = after(3);
    let left = host.left();
    for invitation in [typed(123_456), scanned(&host, 123_456)] {
        let (second, recording) = attempt(&mut host, &invitation, IMPOSTOR, &mut rng);
        assert_eq!(second.outcome, Some(joiner::Outcome::Failed(Failure::Busy)));
        assert!(recording.by_host.is_empty());
    }
    assert_eq!(host.turned_away, [Reason::Busy; 2]);
    assert_eq!(host.left(), left);
    assert_eq!(left, Attempts { scanned: 3, key_only: 2 });

    // Without the code nobody learns that there is a run.
    let mut forged = host.code();
    forged.secret = catchword_proto::pairing::QrSecret::new([0; 16]);
    let invitation = Invitation::Scanned { code: forged, key: key(123_456) };
    let (third, _) = attempt(&mut host, &invitation, IMPOSTOR, &mut rng);
    assert_eq!(third.outcome, Some(joiner::Outcome::Failed(Failure::Refused)));
}

#[test]
fn a_second_joiner_that_comes_after_the_first_has_the_key_is_refused() {
    let mut rng = seeded(24);
    let (mut host, mut guest, mut joiner, last) = after(3);
    let mut other = host.connect(Session(2), IMPOSTOR);
    host.answer = None;
    let answers = guest.say(&mut host, &last);
    assert_eq!(answers, []);
    assert_eq!(host.turned_away, [Reason::WindowClosed], "the one that had said nothing yet");
    assert_eq!(other.say(&mut host, &last), []);

    let (late, _) = attempt(&mut host, &typed(123_456), IMPOSTOR, &mut rng);
    assert_eq!(late.outcome, Some(joiner::Outcome::Failed(Failure::Refused)));

    let fourth = host.input(host::Input::Approved);
    let fifth = joiner.hear(&fourth[0].1);
    guest.say(&mut host, &bytes(&fifth));
    assert_eq!(outcome(&host), Some(Outcome::Paired(JOINER)));
}

#[test]
fn eight_connections_may_be_silent_and_the_ninth_is_told_to_come_again() {
    let mut rng = seeded(25);
    let mut host = HostDevice::<Spake2>::open(window(&mut rng), &mut rng);
    for _ in 0..WAITING_MAX {
        assert_eq!(host.connect(ONE, IMPOSTOR).heard, []);
    }
    assert_eq!(host.connect(ONE, JOINER).heard, [Said::Close(CloseCode::Busy)]);

    host.pass(MESSAGE_WAIT);
    assert_eq!(host.turned_away.len(), WAITING_MAX + 1);
    assert_eq!(host.connect(ONE, JOINER).heard, []);
}

#[test]
fn an_address_may_connect_three_times_in_ten_seconds() {
    let mut rng = seeded(26);
    let mut host = HostDevice::<Spake2>::open(window(&mut rng), &mut rng);
    let source = IpAddr::from([10, 0, 0, 9]);
    for _ in 0..SOURCE_CONNECTIONS_MAX {
        let guest = host.connect_from(source, ONE, IMPOSTOR);
        assert_eq!(guest.heard, []);
        guest.leave(&mut host);
    }
    let fourth = host.connect_from(source, ONE, IMPOSTOR).heard;
    assert_eq!(fourth, [Said::Close(CloseCode::Refused)]);
    assert_eq!(host.turned_away, [Reason::TooOften]);

    host.pass(SOURCE_PERIOD);
    assert_eq!(host.connect_from(source, ONE, IMPOSTOR).heard, []);
}

#[test]
fn a_device_does_not_pair_with_itself() {
    let mut rng = seeded(27);
    let mut host = HostDevice::<Spake2>::open(window(&mut rng), &mut rng);
    assert_eq!(host.connect(ONE, HOST).heard, [Said::Close(CloseCode::Refused)]);
    assert_eq!(host.turned_away, [Reason::Itself]);
    let (joiner, said) = JoinerDevice::<Spake2>::start(&typed(1), (HOST, HOST), ONE, &mut rng);
    assert_eq!(said, [Said::Close(CloseCode::Refused)]);
    assert_eq!(joiner.outcome, Some(joiner::Outcome::Failed(Failure::Itself)));
}

#[test]
fn whoever_says_more_than_the_next_message_is_refused() {
    // Two messages at once, instead of any that the host waits for.
    for messages in [1, 3, 5] {
        let (mut host, mut guest, _, last) = after(messages);
        let twice = [last.as_slice(), &last].concat();
        assert_eq!(guest.say(&mut host, &twice), [Said::Close(CloseCode::Refused)]);
        assert_eq!(host.turned_away, [Reason::Malformed]);
        assert!(host.promoted.is_empty());
    }
    // While the person is asked.
    let (mut host, mut guest, _, last) = after(3);
    host.answer = None;
    guest.say(&mut host, &last);
    assert_eq!(guest.say(&mut host, &last), [Said::Close(CloseCode::Refused)]);
    assert_eq!(outcome(&host), Some(Outcome::Lost));
    assert!(host.is_untouched());

    let (_, _, mut joiner, last) = after(4);
    let twice = [last.as_slice(), &last].concat();
    assert_eq!(joiner.hear(&Said::Bytes(twice)), [Said::Close(CloseCode::Refused)]);
    assert_eq!(joiner.outcome, Some(joiner::Outcome::Failed(Failure::Malformed)));
    assert!(joiner.kept.is_empty());
}

#[test]
fn messages_may_arrive_byte_by_byte() {
    let (mut host, mut guest, mut joiner, mut last) = met();
    for message in 1..5 {
        let mut answer = Vec::new();
        for byte in &last {
            assert_eq!(answer, [], "an answer to half a message");
            answer = if message % 2 == 1 {
                guest.say(&mut host, &[*byte])
            } else {
                joiner.hear(&Said::Bytes(vec![*byte]))
            };
        }
        last = bytes(&answer);
    }
    guest.say(&mut host, &last);
    assert_eq!(host.promoted, [JOINER]);
}

#[test]
fn a_joiner_that_leaves_loses_what_it_has_come_to() {
    let ends = [(1, None, 0), (3, None, 0), (5, Some(Outcome::Unconfirmed(JOINER)), 1)];
    for (messages, end, kept) in ends {
        let (mut host, guest, ..) = after(messages);
        guest.leave(&mut host);
        assert_eq!((outcome(&host), host.kept.len()), (end, kept));
    }

    let (mut host, mut guest, _, last) = after(3);
    host.answer = None;
    guest.say(&mut host, &last);
    guest.leave(&mut host);
    assert_eq!(outcome(&host), Some(Outcome::Lost));
    assert!(host.ended.is_some_and(host::Ending::has_failed));
}

#[test]
fn a_window_may_be_closed_until_a_joiner_is_being_kept() {
    for messages in [1, 3] {
        let (mut host, guest, ..) = after(messages);
        assert_eq!(host.input(host::Input::Cancelled), refused(guest.connection));
        assert_eq!(outcome(&host), Some(Outcome::Cancelled));
    }
    let (mut host, mut guest, _, last) = after(5);
    assert_eq!(host.input(host::Input::Cancelled), []);
    guest.say(&mut host, &last);
    assert_eq!(outcome(&host), Some(Outcome::Paired(JOINER)));

    for messages in [2, 4] {
        let (_, _, mut joiner, _) = after(messages);
        let said = joiner.input(joiner::Input::Cancelled);
        assert_eq!(said, [Said::Close(CloseCode::Refused)]);
        assert_eq!(joiner.outcome, Some(joiner::Outcome::Failed(Failure::Cancelled)));
    }
}

/// A machine without the driver that keeps everything: up to the event that asks the store.
fn up_to_the_store(messages: usize) -> (Host, Guest, std::time::Instant) {
    let (host, guest, _, last) = after(messages);
    let now = host.now;
    let mut machine = host.machine;
    let connection = guest.connection;
    machine.handle_input(host::Input::Received { connection, bytes: last }, now);
    if messages == 3 {
        assert!(matches!(machine.poll_event(), Some(host::Event::Ask { .. })));
        machine.handle_input(host::Input::Approved, now);
    }
    (machine, guest, now)
}

fn last_event(machine: &mut Host) -> Option<Outcome> {
    match std::iter::from_fn(|| machine.poll_event()).last() {
        Some(host::Event::Ended(ending)) => Some(ending.outcome),
        _ => None,
    }
}

#[test]
fn nothing_is_sent_before_the_store_has_kept_it_and_nothing_if_it_has_not() {
    let ends = [(3, Outcome::NotKept), (5, Outcome::Unconfirmed(JOINER))];
    for (messages, end) in ends {
        let (mut machine, guest, now) = up_to_the_store(messages);
        assert_eq!(machine.poll_transmit(), None);
        assert_eq!(machine.poll_timeout(), None, "the store takes the time it takes");
        machine.handle_input(host::Input::NotKept, now);
        let close =
            host::Transmit::Close { connection: guest.connection, code: CloseCode::Refused };
        assert_eq!(machine.poll_transmit(), Some(close));
        assert_eq!(last_event(&mut machine), Some(end));
    }
}

#[test]
fn a_joiner_that_leaves_while_the_store_keeps_it_is_provisional() {
    let ends = [(3, Outcome::Unconfirmed(JOINER)), (5, Outcome::Paired(JOINER))];
    for (messages, end) in ends {
        let (mut machine, guest, now) = up_to_the_store(messages);
        machine.handle_input(host::Input::Closed { connection: guest.connection }, now);
        machine.handle_input(host::Input::Cancelled, now);
        machine.handle_input(host::Input::Kept, now);
        assert_eq!(machine.poll_transmit(), None);
        assert_eq!(last_event(&mut machine), Some(end));
    }
}

#[test]
fn a_joiner_says_what_the_host_closed_with() {
    let codes = [
        (Some(CloseCode::Busy), Failure::Busy),
        (Some(CloseCode::Refused), Failure::Refused),
        (Some(CloseCode::Done), Failure::Refused),
        (None, Failure::Gone),
    ];
    for (code, failure) in codes {
        let (_, _, mut joiner, _) = after(2);
        assert_eq!(joiner.input(joiner::Input::Closed(code)), []);
        assert_eq!(joiner.outcome, Some(joiner::Outcome::Failed(failure)));
    }
    for code in [CloseCode::Done, CloseCode::Refused, CloseCode::Busy] {
        assert_eq!(CloseCode::from_number(code.number()), code);
    }
    assert_eq!([0, 0x20, 0x21].map(CloseCode::from_number).map(CloseCode::number), [0, 0x20, 0x21]);
    assert_eq!(CloseCode::from_number(0x22), CloseCode::Refused);
}

#[test]
fn machines_print_no_secret() {
    let (host, _, joiner, _) = after(3);
    let secret = format!("{:?}", host.window.secret);
    assert_eq!(secret, "QrSecret(..)");
    let printed = format!("{:?} {:?}", host.machine, host.window);
    assert!(!printed.contains("123456") && !printed.contains("49, 50, 51"), "{printed}");
    drop(joiner);

    let (mut host, mut guest, mut joiner, last) = after(3);
    converse(&mut host, &mut guest, &mut joiner, vec![Said::Bytes(last)]);
    let printed = format!("{:?}", host.kept);
    assert!(printed.contains("PairSecret(..)"), "{printed}");
}

#[test]
fn an_id_that_is_not_the_windows_is_refused_without_an_attempt() {
    let mut rng = seeded(28);
    let mut host = HostDevice::<Spake2>::open(window(&mut rng), &mut rng);
    let mut code = host.code();
    code.id = PairingId([2; 8]);
    let mut unnamed = host.code();
    unnamed.id = PairingId::UNNAMED;
    let others = [
        Invitation::KeyOnly { id: PairingId([2; 8]), key: key(123_456) },
        Invitation::Scanned { code, key: key(123_456) },
        Invitation::Scanned { code: unnamed, key: key(123_456) },
    ];
    for invitation in others {
        attempt(&mut host, &invitation, JOINER, &mut rng);
        assert_eq!(host.turned_away.pop(), Some(Reason::OtherWindow));
    }
    assert_eq!(host.left(), Attempts { scanned: 3, key_only: 3 });
}
