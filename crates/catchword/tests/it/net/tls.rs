//! Who gets in, and who does not.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use catchword::net::{Candidate, DialError, Lost, Purpose, Source};
use catchword_model::identity::Fingerprint;
use rustls::SignatureScheme;
use tokio::time::timeout;

use crate::net::report;
use crate::net::support::{
    Device, Impostor, PAIRING, SYNC, Shown, call, caller, key, refused, stubborn_key,
};

/// TLS alerts as QUIC carries them.
const ALERT: u64 = 0x100;
const ACCESS_DENIED: u64 = ALERT + 49;
const NO_APPLICATION_PROTOCOL: u64 = ALERT + 120;
const CERTIFICATE_REQUIRED: u64 = ALERT + 116;

const RSA_KEY: &[u8] = include_bytes!("rsa.key.der");
const RSA_CERTIFICATE: &[u8] = include_bytes!("rsa.certificate.der");
const P256_KEY: &[u8] = include_bytes!("p256.key.der");
const P256_CERTIFICATE: &[u8] = include_bytes!("p256.certificate.der");

fn alert(error: &quinn::ConnectionError) -> Option<u64> {
    let quinn::ConnectionError::ConnectionClosed(close) = error else { return None };
    Some(close.error_code.into())
}

fn rsa() -> Shown {
    let key = stubborn_key(RSA_KEY, SignatureScheme::RSA_PSS_SHA256);
    Shown { chain: vec![RSA_CERTIFICATE.into()], key }
}

fn p256() -> Shown {
    let key = stubborn_key(P256_KEY, SignatureScheme::ECDSA_NISTP256_SHA256);
    Shown { chain: vec![P256_CERTIFICATE.into()], key }
}

#[tokio::test]
async fn peers_connect_and_agree_on_who_they_are() {
    let (phone, tablet) = Device::pair();
    let (mine, theirs) = phone.connect(&tablet).await;

    assert_eq!((mine.peer(), theirs.peer()), (tablet.fingerprint, phone.fingerprint));
    assert_eq!((mine.purpose(), theirs.purpose()), (Purpose::Sync, Purpose::Sync));
    assert_eq!(mine.remote_address(), tablet.address);
    let value = mine.exporter(b"label", b"context").unwrap();
    assert_eq!(theirs.exporter(b"label", b"context").unwrap(), value);
    assert_ne!(theirs.exporter(b"label", b"").unwrap(), value);
    assert_eq!((phone.endpoint.connections(), tablet.endpoint.connections()), (1, 1));
}

#[tokio::test]
async fn a_device_that_listens_everywhere_is_reached_by_ipv4_and_ipv6() {
    let (phone, tablet) = (Device::listening(1, None), Device::listening(2, None));
    phone.friends.add(tablet.fingerprint);
    tablet.friends.add(phone.fingerprint);
    let port = tablet.address.port();

    let mut reached = Vec::new();
    let v4 = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let v6 = SocketAddr::from((Ipv6Addr::LOCALHOST, port));
    for address in [v4, v6] {
        let candidates = [Candidate::new(address, Source::Given)];
        let dialled = phone.endpoint.dial(tablet.fingerprint, &candidates);
        let (mine, theirs) = tokio::join!(dialled, tablet.endpoint.accept());
        let (mine, theirs) = (mine.unwrap(), theirs.unwrap());
        assert_eq!(mine.remote_address(), address);
        assert_eq!(theirs.remote_address().ip(), address.ip());
        reached.push(address);
    }
    assert_eq!(reached, [v4, v6]);
}

#[tokio::test]
async fn t_tls_1_a_caller_with_another_certificate_or_key_is_refused() {
    let (phone, tablet) = Device::pair();
    let stranger = Device::new(3).shown();
    let thief = Shown { key: key(3), ..phone.shown() };

    let unknown = refused(caller(Some(stranger), &[SYNC]), &tablet).await;
    let without_key = refused(caller(Some(thief), &[SYNC]), &tablet).await;

    assert_eq!(alert(&unknown), Some(ACCESS_DENIED));
    assert!(alert(&without_key).is_some_and(|code| ALERT < code), "{without_key}");
    assert_eq!(tablet.endpoint.connections(), 0);
    report("T-TLS-1: callers: 2 of 2 refused, 0 let in");
}

#[tokio::test]
async fn t_tls_1_who_answers_with_another_certificate_or_key_is_told_nothing() {
    let (phone, tablet) = Device::pair();
    let stranger = Device::new(3).shown();
    let thief = Shown { key: key(3), ..tablet.shown() };
    let presented = stranger.fingerprint();

    let mut told = 0;
    for (shown, source, expected) in [
        (stranger.clone(), Source::Announced, DialError::Impostor { presented }),
        (stranger.clone(), Source::Known, DialError::SomebodyElse { presented }),
        (stranger, Source::Given, DialError::SomebodyElse { presented }),
        (thief, Source::Announced, DialError::Unreachable),
    ] {
        let impostor = Impostor::new(shown);
        let candidate = Candidate::new(impostor.address, source);
        let outcome = phone.endpoint.dial(tablet.fingerprint, &[candidate]).await;
        assert_eq!(outcome.unwrap_err(), expected);
        let (called, bytes) = impostor.heard().await;
        assert_eq!(called, 1);
        told += bytes;
    }
    assert_eq!((told, phone.endpoint.connections()), (0, 0));
    report(&format!("T-TLS-1: impostors: 4 of 4 refused, {told} application bytes"));
}

#[tokio::test]
async fn t_tls_2_a_chain_and_rsa_are_refused_and_dates_do_not_count() {
    let (phone, tablet) = Device::pair();
    let mut chain = phone.shown();
    chain.chain.push(Device::new(3).shown().chain.remove(0));
    for shown in [rsa(), p256(), Shown::expired(4)] {
        tablet.friends.add(shown.fingerprint());
    }

    assert_eq!(alert(&refused(caller(Some(chain), &[SYNC]), &tablet).await), Some(ACCESS_DENIED));
    let rsa = refused(caller(Some(rsa()), &[SYNC]), &tablet).await;
    assert!(alert(&rsa).is_some_and(|code| ALERT < code), "{rsa}");

    let mut accepted = 0;
    for shown in [Shown::expired(4), p256()] {
        let fingerprint = shown.fingerprint();
        let (_endpoint, connecting) = call(caller(Some(shown), &[SYNC]), tablet.address);
        let (connection, theirs) = tokio::join!(connecting, tablet.endpoint.accept());
        assert_eq!(theirs.unwrap().peer(), fingerprint);
        accepted += usize::from(connection.is_ok());
    }
    assert_eq!(accepted, 2);
    report("T-TLS-2: callers: a chain of 2 and RSA refused, expired and P-256 taken");
}

#[tokio::test]
async fn t_tls_2_the_same_holds_for_who_answers() {
    let (phone, tablet) = Device::pair();
    let mut chain = tablet.shown();
    chain.chain.push(Device::new(3).shown().chain.remove(0));

    let mut outcomes = Vec::new();
    for shown in [chain, rsa(), Shown::expired(4), p256()] {
        let fingerprint = shown.fingerprint();
        phone.friends.add(fingerprint);
        let answering = Impostor::new(shown);
        let candidate = Candidate::new(answering.address, Source::Announced);
        outcomes.push(phone.endpoint.dial(fingerprint, &[candidate]).await.is_ok());
    }
    assert_eq!(outcomes, [false, false, true, true]);
    report("T-TLS-2: answers: a chain of 2 and RSA refused, expired and P-256 taken");
}

#[tokio::test]
async fn t_tls_3_another_protocol_and_no_certificate_are_refused() {
    let (phone, tablet) = Device::pair();
    let shown = || Some(phone.shown());
    let neither: &[u8] = b"h3";

    let mut alerts = Vec::new();
    for (shown, protocols) in [
        (shown(), &[neither][..]),
        (shown(), &[]),
        (shown(), &[SYNC, PAIRING]),
        (shown(), &[PAIRING]),
        (None, &[SYNC]),
    ] {
        alerts.push(alert(&refused(caller(shown, protocols), &tablet).await));
    }

    let denied = Some(ACCESS_DENIED);
    let expected =
        [denied, denied, denied, Some(NO_APPLICATION_PROTOCOL), Some(CERTIFICATE_REQUIRED)];
    assert_eq!(alerts, expected);
    report(&format!("T-TLS-3: {0} of {0} refused, {alerts:x?}", alerts.len()));
}

#[tokio::test]
async fn t_tls_4_a_revoked_device_does_not_come_back_with_what_it_remembers() {
    let (phone, tablet) = Device::pair();
    let config = caller(Some(phone.shown()), &[SYNC]);

    let (_endpoint, connecting) = call(config.clone(), tablet.address);
    let (first, theirs) = tokio::join!(connecting, tablet.endpoint.accept());
    assert!(theirs.is_some());
    let first = first.unwrap();
    // A ticket would come with the first answer at the latest.
    let stream = first.open_bi();
    let (mut send, mut receive) = stream.await.unwrap();
    send.write_all(b"question").await.unwrap();
    let mut theirs_stream = theirs.as_ref().unwrap().accept().await.unwrap();
    theirs_stream.write(b"answer").await.unwrap();
    let mut answer = [0; 6];
    receive.read_exact(&mut answer).await.unwrap();
    let asked = tablet.friends.asked();

    tablet.friends.remove(phone.fingerprint);
    assert_eq!(tablet.endpoint.disconnect(phone.fingerprint), 1);
    let mut refusals = 0;
    for _ in 0..3 {
        let error = refused(config.clone(), &tablet).await;
        assert_eq!(alert(&error), Some(ACCESS_DENIED));
        refusals += 1;
    }
    assert_eq!(tablet.friends.asked() - asked, refusals, "every certificate is looked at");
    report(&format!("T-TLS-4: reconnects with cached state: {refusals} of {refusals} refused"));
}

#[tokio::test]
async fn t_tls_4_the_streams_of_a_revoked_device_are_closed_within_a_second() {
    let (phone, tablet) = Device::pair();
    let other = Device::new(3);
    other.friends.add(tablet.fingerprint);
    tablet.friends.add(other.fingerprint);
    let (of_other, _kept) = other.connect(&tablet).await;
    let (mine, theirs) = phone.connect(&tablet).await;
    let mut stream = mine.open().await.unwrap();
    stream.write(b"a request that never ends").await.unwrap();
    let mut open = theirs.accept().await.unwrap();

    let start = std::time::Instant::now();
    tablet.friends.remove(phone.fingerprint);
    assert_eq!(tablet.endpoint.disconnect(phone.fingerprint), 1);
    let second = Duration::from_secs(1);
    let lost = timeout(second, mine.closed()).await.expect("closed within a second");
    let took = start.elapsed();

    assert_eq!(lost, Lost::Closed { code: 0x20 });
    assert!(open.write(b"more").await.is_err());
    assert!(stream.read(second).await.is_err());
    let again = phone.endpoint.dial(tablet.fingerprint, &tablet.candidate(Source::Known)).await;
    let lost = again.unwrap().closed().await;
    assert_eq!(lost, Lost::Refused, "it learns that it is not known");
    assert!(!tablet.let_somebody_in().await);
    assert_eq!(of_other.open().await.map(|_| ()), Ok(()), "others stay");
    report(&format!("T-TLS-4: an open stream was closed after {} ms", took.as_millis()));
}

#[tokio::test]
async fn t_tls_5_early_data_is_not_accepted() {
    let (phone, tablet) = Device::pair();
    let config = caller(Some(phone.shown()), &[SYNC]);
    // Tickets come from somebody who gives them: the tablet does not.
    let generous = Impostor::new(tablet.shown());
    let (_endpoint, connecting) = call(config.clone(), generous.address);
    let connection = connecting.await.unwrap();
    tokio::time::sleep(Duration::from_millis(200)).await;
    drop(connection);
    let (_endpoint, offered) = call(config.clone(), generous.address);
    assert!(offered.into_0rtt().is_ok(), "the caller has a ticket");

    let (_endpoint, connecting) = call(config.clone(), tablet.address);
    let (connection, accepted) = connecting.into_0rtt().expect("it offers early data");
    let mut early = connection.open_bi().await.unwrap().0;
    let _early = early.write_all(b"early").await;
    let (accepted, theirs) = tokio::join!(accepted, tablet.endpoint.accept());

    assert!(!accepted, "early data was accepted");
    let theirs = theirs.expect("the handshake was made in full");
    assert_eq!(theirs.peer(), phone.fingerprint);
    let nothing = timeout(Duration::from_millis(100), theirs.accept()).await;
    assert!(nothing.is_err(), "early data arrived");
    let (_endpoint, again) = call(config, tablet.address);
    assert!(again.into_0rtt().is_err(), "the tablet gave a ticket");
    report("T-TLS-5: 1 offer of early data, 0 accepted, 0 bytes arrived, 0 tickets given");
}

#[tokio::test]
async fn anybody_may_connect_to_pair_while_a_pairing_is_open_and_for_nothing_else() {
    let (phone, tablet) = (Device::new(1), Device::new(2));
    tablet.friends.open_pairing(true);
    let (host, address) = (Some(tablet.fingerprint), [tablet.address]);

    let dialled = phone.endpoint.dial_to_pair(host, &address);
    let (mine, theirs) = tokio::join!(dialled, tablet.endpoint.accept());
    let (mine, theirs) = (mine.unwrap(), theirs.unwrap());
    assert_eq!((mine.purpose(), theirs.purpose()), (Purpose::Pairing, Purpose::Pairing));
    assert_eq!((mine.peer(), theirs.peer()), (tablet.fingerprint, phone.fingerprint));
    drop((mine, theirs));

    let anybody = phone.endpoint.dial_to_pair(None, &address);
    let (mine, theirs) = tokio::join!(anybody, tablet.endpoint.accept());
    assert_eq!(
        (mine.unwrap().peer(), theirs.unwrap().peer()),
        (tablet.fingerprint, phone.fingerprint)
    );

    let sync = refused(caller(Some(phone.shown()), &[SYNC]), &tablet).await;
    assert_eq!(alert(&sync), Some(ACCESS_DENIED));
    let without_key = Shown { key: key(3), ..phone.shown() };
    let pairing = refused(caller(Some(without_key), &[PAIRING]), &tablet).await;
    assert!(alert(&pairing).is_some_and(|code| ALERT < code), "{pairing}");

    tablet.friends.open_pairing(false);
    let closed = refused(caller(Some(phone.shown()), &[PAIRING]), &tablet).await;
    assert_eq!(alert(&closed), Some(NO_APPLICATION_PROTOCOL));
}

#[tokio::test]
async fn the_joiner_of_a_pairing_refuses_another_host_than_the_code_names() {
    let (phone, tablet) = (Device::new(1), Device::new(2));
    let impostor = Impostor::new(Device::new(3).shown());
    let presented = Device::new(3).fingerprint;

    let outcome = phone.endpoint.dial_to_pair(Some(tablet.fingerprint), &[impostor.address]).await;
    assert_eq!(outcome.unwrap_err(), DialError::SomebodyElse { presented });
    assert_eq!(impostor.heard().await, (1, 0));
}

#[tokio::test]
async fn who_is_not_trusted_is_not_dialled() {
    let (phone, tablet) = (Device::new(1), Device::new(2));
    let outcome = phone.endpoint.dial(tablet.fingerprint, &tablet.candidate(Source::Given)).await;
    assert_eq!(outcome.unwrap_err(), DialError::NotTrusted);
    assert_eq!(Fingerprint::of_certificate(&tablet.shown().chain[0]), tablet.fingerprint);
}
