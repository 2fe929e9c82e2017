//! Whole conversations between machines on a network that works: what they cost, counted.

use catchword_model::id::DocumentId;
use catchword_proto::session::Log;
use catchword_proto::session::requester::{Ending, Report};

use super::store::Rules;
use super::world::World;

/// Signature, nonce, time, method and path of a request, in bytes.
const SIGNATURE_BYTES: u64 = 80;

const RULES: Rules =
    Rules { multiple: 512, piece_max: 1_000, parked_max: 1_024, blind: false, watermark: false };

fn chain(devices: usize, rules: Rules) -> World {
    World::new(1, rules, devices, (1..devices).map(|at| (at - 1, at)).collect())
}

fn document(number: u32) -> DocumentId {
    let mut bytes = [9; 32];
    bytes[..4].copy_from_slice(&number.to_be_bytes());
    DocumentId(bytes)
}

#[track_caller]
fn in_sync((ending, report): (Ending, Report)) -> Report {
    assert_eq!(ending, Ending::InSync, "{report:?}");
    report
}

fn costs(report: &Report) -> (u64, u64, u64) {
    (report.round_trips, report.changes_sent, report.changes_received)
}

#[test]
fn devices_that_remember_each_other_agree_after_one_round_trip() {
    let mut world = chain(2, RULES);
    let book = world.documents[0];
    world.write(0, book, Log::Changes);
    world.write(1, book, Log::Events);

    let first = in_sync(world.sync(0, 1));
    assert_eq!(costs(&first), (2, 1, 1), "a hello, and nothing is sent twice");

    for _ in 0..3 {
        world.write(0, book, Log::Changes);
        world.write(1, book, Log::Changes);
        assert_eq!(costs(&in_sync(world.sync(0, 1))), (1, 1, 1));
        assert_eq!(costs(&in_sync(world.sync(1, 0))), (1, 0, 0));
    }
}

#[test]
fn an_idle_sync_has_the_same_size_for_3_and_for_10_000_books() {
    let mut sizes = Vec::new();
    for books in [3, 10_000] {
        let mut world = chain(2, Rules { piece_max: 100_000, ..RULES });
        for number in 0..books {
            world.write(0, document(number), Log::Changes);
        }
        in_sync(world.sync(0, 1));

        let idle = in_sync(world.sync(1, 0));
        assert_eq!(costs(&idle), (1, 0, 0));
        assert!(idle.bytes_sent.max(idle.bytes_received) + SIGNATURE_BYTES <= 512, "{idle:?}");
        sizes.push((idle.bytes_sent, idle.bytes_received));
    }
    assert_eq!(sizes, [(117, 117); 2]);
}

#[test]
fn what_is_sent_along_a_chain_is_changes_times_hops() {
    for devices in 2..=5 {
        let mut world = chain(devices, RULES);
        let mut changes = 0;
        for turn in 0..20 {
            for _ in 0..turn % 3 {
                world.write(turn % devices, world.documents[turn % 2], Log::Changes);
                changes += 1;
            }
            let (one, other) = world.links[turn % (devices - 1)];
            world.sync(one, other);
        }
        for _ in 0..devices {
            for (one, other) in world.links.clone() {
                in_sync(world.sync(one, other));
            }
        }
        assert_eq!(world.differing(), []);
        let hops = devices as u64 - 1;
        assert_eq!(world.tally.changes_sent, changes * hops, "{devices} devices");
    }
}

#[test]
fn a_change_reaches_a_third_device_while_its_maker_is_away() {
    let mut world = chain(3, RULES);
    let book = world.documents[0];
    world.write(0, book, Log::Changes);
    in_sync(world.sync(0, 1));

    assert_eq!(in_sync(world.sync(2, 1)).changes_received, 1);
    assert_eq!(in_sync(world.sync(1, 0)).changes_received, 0, "nothing comes back");
}

#[test]
fn a_device_that_lends_gives_everything_and_gets_nothing() {
    let mut world = chain(2, RULES);
    let (books, reader) = (world.documents.clone(), world.devices[1].store.key);
    world.devices[0].store.lends_to.insert(reader);
    for book in &books {
        world.write(0, *book, Log::Changes);
    }
    for _ in 0..4 {
        world.write(1, books[0], Log::Changes);
    }
    // The reader cannot know yet: what it sends is passed over.
    in_sync(world.sync(1, 0));
    for (from, to) in [(1, 0), (0, 1)] {
        for _ in 0..2 {
            world.write(0, books[0], Log::Changes);
            world.write(1, books[1], Log::Events);
            let both = in_sync(world.sync(from, to));
            assert_eq!(both.changes_sent + both.changes_received, 1, "{from} -> {to}: {both:?}");
            let idle = in_sync(world.sync(from, to));
            assert_eq!(costs(&idle), (1, 0, 0), "what was contained is not looked through again");
        }
    }
    assert_eq!(world.differing(), []);
    assert!(!world.devices[0].store.equals(&world.devices[1].store, books[0]));

    world.devices[0].store.lends_to.clear();
    in_sync(world.sync(1, 0));
    assert!(books.iter().all(|it| world.devices[0].store.equals(&world.devices[1].store, *it)));
}

#[test]
fn two_devices_that_lend_to_each_other_exchange_nothing() {
    let mut world = chain(2, RULES);
    for (at, other) in [(0, 1), (1, 0)] {
        let key = world.devices[other].store.key;
        world.devices[at].store.lends_to.insert(key);
        world.write(at, world.documents[at], Log::Changes);
    }
    in_sync(world.sync(0, 1));
    assert_eq!(costs(&in_sync(world.sync(0, 1))), (1, 0, 0));
    assert_eq!(world.devices[0].store.tips(world.documents[1]).len(), 0);
}

#[test]
fn what_two_devices_learned_elsewhere_is_not_sent_between_them() {
    let mut world = World::new(1, RULES, 3, vec![(0, 1), (1, 2), (2, 0)]);
    world.write(0, world.documents[0], Log::Changes);
    for (one, other) in [(0, 1), (0, 2), (1, 2), (2, 1)] {
        in_sync(world.sync(one, other));
    }
    world.tally.changes_sent = 0;
    world.write(0, world.documents[0], Log::Changes);
    in_sync(world.sync(0, 1));
    in_sync(world.sync(0, 2));
    assert_eq!(world.tally.changes_sent, 2);

    let report = in_sync(world.sync(2, 1));
    assert_eq!(report.changes_received, 0, "its summary says that it has everything");
}

#[test]
fn a_first_sync_that_is_killed_goes_on_where_it_was() {
    const CHANGES: u64 = 100;
    // Statements where pieces end, so that no piece is closed beyond its end.
    let mut world = chain(2, Rules { piece_max: 10, multiple: 10, ..RULES });
    for _ in 0..CHANGES {
        world.write(0, world.documents[0], Log::Changes);
    }
    for kill in 0..5 {
        world.start(1, 0);
        for _ in 0..10 + 7 * kill {
            world.step(0.0);
        }
        world.kill(1);
        world.settle();
    }
    in_sync(world.sync(1, 0));
    let sent = world.tally.changes_sent;
    assert!((CHANGES..=CHANGES + 5 * 10).contains(&sent), "{sent} of {CHANGES} were sent");
}

#[test]
fn one_book_of_a_thousand_that_went_missing_is_found_and_nothing_else_is_sent() {
    let mut world = chain(2, Rules { piece_max: 100_000, ..RULES });
    for number in 0..1_000 {
        world.write(0, document(number), Log::Changes);
        world.write(0, document(number), Log::Events);
    }
    in_sync(world.sync(0, 1));
    let lost = document(500);
    world.devices[1].store.purge(&world.ledger, lost);

    let report = in_sync(world.sync(1, 0));
    assert_eq!(report.documents_differing, 1);
    assert_eq!((report.changes_sent, report.changes_received), (0, 2));
    // Marks, ranges, vectors, and marks again.
    assert_eq!(report.round_trips, 4);
}

/// Device 0 is linked with 1 and 2, and both with each other. Its folder goes back unnoticed after it
/// wrote for 1, and it writes something else for 2.
fn forked() -> (World, DocumentId) {
    let mut world = World::new(1, RULES, 3, vec![(0, 1), (0, 2), (1, 2)]);
    let book = world.documents[0];
    for _ in 0..300 {
        world.write(0, book, Log::Changes);
    }
    in_sync(world.sync(0, 1));
    in_sync(world.sync(0, 2));
    let earlier = world.devices[0].store.clone();
    for _ in 0..100 {
        world.write(0, book, Log::Changes);
    }
    in_sync(world.sync(0, 1));
    world.devices[0].store = earlier;
    for _ in 0..150 {
        world.write(0, book, Log::Changes);
    }
    in_sync(world.sync(0, 2));
    (world, book)
}

#[test]
fn a_fork_that_marks_bring_is_shown_to_who_brought_it() {
    let (mut world, book) = forked();
    world.write(1, world.documents[1], Log::Changes);

    in_sync(world.sync(1, 2));
    for at in [1, 2] {
        assert!(world.devices[at].store.paused.contains(&book), "{at}");
    }
    let other = world.documents[1];
    assert!(world.devices[1].store.equals(&world.devices[2].store, other), "other books go on");
    assert_eq!(costs(&in_sync(world.sync(1, 2))), (1, 0, 0));
}

#[test]
fn who_went_back_unnoticed_is_told_by_the_next_peer_and_begins_a_new_generation() {
    let (mut world, book) = forked();
    let generation = world.devices[0].store.generation;

    in_sync(world.sync(0, 1));
    for at in [0, 1] {
        assert!(world.devices[at].store.paused.contains(&book), "{at}");
    }
    assert_ne!(world.devices[0].store.generation, generation);
}

#[test]
fn a_fork_below_the_marks_is_found_by_halving_and_named() {
    let (mut world, book) = forked();
    world.devices[2].store.removed.insert(book);
    in_sync(world.sync(1, 2));
    assert_eq!(world.devices[1].store.paused.len(), 0, "marks have passed over the book");
    world.devices[2].store.removed.clear();

    let report = in_sync(world.sync(1, 2));
    assert_eq!(world.forked, [(1, 301)], "the first number at which the chains differ");
    for at in [1, 2] {
        assert!(world.devices[at].store.paused.contains(&book), "{at}");
    }
    // Halving 400 takes 9; the rest are marks before and after, ranges, and vectors twice.
    assert!(report.round_trips <= 9 + 8, "{report:?}");
}

#[test]
fn a_removed_book_is_not_sent_and_comes_back_when_it_is_added_again() {
    let mut world = chain(2, RULES);
    let book = world.documents[0];
    in_sync(world.sync(0, 1));
    world.devices[1].store.removed.insert(book);
    world.write(0, book, Log::Changes);
    in_sync(world.sync(0, 1));
    world.write(0, book, Log::Changes);
    assert_eq!(in_sync(world.sync(0, 1)).changes_sent, 0, "the list was kept");

    world.devices[1].store.removed.clear();
    let report = in_sync(world.sync(1, 0));
    assert_eq!(report.changes_received, 2);
    assert_eq!(costs(&in_sync(world.sync(1, 0))), (1, 0, 0));
}

#[test]
fn a_restored_device_gets_back_what_came_from_itself() {
    let mut world = chain(2, RULES);
    let book = world.documents[0];
    let backup = world.devices[0].store.back_up(&world.ledger);
    for _ in 0..3 {
        world.write(0, book, Log::Changes);
    }
    in_sync(world.sync(0, 1));
    world.devices[0].store.restore(&backup, 1);

    let report = in_sync(world.sync(0, 1));
    assert_eq!(report.changes_received, 3, "echo is suppressed for the present generation only");
    world.write(0, book, Log::Changes);
    assert_eq!(costs(&in_sync(world.sync(0, 1))), (1, 1, 0));
    assert_eq!(world.devices[1].store.paused.len(), 0, "no actor has two histories");
}

#[test]
fn a_lost_response_costs_whoever_sent_it_one_more_round_trip() {
    let mut world = chain(2, RULES);
    let book = world.documents[0];
    in_sync(world.sync(0, 1));
    world.write(1, book, Log::Changes);
    world.start(0, 1);
    while world.devices[0].store.named.is_empty() && !world.lose_a_response() {
        world.step(0.0);
    }
    world.settle();
    assert_eq!(world.devices[0].store.named.len(), 0, "the response never came");

    let report = in_sync(world.sync(1, 0));
    assert_eq!(costs(&report), (2, 1, 0), "it was taken as received, and is sent once more");
    assert_eq!(report.documents_differing, 0, "nothing had to be searched");
}

#[test]
fn a_folder_that_went_back_below_its_peers_mark_begins_again_once() {
    let mut world = chain(2, Rules { piece_max: 1, multiple: 1, ..RULES });
    let [book, removed] = [world.documents[0], world.documents[1]];
    world.devices[1].store.removed.insert(removed);
    for _ in 0..5 {
        world.write(0, book, Log::Changes);
    }
    in_sync(world.sync(0, 1));
    let earlier = world.devices[0].store.clone();
    for _ in 0..10 {
        world.write(0, removed, Log::Changes);
    }
    in_sync(world.sync(0, 1));
    world.devices[0].store = earlier;

    let report = in_sync(world.sync(0, 1));
    assert_eq!(report.changes_sent, 5, "the peer's mark is above the end: {report:?}");
    assert_eq!(costs(&in_sync(world.sync(0, 1))), (1, 0, 0));
}

#[test]
fn a_removed_book_that_was_forgotten_is_listed_again() {
    let mut world = chain(2, RULES);
    let book = world.documents[0];
    in_sync(world.sync(0, 1));
    world.devices[1].store.removed.insert(book);
    let earlier = world.devices[1].store.clone();
    world.write(0, book, Log::Changes);
    in_sync(world.sync(0, 1));
    world.write(0, book, Log::Changes);
    in_sync(world.sync(0, 1));
    world.devices[1].store = earlier;
    assert_eq!(world.devices[1].store.named.len(), 0, "it never heard of the book");

    // The peer still leaves the book out, and the mark passes over it.
    in_sync(world.sync(1, 0));
    assert_eq!(costs(&in_sync(world.sync(1, 0))), (1, 0, 0));
}

#[test]
fn a_book_that_is_missed_in_pieces_is_searched_once() {
    let mut world = chain(2, Rules { piece_max: 10, multiple: 10, ..RULES });
    let book = world.documents[0];
    for _ in 0..50 {
        world.write(0, book, Log::Changes);
    }
    in_sync(world.sync(0, 1));
    world.devices[1].store.purge(&world.ledger, book);

    let report = in_sync(world.sync(1, 0));
    // Marks, ranges, five vectors, and marks again.
    assert_eq!((report.documents_differing, report.round_trips), (1, 8), "{report:?}");
    assert_eq!(report.changes_received, 50);
}
