//! Reading what an account has.

use super::*;
use catchword_model::change::read::read;
use catchword_model::position::{Furthest, Intent};

pub(crate) async fn a_page_ends_where_an_entry_ended(ledgers: Ledgers) {
    let anna = ledgers.account("pages").await;
    let mut phone = Device::new(1);
    let mut known = BTreeSet::new();
    let mut ends = vec![0];
    for size in [3, 1, 4, 2] {
        for n in 0..size {
            phone.annotate(doc(1), &format!("{size} {n}"));
        }
        let entry = phone.entry(doc(1), &known, 0);
        let pushed = anna.push(std::slice::from_ref(&entry)).await;
        assert_eq!(Some(&pushed.before), ends.last());
        ends.push(pushed.cursor);
        known = phone.history(doc(1)).changes().map(|change| change.hash().0).collect();
    }
    assert_eq!(ends, [0, 3, 4, 8, 10]);

    for (after, limit, cursor) in [
        (0, 1, 3),
        (0, 3, 3),
        (0, 4, 4),
        (0, 5, 8),
        (0, 500, 10),
        (3, 1, 4),
        (4, 1, 8),
        (10, 9, 10),
    ] {
        let page = anna.page(after, limit).await;
        assert_eq!((page.cursor, page.end), (cursor, 10), "after {after}, {limit}");
        let numbers = page.records.iter().map(|record| record.number);
        assert!(numbers.eq(after + 1..=cursor), "after {after}, {limit}");
    }
    let beyond = anna.page(99, 5).await;
    assert_eq!((beyond.records.len(), beyond.cursor, beyond.end), (0, 99, 10));
}

pub(crate) async fn a_record_of_the_feed_is_known_by_its_tag(ledgers: Ledgers) {
    let anna = ledgers.account("tags").await;
    let mut phone = Device::new(1);
    let mut known = BTreeSet::new();
    let mut tags = vec![None];
    for size in [2, 1, 3] {
        for n in 0..size {
            phone.annotate(doc(1), &format!("{size} {n}"));
        }
        let entry = phone.entry(doc(1), &known, 0);
        let pushed = anna.push(std::slice::from_ref(&entry)).await;
        assert_eq!(pushed.before_tag, *tags.last().unwrap());
        tags.extend(std::iter::repeat_n(pushed.tag, size));
        known = phone.history(doc(1)).changes().map(|change| change.hash().0).collect();
        // What writes nothing draws none.
        let again = anna.push(&[entry]).await;
        assert_eq!((again.before_tag, again.tag), (pushed.tag, pushed.tag));
    }
    let distinct: BTreeSet<_> = tags.iter().flatten().map(|tag| tag.0).collect();
    assert_eq!((tags.len(), distinct.len()), (7, 3), "one for each call that writes");

    for (after, limit, cursor) in [(0, 1, 2), (2, 1, 3), (3, 9, 6), (0, 9, 6), (6, 9, 6)] {
        let page = anna.page(after, limit).await;
        assert_eq!((page.cursor, page.tag), (cursor, tags[usize::try_from(cursor).unwrap()]));
        assert!(!page.reset);
    }
    assert_eq!(anna.page(99, 9).await.tag, None);
    let is_there = async |number: u64, tag: FeedTag| {
        anna.ledger.knows(anna.account, Anchor { number, tag }).await.unwrap()
    };
    for number in 1..=6 {
        let tag = tags[usize::try_from(number).unwrap()].unwrap();
        assert!(is_there(number, tag).await, "{number}");
        let mut other = tag;
        other.0[7] ^= 1;
        assert!(!is_there(number, other).await, "{number}");
    }
    assert!(!is_there(3, tags[1].unwrap()).await && !is_there(7, tags[6].unwrap()).await);
    let bert = ledgers.account("tags of another").await;
    let anchor = Anchor { number: 1, tag: tags[1].unwrap() };
    assert!(!bert.ledger.knows(bert.account, anchor).await.unwrap());
}

pub(crate) async fn a_page_is_covered_by_its_own_statements(ledgers: Ledgers) {
    let anna = ledgers.account("covered").await;
    let (mut phone, mut tablet) = (Device::new(1), Device::new(2));
    let first = phone.annotate(doc(1), "one");
    phone.give(doc(1), &mut tablet);
    tablet.annotate(doc(1), "two");
    tablet.annotate(doc(1), "three");
    phone.read(book(1));
    let relayed = tablet.entry(doc(1), &BTreeSet::new(), 0);
    let known = BTreeSet::from([first.hash().0]);
    let events = phone.entry(doc(1), &known, 0);
    anna.push(&[relayed.clone(), events]).await;

    let page = anna.page(0, 500).await;
    let stated: Vec<_> =
        page.records.iter().map(|record| statements_of(record).is_some()).collect();
    assert_eq!(stated, [true, false, true, true]);
    for record in &page.records {
        let Some(statement) = statements_of(record) else { continue };
        assert!(statement.about(record.document).is_valid());
    }
    let bytes = page.records.iter().filter_map(change_bytes).map(|(bytes, _)| bytes.clone());
    assert_eq!(bytes.collect::<Vec<_>>(), relayed.changes);
}

pub(crate) async fn a_page_has_at_most_some_bytes_and_always_an_entry(ledgers: Ledgers) {
    let anna = ledgers.account("large pages").await;
    let mut phone = Device::new(1);
    let mut known = BTreeSet::new();
    for n in 0..4 {
        let text = n.to_string().repeat(3 << 20);
        let change = phone.write(doc(1), &[titled(&text)]);
        let outcome = anna.push_one(&phone.entry(doc(1), &known, n)).await;
        assert!(matches!(outcome, Outcome::Accepted(_)), "{n}");
        known.insert(change.hash().0);
    }
    let mut cursors = Vec::new();
    let mut after = 0;
    while after < 4 {
        let page = anna.page(after, 500).await;
        let bytes =
            |record: &FeedRecord| change_bytes(record).map_or(0, |(bytes, _)| bytes.0.len());
        let bytes: usize = page.records.iter().map(bytes).sum();
        assert!(bytes < 7 << 20, "{bytes}");
        cursors.push(page.cursor);
        after = page.cursor;
    }
    assert_eq!(cursors, [2, 4]);
    let found = read(&change_bytes(&anna.page(3, 1).await.records[0]).unwrap().0.0).unwrap();
    assert_eq!(found.hash().0, *known.iter().find(|hash| **hash == found.hash().0).unwrap());
}

pub(crate) async fn books_are_listed_with_place_and_counts(ledgers: Ledgers) {
    let anna = ledgers.account("books").await;
    let mut phone = Device::new(1);
    let far = |ppm| Edit::SetFurthest {
        pass: 1,
        furthest: Furthest { locator: catchword_model::locator::Locator::new(), ppm },
    };
    let mut entries = Vec::new();
    for number in 1..=5 {
        phone.turn(doc(number), stamp(u64::from(number)), (Intent::Advance, 1, 1_000));
        phone.write(doc(number), &[far(2_000 + u32::from(number))]);
        phone.read(book(number));
        entries.push(phone.entry(doc(number), &BTreeSet::new(), 0));
    }
    let notes = DocumentName::Notes(book(1));
    let library = DocumentName::Library;
    let hold = Edit::AddHold { book: book(1) };
    phone.write(library, &[hold]);
    entries.push(phone.entry(library, &BTreeSet::new(), 0));
    anna.push(&entries).await;

    let all = anna.ledger.books(anna.account, None, 9).await.unwrap();
    assert_eq!((all.books.len(), all.next), (5, None));
    let third = anna.ledger.book(anna.account, book(3)).await.unwrap().unwrap();
    assert_eq!(third, all.books[2]);
    assert_eq!((third.version, third.events, third.furthest_ppm), (2, 1, Some(2_003)));
    let place = third.place.unwrap();
    assert_eq!((place.device, place.ppm, place.pass), (phone.id, 1_000, 1));
    assert_eq!((place.stamp, place.locator.as_str()), (stamp(3).packed(), "{}"));

    let two = anna.ledger.books(anna.account, None, 2).await.unwrap();
    assert_eq!((two.books.as_slice(), two.next), (&all.books[..2], Some(book(2))));
    let rest = anna.ledger.books(anna.account, two.next, 3).await.unwrap();
    assert_eq!((rest.books.as_slice(), rest.next), (&all.books[2..], None));
    let library = catchword_model::id::BookId(library.id().0);
    assert_eq!(anna.ledger.book(anna.account, library).await.unwrap(), None);
    let notes = catchword_model::id::BookId(notes.id().0);
    assert_eq!(anna.ledger.book(anna.account, notes).await.unwrap(), None);
}
