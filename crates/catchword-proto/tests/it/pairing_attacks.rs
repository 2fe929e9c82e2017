//! Whoever stands between two devices, or has listened to them, is refused.

use catchword_model::identity::Fingerprint;
use catchword_proto::pairing::host::{Attempts, KeyOnly, Outcome, Reason, Window};
use catchword_proto::pairing::joiner::{self, Failure, Invitation};
use catchword_proto::pairing::{
    CloseCode, PairingId, QR_PREFIX, QrCode, QrError, SHARE_BYTES, Spake2,
};
use data_encoding::BASE32_NOPAD;
use rand::RngExt;

use crate::pairing_support::{
    HOST, HostDevice, IMPOSTOR, JOINER, JoinerDevice, Recording, Said, Session, converse,
    converse_through, key, scanned, seeded, typed, window,
};
use crate::report;

/// Who shows which certificate to whom, on which sessions.
struct Path {
    name: &'static str,
    /// Whom the joiner sees where the host should be, and on which session.
    towards_joiner: (Fingerprint, Session),
    /// Whom the host sees where the joiner should be, and on which session.
    towards_host: (Fingerprint, Session),
}

const ONE: Session = Session(1);
const TWO: Session = Session(2);

/// Relays everything unchanged, and returns what came of it on both sides.
fn relay(path: &Path, with_code: bool) -> (HostDevice, JoinerDevice) {
    let mut rng = seeded(3);
    let mut host = HostDevice::<Spake2>::open(window(&mut rng), &mut rng);
    let invitation = if with_code { scanned(&host, 123_456) } else { typed(123_456) };
    let (shown_to_joiner, near) = path.towards_joiner;
    let (shown_to_host, far) = path.towards_host;
    let mut guest = host.connect(far, shown_to_host);
    let (mut joiner, first) =
        JoinerDevice::start(&invitation, (shown_to_joiner, JOINER), near, &mut rng);
    converse(&mut host, &mut guest, &mut joiner, first);
    (host, joiner)
}

fn assert_both_refused(host: &HostDevice, joiner: &JoinerDevice, name: &str) {
    assert!(host.is_untouched(), "{name}: the host has kept somebody");
    assert!(host.asked.is_empty(), "{name}: the host has asked about somebody");
    assert!(joiner.kept.is_empty(), "{name}: the joiner has kept somebody");
    assert!(matches!(joiner.outcome, Some(joiner::Outcome::Failed(_))), "{name}");
}

#[test]
fn t_pair_3_a_relay_between_two_sessions_is_refused_on_both_sides() {
    let both = Path {
        name: "as it is: other certificates, other sessions",
        towards_joiner: (IMPOSTOR, ONE),
        towards_host: (IMPOSTOR, TWO),
    };
    // Nobody can show another's certificate. That the session alone decides is shown all the same.
    let session_alone = Path {
        name: "only the sessions differ",
        towards_joiner: (HOST, ONE),
        towards_host: (JOINER, TWO),
    };
    let mut relays = 0;
    for path in [both, session_alone] {
        for with_code in [false, true] {
            let (host, joiner) = relay(&path, with_code);
            assert_both_refused(&host, &joiner, path.name);
            let spent = 3 - host.left().scanned;
            assert_eq!(spent, 0, "{}: the code was not seen on this session", path.name);
            relays += 1;
        }
    }
    let (host, joiner) =
        relay(&Path { name: "", towards_joiner: (HOST, ONE), towards_host: (JOINER, ONE) }, false);
    assert_eq!(
        joiner.outcome,
        Some(joiner::Outcome::Paired(HOST)),
        "a relay of one session is none"
    );
    assert_eq!(host.promoted, [JOINER]);

    report(&format!("T-PAIR-3: {relays} relays, 0 successes on either side"));
}

#[test]
fn t_pair_3_with_the_code_the_joiner_says_nothing_to_a_man_in_the_middle() {
    let mut rng = seeded(3);
    let host = HostDevice::<Spake2>::open(window(&mut rng), &mut rng);
    let code = scanned(&host, 123_456);
    let (joiner, said) =
        JoinerDevice::<Spake2>::start(&code, (IMPOSTOR, JOINER), Session(1), &mut rng);
    assert_eq!(said, [Said::Close(CloseCode::Refused)]);
    assert_eq!(joiner.outcome, Some(joiner::Outcome::Failed(Failure::WrongHost)));
}

#[test]
fn t_pair_6_messages_forwarded_under_another_certificate_are_refused() {
    let paths = [
        Path {
            name: "the joiner's certificate is swapped",
            towards_joiner: (HOST, ONE),
            towards_host: (IMPOSTOR, ONE),
        },
        Path {
            name: "the host's certificate is swapped",
            towards_joiner: (IMPOSTOR, ONE),
            towards_host: (JOINER, ONE),
        },
        Path {
            name: "both are swapped",
            towards_joiner: (IMPOSTOR, ONE),
            towards_host: (IMPOSTOR, ONE),
        },
    ];
    for path in &paths {
        let (host, joiner) = relay(path, false);
        assert_both_refused(&host, &joiner, path.name);
        assert_eq!(host.left(), Attempts { scanned: 3, key_only: 2 }, "{}", path.name);
        assert_eq!(host.turned_away, [Reason::WrongKey], "{}", path.name);
    }
    report(&format!("T-PAIR-6: {} swapped certificates, 0 successes", paths.len()));
}

/// The content of a message, without the length before it.
fn content(frame: &[u8]) -> &[u8] {
    &frame[2..]
}

fn frame(content: &[u8]) -> Vec<u8> {
    [&u16::try_from(content.len()).unwrap().to_be_bytes(), content].concat()
}

#[test]
fn t_pair_4_what_a_device_said_itself_is_no_answer_to_it() {
    let mut rng = seeded(4);
    let mut refused = 0;

    // To the joiner: its own share as the host's, with its letter and with the host's.
    for letter in [None, Some(b'A')] {
        let (mut joiner, first) =
            JoinerDevice::<Spake2>::start(&typed(1), (IMPOSTOR, JOINER), ONE, &mut rng);
        let [Said::Bytes(first)] = first.as_slice() else { panic!("no first message") };
        let first = content(first);
        let nonce = &first[10..42];
        let mut share = first[42..].to_vec();
        share[0] = letter.unwrap_or(share[0]);
        let third = joiner.hear(&Said::Bytes(frame(&[nonce, &share].concat())));
        match (letter, third.as_slice()) {
            (None, [Said::Close(CloseCode::Refused)]) => (),
            // Its own MAC in the next message is not the host's either.
            (Some(_), [Said::Bytes(third)]) => {
                let answers = joiner.hear(&Said::Bytes(third.clone()));
                assert_eq!(answers, [Said::Close(CloseCode::Refused)]);
            }
            (_, third) => panic!("{third:?}"),
        }
        assert!(joiner.kept.is_empty());
        refused += 1;
    }

    // To the joiner: its own first message as the second.
    let (mut joiner, first) =
        JoinerDevice::<Spake2>::start(&typed(1), (IMPOSTOR, JOINER), ONE, &mut rng);
    assert_eq!(joiner.hear(&first[0]), [Said::Close(CloseCode::Refused)]);
    refused += 1;

    // To the host: its own second message as the first, and as the third.
    let mut host = HostDevice::<Spake2>::open(window(&mut rng), &mut rng);
    let mut guest = host.connect(ONE, IMPOSTOR);
    let (_, first) = JoinerDevice::<Spake2>::start(&typed(1), (HOST, IMPOSTOR), ONE, &mut rng);
    let [Said::Bytes(first)] = first.as_slice() else { panic!("no first message") };
    let second = guest.say(&mut host, first);
    let [Said::Bytes(second)] = second.as_slice() else { panic!("no second message") };
    let mut other = host.connect(TWO, IMPOSTOR);
    assert_eq!(other.say(&mut host, second), [Said::Close(CloseCode::Refused)]);
    assert_eq!(guest.say(&mut host, second), [Said::Close(CloseCode::Refused)]);
    refused += 2;

    // To the host: the share of its second message as the joiner's.
    let mut share = content(second)[32..].to_vec();
    for letter in [b'A', b'B'] {
        share[0] = letter;
        let first = [&content(first)[..42], &share].concat();
        let mut guest = host.connect(TWO, IMPOSTOR);
        let answers = guest.say(&mut host, &frame(&first));
        if let [Said::Bytes(second)] = answers.as_slice() {
            let third = [&[0, 0, 0], &content(second)[..32]].concat();
            assert_eq!(guest.say(&mut host, &frame(&third)), [Said::Close(CloseCode::Refused)]);
        }
        refused += 1;
    }
    assert!(host.is_untouched());

    report(&format!("T-PAIR-4: {refused} reflections, 0 successes"));
}

#[test]
fn t_pair_4_the_hosts_own_mac_does_not_confirm_for_the_joiner() {
    let mut rng = seeded(40);
    let mut host = HostDevice::<Spake2>::open(window(&mut rng), &mut rng);
    let mut guest = host.connect(ONE, JOINER);
    let (mut joiner, first) =
        JoinerDevice::<Spake2>::start(&typed(123_456), (HOST, JOINER), ONE, &mut rng);
    let mut said = first;
    for _ in 0..2 {
        let [Said::Bytes(bytes)] = said.as_slice() else { panic!("{said:?}") };
        let answers = guest.say(&mut host, bytes);
        let [answer] = answers.as_slice() else { panic!("{answers:?}") };
        said = joiner.hear(answer);
    }
    let Some(Said::Bytes(fourth)) = guest.heard.last() else { panic!("no fourth message") };
    let mac = fourth.last_chunk::<32>().unwrap().to_vec();

    assert_eq!(guest.say(&mut host, &frame(&mac)), [Said::Close(CloseCode::Refused)]);
    assert_eq!(host.ended.map(|ending| ending.outcome), Some(Outcome::Unconfirmed(JOINER)));
    assert!(host.promoted.is_empty());
}

/// Says on a new connection what the joiner said in a recorded run.
fn replay(host: &mut HostDevice, session: Session, recording: &Recording) -> bool {
    let mut guest = host.connect(session, JOINER);
    for bytes in &recording.by_joiner {
        guest.say(host, bytes);
    }
    guest.heard.contains(&Said::Close(CloseCode::Refused))
}

#[test]
fn t_pair_5_a_recorded_run_is_of_no_use_again() {
    let mut rng = seeded(5);
    let mut refused = 0;
    for with_code in [false, true] {
        let settings = window(&mut rng);
        let mut host = HostDevice::<Spake2>::open(settings.clone(), &mut rng);
        let invitation = if with_code { scanned(&host, 123_456) } else { typed(123_456) };
        let mut guest = host.connect(ONE, JOINER);
        let (mut joiner, first) = JoinerDevice::start(&invitation, (HOST, JOINER), ONE, &mut rng);
        let recording = converse(&mut host, &mut guest, &mut joiner, first);
        assert_eq!(host.promoted, [JOINER]);
        assert_eq!(recording.by_joiner.len(), 3);

        // The same window, and a new one.
        assert!(replay(&mut host, TWO, &recording));
        let mut fresh = Window { id: PairingId([9; 8]), ..settings.clone() };
        fresh.key = key(654_321);
        let mut next = HostDevice::open(fresh, &mut rng);
        assert!(replay(&mut next, TWO, &recording));
        assert!(next.is_untouched());

        // A window in which by a miracle everything is the same, even the session: only the host's
        // own share is new.
        let mut same = HostDevice::open(settings, &mut rng);
        assert!(replay(&mut same, ONE, &recording));
        assert_eq!(same.turned_away, [Reason::WrongKey]);
        assert!(same.is_untouched());

        // The host's part, to a joiner that has the same invitation on the same session.
        let (mut joiner, _) =
            JoinerDevice::<Spake2>::start(&invitation, (HOST, JOINER), ONE, &mut rng);
        for bytes in &recording.by_host {
            joiner.hear(&Said::Bytes(bytes.clone()));
        }
        assert_eq!(joiner.outcome, Some(joiner::Outcome::Failed(Failure::NotProven)));
        assert!(joiner.kept.is_empty());
        refused += 4;
    }
    report(&format!("T-PAIR-5: {refused} replays, 0 successes"));
}

#[test]
fn t_pair_7_neither_mode_nor_version_can_be_talked_down() {
    let mut rng = seeded(7);
    let settings = Window { key_only: KeyOnly::Refused, ..window(&mut rng) };
    let mut host = HostDevice::<Spake2>::open(settings, &mut rng);
    let code = scanned(&host, 123_456);
    let mut refused = 0;
    let mut refuse = |host: &mut HostDevice, first: &[u8], reason: Reason| {
        let mut guest = host.connect(ONE, IMPOSTOR);
        assert_eq!(guest.say(host, first), [Said::Close(CloseCode::Refused)], "{reason}");
        assert_eq!(host.turned_away.pop(), Some(reason));
        refused += 1;
    };

    // The window wants the code, and the joiner offers the key alone: as it is, with an unnamed
    // window, and as a first message that was made with the code and lost its proof.
    for invitation in
        [typed(123_456), Invitation::KeyOnly { id: PairingId::UNNAMED, key: key(123_456) }]
    {
        let (_, first) =
            JoinerDevice::<Spake2>::start(&invitation, (HOST, IMPOSTOR), ONE, &mut rng);
        let [Said::Bytes(first)] = first.as_slice() else { panic!("no first message") };
        refuse(&mut host, first, Reason::KeyOnlyRefused);
    }
    let (_, first) = JoinerDevice::<Spake2>::start(&code, (HOST, IMPOSTOR), ONE, &mut rng);
    let [Said::Bytes(first)] = first.as_slice() else { panic!("no first message") };
    let first = content(first).to_vec();
    let stripped = [&first[..1], b"K", &first[2..42], &first[74..]].concat();
    refuse(&mut host, &frame(&stripped), Reason::KeyOnlyRefused);

    // Another version, and another mode than the message has.
    for (at, value) in [(0, 0), (0, 2), (1, b'K'), (1, b'X')] {
        let mut wrong = first.clone();
        wrong[at] = value;
        refuse(&mut host, &frame(&wrong), Reason::Malformed);
    }
    assert_eq!(host.left(), Attempts { scanned: 3, key_only: 0 }, "an attempt was spent");
    assert!(host.is_untouched());

    // A code of another version.
    let text = host.code().encode();
    let bytes = BASE32_NOPAD.decode(text[QR_PREFIX.len()..].as_bytes()).unwrap();
    for (version, error) in [(0, QrError::NotACode), (2, QrError::Newer)] {
        let other = [&[version], &bytes[1..]].concat();
        let text = format!("{QR_PREFIX}{}", BASE32_NOPAD.encode(&other));
        assert_eq!(QrCode::decode(&text), Err(error));
    }
    report(&format!("T-PAIR-7: {} downgrades, 0 successes, 0 attempts spent", refused + 2));
}

#[test]
fn t_pair_7_a_host_that_takes_both_modes_does_not_mix_them() {
    let mut rng = seeded(70);
    let mut host = HostDevice::<Spake2>::open(window(&mut rng), &mut rng);
    let code = scanned(&host, 123_456);
    let mut guest = host.connect(ONE, JOINER);
    let (mut joiner, first) = JoinerDevice::<Spake2>::start(&code, (HOST, JOINER), ONE, &mut rng);
    let [Said::Bytes(first)] = first.as_slice() else { panic!("no first message") };
    let first = content(first);
    let stripped = [&first[..1], b"K", &first[2..42], &first[74..]].concat();

    let second = guest.say(&mut host, &frame(&stripped));
    let third = joiner.hear(&second[0]);
    let [Said::Bytes(third)] = third.as_slice() else { panic!("{third:?}") };
    assert_eq!(guest.say(&mut host, third), [Said::Close(CloseCode::Refused)]);
    assert!(host.is_untouched());
}

/// Points that nobody sends: of small order, with both signs of x; not canonical; not on the curve.
fn bad_points() -> Vec<[u8; 32]> {
    let little = |first: u8, rest: u8, last: u8| {
        let mut point = [rest; 32];
        point[0] = first;
        point[31] = last;
        point
    };
    let mut points: Vec<[u8; 32]> = curve25519_dalek::constants::EIGHT_TORSION
        .iter()
        .map(|point| point.compress().to_bytes())
        .collect();
    for sign in [0, 0x80] {
        // 0 and 1 with a sign, -1 with one, the prime and what follows it up to 2^255 - 1.
        points.extend([little(0, 0, sign), little(1, 0, sign), little(0xEC, 0xFF, 0x7F | sign)]);
        points.extend((0xED..=0xFF).map(|first| little(first, 0xFF, 0x7F | sign)));
    }
    let off_curve = (2..=255).map(|first| little(first, 0, 0));
    let decompress = |point: &[u8; 32]| {
        curve25519_dalek::edwards::CompressedEdwardsY(*point).decompress().is_some()
    };
    points.extend(off_curve.filter(|point| !decompress(point)));
    points
}

#[test]
fn t_pair_10_shares_that_nobody_honest_sends_are_refused() {
    let mut rng = seeded(10);
    let mut host = HostDevice::<Spake2>::open(window(&mut rng), &mut rng);
    let (_, first) = JoinerDevice::<Spake2>::start(&typed(1), (HOST, IMPOSTOR), ONE, &mut rng);
    let [Said::Bytes(first)] = first.as_slice() else { panic!("no first message") };
    let before = content(first)[..42].to_vec();
    let honest = content(first)[42..].to_vec();
    let points = bad_points();
    let shares = |letter: u8| points.iter().map(move |point| [&[letter][..], point].concat());
    let lengths = |share: &[u8]| {
        [&share[..SHARE_BYTES - 1], &[share, &[0]].concat(), &[]].map(<[u8]>::to_vec)
    };
    let mut refused = 0;

    let other_sides = [b'A', b'S', 0].map(|letter| [&[letter][..], &honest[1..]].concat());
    for share in shares(b'B').chain(lengths(&honest)).chain(other_sides) {
        let mut guest = host.connect(Session(rng.random()), IMPOSTOR);
        host.now += std::time::Duration::from_millis(200);
        let answers = guest.say(&mut host, &frame(&[&before[..], &share].concat()));
        assert_eq!(answers, [Said::Close(CloseCode::Refused)], "{share:x?}");
        refused += 1;
    }
    assert_eq!(host.left(), Attempts { scanned: 3, key_only: 3 }, "an attempt was spent");

    let mut guest = host.connect(ONE, IMPOSTOR);
    let second = guest.say(&mut host, first);
    let [Said::Bytes(second)] = second.as_slice() else { panic!("no second message") };
    let nonce = content(second)[..32].to_vec();
    let honest = content(second)[32..].to_vec();
    let other_sides = [b'B', b'S', 0].map(|letter| [&[letter][..], &honest[1..]].concat());
    for share in shares(b'A').chain(lengths(&honest)).chain(other_sides) {
        let (mut joiner, _) =
            JoinerDevice::<Spake2>::start(&typed(1), (IMPOSTOR, JOINER), ONE, &mut rng);
        let answers = joiner.hear(&Said::Bytes(frame(&[&nonce[..], &share].concat())));
        assert_eq!(answers, [Said::Close(CloseCode::Refused)], "{share:x?}");
        assert_eq!(joiner.outcome, Some(joiner::Outcome::Failed(Failure::Malformed)));
        refused += 1;
    }

    report(&format!(
        "T-PAIR-10: {refused} bad shares, {} points among them, 0 taken, 0 panics",
        points.len()
    ));
    assert!(host.is_untouched());
}

#[test]
fn no_message_with_a_bit_flipped_is_taken() {
    let mut rng = seeded(12);
    let mut flipped = 0;
    for message in 1..=5 {
        for byte in 0..200 {
            let mut host = HostDevice::<Spake2>::open(window(&mut rng), &mut rng);
            let mut guest = host.connect(ONE, JOINER);
            let (mut joiner, first) =
                JoinerDevice::start(&typed(123_456), (HOST, JOINER), ONE, &mut rng);
            let mut is_flipped = false;
            converse_through(&mut host, &mut guest, &mut joiner, first, |number, bytes| {
                if let (true, Some(byte)) = (number == message, bytes.get_mut(byte)) {
                    *byte ^= 1 << (number % 8);
                    is_flipped = true;
                }
            });
            if !is_flipped {
                break;
            }
            flipped += 1;
            assert!(host.promoted.is_empty(), "message {message}, byte {byte}");
            assert_eq!(host.kept.is_empty(), message < 4, "message {message}, byte {byte}");
            assert_eq!(joiner.kept.is_empty(), message < 5, "message {message}, byte {byte}");
        }
    }
    report(&format!("{flipped} messages with a bit flipped, none taken"));
    assert!(250 < flipped, "{flipped}");
}
