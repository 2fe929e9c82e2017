//! Devices that find each other by multicast on this machine.

use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use catchword::net::{Discovery as _, Heard, Mdns};
use catchword_model::identity::Fingerprint;
use catchword_proto::discovery::{Announcement, DiscoveryKey, InstanceName, TAGS};
use catchword_proto::secret::PairSecret;

use crate::net::report;

const DAY: u32 = 20_000;
const PHONE: Fingerprint = Fingerprint([1; 32]);
const TABLET: Fingerprint = Fingerprint([2; 32]);

/// How long a test waits for a packet that comes within a second or never.
const PATIENCE: Duration = Duration::from_secs(10);

fn listening() -> (Mdns, Receiver<Heard>) {
    let mdns = Mdns::new().unwrap();
    let (sender, heard) = channel();
    mdns.listen(Box::new(move |announced| sender.send(announced).unwrap_or_default())).unwrap();
    (mdns, heard)
}

fn announcement(own: Fingerprint, key: &DiscoveryKey) -> Announcement {
    let mut name = [0; 8];
    getrandom::fill(&mut name).unwrap();
    let padding = [[own.0[0]; 8]; TAGS];
    Announcement::new(own, InstanceName(name), 40_000 + u16::from(own.0[0]), DAY, [key], padding)
}

/// Returns the first announcement of a peer.
fn wait(heard: &Receiver<Heard>, peer: Fingerprint, key: &DiscoveryKey) -> Heard {
    loop {
        let announced = heard.recv_timeout(PATIENCE).expect(
            "multicast does not work on this machine: no interface that is up carries it, not even lo",
        );
        if announced.announcement.announcer([(peer, key)], DAY).is_some() {
            return announced;
        }
    }
}

#[test]
fn two_devices_on_one_machine_find_each_other() {
    let key = DiscoveryKey::new(&PairSecret::new([7; 32]));
    let ((phone, phone_hears), (tablet, tablet_hears)) = (listening(), listening());
    let (of_phone, of_tablet) = (announcement(PHONE, &key), announcement(TABLET, &key));

    phone.announce(&of_phone).unwrap();
    tablet.announce(&of_tablet).unwrap();
    let found = wait(&phone_hears, TABLET, &key);
    assert_eq!(found.announcement, of_tablet);
    assert!(found.addresses.iter().all(|address| address.port() == of_tablet.port));
    assert_eq!(wait(&tablet_hears, PHONE, &key).announcement, of_phone);

    // A new name takes the place of the old one.
    let renamed = announcement(PHONE, &key).with_pairing_id([9; 8]);
    phone.announce(&renamed).unwrap();
    let heard = loop {
        let heard = wait(&tablet_hears, PHONE, &key);
        if heard.announcement.name != of_phone.name {
            break heard;
        }
    };
    assert_eq!(heard.announcement, renamed);

    // Under the same name, something changes.
    let again = renamed.clone().with_pairing_id([8; 8]);
    phone.announce(&again).unwrap();
    let heard = loop {
        let heard = wait(&tablet_hears, PHONE, &key);
        if heard.announcement.pairing_id != renamed.pairing_id {
            break heard;
        }
    };
    assert_eq!(heard.announcement, again);
    phone.stop();
    tablet.stop();
    report(&format!("found each other at {:?}", found.addresses));
}
