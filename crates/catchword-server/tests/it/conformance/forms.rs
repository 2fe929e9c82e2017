//! What counts, and what does not.

use super::*;
use catchword_model::change::{Action, Draft, Key, Object, Op, OpId, Scalar};
use catchword_model::exchange::Signed;
use catchword_model::genesis::{SCHEMA_KEY, genesis};
use catchword_model::id::{ActorId, Author, BookId};
use catchword_model::schema::DocumentKind;
use catchword_proto::cloud::api::{DOCUMENTS_MAX, EntryKey};

pub(super) fn nothing() -> BTreeSet<[u8; 32]> {
    BTreeSet::new()
}

pub(super) fn refused(reason: Reason, hash: Option<[u8; 32]>) -> Outcome {
    Outcome::Refused { reason, hash: hash.map(Hash) }
}

pub(crate) async fn an_entry_that_lacks_something_says_what(ledgers: Ledgers) {
    let anna = ledgers.account("lacks").await;
    let mut phone = Device::new(1);
    let first = phone.annotate(doc(1), "one");
    let second = phone.annotate(doc(1), "two");
    let third = phone.annotate(doc(1), "three");
    let later = phone.entry_of(doc(1), 0, &[second.clone(), third.clone()], &[]);

    let lacks = |missing: Vec<_>| Outcome::Incomplete {
        missing,
        missing_events: Vec::new(),
        uncovered: Vec::new(),
    };
    let outcome = anna.push_one(&later).await;
    let Outcome::Incomplete { missing, .. } = outcome else { panic!("{outcome:?}") };
    assert_eq!(missing, {
        let mut all = vec![first.hash(), second.hash()];
        all.sort_unstable();
        all
    });
    // Behind what it builds on it must stand, too.
    let reversed = phone.entry_of(doc(1), 0, &[third, second.clone(), first.clone()], &[]);
    assert!(matches!(anna.push_one(&reversed).await, Outcome::Incomplete { .. }));
    assert_eq!(anna.end().await, 0);

    let only = phone.entry_of(doc(1), 0, std::slice::from_ref(&second), &[]);
    assert_eq!(anna.push_one(&only).await, lacks(vec![first.hash()]));
    let entry = phone.entry_of(doc(1), 0, &[first], &[]);
    assert!(matches!(anna.push_one(&entry).await, Outcome::Accepted(_)));
    assert!(matches!(anna.push_one(&later).await, Outcome::Rebased(_)));
    assert_eq!(anna.end().await, 3);
}

pub(crate) async fn an_entry_without_a_statement_says_so(ledgers: Ledgers) {
    let anna = ledgers.account("statements").await;
    let mut phone = Device::new(1);
    let first = phone.annotate(doc(1), "one");
    let second = phone.annotate(doc(1), "two");
    let event = phone.read(book(1));
    let whole = phone.entry(doc(1), &nothing(), 0);

    let none = Entry { statements: Vec::new(), ..whole.clone() };
    let outcome = anna.push_one(&none).await;
    let Outcome::Incomplete { uncovered, .. } = outcome else { panic!("{outcome:?}") };
    let mut expected = vec![Hash(second.hash().0), Hash(event.hash().0)];
    expected.sort_unstable();
    assert_eq!(uncovered, expected);

    // One of an earlier change, and one of another number, cover nothing.
    let earlier = phone.sign_change(doc(1), &first);
    let wrong = phone.sign(doc(1), Signed::Event { n: 2 }, second.hash().0);
    for statement in [earlier, wrong] {
        let statements = vec![statement, phone.sign_event(&event)];
        let outcome = anna.push_one(&Entry { statements, ..whole.clone() }).await;
        let Outcome::Incomplete { uncovered, .. } = outcome else { panic!("{outcome:?}") };
        assert_eq!(uncovered, [Hash(second.hash().0)]);
    }
    assert_eq!(anna.end().await, 0);
    assert!(matches!(anna.push_one(&whole).await, Outcome::Accepted(_)));
}

pub(crate) async fn an_entry_counts_as_a_whole_or_not_at_all(ledgers: Ledgers) {
    let anna = ledgers.account("whole").await;
    let (mut phone, mut tablet) = (Device::new(1), Device::new(2));
    let good = phone.annotate(doc(1), "good");
    let mut draft = tablet.annotate(doc(1), "bad").draft().clone();
    draft.start_op += 1;
    let bad = draft.encode();
    let mut entry = phone.entry_of(doc(1), 0, &[good.clone(), bad.clone()], &[]);
    entry.statements.push(tablet.sign_change(doc(1), &bad));

    let other = tablet.annotate(doc(2), "in the same batch");
    let beside = tablet.entry_of(doc(2), 0, &[other], &[]);
    let again = phone.entry_of(doc(1), 0, &[good], &[]);
    let answered = anna.push(&[entry, beside, again]).await;

    assert_eq!(answered.answers[0].outcome, refused(Reason::Rule, Some(bad.hash().0)));
    assert!(matches!(answered.answers[1].outcome, Outcome::Accepted(_)));
    // What came to nothing left nothing: the same change is new.
    let Outcome::Accepted(receipt) = &answered.answers[2].outcome else { panic!("{answered:?}") };
    assert_eq!((receipt.version, answered.cursor), (1, 2));
    assert_eq!(anna.feed().await.len(), 2);
}

pub(crate) async fn what_is_wrong_is_refused_with_the_reason(ledgers: Ledgers) {
    let anna = ledgers.account("wrong").await;
    let mut phone = Device::new(1);
    let change = phone.annotate(doc(1), "one");
    let event = phone.read(book(1));
    let good = phone.entry(doc(1), &nothing(), 0);
    let hash = change.hash().0;

    let mut forged = good.clone();
    forged.statements[0].signature[5] ^= 1;
    let mut broken = good.changes[0].clone();
    broken.0[20] ^= 1;
    let mut too_many = good.statements.clone();
    too_many.extend(good.statements.clone());
    let genesis = Blob(genesis(DocumentKind::Book).bytes().to_vec());
    let cut = Blob(event.encode()[1..].to_vec());
    let empty = Entry { changes: Vec::new(), events: Vec::new(), ..good.clone() };
    for (entry, outcome) in [
        (Entry { key: EntryKey([0; 32]), ..good.clone() }, refused(Reason::Key, None)),
        (keyed(empty), refused(Reason::Empty, None)),
        (Entry { statements: too_many, ..good.clone() }, refused(Reason::Statements, None)),
        (forged, refused(Reason::Signature, Some(hash))),
        (keyed(Entry { changes: vec![broken], ..good.clone() }), refused(Reason::Unreadable, None)),
        (keyed(Entry { events: vec![cut], ..good.clone() }), refused(Reason::Event, None)),
        (keyed(Entry { document: doc(2), ..good.clone() }), refused(Reason::Event, None)),
        (
            keyed(Entry { changes: vec![genesis.clone()], events: Vec::new(), ..good.clone() }),
            refused(Reason::Statements, None),
        ),
        (
            keyed(Entry { changes: vec![genesis], statements: Vec::new(), ..good.clone() }),
            refused(
                Reason::Rule,
                Some(catchword_model::genesis::genesis(DocumentKind::Book).hash().0),
            ),
        ),
    ] {
        assert_eq!(anna.push_one(&entry).await, outcome);
    }
    // A change of one book is none of another.
    let elsewhere = Entry { events: Vec::new(), document: doc(2), statements: Vec::new(), ..good };
    assert_eq!(anna.push_one(&keyed(elsewhere)).await, refused(Reason::Rule, Some(hash)));
    assert_eq!(anna.end().await, 0);
    assert_eq!(anna.push(&[]).await.cursor, 0);
}

pub(crate) async fn events_follow_one_another(ledgers: Ledgers) {
    let anna = ledgers.account("events").await;
    let (mut phone, mut tablet) = (Device::new(1), Device::new(2));
    let [first, second, third] = [(); 3].map(|()| phone.read(book(1)));

    let gap = anna.push_one(&phone.entry_of(doc(1), 0, &[], &[second, third])).await;
    let Outcome::Incomplete { missing_events, .. } = gap else { panic!("{gap:?}") };
    let mut expected = vec![first.hash(), second.hash()];
    expected.sort_unstable();
    assert_eq!(missing_events, expected);

    let outcome = anna.push_one(&phone.entry_of(doc(1), 0, &[], &[first, second])).await;
    let Outcome::Accepted(receipt) = outcome else { panic!("{outcome:?}") };
    assert_eq!((receipt.version, receipt.place), (0, None), "events are no changes");
    // An event that names another chain's event does not follow it.
    let mut stray = tablet.read(book(1));
    (stray.n, stray.before) = (2, first.hash());
    let outcome = anna.push_one(&tablet.entry_of(doc(1), 0, &[], &[stray])).await;
    assert_eq!(outcome, refused(Reason::Event, Some(stray.hash().0)));
    let outcome = anna.push_one(&phone.entry_of(doc(1), 0, &[], &[first, second, third])).await;
    assert!(matches!(outcome, Outcome::Accepted(_)));
    let events = anna.feed().await;
    let events = events.iter().filter(|record| matches!(record.record, Record::Event { .. }));
    assert_eq!(events.count(), 3);
    let book = anna.ledger.book(anna.account, book(1)).await.unwrap().unwrap();
    assert_eq!((book.version, book.events, book.place), (0, 3, None));
}

/// Two devices wrote a book answering each other, and a third one brings it: no part of it ends at
/// statements in both chains, so all of it is one entry.
pub(crate) async fn chains_that_interleave_all_the_way_are_one_entry(ledgers: Ledgers) {
    const CHANGES: usize = 6_000;
    let anna = ledgers.account("interleaved").await;
    let mut devices = [Device::new(1), Device::new(2)];
    let mut all = Vec::new();
    for n in 0..CHANGES {
        let [one, other] = &mut devices;
        let (from, to) = if n % 2 == 0 { (one, other) } else { (other, one) };
        let change = from.write(doc(1), &[titled(&n.to_string())]);
        to.history(doc(1)).admit(change.clone());
        all.push(change);
    }
    let ends = [&all[CHANGES - 2], &all[CHANGES - 1]];
    let statements = std::iter::zip(&devices, ends);
    let entry = keyed(Entry {
        statements: statements.map(|(of, end)| of.sign_change(doc(1), end)).collect(),
        changes: all.iter().map(|change| Blob(change.bytes().to_vec())).collect(),
        ..Device::new(3).entry_of(doc(1), 0, &[], &[])
    });

    assert_eq!(receipt(&anna.push_one(&entry).await).version, CHANGES as u64);
    let page = anna.page(0, 10).await;
    assert_eq!((page.records.len(), page.cursor), (CHANGES, CHANGES as u64), "it is not cut");
}

pub(crate) async fn every_kind_of_document_is_taken(ledgers: Ledgers) {
    let anna = ledgers.account("kinds").await;
    let mut phone = Device::new(1);
    phone.write(DocumentName::Library, &[Edit::AddHold { book: book(1) }]);
    let gone = phone.write(DocumentName::Library, &[Edit::RemoveHold { book: book(1) }]);
    let library = phone.entry(DocumentName::Library, &nothing(), 0);
    let notes = DocumentName::Notes(book(1));
    let (first, second) = journal(&phone, notes);
    let entries = [library, phone.entry_of(notes, 0, &[first], &[])];
    for answer in anna.push(&entries).await.answers {
        assert!(matches!(answer.outcome, Outcome::Accepted(_)), "{:?}", answer.outcome);
    }
    // What a change names in its past is found again.
    let entry = phone.entry_of(notes, 1, &[second], &[]);
    assert!(matches!(anna.push_one(&entry).await, Outcome::Accepted(_)));
    assert_eq!(anna.end().await, 4);
    assert_eq!(gone.seq, 2);
    assert_eq!(anna.ledger.books(anna.account, None, 9).await.unwrap().books, []);
}

/// Two changes of a journal: three characters, then the middle one deleted.
fn journal(
    device: &Device,
    notes: DocumentName,
) -> (catchword_model::change::Change, catchword_model::change::Change) {
    let author = Author { device: device.id, n: device.n };
    let actor = author.actor(notes.id());
    let first = genesis(DocumentKind::Notes);
    let journal = Object::Made(OpId { counter: 2, actor: first.actor });
    let start_op = first.max_op() + 1;
    let element = |counter| OpId { counter: start_op + counter, actor };
    let insert = |key, text: &str| Op {
        object: journal,
        key,
        insert: true,
        action: Action::Put(Scalar::Text(text.to_owned())),
        predecessors: Vec::new(),
    };
    let ops = vec![
        insert(Key::Head, "a"),
        insert(Key::Element(element(0)), "b"),
        insert(Key::Element(element(1)), "c"),
    ];
    let one = Draft {
        actor,
        seq: 1,
        start_op,
        time: 0,
        message: String::new(),
        dependencies: vec![first.hash()],
        author: Some(author),
        ops,
    }
    .encode();
    let delete = Op {
        object: journal,
        key: Key::Element(element(1)),
        insert: false,
        action: Action::Delete,
        predecessors: vec![element(1)],
    };
    let two = Draft {
        seq: 2,
        start_op: start_op + 3,
        dependencies: vec![one.hash()],
        author: None,
        ops: vec![delete],
        ..one.draft().clone()
    };
    (one, two.encode())
}

/// Returns the upgrade to a schema above `below`, which wrote the schema in `schema_op`.
pub(super) fn upgrade(
    schema: u32,
    below: &catchword_model::change::Change,
    schema_op: OpId,
) -> catchword_model::change::Change {
    let at_root = |key: &str, action, predecessors| Op {
        object: Object::Root,
        key: Key::Map(key.to_owned()),
        insert: false,
        action,
        predecessors,
    };
    let ops = vec![
        at_root(SCHEMA_KEY, Action::Put(Scalar::Int(i64::from(schema))), vec![schema_op]),
        at_root(&format!("made by {schema}"), Action::MakeMap, Vec::new()),
    ];
    Draft {
        actor: ActorId::of_schema(schema),
        seq: 1,
        start_op: below.max_op() + 1,
        time: 0,
        message: String::new(),
        dependencies: vec![below.hash()],
        author: None,
        ops,
    }
    .encode()
}

pub(crate) async fn an_upgrade_needs_no_statement_and_makes_containers(ledgers: Ledgers) {
    let anna = ledgers.account("upgrades").await;
    let mut phone = Device::new(1);
    let first = genesis(DocumentKind::Book);
    let op = |change: &catchword_model::change::Change| OpId {
        counter: change.start_op,
        actor: change.actor,
    };
    let second = upgrade(2, first, op(first));
    let third = upgrade(3, &second, op(&second));
    let skipped = upgrade(4, &second, op(&second));

    let alone = |changes: &[_]| Device::new(9).entry_of(doc(1), 0, changes, &[]);
    let outcome = anna.push_one(&alone(std::slice::from_ref(&skipped))).await;
    assert!(matches!(outcome, Outcome::Incomplete { .. }));
    let outcome = anna.push_one(&alone(std::slice::from_ref(&second))).await;
    assert!(matches!(outcome, Outcome::Accepted(_)), "{outcome:?}");
    let outcome = anna.push_one(&alone(std::slice::from_ref(&skipped))).await;
    assert_eq!(outcome, refused(Reason::Rule, Some(skipped.hash().0)));
    let outcome = anna.push_one(&alone(std::slice::from_ref(&third))).await;
    assert!(matches!(outcome, Outcome::Rebased(_)), "{outcome:?}");

    // A write into what the upgrade made: the container is found in the past.
    for change in [&second, &third] {
        phone.history(doc(1)).admit(change.clone());
    }
    let author = Author { device: phone.id, n: 0 };
    let actor = author.actor(doc(1).id());
    let write = |container: u64| Draft {
        actor,
        seq: 1,
        start_op: third.max_op() + 1,
        time: 0,
        message: String::new(),
        dependencies: vec![third.hash()],
        author: Some(author),
        ops: vec![Op {
            object: Object::Made(OpId { counter: container, actor: second.actor }),
            key: Key::Map("k".to_owned()),
            insert: false,
            action: Action::Put(Scalar::Int(1)),
            predecessors: Vec::new(),
        }],
    };
    let no_container = write(second.start_op).encode();
    let outcome =
        anna.push_one(&phone.entry_of(doc(1), 2, std::slice::from_ref(&no_container), &[])).await;
    assert_eq!(outcome, refused(Reason::Rule, Some(no_container.hash().0)));
    let good = write(second.start_op + 1).encode();
    let outcome = anna.push_one(&phone.entry_of(doc(1), 2, &[good], &[])).await;
    assert!(matches!(outcome, Outcome::Accepted(_)), "{outcome:?}");
}

pub(crate) async fn a_document_has_at_most_so_many_actors(ledgers: Ledgers) {
    const ACTORS: u32 = 1_024;
    let anna = ledgers.account("actors").await;
    let mut changes = Vec::new();
    let mut statements = Vec::new();
    for n in 0..=ACTORS {
        let mut device = Device::new(1);
        device.n = n;
        let change = device.annotate(doc(1), &n.to_string());
        statements.push(device.sign_change(doc(1), &change));
        changes.push(Blob(change.bytes().to_vec()));
    }
    let entry = |range: std::ops::Range<usize>| {
        keyed(Entry {
            changes: changes[range.clone()].to_vec(),
            statements: statements[range].to_vec(),
            ..Device::new(1).entry_of(doc(1), 0, &[], &[])
        })
    };
    for start in [0, 500] {
        let outcome = anna.push_one(&entry(start..start + 500)).await;
        assert_eq!(receipt(&outcome).version, start as u64 + 500);
    }
    let last = ACTORS as usize;
    assert_eq!(anna.push_one(&entry(1_000..last + 1)).await, refused(Reason::TooManyActors, None));
    assert_eq!(receipt(&anna.push_one(&entry(1_000..last)).await).version, u64::from(ACTORS));
    let one_more = anna.push_one(&entry(last..last + 1)).await;
    assert_eq!(one_more, refused(Reason::TooManyActors, None));
    // Those that are there go on.
    let mut device = Device::new(1);
    device.annotate(doc(1), "0");
    device.annotate(doc(1), "more");
    let outcome = anna.push_one(&device.entry(doc(1), &nothing(), 0)).await;
    assert_eq!(receipt(&outcome).version, u64::from(ACTORS) + 1);
}

pub(crate) async fn an_account_has_at_most_so_many_documents(ledgers: Ledgers) {
    let anna = ledgers.account("documents").await;
    let mut phone = Device::new(1);
    let name = |n: u64| {
        let mut id = [0; 32];
        id[..8].copy_from_slice(&n.to_be_bytes());
        DocumentName::Book(BookId(id))
    };
    let mut entries = Vec::new();
    for n in 0..DOCUMENTS_MAX {
        let change = phone.write(name(n), &[titled("x")]);
        entries.push(phone.entry_of(name(n), 0, &[change], &[]));
        if entries.len() == 500 {
            let answered = anna.push(&std::mem::take(&mut entries)).await;
            assert_eq!(answered.cursor, n + 1);
        }
        if n % 1_000 == 0 {
            phone = Device::new(1);
        }
    }
    let change = phone.write(name(DOCUMENTS_MAX), &[titled("x")]);
    let one_more = phone.entry_of(name(DOCUMENTS_MAX), 0, &[change], &[]);
    assert_eq!(anna.push_one(&one_more).await, refused(Reason::TooManyDocuments, None));
    let known = phone.write(name(DOCUMENTS_MAX - 1), &[titled("y")]);
    let there = phone.entry_of(name(DOCUMENTS_MAX - 1), 1, &[known], &[]);
    assert!(matches!(anna.push_one(&there).await, Outcome::Accepted(_)));
}

/// Changes of three devices, some of them spoilt, in the order in which they come: the ledger says of
/// each what the plain history says.
pub(crate) async fn the_ledger_admits_what_a_history_admits(ledgers: Ledgers) {
    use catchword_model::change::past::Judgement;
    use rand::{RngExt as _, SeedableRng as _};

    let mut tally = [0_u32; 4];
    for seed in 0..30_u64 {
        let anna = ledgers.account(&format!("histories {seed}")).await;
        let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(seed);
        let mut devices: Vec<Device> = (1..=3).map(Device::new).collect();
        let mut plain = catchword_model::history::History::new(DocumentKind::Book, doc(1).id());
        for step in 0..25 {
            let (who, whom) = (rng.random_range(0..3), rng.random_range(0..3));
            let text = format!("{step}");
            let edit = match rng.random_range(0..3) {
                0 => titled(&text),
                1 => Edit::AddTag { tag: text },
                _ => Edit::SetTotal { name: "turns".to_owned(), value: step },
            };
            let change = devices[who].write(doc(1), &[edit]);
            let change = spoil(&mut rng, change);
            let statement = devices[who].sign_change(doc(1), &change);
            let entry = keyed(Entry {
                statements: vec![statement],
                ..devices[who].entry_of(doc(1), 0, std::slice::from_ref(&change), &[])
            });
            let expected = plain.admit(change.clone());
            let outcome = anna.push_one(&entry).await;
            match (&expected, &outcome) {
                (Judgement::Admitted, Outcome::Accepted(_) | Outcome::Rebased(_)) => tally[0] += 1,
                (Judgement::Missing(missing), Outcome::Incomplete { missing: named, .. })
                    if missing == named =>
                {
                    tally[1] += 1;
                }
                (Judgement::Refused(_), Outcome::Refused { reason: Reason::Rule, .. }) => {
                    tally[2] += 1;
                }
                (Judgement::Refused(_), Outcome::Refused { reason: Reason::Fork, .. }) => {
                    tally[3] += 1;
                }
                _ => panic!("seed {seed}, step {step}: {expected:?} but {outcome:?}"),
            }
            if who != whom {
                let mut from = devices[who].clone();
                from.give(doc(1), &mut devices[whom]);
            }
        }
        let book = anna.ledger.book(anna.account, book(1)).await.unwrap();
        let version = plain.changes().count() as u64 - 1;
        assert_eq!(book.map_or(0, |book| book.version), version);
    }
    assert!(tally.iter().take(3).all(|count| 20 < *count), "each happens: {tally:?}");
}

fn spoil(
    rng: &mut rand_chacha::ChaCha8Rng,
    change: catchword_model::change::Change,
) -> catchword_model::change::Change {
    use rand::RngExt as _;

    let mut draft = change.draft().clone();
    match rng.random_range(0..24) {
        0 => draft.start_op += 1,
        1 => draft.seq += 1,
        2 => draft.author = draft.author.map(|author| Author { n: 9, ..author }),
        3 => draft.ops[0].predecessors.push(OpId { counter: 4_000, actor: draft.actor }),
        4 => draft.ops[0].action = Action::Delete,
        _ => return change,
    }
    draft.encode()
}
