//! Two histories of one writer.

use super::*;
use catchword_model::change::{Change, Key, OpId};
use catchword_model::event::ReadingEvent;
use catchword_model::genesis::genesis;
use catchword_model::hlc::Hlc;
use catchword_model::locator::Locator;
use catchword_model::position::{Furthest, Intent};
use catchword_model::schema::DocumentKind;

/// A device and its copy, which went different ways: who counts, and who does not.
struct Cloned {
    /// What both have.
    common: Change,
    winner: Device,
    loser: Device,
    /// What each wrote alone.
    won: Vec<Change>,
    lost: Vec<Change>,
}

/// Copies a device that wrote something, and lets both go on, each in the way that is given.
fn cloned(mut go_on: impl FnMut(&mut Device, u8) -> Vec<Change>) -> Cloned {
    let mut phone = Device::new(1);
    let common = phone.annotate(doc(1), "common");
    let mut copy = phone.clone();
    let (one, other) = (go_on(&mut phone, 1), go_on(&mut copy, 2));
    if one[0].hash() < other[0].hash() {
        Cloned { common, winner: phone, loser: copy, won: one, lost: other }
    } else {
        Cloned { common, winner: copy, loser: phone, won: other, lost: one }
    }
}

fn two_each(device: &mut Device, way: u8) -> Vec<Change> {
    ["one", "two"].map(|quote| device.annotate(doc(1), &format!("{quote}, way {way}"))).into()
}

/// Returns the hashes of what is said to be void in so many words.
fn notices(feed: &[FeedRecord]) -> Vec<[u8; 32]> {
    let notice = |record: &FeedRecord| match &record.record {
        Record::Void { hash } => Some(hash.0),
        Record::Change { .. } | Record::Event { .. } => None,
    };
    feed.iter().filter_map(notice).collect()
}

fn verdicts(feed: &[FeedRecord]) -> Vec<Verdict> {
    feed.iter().filter_map(change_bytes).map(|(_, verdict)| verdict).collect()
}

fn hashes(changes: &[Change]) -> Vec<[u8; 32]> {
    changes.iter().map(|change| change.hash().0).collect()
}

pub(crate) async fn of_two_histories_of_a_writer_the_one_with_the_smaller_hash_counts(
    ledgers: Ledgers,
) {
    use Verdict::{Accepted, Void};
    let Cloned { common, mut winner, mut loser, won, lost } = cloned(two_each);
    let known = BTreeSet::from([common.hash().0]);

    let late = ledgers.account("the loser comes late").await;
    late.push(&[winner.entry(doc(1), &nothing(), 0)]).await;
    let outcome = late.push_one(&loser.entry(doc(1), &known, 3)).await;
    assert!(matches!(outcome, Outcome::Rebased(_)), "{outcome:?}");
    assert_eq!(
        (receipt(&outcome).version, &receipt(&outcome).verdicts[..]),
        (5, &[Void, Void][..])
    );
    let feed = late.feed().await;
    assert_eq!(verdicts(&feed), [Accepted, Accepted, Accepted, Void, Void]);
    assert_eq!(notices(&feed), <[[u8; 32]; 0]>::default(), "it never counted");

    let early = ledgers.account("the loser comes first").await;
    early.push(&[loser.entry(doc(1), &nothing(), 0)]).await;
    let pushed = early.push(&[winner.entry(doc(1), &known, 3)]).await;
    let outcome = &pushed.answers[0].outcome;
    assert!(matches!(outcome, Outcome::Rebased(_)), "there is something to be read: {outcome:?}");
    assert_eq!(receipt(outcome).verdicts, [Accepted, Accepted]);
    assert_eq!((pushed.before, pushed.cursor), (7, 7), "whoever is not there must read it");
    let feed = early.feed().await;
    assert_eq!(verdicts(&feed), [Accepted, Void, Void, Accepted, Accepted]);
    assert_eq!(notices(&feed), hashes(&lost));
    let versions: Vec<u64> = feed.iter().map(|record| record.version).collect();
    assert_eq!(versions, [1, 2, 3, 4, 5, 5, 5]);
    assert!(feed.iter().map(|record| record.number).eq(1..=7));
    // A page may end between what counts and the notices.
    assert_eq!((early.page(3, 2).await.cursor, early.page(5, 1).await.cursor), (5, 6));

    for anna in [late, early] {
        let end = anna.end().await;
        let again = anna.push_one(&loser.entry(doc(1), &nothing(), 0)).await;
        assert_eq!(receipt(&again).verdicts, [Accepted, Void, Void]);
        let again = anna.push_one(&winner.entry(doc(1), &nothing(), 0)).await;
        assert_eq!(receipt(&again).verdicts, [Accepted; 3]);
        assert_eq!(anna.end().await, end, "nothing of it is new");

        // Both go on, and somebody builds on each of them.
        for (device, before, expected) in [(&winner, &won, Accepted), (&loser, &lost, Void)] {
            let mut device = device.clone();
            let more = device.annotate(doc(1), "three");
            let mut tablet = Device::new(2);
            device.give(doc(1), &mut tablet);
            tablet.annotate(doc(1), "on top");
            let known: BTreeSet<_> =
                known.iter().copied().chain(hashes(before)).chain([more.hash().0]).collect();
            let outcome = anna.push_one(&device.entry_of(doc(1), 0, &[more], &[])).await;
            assert_eq!(receipt(&outcome).verdicts, [expected]);
            let outcome = anna.push_one(&tablet.entry(doc(1), &known, 0)).await;
            assert_eq!(receipt(&outcome).verdicts, [expected]);
        }
        let book = anna.ledger.book(anna.account, book(1)).await.unwrap().unwrap();
        assert_eq!(book.version, 9);
    }
}

pub(crate) async fn a_second_history_that_nobody_signed_changes_nothing(ledgers: Ledgers) {
    let anna = ledgers.account("unsigned").await;
    let Cloned { common, mut winner, mut loser, won, .. } = cloned(two_each);
    anna.push(&[loser.entry(doc(1), &nothing(), 0)]).await;
    let before = anna.feed().await;
    let known = BTreeSet::from([common.hash().0]);
    let whole = winner.entry(doc(1), &known, 3);

    let none = Entry { statements: Vec::new(), ..whole.clone() };
    // One of the first covers the first alone.
    let short = Entry { statements: vec![winner.sign_change(doc(1), &won[0])], ..whole.clone() };
    for entry in [none, short] {
        let outcome = anna.push_one(&entry).await;
        assert_eq!(outcome, refused(Reason::Fork, Some(won[0].hash().0)));
    }
    let mut forged = whole.clone();
    forged.statements[0].signature[5] ^= 1;
    let outcome = anna.push_one(&forged).await;
    assert_eq!(outcome, refused(Reason::Signature, Some(won[1].hash().0)));
    // What lacks something says so.
    let gap = winner.entry_of(doc(1), 3, &won[1..], &[]);
    let outcome = anna.push_one(&gap).await;
    assert!(matches!(outcome, Outcome::Incomplete { .. }), "{outcome:?}");
    assert_eq!(anna.feed().await, before);

    let more = loser.annotate(doc(1), "more");
    let none = Entry { statements: Vec::new(), ..whole.clone() };
    let answers = anna.push(&[none, loser.entry_of(doc(1), 3, &[more], &[])]).await.answers;
    assert_eq!(answers[0].outcome, refused(Reason::Fork, Some(won[0].hash().0)));
    let outcome = &answers[1].outcome;
    assert!(matches!(outcome, Outcome::Accepted(_)), "{outcome:?}");
    assert_eq!(receipt(outcome).verdicts, [Verdict::Accepted]);
    let outcome = anna.push_one(&whole).await;
    assert_eq!(receipt(&outcome).verdicts, [Verdict::Accepted; 2]);
    assert_eq!(notices(&anna.feed().await).len(), 3);
}

pub(crate) async fn what_builds_on_a_void_branch_is_judged_by_its_own_past(ledgers: Ledgers) {
    // Each writes something else with the operation of the same number, and then over it.
    let Cloned { mut winner, loser, won, lost, .. } = cloned(|device, way| {
        let first = if way == 1 { titled("x") } else { Edit::AddTag { tag: "y".to_owned() } };
        let again = if way == 1 { titled("z") } else { Edit::RemoveTag { tag: "y".to_owned() } };
        vec![device.write(doc(1), &[first]), device.write(doc(1), &[again])]
    });
    assert_eq!(won[0].start_op, lost[0].start_op);
    let over = &lost[1].ops[0].predecessors;
    assert_eq!(over, &[OpId { counter: lost[0].start_op, actor: lost[0].actor }]);

    let anna = ledgers.account("own past").await;
    anna.push(&[winner.entry(doc(1), &nothing(), 0)]).await;
    for change in &lost {
        let entry = loser.entry_of(doc(1), 0, std::slice::from_ref(change), &[]);
        assert_eq!(receipt(&anna.push_one(&entry).await).verdicts, [Verdict::Void]);
    }
    // What breaks a rule is refused there, too.
    let mut draft = lost[1].draft().clone();
    (draft.seq, draft.start_op, draft.dependencies) =
        (draft.seq + 1, draft.start_op + 1, vec![lost[1].hash()]);
    let mut late = draft.clone();
    late.start_op += 1;
    // It names what the other branch wrote.
    let mut foreign = draft.clone();
    foreign.ops = won[1].ops.clone();
    for draft in [late, foreign] {
        let broken = draft.encode();
        let entry = loser.entry_of(doc(1), 0, std::slice::from_ref(&broken), &[]);
        let outcome = anna.push_one(&entry).await;
        assert_eq!(outcome, refused(Reason::Rule, Some(broken.hash().0)));
    }
}

pub(crate) async fn of_two_histories_in_one_call_one_counts(ledgers: Ledgers) {
    use Verdict::{Accepted, Void};
    let Cloned { common, mut winner, mut loser, won, lost } = cloned(two_each);
    let known = BTreeSet::from([common.hash().0]);

    // In two entries: the first is in the feed already.
    let anna = ledgers.account("two entries").await;
    let entries = [loser.entry(doc(1), &nothing(), 0), winner.entry(doc(1), &known, 0)];
    let pushed = anna.push(&entries).await;
    assert_eq!(receipt(&pushed.answers[0].outcome).verdicts, [Accepted; 3]);
    assert_eq!(receipt(&pushed.answers[1].outcome).verdicts, [Accepted; 2]);
    let feed = anna.feed().await;
    assert_eq!(verdicts(&feed), [Accepted, Void, Void, Accepted, Accepted]);
    assert_eq!((notices(&feed), pushed.before), (hashes(&lost), pushed.cursor));

    // In one entry, the loser before or behind: nothing to take back.
    for (name, first, second) in [("before", &lost, &won), ("behind", &won, &lost)] {
        let anna = ledgers.account(&format!("one entry, {name}")).await;
        let all: Vec<Change> =
            [std::slice::from_ref(&common), first, second].concat().into_iter().collect();
        let mut entry = winner.entry_of(doc(1), 0, &all, &[]);
        entry.statements = [&won[1], &lost[1]].map(|end| winner.sign_change(doc(1), end)).into();
        let outcome = anna.push_one(&entry).await;
        let expected = if name == "before" {
            [Accepted, Void, Void, Accepted, Accepted]
        } else {
            [Accepted, Accepted, Accepted, Void, Void]
        };
        assert_eq!(receipt(&outcome).verdicts, expected);
        let feed = anna.feed().await;
        assert_eq!((verdicts(&feed), notices(&feed)), (expected.into(), Vec::new()));
        // Each branch needs a statement of its own.
        let anna = ledgers.account(&format!("one entry, {name}, half")).await;
        entry.statements.truncate(1);
        let outcome = anna.push_one(&entry).await;
        assert_eq!(outcome, refused(Reason::Fork, Some(second[0].hash().0)));
        assert_eq!(anna.end().await, 0);
        let outcome = anna.push_one(&loser.entry(doc(1), &nothing(), 0)).await;
        assert_eq!(receipt(&outcome).verdicts, [Accepted; 3], "nothing is left of it");
    }
}

fn far(ppm: u32) -> Edit {
    Edit::SetFurthest { pass: 2, furthest: Furthest { locator: Locator::new(), ppm } }
}

pub(crate) async fn the_place_is_folded_again_of_what_is_left(ledgers: Ledgers) {
    let anna = ledgers.account("folded again").await;
    let (mut phone, mut tablet) = (Device::new(1), Device::new(2));
    tablet.turn(doc(1), stamp(10), (Intent::Advance, 2, 500_000));
    phone.turn_having_seen(doc(1), stamp(20), (Intent::Advance, 2, 600_000), stamp(10));
    phone.write(doc(1), &[far(600_000)]);
    let mut copy = phone.clone();
    let first = tablet.entry(doc(1), &nothing(), 0);
    anna.push(&[first, phone.entry(doc(1), &nothing(), 1)]).await;
    let shown = |book: Option<catchword_proto::cloud::api::Book>| {
        let book = book.unwrap();
        (book.place.map(|place| (place.device, place.ppm)), book.furthest_ppm)
    };
    let common = shown(anna.ledger.book(anna.account, book(1)).await.unwrap());
    assert_eq!(common, (Some((phone.id, 600_000)), Some(600_000)));

    // One goes back without knowing of the tablet, which withdraws everything of the device so far; then
    // on to the end of the book. The other only writes, until it has the smaller hash.
    let first = phone.turn_having_seen(doc(1), stamp(30), (Intent::Rewind, 2, 100), Hlc::ZERO);
    phone.write(doc(1), &[far(900_000)]);
    let known: BTreeSet<_> = copy.history(doc(1)).changes().map(|change| change.hash().0).collect();
    let outcome = anna.push_one(&phone.entry(doc(1), &known, 3)).await;
    assert_eq!(receipt(&outcome).verdicts, [Verdict::Withdrawn, Verdict::Accepted]);
    let lost = shown(anna.ledger.book(anna.account, book(1)).await.unwrap());
    assert_eq!(lost, (Some((tablet.id, 500_000)), Some(900_000)));

    let smaller = (0..100).find_map(|n| {
        let mut copy = copy.clone();
        let change = copy.annotate(doc(1), &n.to_string());
        (change.hash() < first.hash()).then_some(copy)
    });
    copy = smaller.unwrap();
    let outcome = anna.push_one(&copy.entry(doc(1), &known, 5)).await;
    let place = receipt(&outcome).place.as_ref().map(|place| (place.device, place.ppm));
    assert_eq!(place, common.0, "the answer has the place that is left");
    assert_eq!(shown(anna.ledger.book(anna.account, book(1)).await.unwrap()), common);
    // It is what the next one is compared with.
    let ahead = copy.turn_having_seen(doc(1), stamp(40), (Intent::Advance, 2, 700_000), stamp(10));
    let outcome = anna.push_one(&copy.entry_of(doc(1), 6, &[ahead], &[])).await;
    assert_eq!(receipt(&outcome).verdicts, [Verdict::Accepted]);
    let place = receipt(&outcome).place.as_ref().map(|place| place.ppm);
    assert_eq!(place, Some(700_000));
}

pub(crate) async fn of_two_histories_of_events_one_counts(ledgers: Ledgers) {
    let mut phone = Device::new(1);
    phone.read(book(1));
    let mut copy = phone.clone();
    let one = [phone.read_for(book(1), 61), phone.read_for(book(1), 62)];
    let other = [copy.read_for(book(1), 71), copy.read_for(book(1), 72)];
    let mut both = [(phone, one), (copy, other)];
    both.sort_unstable_by_key(|(_, events)| events[0].hash());
    let [(mut winner, won), (mut loser, lost)] = both;
    let known = |device: &mut Device| -> BTreeSet<[u8; 32]> {
        let entry = device.entry(doc(1), &nothing(), 0);
        BTreeSet::from([ReadingEvent::decode(&entry.events[0].0).unwrap().hash().0])
    };
    let gone: Vec<[u8; 32]> = lost.iter().map(|event| event.hash().0).collect();
    let counted = async |anna: &Ledgers| {
        anna.ledger.book(anna.account, book(1)).await.unwrap().unwrap().events
    };

    let early = ledgers.account("events: the loser first").await;
    early.push(&[loser.entry(doc(1), &nothing(), 0)]).await;
    let known = known(&mut winner);
    let mut unsigned = winner.entry(doc(1), &known, 0);
    unsigned.statements.clear();
    let outcome = early.push_one(&unsigned).await;
    assert_eq!(outcome, refused(Reason::Fork, Some(won[0].hash().0)));
    assert_eq!((early.end().await, counted(&early).await), (3, 3));
    let pushed = early.push(&[winner.entry(doc(1), &known, 0)]).await;
    assert!(matches!(pushed.answers[0].outcome, Outcome::Rebased(_)), "{pushed:?}");
    assert_eq!((pushed.before, pushed.cursor), (7, 7));

    let late = ledgers.account("events: the loser last").await;
    late.push(&[winner.entry(doc(1), &nothing(), 0)]).await;
    late.push(&[loser.entry(doc(1), &known, 0)]).await;

    for anna in [early, late] {
        assert_eq!(notices(&anna.feed().await), gone);
        assert_eq!(counted(&anna).await, 3);
        let mut more = loser.clone();
        let event = more.read_for(book(1), 80);
        anna.push(&[more.entry_of(doc(1), 0, &[], &[event])]).await;
        assert_eq!(notices(&anna.feed().await)[2..], [event.hash().0]);
        let mut more = winner.clone();
        let event = more.read_for(book(1), 80);
        anna.push(&[more.entry_of(doc(1), 0, &[], &[event])]).await;
        assert_eq!((anna.end().await, counted(&anna).await), (10, 4));
    }
}

/// Nobody signs an upgrade, so nothing proves another one.
pub(crate) async fn an_upgrade_has_no_second_form(ledgers: Ledgers) {
    let anna = ledgers.account("second form").await;
    let first = genesis(DocumentKind::Book);
    let second = upgrade(2, first, OpId { counter: first.start_op, actor: first.actor });
    let mut draft = second.draft().clone();
    draft.ops[1].key = Key::Map("made otherwise".to_owned());
    let other = draft.encode();
    let alone =
        |change: &Change| Device::new(9).entry_of(doc(1), 0, std::slice::from_ref(change), &[]);
    assert!(matches!(anna.push_one(&alone(&second)).await, Outcome::Accepted(_)));
    let outcome = anna.push_one(&alone(&other)).await;
    assert_eq!(outcome, refused(Reason::Fork, Some(other.hash().0)));
    assert_eq!(anna.end().await, 1);
}
