//! Signed requests: what is refused, in which order, and how a wrong clock recovers.

use std::time::{Duration, Instant};

use catchword_model::identity::Fingerprint;
use catchword_proto::request::{
    Answer, Call, Channel, FRAME_BYTES_MAX, Guard, Head, METHOD_BYTES_MAX, NONCE_KEPT, NONCES_MAX,
    Nonce, PATH_BYTES_MAX, REQUESTS_BURST, Refusal, ResponseError, SigningClock, Standing, Status,
    TIME_WINDOW_MS, signed_by_another,
};
use catchword_proto::secret::PairSecret;
use catchword_proto::wire::WireError;

use crate::{any_instant, report};

const NOW_MS: u64 = 1_760_000_000_000;
const DAY_MS: u64 = 86_400_000;
const PHONE: Fingerprint = Fingerprint([1; 32]);
const TABLET: Fingerprint = Fingerprint([2; 32]);
const LAPTOP: Fingerprint = Fingerprint([3; 32]);

fn secret() -> PairSecret {
    PairSecret::new([7; 32])
}

/// The two ends of one connection: the phone asks, the tablet answers.
fn connection(ekm: u8) -> (Channel, Channel) {
    let channel = |me, peer| Channel::new(&secret(), me, peer, [ekm; 32]);
    (channel(PHONE, TABLET), channel(TABLET, PHONE))
}

fn nonce(number: u64) -> Nonce {
    u128::from(number).to_be_bytes()
}

fn head(number: u64, time_ms: u64) -> Head<'static> {
    Head { time_ms, nonce: nonce(number), method: "POST", path: "/sync" }
}

fn request(channel: &Channel, number: u64, time_ms: u64) -> Vec<u8> {
    channel.request(&head(number, time_ms), b"the body of a request").unwrap()
}

#[test]
fn a_signed_request_and_its_answer_arrive() {
    let (phone, tablet) = connection(1);
    let now = any_instant();
    let mut guard = Guard::new(now);

    let frame = request(&phone, 1, NOW_MS);
    let taken = guard.admit(&tablet, Standing::Trusted, &frame, NOW_MS, now).unwrap();
    assert_eq!(taken.head, head(1, NOW_MS));
    assert_eq!(taken.body, b"the body of a request");

    let answer = tablet.response(&taken.head.nonce, Status::OK, b"answer").unwrap();
    let response = phone.open_response(&nonce(1), &answer).unwrap();
    assert_eq!((response.status, response.body), (Status::OK, &b"answer"[..]));
    assert_eq!(phone.open_response(&nonce(2), &answer), Err(ResponseError::Tag));
}

/// The layout is part of the protocol: these bytes were put together by another program.
#[test]
fn a_request_and_a_response_have_the_written_bytes() {
    let (phone, tablet) = connection(9);
    let frame = request(&phone, 5, NOW_MS);
    assert_eq!(data_encoding::HEXLOWER.encode(&frame), REQUEST);
    let answer = tablet.response(&nonce(5), Status::OK, b"answer").unwrap();
    assert_eq!(data_encoding::HEXLOWER.encode(&answer), RESPONSE);
}

#[test]
fn t_req_1_no_bit_of_a_signed_request_can_be_changed() {
    let (phone, tablet) = connection(1);
    let mut now = any_instant();
    let mut guard = Guard::new(now);
    let whole = request(&phone, 1, NOW_MS);

    let mut refused = 0;
    for bit in 0..8 * whole.len() {
        let mut frame = whole.clone();
        frame[bit / 8] ^= 1 << (bit % 8);
        now += Duration::from_millis(20);
        let outcome = guard.admit(&tablet, Standing::Trusted, &frame, NOW_MS, now);
        assert!(matches!(outcome, Err(Refusal::Tag | Refusal::Form(_))), "bit {bit}: {outcome:?}");
        refused += 1;
    }
    for cut in 0..whole.len() {
        now += Duration::from_millis(20);
        let outcome = guard.admit(&tablet, Standing::Trusted, &whole[..cut], NOW_MS, now);
        assert!(matches!(outcome, Err(Refusal::Tag | Refusal::Form(_))), "cut {cut}: {outcome:?}");
        refused += 1;
    }

    assert_eq!(refused, 9 * whole.len());
    assert!(guard.admit(&tablet, Standing::Trusted, &whole, NOW_MS, now).is_ok());
    report(&format!("T-REQ-1: {refused} of {refused} refused, {} bytes", whole.len()));
}

#[test]
fn t_req_1_no_bit_of_a_signed_response_can_be_changed() {
    let (phone, tablet) = connection(1);
    let whole = tablet.response(&nonce(1), Status::OK, b"the body of an answer").unwrap();
    for bit in 0..8 * whole.len() {
        let mut frame = whole.clone();
        frame[bit / 8] ^= 1 << (bit % 8);
        assert_eq!(phone.open_response(&nonce(1), &frame), Err(ResponseError::Tag), "bit {bit}");
    }
    for cut in 0..whole.len() {
        assert!(phone.open_response(&nonce(1), &whole[..cut]).is_err(), "cut {cut}");
    }
    report(&format!("T-REQ-1: {} of {0} responses refused", 9 * whole.len()));
}

#[test]
fn t_req_2_a_replay_is_refused_on_this_and_every_other_connection() {
    let (phone, tablet) = connection(1);
    let (_, tablet_later) = connection(2);
    let now = any_instant();
    let mut guard = Guard::new(now);
    let frame = request(&phone, 1, NOW_MS);
    let admit = |guard: &mut Guard, channel: &Channel, after_ms: u64| {
        let now = now + Duration::from_millis(after_ms);
        guard.admit(channel, Standing::Trusted, &frame, NOW_MS + after_ms, now).map(|_| ())
    };

    assert_eq!(admit(&mut guard, &tablet, 0), Ok(()));
    let mut refused = 0;
    for after_ms in [0, 1, 1_000, TIME_WINDOW_MS] {
        assert_eq!(admit(&mut guard, &tablet, after_ms), Err(Refusal::Replay));
        assert_eq!(admit(&mut guard, &tablet_later, after_ms), Err(Refusal::Tag));
        let mut restarted = Guard::new(now);
        assert_eq!(admit(&mut restarted, &tablet_later, after_ms), Err(Refusal::Tag));
        refused += 3;
    }
    report(&format!("T-REQ-2: {refused} of {refused} replays refused"));
}

#[test]
fn t_req_2_a_replay_is_refused_as_long_as_its_time_would_be_taken() {
    let (phone, tablet) = connection(1);
    let now = any_instant();
    let mut guard = Guard::new(now);
    // The fastest clock that is taken: its request stays in the window for twice its width.
    let frame = request(&phone, 1, NOW_MS + TIME_WINDOW_MS);
    let mut admit = |after_ms: u64| {
        let now = now + Duration::from_millis(after_ms);
        guard.admit(&tablet, Standing::Trusted, &frame, NOW_MS + after_ms, now).map(|_| ())
    };

    assert_eq!(admit(0), Ok(()));
    assert_eq!(admit(600_000), Err(Refusal::Replay));
    assert!(matches!(admit(600_001), Err(Refusal::ClockSkew { .. })));
}

#[test]
fn t_req_2_a_full_store_of_nonces_refuses_and_forgets_none() {
    let (phone, tablet) = connection(1);
    let start = any_instant();
    let mut guard = Guard::new(start);
    // Slowly enough for the rate, so that the nonces are what fills.
    let at = |number: u64| start + Duration::from_millis(20 * number);
    let limit = NONCES_MAX as u64;
    let mut admit = |number: u64, now: Instant| {
        let elapsed_ms = u64::try_from((now - start).as_millis()).unwrap();
        let frame = request(&phone, number, NOW_MS + elapsed_ms);
        guard.admit(&tablet, Standing::Trusted, &frame, NOW_MS + elapsed_ms, now).map(|_| ())
    };

    for number in 0..limit {
        assert_eq!(admit(number, at(number)), Ok(()), "request {number}");
    }
    let wait = NONCE_KEPT.saturating_sub(at(limit) - start);
    let refusal = Refusal::SlowDown { nonce: nonce(limit), wait };
    assert_eq!(admit(limit, at(limit)), Err(refusal));

    let early = start + Duration::from_millis(2 * TIME_WINDOW_MS);
    assert!(matches!(admit(limit, early), Err(Refusal::SlowDown { .. })));
    assert_eq!(admit(limit, start + NONCE_KEPT), Ok(()), "the oldest is forgotten");
    assert!(matches!(admit(limit + 1, start + NONCE_KEPT), Err(Refusal::SlowDown { .. })));
    report(&format!("T-REQ-2: {NONCES_MAX} nonces are kept for {} s", NONCE_KEPT.as_secs()));
}

#[test]
fn t_req_3_the_bounds_of_the_time_are_exact() {
    let (phone, tablet) = connection(1);
    let now = any_instant();
    let mut guard = Guard::new(now);
    let mut admit = |number: u64, off_ms: i64| {
        let frame = request(&phone, number, NOW_MS.saturating_add_signed(off_ms));
        guard.admit(&tablet, Standing::Trusted, &frame, NOW_MS, now).map(|_| ())
    };

    let outside = [-301_000, -300_001, 300_001, 301_000, i64::MIN, i64::MAX];
    for (number, off_ms) in (0..).zip(outside) {
        let time_ms = NOW_MS.saturating_add_signed(off_ms);
        let skew = Refusal::ClockSkew { nonce: nonce(number), time_ms, now_ms: NOW_MS };
        assert_eq!(admit(number, off_ms), Err(skew), "{off_ms} ms");
    }
    let inside = [-300_000, -299_999, 0, 299_999, 300_000];
    for (number, off_ms) in (100..).zip(inside) {
        assert_eq!(admit(number, off_ms), Ok(()), "{off_ms} ms");
    }
    report(&format!("T-REQ-3: {outside:?} ms refused, {inside:?} ms taken"));
}

#[test]
fn t_req_3_a_clock_that_is_stepped_costs_one_more_message() {
    let (phone, tablet) = connection(1);
    let now = any_instant();
    let mut guard = Guard::new(now);
    let mut clock = SigningClock::default();
    let mut number = 0;

    let mut messages = Vec::new();
    for step_ms in [0, DAY_MS.cast_signed(), 0, -DAY_MS.cast_signed(), 365 * DAY_MS.cast_signed()] {
        let phone_ms = NOW_MS.saturating_add_signed(step_ms);
        let mut call = Call::new(&phone, "POST", "/sync", b"body");
        let mut sent = 0;
        loop {
            number += 1;
            sent += 1;
            let frame = call.message(clock, phone_ms, nonce(number)).unwrap();
            let answer = match guard.admit(&tablet, Standing::Trusted, &frame, NOW_MS, now) {
                Ok(request) => tablet.response(&request.head.nonce, Status::OK, b"done").unwrap(),
                Err(refusal) => refusal.answer(&tablet).unwrap(),
            };
            match call.answered(&mut clock, phone_ms, &answer).unwrap() {
                Answer::Done(response) => break assert_eq!(response.status, Status::OK),
                Answer::Again => (),
            }
        }
        messages.push(sent);
    }

    assert_eq!(messages, [1, 2, 2, 2, 2]);
    assert_eq!(clock.offset_ms(), -365 * DAY_MS.cast_signed());
    report(&format!("T-REQ-3: messages after each step of the clock: {messages:?}"));
}

#[test]
fn t_req_3_a_receiver_that_always_complains_is_asked_twice() {
    let (phone, tablet) = connection(1);
    let mut clock = SigningClock::default();
    let mut call = Call::new(&phone, "POST", "/sync", b"body");
    let complain = |number, now_ms: u64| {
        tablet.response(&nonce(number), Status::CLOCK_SKEW, &now_ms.to_be_bytes()).unwrap()
    };

    call.message(clock, NOW_MS, nonce(1)).unwrap();
    let first = complain(1, NOW_MS + DAY_MS);
    assert_eq!(call.answered(&mut clock, NOW_MS, &first), Ok(Answer::Again));
    assert_eq!(call.answered(&mut clock, NOW_MS, &first).map(|_| ()), Ok(()), "no third message");

    call.message(clock, NOW_MS, nonce(2)).unwrap();
    let second = complain(2, NOW_MS + 3 * DAY_MS);
    let answer = call.answered(&mut clock, NOW_MS, &second).unwrap();
    assert!(matches!(answer, Answer::Done(response) if response.status == Status::CLOCK_SKEW));
    assert_eq!(clock.offset_ms(), DAY_MS.cast_signed(), "the second complaint changes nothing");
}

#[test]
fn a_complaint_without_a_time_is_refused() {
    let (phone, tablet) = connection(1);
    for body in [&[0; 7][..], &[0; 9]] {
        let mut call = Call::new(&phone, "POST", "/sync", b"body");
        let mut clock = SigningClock::default();
        call.message(clock, NOW_MS, nonce(1)).unwrap();
        let answer = tablet.response(&nonce(1), Status::CLOCK_SKEW, body).unwrap();
        let outcome = call.answered(&mut clock, NOW_MS, &answer);
        assert!(matches!(outcome, Err(ResponseError::Form(_))), "{outcome:?}");
        assert_eq!(clock, SigningClock::default());
    }
}

#[test]
fn checks_are_made_in_the_written_order() {
    let (phone, tablet) = connection(1);
    let (stranger, _) = connection(2);
    let now = any_instant();
    let mut guard = Guard::new(now);
    let late_ms = NOW_MS + TIME_WINDOW_MS + 1;
    let mut admit = |frame: &[u8], standing, now_ms| {
        guard.admit(&tablet, standing, frame, now_ms, now).map(|_| ())
    };

    let too_long = vec![0; FRAME_BYTES_MAX + 1];
    let outcome = admit(&too_long, Standing::Refused, late_ms);
    assert!(matches!(outcome, Err(Refusal::Form(WireError::TooLong { .. }))));
    let unsigned = request(&stranger, 1, NOW_MS);
    assert_eq!(admit(&unsigned, Standing::Refused, late_ms), Err(Refusal::Standing));
    assert_eq!(admit(&unsigned, Standing::Trusted, late_ms), Err(Refusal::Tag));

    let signed = request(&phone, 1, NOW_MS);
    assert_eq!(admit(&signed, Standing::Trusted, NOW_MS), Ok(()));
    let late = admit(&signed, Standing::Trusted, late_ms);
    assert!(matches!(late, Err(Refusal::ClockSkew { .. })), "time comes before the nonce");
    assert_eq!(admit(&signed, Standing::Trusted, NOW_MS), Err(Refusal::Replay));
}

#[test]
fn only_a_signed_peer_learns_why_it_is_refused() {
    let (phone, tablet) = connection(1);
    let silent = [
        (Refusal::Form(WireError::CutOff), Status::MALFORMED),
        (Refusal::Form(WireError::TooLong { bytes: 2, bytes_max: 1 }), Status::TOO_LARGE),
        (Refusal::Standing, Status::REFUSED),
        (Refusal::Tag, Status::REFUSED),
        (Refusal::Replay, Status::REFUSED),
    ];
    for (refusal, status) in silent {
        assert_eq!((refusal.answer(&tablet), refusal.status()), (None, status));
    }

    let wait = Duration::from_micros(1_001);
    let refusal = Refusal::SlowDown { nonce: nonce(1), wait };
    let answer = refusal.answer(&tablet).unwrap();
    let response = phone.open_response(&nonce(1), &answer).unwrap();
    assert_eq!((response.status, response.body), (Status::SLOW_DOWN, &[0, 0, 0, 2][..]));
}

#[test]
fn requests_beyond_the_rate_wait() {
    let (phone, tablet) = connection(1);
    let now = any_instant();
    let mut guard = Guard::new(now);
    let mut admit = |number: u32, now: Instant| {
        let frame = request(&phone, number.into(), NOW_MS);
        guard.admit(&tablet, Standing::Trusted, &frame, NOW_MS, now).map(|_| ())
    };

    for number in 0..REQUESTS_BURST {
        assert_eq!(admit(number, now), Ok(()), "request {number}");
    }
    let wait = Duration::from_millis(20);
    let refusal = Refusal::SlowDown { nonce: nonce(REQUESTS_BURST.into()), wait };
    assert_eq!(admit(REQUESTS_BURST, now), Err(refusal));
    assert_eq!(admit(REQUESTS_BURST, now + wait), Ok(()));
    assert!(admit(REQUESTS_BURST + 1, now + wait).is_err());

    let after_a_second = now + wait + Duration::from_secs(1);
    let taken = (1_000..2_000).filter(|number| admit(*number, after_a_second).is_ok()).count();
    assert_eq!(taken, 50);
}

#[test]
fn sizes_are_held_at_the_limit_and_one_past_it() {
    let (phone, tablet) = connection(1);
    let now = any_instant();
    let mut guard = Guard::new(now);
    let methods = ["M".repeat(METHOD_BYTES_MAX), "M".repeat(METHOD_BYTES_MAX + 1)];
    let paths = ["/".repeat(PATH_BYTES_MAX), "/".repeat(PATH_BYTES_MAX + 1)];
    let with = |method, path, number| Head { time_ms: NOW_MS, nonce: nonce(number), method, path };

    let frame = phone.request(&with(&methods[0], &paths[0], 1), b"").unwrap();
    assert!(guard.admit(&tablet, Standing::Trusted, &frame, NOW_MS, now).is_ok());
    for (method, path) in [(&methods[1], &paths[0]), (&methods[0], &paths[1])] {
        let refused = phone.request(&with(method, path, 2), b"");
        assert!(matches!(refused, Err(WireError::TooLong { .. })));
    }

    let header_bytes = phone.request(&head(3, NOW_MS), b"").unwrap().len();
    let body = vec![0; FRAME_BYTES_MAX - header_bytes + 1];
    let longest = phone.request(&head(3, NOW_MS), &body[1..]).unwrap();
    assert_eq!(longest.len(), FRAME_BYTES_MAX);
    assert!(guard.admit(&tablet, Standing::Trusted, &longest, NOW_MS, now).is_ok());
    assert!(phone.request(&head(4, NOW_MS), &body).is_err());

    let response_bytes = tablet.response(&nonce(1), Status::OK, b"").unwrap().len();
    let body = vec![0; FRAME_BYTES_MAX - response_bytes + 1];
    let longest = tablet.response(&nonce(1), Status::OK, &body[1..]).unwrap();
    assert!(phone.open_response(&nonce(1), &longest).is_ok());
    assert!(tablet.response(&nonce(1), Status::OK, &body).is_err());
}

/// A forged length says that the method or the path is longer than it may be.
#[test]
fn a_claimed_length_beyond_its_limit_is_refused_as_too_long() {
    let (phone, tablet) = connection(1);
    let now = any_instant();
    let whole = request(&phone, 1, NOW_MS);
    let method_at = 8 + 16 + 32;
    let path_at = method_at + 1 + "POST".len();
    let claims: [(usize, &[u8]); 2] = [(method_at, &[17]), (path_at, &[0x04, 0x01])];
    for (at, claim) in claims {
        let mut frame = whole.clone();
        frame[at..at + claim.len()].copy_from_slice(claim);
        let refused = Guard::new(now).admit(&tablet, Standing::Trusted, &frame, NOW_MS, now);
        assert!(matches!(refused, Err(Refusal::Form(WireError::TooLong { .. }))), "{refused:?}");
    }
}

#[test]
fn a_request_does_not_come_back_to_its_sender() {
    let (phone, tablet) = connection(1);
    let now = any_instant();
    let frame = request(&phone, 1, NOW_MS);
    let reflected = Guard::new(now).admit(&phone, Standing::Trusted, &frame, NOW_MS, now);
    assert_eq!(reflected, Err(Refusal::Tag));

    let answer = tablet.response(&nonce(1), Status::OK, b"").unwrap();
    assert_eq!(tablet.open_response(&nonce(1), &answer), Err(ResponseError::Tag));
}

#[test]
fn a_secret_that_is_used_under_another_certificate_is_noticed() {
    let tablets = [(PHONE, PairSecret::new([7; 32])), (LAPTOP, PairSecret::new([8; 32]))];
    let peers = || tablets.iter().map(|(peer, secret)| (*peer, secret));
    let ekm = [1; 32];

    // The laptop's certificate is at the other end, and the request is signed with the phone's secret.
    let thief = Channel::new(&tablets[0].1, PHONE, TABLET, ekm);
    let frame = request(&thief, 1, NOW_MS);
    let honest = Channel::new(&tablets[1].1, TABLET, LAPTOP, ekm);
    let now = any_instant();
    let refused = Guard::new(now).admit(&honest, Standing::Trusted, &frame, NOW_MS, now);
    assert_eq!(refused, Err(Refusal::Tag));
    assert_eq!(signed_by_another(&frame, ekm, TABLET, peers()), Some(PHONE));

    assert_eq!(signed_by_another(&frame, [2; 32], TABLET, peers()), None, "of another connection");
    assert_eq!(signed_by_another(b"", ekm, TABLET, peers()), None);
}

const REQUEST: &str = concat!(
    "00000199c82cc00000000000000000000000000000000005957e1c3ff9a45311c923906771e8ca5e",
    "ed19497b56d1ccca5c67ac1a72f9e3d404504f535400052f73796e6374686520626f6479206f6620",
    "612072657175657374",
);
const RESPONSE: &str =
    "0000e62686f940a132e606cb081e8e19263d14dfdf2a9c2d19d4b23b5bf8f662805e616e73776572";
