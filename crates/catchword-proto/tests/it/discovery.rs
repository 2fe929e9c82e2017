//! Announcements: who is dialled because of them, and who is not.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use catchword_model::identity::Fingerprint;
use catchword_proto::discovery::{
    ADDRESSES_MAX, Announcement, AnnouncementError, DIAL_PAUSE, Dials, DiscoveryKey, InstanceName,
    TAGS, dialable, utc_day,
};
use catchword_proto::secret::PairSecret;
use rand::{Rng as _, RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;

use crate::{any_instant, report};

const DAY: u32 = 20_000;
const PORT: u16 = 4_711;
const PHONE: Fingerprint = Fingerprint([1; 32]);
const TABLET: Fingerprint = Fingerprint([2; 32]);

fn key(byte: u8) -> DiscoveryKey {
    DiscoveryKey::new(&PairSecret::new([byte; 32]))
}

/// The peers of the tablet: the phone and 15 others.
fn peers() -> Vec<(Fingerprint, DiscoveryKey)> {
    let others = (10..25).map(|byte| (Fingerprint([byte; 32]), key(byte)));
    std::iter::once((PHONE, key(7))).chain(others).collect()
}

fn announcer(announcement: &Announcement, day: u32) -> Option<Fingerprint> {
    let peers = peers();
    announcement.announcer(peers.iter().map(|(peer, key)| (*peer, key)), day)
}

/// What the phone announces: it has three peers, of which the tablet is the second.
fn of_the_phone(random: &mut ChaCha8Rng) -> Announcement {
    let keys = [key(5), key(7), key(6)];
    let padding = random.random();
    Announcement::new(PHONE, InstanceName(random.random()), PORT, DAY, &keys, padding)
}

/// What arrives, after it was written as a TXT record.
fn travelled(announcement: &Announcement, name: &str, port: u16) -> Announcement {
    let txt = announcement.txt();
    Announcement::read(name, port, txt.iter().map(|(key, value)| (*key, value.as_slice()))).unwrap()
}

#[test]
fn a_peer_is_recognised_and_a_stranger_sees_nothing() {
    let mut random = ChaCha8Rng::seed_from_u64(1);
    let announced = of_the_phone(&mut random);
    let heard = travelled(&announced, &announced.name.to_string(), PORT);

    assert_eq!(heard, announced);
    assert_eq!(announcer(&heard, DAY), Some(PHONE));
    let strangers = [(PHONE, key(99)), (TABLET, key(7))];
    let recognised = heard.announcer(strangers.iter().map(|(peer, key)| (*peer, key)), DAY);
    assert_eq!(recognised, None, "neither another secret nor another device");
}

#[test]
fn clocks_may_be_a_day_apart_and_not_two() {
    let announced = of_the_phone(&mut ChaCha8Rng::seed_from_u64(2));
    for day in [DAY - 1, DAY, DAY + 1] {
        assert_eq!(announcer(&announced, day), Some(PHONE), "day {day}");
    }
    for day in [DAY - 2, DAY + 2, 0, u32::MAX] {
        assert_eq!(announcer(&announced, day), None, "day {day}");
    }
    assert_eq!(utc_day(86_400_000 * 20_000 - 1), DAY - 1);
    assert_eq!(utc_day(86_400_000 * 20_000), DAY);
}

#[test]
fn what_is_announced_looks_the_same_for_any_number_of_peers() {
    let mut random = ChaCha8Rng::seed_from_u64(3);
    for count in [0, 1, 15, 16, 17] {
        let keys: Vec<_> = (0..count).map(key).collect();
        let name = InstanceName(random.random());
        let announced = Announcement::new(PHONE, name, PORT, DAY, &keys, random.random());
        let txt = announced.txt();
        assert_eq!(txt.len(), 2);
        assert_eq!(txt[0], ("v", b"1".to_vec()));
        assert_eq!((txt[1].0, txt[1].1.len()), ("t", 8 * TAGS));
        assert!(txt[1].1.chunks(8).is_sorted(), "the order says nothing");
        let recognised =
            keys.iter().filter(|key| announced.announcer([(PHONE, *key)], DAY).is_some());
        assert_eq!(recognised.count(), usize::from(count.min(16)));
    }
}

#[test]
fn an_open_pairing_is_announced() {
    let announced = of_the_phone(&mut ChaCha8Rng::seed_from_u64(4)).with_pairing_id([9; 8]);
    let heard = travelled(&announced, &announced.name.to_string(), PORT);
    assert_eq!(heard.pairing_id, Some([9; 8]));
}

#[test]
fn an_announcement_of_another_form_is_passed_over() {
    let tags = [0; 8 * TAGS];
    let name = "0123456789abcdef";
    let read = |name: &str, txt: &[(&str, &[u8])]| {
        Announcement::read(name, PORT, txt.iter().copied()).map(|_| ())
    };

    assert_eq!(read(name, &[("v", b"1"), ("t", &tags), ("x", b"later")]), Ok(()));
    assert_eq!(read(name, &[("t", &tags), ("v", b"1"), ("v", b"2")]), Ok(()), "the first counts");
    for wrong in ["", "0123456789abcde", "0123456789ABCDEF", "0123456789abcdef (2)"] {
        let refused = read(wrong, &[("v", b"1"), ("t", &tags)]);
        assert_eq!(refused, Err(AnnouncementError::Name), "{wrong}");
    }
    for wrong in [&b"2"[..], b"", b"11"] {
        let refused = read(name, &[("v", wrong), ("t", &tags)]);
        assert_eq!(refused, Err(AnnouncementError::Version));
    }
    assert_eq!(read(name, &[("t", &tags)]), Err(AnnouncementError::Version));
    for wrong in [0, 8 * TAGS - 1, 8 * TAGS - 8, 8 * TAGS + 1, 8 * TAGS + 8] {
        let refused = read(name, &[("v", b"1"), ("t", &vec![0; wrong])]);
        assert_eq!(refused, Err(AnnouncementError::Tags), "{wrong} bytes");
    }
    for wrong in [0, 7, 9] {
        let refused = read(name, &[("v", b"1"), ("t", &tags), ("p", &vec![0; wrong])]);
        assert_eq!(refused, Err(AnnouncementError::PairingId), "{wrong} bytes");
    }
}

/// What the tablet does with what it hears: it counts the dials.
#[derive(Default)]
struct Tablet {
    dials: Dials,
    dialled: usize,
}

impl Tablet {
    fn hears(&mut self, announcement: &Announcement, now: Instant) {
        if let Some(peer) = announcer(announcement, DAY) {
            self.dialled += usize::from(self.dials.begin(peer, now));
        }
    }
}

#[test]
fn t_disc_1_forged_announcements_lead_to_no_dial() {
    let mut random = ChaCha8Rng::seed_from_u64(5);
    let real = of_the_phone(&mut random);
    let name = real.name.to_string();
    let (mut tablet, mut now) = (Tablet::default(), any_instant());

    let mut forged = 0;
    for number in 0..10_000_u32 {
        now += DIAL_PAUSE;
        // Whoever has heard the phone uses its name or its tags, but not both with its port.
        let other_name = InstanceName(random.random()).to_string();
        let announcement = match number % 4 {
            0 => {
                let keys: Vec<_> = (0..16).map(|_| key(random.random_range(100..=255))).collect();
                Announcement::new(PHONE, real.name, PORT, DAY, &keys, random.random())
            }
            1 => travelled(&real, &other_name, PORT),
            2 => travelled(&real, &name, PORT + 1 + u16::try_from(number).unwrap()),
            _ => {
                let mut tags = [0; 8 * TAGS];
                random.fill_bytes(&mut tags);
                let txt = [("v", &b"1"[..]), ("t", &tags)];
                Announcement::read(&name, PORT, txt).unwrap()
            }
        };
        tablet.hears(&announcement, now);
        forged += 1;
    }

    assert_eq!((forged, tablet.dialled), (10_000, 0));
    report(&format!("T-DISC-1: {forged} forged announcements, {} dials", tablet.dialled));
}

#[test]
fn t_disc_1_a_replayed_tag_leads_to_one_dial_in_five_seconds() {
    let mut random = ChaCha8Rng::seed_from_u64(6);
    let real = of_the_phone(&mut random);
    let replayed = travelled(&real, &real.name.to_string(), PORT);
    let (mut tablet, start) = (Tablet::default(), any_instant());

    for ms in 0..5_000 {
        tablet.hears(&replayed, start + Duration::from_millis(ms));
    }
    assert_eq!(tablet.dialled, 1);
    tablet.hears(&replayed, start + DIAL_PAUSE);
    assert_eq!(tablet.dialled, 2);
    report("T-DISC-1: 5000 replays in 5 s, 1 dial");
}

#[test]
fn one_peer_that_was_dialled_does_not_hold_up_another() {
    let (mut dials, now) = (Dials::default(), any_instant());
    assert!(dials.begin(PHONE, now));
    assert!(dials.begin(TABLET, now));
    assert!(!dials.begin(PHONE, now));
}

#[test]
fn only_addresses_of_this_network_are_dialled_and_at_most_four() {
    let parse = |addresses: &[&str]| -> Vec<SocketAddr> {
        addresses.iter().map(|address| address.parse().unwrap()).collect()
    };

    let world = parse(&[
        "8.8.8.8:1",
        "172.32.0.1:1",
        "192.169.0.1:1",
        "169.253.0.1:1",
        "100.64.0.1:1",
        "0.0.0.0:1",
        "255.255.255.255:1",
        "224.0.0.251:1",
        "[2001:db8::1]:1",
        "[ff02::fb]:1",
        "[::]:1",
        "[::ffff:8.8.8.8]:1",
        "[fec0::1]:1",
    ]);
    assert_eq!(dialable(world), []);

    let local = parse(&[
        "127.0.0.1:1",
        "10.0.0.1:1",
        "172.16.0.1:1",
        "172.31.255.254:1",
        "192.168.0.1:1",
        "169.254.0.1:1",
        "[fd00::1]:1",
        "[fe80::1]:1",
        "[::1]:1",
        "[::ffff:10.0.0.1]:1",
    ]);
    for address in &local {
        assert_eq!(dialable([*address]), [*address]);
    }

    let reached = dialable(local.into_iter().rev());
    assert_eq!(reached.len(), ADDRESSES_MAX);
    let first = ["10.0.0.1:1", "172.16.0.1:1", "172.31.255.254:1", "192.168.0.1:1"];
    assert_eq!(reached, parse(&first));
    assert_eq!(dialable(parse(&["10.0.0.1:1", "10.0.0.1:1"])).len(), 1);
}
