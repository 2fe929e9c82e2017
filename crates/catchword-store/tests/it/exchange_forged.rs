//! Peers that lie: what is forged is refused alike in every order, and two histories of one writer
//! pause their document.

use catchword_model::change::{Action, Change, Draft, Key as OpKey, Op, Scalar};
use catchword_model::exchange::{DocumentName, Parcel, Piece, Signed, Statement, head_message};
use catchword_model::id::{ActorId, Author, DeviceId, Generation};
use catchword_store::{Fate, Rejection, STAMP_AHEAD_MS, Signer, Spot, Store};

use crate::exchange_disk::Disk;
use crate::exchange_support::{Device, Key, differing, exchange_options, give, reconcile, sync};
use crate::forks::clones;
use crate::oracle::everything;
use crate::support::{BOOK, MONDAY_MS, annotate, titled};

fn changes(store: &Store) -> Vec<Change> {
    let mut changes = Vec::new();
    store.changes(BOOK.document(), |change| changes.push(change)).unwrap();
    changes
}

fn parcel(changes: &[Change], statements: Vec<Statement>) -> Parcel {
    let record = |change: &Change| [&[0], change.bytes()].concat();
    let runs = changes.iter().map(record).collect();
    Parcel { runs, statements, ..Parcel::new(DocumentName::Book(BOOK)) }
}

fn piece(changes: &[Change], statements: Vec<Statement>) -> Vec<u8> {
    Piece { parcels: vec![parcel(changes, statements)] }.encode()
}

fn signed(key: &Key, generation: Generation, change: &Change) -> Statement {
    let device = DeviceId::derive(key.public_key_spki(), generation);
    let (document, actor) = (BOOK.document(), Author { device, n: 0 }.actor(BOOK.document()));
    Statement {
        document,
        actor,
        n: 0,
        signed: Signed::Change { seq: change.seq },
        hash: change.hash().0,
        public_key_spki: key.public_key_spki().to_vec(),
        generation,
        signature: key.sign(&head_message(document, actor, change.seq, change.hash())),
    }
}

/// The same change with another value in its first operation.
fn altered(change: &Change) -> Change {
    let mut draft: Draft = (**change).clone();
    draft.ops[0].action = Action::Put(Scalar::Text("forged".to_owned()));
    draft.encode()
}

/// A change of `device` that nobody may make: it writes the position of another device.
fn misdeed(store: &Store, generation: Generation, key: &Key) -> Change {
    let device = DeviceId::derive(key.public_key_spki(), generation);
    let author = Author { device, n: 0 };
    let held = changes(store);
    let mut dependencies = store.heads(BOOK.document()).unwrap().unwrap();
    dependencies.sort();
    let positions = catchword_model::schema::Container::Positions.object();
    let op = Op {
        object: catchword_model::change::Object::Made(positions),
        key: OpKey::Map(DeviceId([9; 16]).to_string()),
        insert: false,
        action: Action::Put(Scalar::Text("{}".to_owned())),
        predecessors: Vec::new(),
    };
    let draft = Draft {
        actor: author.actor(BOOK.document()),
        seq: 1,
        start_op: held.iter().map(Change::max_op).max().unwrap() + 1,
        time: 1 << 20,
        message: String::new(),
        dependencies,
        author: Some(author),
        ops: vec![op],
    };
    draft.encode()
}

#[test]
fn what_is_forged_is_refused_alike_in_every_order() {
    let a = Device::with_book(1);
    for n in 0..3 {
        a.write(&[annotate(n, 5)], n);
    }
    let true_changes = changes(&a.store);
    let last = true_changes.last().unwrap();
    let liar = Device::empty(9);
    let generation = liar.store.generation();
    let forged = altered(last);
    let misdeed = misdeed(&a.store, generation, &liar.key);
    // In another's name without a signature, and with one that is not the other's.
    let unsigned = piece(std::slice::from_ref(&forged), Vec::new());
    let mut wrong = signed(&liar.key, generation, &forged);
    (wrong.public_key_spki, wrong.generation) =
        (a.key.public_key_spki().to_vec(), a.store.generation());
    let wrongly = piece(std::slice::from_ref(&forged), vec![wrong]);
    // In its own name, properly signed, and not allowed.
    let statement = signed(&liar.key, generation, &misdeed);
    let not_allowed = piece(std::slice::from_ref(&misdeed), vec![statement]);
    let lies = [unsigned, wrongly, not_allowed];

    let mut orders = 0;
    let mut ends = Vec::new();
    for first in 0..4 {
        for reversed in [false, true] {
            orders += 1;
            let b = Device::empty(2);
            let honest = a.collect(&b, 0);
            let mut deliveries: Vec<(&Device, &[u8])> =
                lies.iter().map(|lie| (&liar, lie.as_slice())).collect();
            deliveries.insert(first, (&a, &honest.piece));
            if reversed {
                deliveries.reverse();
            }
            for (from, bytes) in deliveries {
                let applied = b.apply(from, bytes, None);
                let expected = if from.number == 1 { 5 } else { 0 };
                let title_and_name = applied.changes_added;
                assert!(title_and_name == expected || from.number == 1, "{applied:?}");
                if from.number == 9 {
                    let fates: Vec<Fate> = applied.fates.iter().map(|(_, _, fate)| *fate).collect();
                    assert!(fates.iter().all(|fate| *fate != Fate::Added), "{fates:?}");
                    assert!(0 < applied.parked || !applied.refused.is_empty());
                }
            }
            // Everything true comes again, and decides about what waited.
            b.apply(&a, &a.collect(&b, 0).piece, Some(honest.bounds));
            assert_eq!(everything(&b.store), everything(&a.store));
            b.assert_clean();
            ends.push(b.heads(BOOK.document()));
            // In its own name, what is not allowed is named and keeps the liar away for a while.
            let lie = b.apply(&liar, &lies[2], None);
            assert!(matches!(lie.refused.as_slice(), [(_, _)]), "{:?}", lie.refused);
            assert_eq!(b.store.quarantines().unwrap().len(), 1);
        }
    }
    assert!(ends.iter().all(|heads| *heads == ends[0]));
    eprintln!("{orders} orders of lies");
}

#[test]
fn a_change_that_breaks_a_rule_is_refused_and_named() {
    let (a, b, liar) = (Device::with_book(1), Device::empty(2), Device::empty(9));
    sync(&a, &b);
    let generation = liar.store.generation();
    let misdeed = misdeed(&a.store, generation, &liar.key);
    // Something harmless of the same device builds on it.
    let mut next: Draft = (*misdeed).clone();
    (next.seq, next.author, next.start_op) = (2, None, misdeed.max_op() + 1);
    next.dependencies = vec![misdeed.hash()];
    let next = next.encode();
    let statement = signed(&liar.key, generation, &next);
    let applied = b.apply(&liar, &piece(&[misdeed.clone(), next.clone()], vec![statement]), None);

    assert_eq!((applied.changes_added, applied.parked), (0, 0));
    let [(_, Rejection::Refused { hash, .. }), (_, Rejection::BuildsOnRefused { on, .. })] =
        applied.refused.as_slice()
    else {
        panic!("{:?}", applied.refused)
    };
    assert_eq!((*hash, *on), (misdeed.hash(), misdeed.hash().0));
    assert_eq!(everything(&a.store), everything(&b.store));
    b.assert_clean();
    // The book is kept from the liar, and from nobody else.
    let quarantine = b.store.quarantines().unwrap().remove(0);
    assert_eq!((quarantine.peer, quarantine.book), (liar.fingerprint(), Some(BOOK)));
    assert!(quarantine.why.contains("what only another device may write"), "{}", quarantine.why);
    a.write(&[annotate(1, 5)], 1);
    assert_eq!(give(&a, &b).added, 1);
    assert_eq!(b.collect(&liar, 0).changes, 2, "the names of two devices");
}

#[test]
fn a_good_change_beside_a_refused_one_counts() {
    let (a, b, liar) = (Device::with_book(1), Device::empty(2), Device::empty(9));
    sync(&a, &b);
    a.write(&[annotate(1, 5)], 1);
    let held = changes(&a.store);
    let good = held.last().unwrap().clone();
    let statement = a
        .store
        .statements(BOOK.document())
        .unwrap()
        .into_iter()
        .chain([signed(&a.key, a.store.generation(), &good)])
        .collect::<Vec<_>>();
    let generation = liar.store.generation();
    let misdeed = misdeed(&b.store, generation, &liar.key);
    let mut statements = statement;
    statements.push(signed(&liar.key, generation, &misdeed));

    let applied = b.apply(&liar, &piece(&[misdeed, good], statements), None);
    assert_eq!((applied.changes_added, applied.refused.len()), (1, 1));
    assert_eq!(everything(&a.store), everything(&b.store));
    b.assert_clean();
}

fn spot(device: &Device, seq: u64) -> Spot {
    let author = Author { device: device.store.device(), n: 0 };
    (BOOK.document(), author.actor(BOOK.document()), Signed::Change { seq })
}

#[test]
fn histories_that_differ_are_found_by_vectors() {
    let lengths = [(0, 3), (3, 0), (2, 2), (0, 0)];
    let intervals = [2, 512];
    for (interval, (n_original, n_copy)) in
        intervals.into_iter().flat_map(|interval| lengths.map(|lengths| (interval, lengths)))
    {
        let (original, copy, third) = clones(false);
        for device in [&original, &copy, &third] {
            device.store.set_exchange_options(exchange_options(interval, 1 << 20, 8));
        }
        for n in 0..n_original {
            original.write(&[annotate(n, 5)], n);
        }
        for n in 0..n_copy {
            copy.write(&[annotate(10 + n, 5)], n);
        }
        give(&original, &third);
        let documents = differing(&copy, &third);
        // And the library document, where the third is named.
        assert!(documents.contains(&BOOK.document()));
        // Halving finds where they still agree.
        let spots: Vec<_> = (1..=3).map(|seq| spot(&copy, seq)).collect();
        let [ours, theirs] = [&copy, &third].map(|device| {
            device.towards(original.origin(), |peer| device.store.hashes(peer, &spots).unwrap())
        });
        assert_eq!(ours[0], theirs[0]);
        assert_ne!(ours[1], theirs[1]);
        assert_eq!(ours[2].is_some(), 0 < n_copy);
        let mut seen = false;
        for (from, to) in [(&copy, &third), (&third, &copy)] {
            let vectors = to.towards(from.origin(), |peer| to.store.vectors(peer, &documents));
            let piece = from.towards(to.origin(), |peer| {
                from.store.collect_for(peer, &vectors.unwrap(), &from.key).unwrap()
            });
            let applied = to.apply(from, &piece.piece, None);
            seen |= !applied.equivocations.is_empty();
        }
        assert!(seen, "{n_original} and {n_copy} changes behind the fork");
    }
}

#[test]
fn an_unsigned_double_is_refused_and_changes_nothing() {
    let (a, b, liar) = (Device::with_book(1), Device::empty(2), Device::empty(9));
    sync(&a, &b);
    let forged = altered(changes(&a.store).last().unwrap());
    let hash = forged.hash().0;
    let applied = b.apply(&liar, &piece(&[forged], Vec::new()), None);
    assert_eq!(applied.refused, [(BOOK.document(), Rejection::Unsigned { hash })]);
    assert!(b.store.pauses().unwrap().is_empty());
    assert_eq!(reconcile(&a, &b), 0);
}

#[test]
fn actors_of_a_stranger_are_not_invented() {
    let (a, b) = (Device::with_book(1), Device::empty(2));
    let held = changes(&a.store);
    let mut statement = signed(&a.key, a.store.generation(), held.last().unwrap());
    statement.n = 7;
    assert_ne!(statement.actor, ActorId([0; 16]));
    let applied = b.apply(&a, &piece(&held, vec![statement]), None);
    assert_eq!((applied.changes_added, applied.refused.len()), (0, 1));
}

#[test]
fn the_first_stamp_that_is_ahead_is_named_while_it_is() {
    for (ahead_ms, is_named) in [(STAMP_AHEAD_MS, false), (STAMP_AHEAD_MS + 1, true)] {
        let (a, b, c) = (Device::with_book(1), Device::empty(2), Device::empty(3));
        sync(&a, &b);
        a.write(&[annotate(1, 5)], ahead_ms);
        give(&a, &b);
        // Whoever has seen it goes on above it, and is not to blame.
        b.write(&[annotate(2, 5)], 0);
        give(&b, &c);
        for (device, from) in [(&b, &a), (&c, &b)] {
            let ahead = device.store.ahead(MONDAY_MS).unwrap();
            let named = ahead.map(|ahead| (ahead.device, ahead.brought_by, ahead.document));
            let expected = (a.store.device(), from.fingerprint(), BOOK.document());
            assert_eq!(named, is_named.then_some(expected));
            assert_eq!(device.store.ahead(MONDAY_MS + 1).unwrap(), None);
        }
    }
}

/// The own changes of a device in the book, with its statement about the last of them.
fn own_branch(device: &Device) -> (Vec<Change>, Vec<u8>) {
    let author = Author { device: device.store.device(), n: 0 };
    let mut own = changes(&device.store);
    own.retain(|change| change.actor == author.actor(BOOK.document()));
    let statement = signed(&device.key, device.store.generation(), own.last().unwrap());
    let piece = piece(&own, vec![statement]);
    (own, piece)
}

#[test]
fn of_two_branches_that_wait_each_is_tried() {
    let mut orders = [0, 0];
    for ppm in 1..=12 {
        let disk = Disk::default();
        let original = Device::on(1, &disk);
        original.store.add_book(BOOK, titled("Moby-Dick"), Vec::new(), MONDAY_MS).unwrap();
        original.store.drain().unwrap();
        let copy = Device::on(1, &disk.copy());
        let (other, third) = (Device::empty(2), Device::empty(3));
        sync(&original, &other);
        other.write(&[annotate(1, 5)], 1);
        give(&other, &original);
        original.write(&[annotate(2, ppm)], 2);
        copy.write(&[annotate(3, ppm)], 3);

        // What the first branch builds on never comes.
        let (lacking, lacking_piece) = own_branch(&original);
        let (whole, whole_piece) = own_branch(&copy);
        let count = whole.len() as u64;
        assert_eq!(lacking.len(), whole.len());
        assert_ne!(lacking.last(), whole.last());
        let first = third.apply(&original, &lacking_piece, None);
        assert_eq!((first.changes_added, first.parked), (0, count));
        let second = third.apply(&copy, &whole_piece, None);

        assert_eq!(second.changes_added, count, "the other branch counts");
        assert_eq!(third.heads(BOOK.document()), [whole.last().unwrap().hash()]);
        let [lacking, whole] = [lacking, whole].map(|branch| branch.last().unwrap().hash());
        let waits = lacking < whole;
        // What has the greater hash never counts; what has the smaller one does as soon as it can.
        assert_eq!(second.equivocations.len(), usize::from(!waits));
        assert_eq!(third.store.parked().unwrap().is_empty(), !waits);
        third.assert_clean();
        sync(&other, &third);
        assert!(third.store.parked().unwrap().is_empty());
        let heads = third.heads(BOOK.document());
        assert_eq!((heads.contains(&lacking), heads.contains(&whole)), (waits, !waits));
        third.assert_clean();
        orders[usize::from(waits)] += 1;
    }
    assert!(orders.iter().all(|times| 0 < *times), "either branch is the first by hash");
}
