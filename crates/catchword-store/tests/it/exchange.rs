//! Devices that give each other what they have: by marks in the order of receipt, through a third, in
//! pieces, and with losses.

use catchword_model::id::{BookId, DocumentId};
use catchword_store::{
    Bounds, Evidence, Exclusions, Given, Heard, PARKED_MAX, Received, Said, Statement, Store,
};

use crate::exchange_support::{Device, exchange_options, give, reconcile, sync};
use crate::oracle::everything;
use crate::support::{BOOK, MONDAY_MS, annotate, titled, turn};

fn assert_equal(devices: &[&Device]) {
    let first = everything(&devices[0].store);
    for device in devices {
        assert_eq!(everything(&device.store), first, "device {}", device.number);
        for document in [DocumentId::library(), BOOK.document(), BOOK.notes_document()] {
            assert_eq!(device.heads(document), devices[0].heads(document));
        }
        assert_eq!(device.store.journal(BOOK).unwrap(), devices[0].store.journal(BOOK).unwrap());
        let events = |store: &Store| {
            let mut events = Vec::new();
            store.events(BOOK, |event| events.push(event)).unwrap();
            events.sort_by_key(|event| (event.actor, event.n));
            events
        };
        assert_eq!(events(&device.store), events(&devices[0].store));
        device.assert_clean();
    }
}

fn said(heard: Heard, exclusions: Option<Exclusions>) -> Said {
    Said { heard, exclusions }
}

/// How much waits, of which everything came on Monday.
fn waiting(device: &Device) -> u64 {
    let waiting = device.store.parked().unwrap();
    assert!(waiting.values().all(|waiting| waiting.since_ms == MONDAY_MS));
    waiting.values().map(|waiting| waiting.count).sum()
}

#[test]
fn a_chain_of_three_passes_everything_on() {
    let (a, b, c) = (Device::with_book(1), Device::empty(2), Device::empty(3));
    for n in 0..20 {
        a.write(&[annotate(n, 5)], n);
    }
    a.store.turn(BOOK, &turn(120_000), MONDAY_MS).unwrap();
    a.store.publish(BOOK).unwrap();
    a.store.set_journal(BOOK, "a whale", MONDAY_MS).unwrap();
    // The name of the device, the title, 20 annotations, a position, the journal.
    let made = 24;

    let [there, back] = sync(&a, &b);
    assert_eq!((there.changes, there.events, there.pieces), (made, 1, 1));
    assert_eq!((back.changes, back.events), (1, 0), "its own name, and no echo");
    let [there, back] = sync(&b, &c);
    assert_eq!((there.changes, there.events), (made + 1, 1));
    assert_eq!((back.changes, back.events), (1, 0));
    give(&b, &a);

    assert_equal(&[&a, &b, &c]);
    assert_eq!(a.sum_towards(&b), b.sum_towards(&a));
    assert_eq!(b.sum_towards(&c), c.sum_towards(&b));
    let [there, back] = sync(&a, &b);
    assert_eq!((there.changes, back.changes), (0, 0));
    eprintln!("{} bytes for {made} changes and an event", there.bytes);
}

#[test]
fn pieces_of_one_change_bring_everything() {
    let (a, b) = (Device::with_book(1), Device::empty(2));
    a.store.set_exchange_options(exchange_options(2, 1, 1));
    b.store.set_exchange_options(exchange_options(2, 1, 1));
    for n in 0..30 {
        a.write(&[annotate(n, 5)], n);
    }
    let [there, _] = sync(&a, &b);
    give(&b, &a);
    assert!(10 < there.pieces, "{there:?}");
    assert_eq!(there.added, 32);
    assert_equal(&[&a, &b]);
}

#[test]
fn books_of_a_library_travel_with_their_notes() {
    let (a, b) = (Device::empty(1), Device::empty(2));
    for n in 0..50 {
        let book = BookId([n; 32]);
        a.store.add_book(book, titled("A book"), Vec::new(), MONDAY_MS).unwrap();
        a.store.set_journal(book, "words", MONDAY_MS).unwrap();
    }
    sync(&a, &b);
    assert_eq!(a.sum_towards(&b), b.sum_towards(&a));
    assert_eq!(b.store.books().unwrap().len(), 50);
    assert_eq!(b.store.journal(BookId([7; 32])).unwrap(), "words");
    b.assert_clean();
}

#[test]
fn what_was_lost_is_found_by_ranges_and_vectors() {
    let (a, b) = (Device::with_book(1), Device::empty(2));
    for n in 0..10 {
        a.write(&[annotate(n, 5)], n);
    }
    // The mark moves and the piece is lost: no honest peer does that, and nothing depends on it.
    let lost = a.collect(&b, 0);
    let nothing = catchword_model::exchange::Piece::default().encode();
    b.apply(&a, &nothing, Some(lost.bounds));
    sync(&a, &b);
    assert_ne!(a.sum_towards(&b), b.sum_towards(&a));

    assert_eq!(reconcile(&a, &b), 1);
    assert_equal(&[&a, &b]);
}

/// What a sync would do that remembers how late the newest change was that it saw.
fn give_by_watermark(from: &Device, to: &Device, watermark: i64) {
    let mut late = Vec::new();
    from.store
        .changes(BOOK.document(), |change| {
            if watermark < change.time {
                late.push(Received { document: BOOK.document(), bytes: change.bytes().to_vec() });
            }
        })
        .unwrap();
    to.store.receive(&late).unwrap();
}

#[test]
fn a_watermark_of_times_loses_what_was_made_before_and_came_later() {
    let (a, b, c) = (Device::with_book(1), Device::empty(2), Device::empty(3));
    sync(&a, &b);
    sync(&b, &c);
    a.write(&[annotate(1, 5)], 1_000);
    b.write(&[annotate(2, 6)], 5_000);
    let mut watermark = 0;
    b.store.changes(BOOK.document(), |change| watermark = watermark.max(change.time)).unwrap();
    sync(&b, &c);
    sync(&a, &b);
    assert_eq!(b.store.book(BOOK).unwrap().unwrap().annotations, 2);

    give_by_watermark(&b, &c, watermark);
    assert_eq!(c.store.book(BOOK).unwrap().unwrap().annotations, 1, "a change of Monday is lost");
    sync(&b, &c);
    assert_eq!(c.store.book(BOOK).unwrap().unwrap().annotations, 2, "marks find it");
    give(&b, &a);
    assert_equal(&[&a, &b, &c]);
}

#[test]
fn statements_are_kept_at_multiples_and_the_newest_and_passed_on() {
    let (a, b, c) = (Device::with_book(1), Device::empty(2), Device::empty(3));
    for device in [&a, &b, &c] {
        device.store.set_exchange_options(exchange_options(4, 1 << 20, 8));
    }
    for n in 0..10 {
        a.write(&[annotate(n, 5)], n);
        sync(&a, &b);
    }
    sync(&b, &c);
    for device in [&a, &b, &c] {
        let statements = device.store.statements(BOOK.document()).unwrap();
        let seqs: Vec<_> = statements.iter().map(|statement| statement.signed.number()).collect();
        assert_eq!(seqs, [4, 8, 11], "device {}", device.number);
        assert!(statements.iter().all(Statement::is_valid));
    }
}

#[test]
fn what_comes_before_what_it_builds_on_waits_for_it() {
    let (a, b) = (Device::with_book(1), Device::empty(2));
    let first = a.collect(&b, 0);
    a.write(&[annotate(1, 5)], 1);
    let second = a.collect(&b, first.bounds.through);
    a.write(&[annotate(2, 5)], 2);
    let third = a.collect(&b, second.bounds.through);

    for _ in 0..2 {
        let applied = b.apply(&a, &third.piece, None);
        assert_eq!((applied.changes_added, applied.parked), (0, 1));
    }
    let applied = b.apply(&a, &second.piece, None);
    assert_eq!((applied.changes_added, applied.parked), (0, 1));
    assert_eq!(waiting(&b), 2);
    let applied = b.apply(&a, &first.piece, Some(first.bounds));
    assert_eq!((applied.changes_added, applied.parked, applied.known), (4, 0, 0));
    assert_eq!((applied.mark, b.store.parked().unwrap().len()), (first.bounds.through, 0));
    // What was released came from `a`, whoever let it go: nothing goes back.
    assert_eq!(give(&b, &a).changes, 1);
    give(&a, &b);
    assert_equal(&[&a, &b]);
}

#[test]
fn parked_changes_have_a_limit_and_the_oldest_goes() {
    for max in [1, 2, 3] {
        let (a, b) = (Device::with_book(1), Device::empty(2));
        b.store.set_exchange_options(exchange_options(512, 1 << 20, max));
        let first = a.collect(&b, 0);
        let mut pieces = Vec::new();
        let mut mark = first.bounds.through;
        for n in 0..3 {
            a.write(&[annotate(n, 5)], n);
            let piece = a.collect(&b, mark);
            mark = piece.bounds.through;
            pieces.push(piece);
        }
        for piece in &pieces {
            b.apply(&a, &piece.piece, None);
        }
        let waits = waiting(&b);
        assert_eq!(waits, 3.min(max as u64), "of at most {max}");

        b.apply(&a, &first.piece, Some(first.bounds));
        sync(&a, &b);
        assert_equal(&[&a, &b]);
    }
}

#[test]
fn t_mal_4_a_flood_of_orphans_is_bounded_and_another_book_goes_on() {
    const MORE: u64 = 40;
    let (a, b) = (Device::with_book(1), Device::empty(2));
    let first = a.collect(&b, 0);
    for n in 0..PARKED_MAX as u64 + MORE {
        a.write(&[annotate(n, 5)], n);
    }
    // Everything but what it builds on, twice.
    for _ in 0..2 {
        let mut mark = first.bounds.through;
        loop {
            let piece = a.collect(&b, mark);
            let applied = b.apply(&a, &piece.piece, None);
            assert_eq!(applied.changes_added, 0);
            assert!(waiting(&b) <= PARKED_MAX as u64, "{} wait", waiting(&b));
            mark = piece.bounds.through;
            if !piece.more {
                break;
            }
        }
    }
    assert_eq!(waiting(&b), PARKED_MAX as u64);

    let other = BookId([8; 32]);
    b.store.add_book(other, titled("Another"), Vec::new(), MONDAY_MS).unwrap();
    b.store.append(other.document(), &[annotate(1, 5)], MONDAY_MS).unwrap();
    b.apply(&a, &first.piece, Some(first.bounds));
    sync(&a, &b);
    assert_equal(&[&a, &b]);
}

#[test]
fn a_mark_moves_only_where_it_continues() {
    let (a, b) = (Device::with_book(1), Device::empty(2));
    let piece = a.collect(&b, 0);
    let bounds = piece.bounds;
    let applied = b.apply(&a, &piece.piece, Some(Bounds { from: 1, ..bounds }));
    assert_eq!((applied.mark, b.mark_of(&a)), (0, 0), "something between is missing");
    let applied = b.apply(&a, &piece.piece, None);
    assert_eq!((applied.changes_added, applied.known, applied.mark), (0, 2, 0));
    let applied = b.apply(&a, &piece.piece, Some(bounds));
    assert_eq!((applied.known, applied.mark, b.mark_of(&a)), (2, bounds.through, bounds.through));
    b.apply(&a, &piece.piece, Some(Bounds { through: bounds.through - 1, ..bounds }));
    assert_eq!(b.mark_of(&a), bounds.through, "a mark does not go back");

    let beyond = a.collect(&b, bounds.end + 1);
    assert_eq!((beyond.bounds.from, beyond.changes), (0, 2), "a mark above the end is none");
    let (through, end) = (bounds.through - 1, bounds.end - 1);
    b.apply(&a, &piece.piece, Some(Bounds { from: 0, through, end }));
    assert_eq!(b.mark_of(&a), through, "unless the sender's order did");
}

#[test]
fn a_removed_book_is_not_exchanged_until_it_is_added_again() {
    let (a, b) = (Device::with_book(1), Device::empty(2));
    sync(&a, &b);
    b.store.remove(BOOK, MONDAY_MS).unwrap();
    a.write(&[annotate(1, 5)], 1);
    // The removed book is told by its MAC, and then neither side counts it.
    let excluded = b.towards(a.origin(), |peer| b.store.exclusions(peer).unwrap());
    assert_eq!(excluded.macs.len(), 2, "the book, and its notes");
    let heard = Heard { given: 5, holds: [7; 8], agreed: true, refuses: true };
    a.store.hear(b.origin(), &said(heard, Some(excluded.clone()))).unwrap();
    let local = a.towards(b.origin(), |peer| a.store.local(peer).unwrap());
    assert_eq!((local.held, local.heard), (excluded.digest(), heard));
    let known = a.store.peer_generation(b.fingerprint()).unwrap();
    assert_eq!(known, Some(b.store.generation()));
    sync(&a, &b);
    assert_eq!(b.store.heads(BOOK.document()).unwrap().map(|heads| heads.len()), Some(1));
    assert_ne!(a.heads(BOOK.document()), b.heads(BOOK.document()));
    assert_eq!(a.sum_towards(&b), b.sum_towards(&a));

    b.store.restore_removed(BOOK).unwrap();
    let excluded = b.towards(a.origin(), |peer| b.store.exclusions(peer).unwrap());
    assert!(excluded.macs.is_empty());
    a.store.hear(b.origin(), &said(Heard::default(), Some(excluded))).unwrap();
    assert_eq!(reconcile(&a, &b), 1);
    assert_equal(&[&a, &b]);
}

#[test]
fn a_peer_gets_and_brings_only_what_is_in_its_scope() {
    let (mut a, b) = (Device::with_book(1), Device::with_book(2));
    let other = BookId([8; 32]);
    for device in [&a, &b] {
        device.store.add_book(other, titled("Another"), Vec::new(), MONDAY_MS).unwrap();
    }
    a.scope = catchword_store::Scope::Books([BOOK].into());
    let [there, back] = sync(&a, &b);
    assert_eq!((there.changes, there.refused), (1, 0));
    // The library, and the other book.
    assert_eq!((back.changes, back.refused), (3, 2));
    let excluded = a.towards(b.origin(), |peer| a.store.exclusions(peer).unwrap());
    b.store.hear(a.origin(), &said(Heard::default(), Some(excluded))).unwrap();
    assert_eq!(a.heads(BOOK.document()), b.heads(BOOK.document()));
    assert_ne!(a.heads(other.document()), b.heads(other.document()));
    assert_eq!(a.sum_towards(&b), b.sum_towards(&a));

    // A book that is brought in vain is told of, though nobody has it here.
    let third = BookId([9; 32]);
    b.store.add_book(third, titled("A third"), Vec::new(), MONDAY_MS).unwrap();
    assert_eq!(give(&b, &a).refused, 1);
    let excluded = a.towards(b.origin(), |peer| a.store.exclusions(peer).unwrap());
    b.store.hear(a.origin(), &said(Heard::default(), Some(excluded))).unwrap();
    assert_eq!(a.sum_towards(&b), b.sum_towards(&a));
}

#[test]
fn the_witness_knows_of_everything_before_it_leaves() {
    for given in [false, true] {
        let (mut a, b) = (Device::with_book(1), Device::empty(2));
        let folder = a.folder.take().unwrap();
        let path = |name: &str| folder.path().join(name);
        drop(a.store);
        let old: Vec<_> = ["wal", "library"].map(|name| std::fs::read(path(name)).unwrap()).into();
        let options = crate::exchange_support::device_options(1);
        a.store = Store::open(folder.path(), &options).unwrap();
        a.write(&[annotate(1, 5)], 1);
        if given {
            a.collect(&b, 0);
        }
        drop(a.store);

        for (name, bytes) in ["wal", "library"].into_iter().zip(old) {
            std::fs::write(path(name), bytes).unwrap();
        }
        let store = Store::open(folder.path(), &options).unwrap();
        let expected = given.then_some(Evidence::Ahead);
        assert_eq!(store.opened().new_generation, expected);
    }
}

#[test]
fn a_compacted_log_is_sent_like_any_other_and_cut_where_blocks_straddle() {
    let (a, b, c) = (Device::with_book(1), Device::empty(2), Device::empty(3));
    let batch: Vec<_> = (0..3_000).map(|n| (BOOK.document(), vec![annotate(n, 5)])).collect();
    a.store.append_all(&batch, MONDAY_MS).unwrap();
    give(&a, &b);
    let loose = a.collect(&c, 0).piece.len();
    a.store.compact(&mut |_| std::ops::ControlFlow::Continue(())).unwrap();
    let blocks = a.collect(&c, 0);
    assert_eq!(blocks.changes, 3_002);
    assert_eq!(blocks.piece.len(), loose, "small blocks are packed anew");

    let middle = a.collect(&c, 1_500);
    // Local sequences up to 1,500 are two geneses, two names, and 1,496 annotations.
    assert_eq!(middle.changes, 1_504);
    a.store.set_exchange_options(exchange_options(64, 100_000, 8));
    c.store.set_exchange_options(exchange_options(64, 100_000, 8));
    assert!(1 < give(&a, &c).pieces);
    assert_eq!(a.heads(BOOK.document()), c.heads(BOOK.document()));
    eprintln!("3,000 changes: {loose} bytes");
}

#[test]
fn a_piece_that_continues_the_mark_leaves_nothing_waiting() {
    for interval in [2, 3, 5] {
        let (a, b, c) = (Device::with_book(1), Device::empty(2), Device::empty(3));
        for device in [&a, &b, &c] {
            device.store.set_exchange_options(exchange_options(interval, 1, 1));
        }
        // Each change builds on the other's before.
        for n in 0..12 {
            let device = if n % 2 == 0 { &a } else { &b };
            sync(&a, &b);
            device.write(&[annotate(n, 5)], n);
        }
        sync(&a, &b);
        let there = give(&a, &c);
        assert!(4 < there.pieces);
        assert_eq!((there.added, there.parked, there.refused), (15, 0, 0));
        give(&c, &a);
        give(&a, &b);
        assert_equal(&[&a, &b, &c]);
    }
}

#[test]
fn a_change_waits_for_what_another_writer_made_before_it() {
    let (a, b, c) = (Device::with_book(1), Device::empty(2), Device::empty(3));
    sync(&a, &b);
    let local = b.towards(c.origin(), |peer| b.store.local(peer).unwrap());
    assert!(!local.parked);
    let end = local.end;
    b.write(&[annotate(1, 5)], 1);
    let later = b.collect(&c, end);
    assert_eq!(later.changes, 1);

    let applied = c.apply(&b, &later.piece, None);
    assert_eq!((applied.changes_added, applied.parked, applied.refused.len()), (0, 1, 0));
    assert!(c.towards(b.origin(), |peer| c.store.local(peer).unwrap().parked));
    assert!(!c.towards(a.origin(), |peer| c.store.local(peer).unwrap().parked));
    let applied = c.apply(&a, &a.collect(&c, 0).piece, None);
    assert_eq!((applied.changes_added, applied.parked), (4, 0));
    // Whoever let it go, `b` brought it.
    assert_eq!(c.collect(&b, 0).changes, 4, "the names of three devices, and the title");
    assert_eq!(c.collect(&a, 0).changes, 2, "the name of this device, and what `b` wrote");
}

#[test]
fn what_a_peer_said_of_an_earlier_generation_is_forgotten() {
    let (mut a, b) = (Device::with_book(1), Device::empty(2));
    let heard = Heard { given: 5, holds: [7; 8], agreed: true, refuses: true };
    a.store.hear(b.origin(), &said(heard, None)).unwrap();
    b.apply(&a, &a.collect(&b, 0).piece, Some(a.collect(&b, 0).bounds));
    let folder = a.folder.take().unwrap();
    drop(a.store);
    std::fs::remove_file(folder.path().join("witness")).unwrap();
    a.store = Store::open(folder.path(), &crate::exchange_support::device_options(1)).unwrap();
    assert_eq!(a.store.opened().new_generation, Some(Evidence::NoWitness));

    let local = a.towards(b.origin(), |peer| a.store.local(peer).unwrap());
    assert_eq!(local.heard, Heard::default());
    // The marks of the new generation begin at 0, and its actor is another one of the same key.
    assert_eq!(b.mark_of(&a), 0);
    a.write(&[annotate(1, 5)], 1);
    sync(&a, &b);
    give(&b, &a);
    assert_equal(&[&a, &b]);
}

#[test]
fn what_closes_a_piece_is_not_sent_again_behind_it() {
    let [a, b, c, d] = [1, 2, 3, 4].map(Device::empty);
    let books: Vec<_> = (1..=30).map(|n| BookId([n; 32])).collect();
    for book in &books {
        a.store.add_book(*book, titled("Moby-Dick"), Vec::new(), MONDAY_MS).unwrap();
    }
    for book in &books {
        let batch: Vec<_> = (0..20).map(|n| (book.document(), vec![annotate(n, 5)])).collect();
        a.store.append_all(&batch, MONDAY_MS).unwrap();
    }
    // Whoever wrote it signs what each piece ends with, and needs nothing to close it.
    a.store.set_exchange_options(exchange_options(512, 10_000, 8));
    b.store.set_exchange_options(exchange_options(512, 10_000, 8));
    let all = 30 * 21 + 1;
    let first = give(&a, &b);
    assert_eq!((first.changes, first.added), (all, all));
    assert!(5 < first.pieces, "{first:?}");

    let (mut sent, mut pieces, mut given) = (0, 0, Given::default());
    loop {
        let piece = b.towards(c.origin(), |peer| {
            let after = c.mark_of(&b);
            b.store.collect_next(peer, after, &given, &b.key).unwrap()
        });
        let applied = c.apply(&b, &piece.piece, Some(piece.bounds));
        assert_eq!((applied.parked, applied.known), (0, 0));
        assert_eq!(applied.mark, piece.bounds.through);
        (sent, pieces, given) = (sent + piece.changes, pieces + 1, piece.given);
        if !piece.more {
            break;
        }
    }
    assert_eq!(sent, all + 1, "and the name of the second device");
    give(&c, &b);
    assert_eq!(reconcile(&b, &c), 0);
    // Who remembers nothing sends some of it again, and it is known.
    let again = give(&b, &d);
    assert!(sent < again.changes && again.added == sent + 1, "{again:?}");
    eprintln!("{sent} changes in {pieces} pieces, {} where nothing is remembered", again.changes);
}
