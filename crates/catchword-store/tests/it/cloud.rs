//! What a server has of each document, and what it lacks.

use std::collections::BTreeMap;

use catchword_model::edit::Edit;
use catchword_model::exchange::DocumentName;
use catchword_model::id::{DocumentId, Generation};
use catchword_model::identity::Fingerprint;
use catchword_store::{
    Class, CloudCursor, CloudLogin, CloudRow, CloudStart, Consignment, Origin, Skipped, Stopped,
    Store, Unsent,
};

use crate::exchange_support::{Device, device_options};
use crate::support::{BOOK, MONDAY_MS, annotate, turn};

const SERVER: Origin = Origin { peer: Fingerprint([200; 32]), generation: Generation([1; 16]) };
/// More than any document here holds.
const WHOLE: usize = 1 << 20;

fn unsent(device: &Device) -> Vec<Unsent> {
    device.towards(SERVER, |server| device.store.unsent_to_cloud(server).unwrap())
}

fn of_book(device: &Device) -> Option<Unsent> {
    unsent(device).into_iter().find(|unsent| unsent.name == DocumentName::Book(BOOK))
}

fn take(device: &Device, document: DocumentId, bytes_max: usize) -> Consignment {
    device.towards(SERVER, |server| {
        device.store.collect_for_cloud(server, document, &device.key, bytes_max, None).unwrap()
    })
}

/// Keeps that the server has taken this.
fn acknowledge(device: &Device, document: DocumentId, sent: &Consignment) {
    let mut row = device.store.cloud_row(document).unwrap();
    row.extend(sent);
    row.version += u64::try_from(sent.changes.len()).unwrap();
    device.store.keep_cloud_rows(&BTreeMap::from([(document, row)]), None).unwrap();
}

fn read(device: &Device, ppm: u32) {
    device.store.turn(BOOK, &turn(ppm), MONDAY_MS + 50).unwrap();
    device.store.publish(BOOK).unwrap();
}

#[test]
fn what_a_server_lacks_is_told_by_class_taken_in_order_and_gone_when_it_is_acknowledged() {
    let phone = Device::with_book(1);
    assert_eq!(of_book(&phone).unwrap().class, Class::Rest);
    // A statement stands at every 512th change of a chain: what is asked for in small portions comes up
    // to the next one.
    for n in 0..1_100 {
        phone.write(&[annotate(n, 1_000)], n);
    }
    read(&phone, 200_000);
    let told = of_book(&phone).unwrap();
    assert_eq!((told.class, told.events), (Class::Positions, 1));

    // In small portions, each of which another device can apply on top of the one before.
    let tablet = Device::empty(2);
    let (mut portions, mut changes) = (0, 0);
    while let Some(left) = of_book(&phone) {
        let part = take(&phone, BOOK.document(), 600);
        assert!(!part.changes.is_empty() || !part.events.is_empty(), "{left:?}");
        assert!(part.changes.len() <= 512, "{}", part.changes.len());
        acknowledge(&phone, BOOK.document(), &part);
        (portions, changes) = (portions + 1, changes + part.changes.len());
        let applied = tablet.towards(SERVER, |server| {
            let brought = [(DocumentName::Book(BOOK), part)];
            tablet.store.apply_from_cloud(server, brought, None).unwrap()
        });
        assert_eq!((applied.parked, applied.refused.len()), (0, 0), "{applied:?}");
    }
    assert!(3 <= portions, "{portions} portions");
    assert_eq!(changes, usize::try_from(told.changes).unwrap(), "each once");
    assert_eq!(phone.heads(BOOK.document()), tablet.heads(BOOK.document()));
    assert_eq!(phone.store.positions(BOOK).unwrap(), tablet.store.positions(BOOK).unwrap());

    phone.write(&[annotate(5_000, 1)], 5_000);
    assert_eq!(of_book(&phone).map(|it| (it.class, it.changes)), Some((Class::Rest, 1)));
    read(&phone, 300_000);
    assert_eq!(of_book(&phone).unwrap().class, Class::Positions);
    // What the tablet was brought is not the server's until somebody says so.
    assert!(of_book(&tablet).is_some());
}

#[test]
fn a_document_that_was_stopped_or_removed_is_not_sent_and_another_account_has_nothing() {
    let phone = Device::with_book(1);
    phone.write(&[annotate(1, 1)], 1);
    let everything = unsent(&phone).len();
    assert_eq!(everything, 2, "the book, and the library");
    let stopped = Stopped { reason: "it breaks a rule".to_owned(), since_ms: 7 };
    let row = CloudRow { stopped: Some(stopped.clone()), ..CloudRow::default() };
    phone.store.keep_cloud_rows(&BTreeMap::from([(BOOK.document(), row)]), None).unwrap();
    assert_eq!(of_book(&phone), None);
    assert_eq!(phone.store.stopped_in_cloud().unwrap(), [(BOOK.document(), stopped)]);
    assert_eq!(unsent(&phone).len(), everything - 1);

    phone.store.forget_cloud().unwrap();
    assert_eq!(unsent(&phone).len(), everything);
    phone.store.remove(BOOK, MONDAY_MS).unwrap();
    assert_eq!(of_book(&phone), None);
}

#[test]
fn what_a_server_has_is_known_after_a_restart() {
    let phone = Device::with_book(1);
    phone.write(&[annotate(1, 1), annotate(2, 2)], 1);
    read(&phone, 5);
    let part = take(&phone, BOOK.document(), WHOLE);
    acknowledge(&phone, BOOK.document(), &part);
    let row = phone.store.cloud_row(BOOK.document()).unwrap();
    assert_eq!(
        row.max_op,
        part.changes.iter().map(catchword_model::change::Change::max_op).max().unwrap()
    );
    let Device { store, folder, .. } = phone;
    let folder = folder.unwrap();
    drop(store);
    let store = Store::open(folder.path(), &device_options(1)).unwrap();
    assert_eq!(store.cloud_row(BOOK.document()).unwrap(), row);
    let phone = Device { store, folder: Some(folder), ..Device::empty(1) };
    assert_eq!(of_book(&phone), None);
}

#[test]
fn a_library_of_a_release_without_servers_gets_the_tables_it_lacks() {
    let phone = Device::with_book(1);
    phone.write(&[annotate(1, 1)], 1);
    let heads = phone.heads(BOOK.document());
    let Device { store, folder, .. } = phone;
    let folder = folder.unwrap();
    drop(store);
    {
        let library = redb::Database::open(folder.path().join("library")).unwrap();
        let write = library.begin_write().unwrap();
        for name in ["void-1", "cloud-1", "parked-2", "paused-2", "quarantine-2"] {
            let table: redb::TableDefinition<'_, &[u8], &[u8]> = redb::TableDefinition::new(name);
            assert!(write.delete_table(table).unwrap(), "{name}");
        }
        let former: redb::TableDefinition<'_, &[u8; 32], &[u8]> =
            redb::TableDefinition::new("paused-1");
        write.open_table(former).unwrap().insert(&[1; 32], [2].as_slice()).unwrap();
        write.commit().unwrap();
    }
    let store = Store::open(folder.path(), &device_options(1)).unwrap();
    assert_eq!(store.heads(BOOK.document()).unwrap().unwrap(), heads);
    assert_eq!(store.pauses().unwrap(), []);
    store.append(BOOK.document(), &[annotate(2, 2)], MONDAY_MS + 2).unwrap();
    drop(store);
    let library = redb::Database::open(folder.path().join("library")).unwrap();
    let read = redb::ReadableDatabase::begin_read(&library).unwrap();
    let tables = read.list_tables().unwrap();
    let names: Vec<String> =
        tables.map(|table| redb::TableHandle::name(&table).to_owned()).collect();
    assert!(!names.contains(&"paused-1".to_owned()), "{names:?}");
}

#[test]
fn what_others_wrote_is_handed_on_with_their_statements() {
    let (phone, tablet) = (Device::with_book(1), Device::with_book(2));
    tablet.write(&[Edit::AddTag { tag: "from the tablet".to_owned() }], 1);
    let given = tablet.collect(&phone, 0);
    phone.apply(&tablet, &given.piece, Some(given.bounds));
    let part = take(&phone, BOOK.document(), WHOLE);
    let signers = part.statements.iter().map(catchword_store::Statement::device);
    let signers: std::collections::BTreeSet<_> = signers.collect();
    assert_eq!(signers.len(), 2);
    let reader = Device::empty(3);
    reader.towards(SERVER, |server| {
        let brought = [(DocumentName::Book(BOOK), part)];
        reader.store.apply_from_cloud(server, brought, None).unwrap()
    });
    assert_eq!(reader.heads(BOOK.document()), phone.heads(BOOK.document()));
}

fn login(user: u8) -> CloudLogin {
    let (url, user_name) = ("https://cloud.example".to_owned(), "anna".to_owned());
    let (account, device) = ([user; 16], [9; 16]);
    let roots = vec![vec![1, 2], vec![3]];
    CloudLogin { url, user: user_name, account, device, roots, plain: false }
}

fn start(device: &Device) -> CloudStart {
    device.towards(SERVER, |server| device.store.start_with_cloud(server).unwrap())
}

#[test]
fn signing_out_keeps_everything_and_another_account_knows_nothing() {
    let phone = Device::with_book(1);
    phone.write(&[annotate(1, 1)], 1);
    assert_eq!(phone.store.cloud_account().unwrap(), None);
    phone.store.sign_in_to_cloud(&login(1), 5).unwrap();
    let first = phone.store.cloud_account().unwrap().unwrap();
    assert_eq!(
        (&first.login, first.signed_in, first.cursor, first.since_ms),
        (&login(1), true, 0, 5)
    );
    assert!(0 < first.replay_through);

    let stopped = Stopped { reason: "it breaks a rule".to_owned(), since_ms: 7 };
    let row = CloudRow { version: 3, stopped: Some(stopped), ..CloudRow::default() };
    let rows = BTreeMap::from([(BOOK.document(), row)]);
    phone.store.keep_cloud_rows(&rows, Some(40.into())).unwrap();
    phone.write(&[annotate(2, 1)], 2);
    assert_eq!(start(&phone).cursor, 40);

    // With a new token, and without having signed out: what was made meanwhile is no history.
    let renewed = CloudLogin { device: [8; 16], ..login(1) };
    phone.store.sign_in_to_cloud(&renewed, 6).unwrap();
    let again = phone.store.cloud_account().unwrap().unwrap();
    assert_eq!((again.cursor, again.replay_through), (40, first.replay_through));
    let row = phone.store.cloud_row(BOOK.document()).unwrap();
    assert_eq!((row.version, row.stopped), (3, None), "it is tried again");

    phone.store.sign_out_of_cloud(8).unwrap();
    let out = phone.store.cloud_account().unwrap().unwrap();
    assert_eq!((out.signed_in, out.cursor, out.since_ms), (false, 40, 8));
    assert_eq!(phone.store.cloud_row(BOOK.document()).unwrap().version, 3);
    phone.store.sign_in_to_cloud(&login(1), 9).unwrap();
    let back = phone.store.cloud_account().unwrap().unwrap();
    assert!(first.replay_through < back.replay_through);
    assert_eq!(back.cursor, 40);

    phone.store.sign_in_to_cloud(&login(2), 9).unwrap();
    assert_eq!(start(&phone), CloudStart::default());
    assert_eq!(phone.store.cloud_row(BOOK.document()).unwrap(), CloudRow::default());
}

#[test]
fn a_server_that_went_back_is_given_everything_as_history() {
    let phone = Device::with_book(1);
    phone.store.sign_in_to_cloud(&login(1), 5).unwrap();
    let cursor = CloudCursor { number: 40, tag: Some([7; 8]) };
    phone.store.keep_cloud_rows(&BTreeMap::new(), Some(cursor)).unwrap();
    let before = phone.store.cloud_account().unwrap().unwrap();
    assert_eq!((before.cursor, before.known), (40, Some((40, [7; 8]))));
    phone.write(&[annotate(2, 1)], 2);
    phone.store.forget_cloud().unwrap();
    let after = phone.store.cloud_account().unwrap().unwrap();
    assert_eq!((after.cursor, after.known, after.signed_in), (0, None, true));
    assert!(before.replay_through < after.replay_through);
}

#[test]
fn what_was_passed_over_is_read_again_once_it_is_exchanged() {
    let phone = Device::with_book(1);
    phone.store.sign_in_to_cloud(&login(1), 5).unwrap();
    phone.store.remove(BOOK, MONDAY_MS).unwrap();
    let skipped = Skipped { after: 11, book: Some(BOOK) };
    let row = CloudRow { skipped: Some(skipped), ..CloudRow::default() };
    let rows = BTreeMap::from([(BOOK.notes_document(), row.clone())]);
    let cursor = CloudCursor { number: 40, tag: Some([7; 8]) };
    phone.store.keep_cloud_rows(&rows, Some(cursor)).unwrap();
    assert_eq!(phone.store.cloud_row(BOOK.notes_document()).unwrap(), row);
    let lacks = |of: &Device| of.towards(SERVER, |server| of.store.lacks_of_cloud(server).unwrap());
    assert!(!lacks(&phone));
    assert_eq!(start(&phone).cursor, 40);

    phone.store.restore_removed(BOOK).unwrap();
    assert!(lacks(&phone));
    assert_eq!(start(&phone).cursor, 11);
    assert!(!lacks(&phone));
    assert_eq!(start(&phone).cursor, 11, "it is durable");
    // By what was merged before a server is known that has gone back meanwhile.
    let earlier = CloudCursor { number: 12, tag: Some([8; 8]) };
    phone.store.keep_cloud_rows(&BTreeMap::new(), Some(earlier)).unwrap();
    assert_eq!((start(&phone).cursor, start(&phone).known), (12, Some((40, [7; 8]))));
    let later = CloudCursor { number: 41, tag: Some([9; 8]) };
    phone.store.keep_cloud_rows(&BTreeMap::new(), Some(later)).unwrap();
    assert_eq!((start(&phone).cursor, start(&phone).known), (41, Some((41, [9; 8]))));
}

#[test]
fn history_and_what_came_later_are_taken_apart() {
    let phone = Device::with_book(1);
    phone.write(&[annotate(1, 1)], 1);
    phone.store.sign_in_to_cloud(&login(1), 5).unwrap();
    let through = phone.store.cloud_account().unwrap().unwrap().replay_through;
    read(&phone, 200_000);
    let part = |through| {
        phone.towards(SERVER, |server| {
            let document = BOOK.document();
            phone.store.collect_for_cloud(server, document, &phone.key, WHOLE, through).unwrap()
        })
    };
    let (all, history) = (part(None), part(Some(through)));
    assert_eq!(all.changes.len(), history.changes.len() + 1);
    assert_eq!(
        (all.events.len(), &all.changes[..history.changes.len()]),
        (1, &history.changes[..])
    );
    // It ends at a statement, so it counts alone.
    let tablet = Device::empty(2);
    tablet.towards(SERVER, |server| {
        let brought = [(DocumentName::Book(BOOK), history.clone())];
        let applied = tablet.store.apply_from_cloud(server, brought, None).unwrap();
        assert_eq!((applied.parked, applied.refused.len()), (0, 0), "{applied:?}");
    });
    acknowledge(&phone, BOOK.document(), &history);
    assert_eq!(part(Some(through)), Consignment::default());
    assert_eq!(part(None).changes.len(), 1);
}

#[test]
fn a_position_is_withdrawn_once_and_written_again_only_while_it_is_the_newest_and_not_the_place() {
    let (phone, tablet) = (Device::with_book(1), Device::with_book(2));
    read(&phone, 100_000);
    let own = phone.store.positions(BOOK).unwrap().remove(0);
    assert!(!phone.store.is_behind(BOOK, own.stamp()).unwrap(), "it is the place");
    tablet.store.turn(BOOK, &turn(300_000), MONDAY_MS + 90).unwrap();
    tablet.store.publish(BOOK).unwrap();
    let given = tablet.collect(&phone, 0);
    phone.apply(&tablet, &given.piece, Some(given.bounds));
    assert!(phone.store.is_behind(BOOK, own.stamp()).unwrap());

    // Who reads on has made another one.
    phone.store.turn(BOOK, &turn(110_000), MONDAY_MS + 60).unwrap();
    assert!(!phone.store.rewrite_position(BOOK, own.stamp(), MONDAY_MS + 60).unwrap());
    phone.store.publish(BOOK).unwrap();
    assert!(!phone.store.rewrite_position(BOOK, own.stamp(), MONDAY_MS + 60).unwrap());

    // The turn was stamped behind what the tablet wrote, so it is the place; a mark puts the tablet's there.
    let place = |of: &Device| {
        let entries = of.store.positions(BOOK).unwrap();
        catchword_model::position::place(&entries).unwrap().clone()
    };
    let behind = place(&phone);
    assert_eq!(behind.device, phone.store.device());
    let marks = [(behind.device, behind.stamp())];
    assert!(phone.store.withdraw(BOOK, &marks, MONDAY_MS).unwrap());
    assert_eq!(place(&phone).device, tablet.store.device());
    assert!(!phone.store.withdraw(BOOK, &marks, MONDAY_MS).unwrap(), "the rows have it already");
    assert!(!phone.store.is_behind(BOOK, behind.stamp()).unwrap(), "it does not count");
}

#[test]
fn a_position_that_is_written_again_is_the_place_and_knows_the_others() {
    let (phone, tablet) = (Device::with_book(1), Device::with_book(2));
    read(&phone, 400_000);
    let own = phone.store.positions(BOOK).unwrap().remove(0);
    tablet.store.turn(BOOK, &turn(300_000), MONDAY_MS + 90).unwrap();
    tablet.store.publish(BOOK).unwrap();
    let given = tablet.collect(&phone, 0);
    phone.apply(&tablet, &given.piece, Some(given.bounds));
    let theirs = tablet.store.positions(BOOK).unwrap().remove(0);
    assert!(phone.store.rewrite_position(BOOK, own.stamp(), MONDAY_MS).unwrap());
    let entries = phone.store.positions(BOOK).unwrap();
    let place = catchword_model::position::place(&entries).unwrap();
    assert_eq!((place.device, place.position.ppm), (phone.store.device(), 400_000));
    assert_eq!(place.position.seen, theirs.stamp());
    assert_eq!(place.position.wall_ms, own.position.wall_ms, "when it was read stays");
    assert!(!phone.store.rewrite_position(BOOK, own.stamp(), MONDAY_MS).unwrap());
}

#[test]
fn many_reading_events_are_cut_at_statements_too() {
    let phone = Device::with_book(1);
    for n in 0..1_100 {
        read(&phone, 1_000 + n % 7);
    }
    let tablet = Device::empty(2);
    let (mut portions, mut events) = (0, 0);
    while of_book(&phone).is_some() {
        let part = take(&phone, BOOK.document(), 4_096);
        assert!(part.events.len() <= 512, "{} events", part.events.len());
        assert!(!part.changes.is_empty() || !part.events.is_empty());
        acknowledge(&phone, BOOK.document(), &part);
        (portions, events) = (portions + 1, events + part.events.len());
        let applied = tablet.towards(SERVER, |server| {
            let brought = [(DocumentName::Book(BOOK), part)];
            tablet.store.apply_from_cloud(server, brought, None).unwrap()
        });
        assert_eq!((applied.parked, applied.refused.len()), (0, 0), "{applied:?}");
    }
    assert!(3 <= portions);
    assert_eq!(events, 1_100, "each once");
}
