//! The reader and the judge beside automerge: what they take, automerge takes, and means the same.

use std::collections::BTreeSet;

use automerge::legacy::{ElementId, Key as AmKey, ObjectId, OpType};
use automerge::transaction::{CommitOptions, Transactable};
use automerge::{ActorId as AmActor, Automerge, ObjType, ROOT, ReadDoc, ScalarValue};
use catchword_model::change::past::Judgement;
use catchword_model::change::read::read;
use catchword_model::change::{Action, Change, Draft, Key, Object, Op, OpId, Scalar};
use catchword_model::genesis::genesis;
use catchword_model::history::History;
use catchword_model::id::{ActorId, Author, DeviceId};
use catchword_model::schema::{Container, DocumentKind};
use rand::{Rng, RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::reader::{body, seal};
use crate::support::{Twins, am_scalar};
use crate::writer::{BOOK, upgrade};

/// Mutated changes that are read by both.
const MUTATIONS: u32 = 40_000;

#[test]
fn what_the_reader_takes_of_mutated_changes_automerge_takes_and_means_the_same() {
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    let corpus: Vec<Vec<u8>> =
        corpus().iter().map(|change| body(change.bytes()).to_vec()).collect();
    let mut taken = 0;
    for _ in 0..MUTATIONS {
        let mut content = corpus[rng.random_range(0..corpus.len())].clone();
        let other = &corpus[rng.random_range(0..corpus.len())];
        for _ in 0..rng.random_range(1..4) {
            mutate(&mut rng, &mut content, other);
        }
        let Ok(change) = read(&seal(1, &content)) else { continue };
        taken += 1;
        assert_same(&change);
    }
    eprintln!("{MUTATIONS} mutated changes, {taken} of them read, each as automerge reads it");
    assert!(MUTATIONS / 20 < taken, "{taken}");
}

#[test]
fn what_is_valid_is_read_as_automerge_reads_it() {
    corpus().iter().for_each(assert_same);
}

/// Changes of books, of a library, and of notes with everything automerge can do.
fn corpus() -> Vec<Change> {
    let mut changes = Vec::new();
    for (seed, kind) in [(1, DocumentKind::Book), (2, DocumentKind::Library)] {
        let mut twins = Twins::new(seed, 3, kind);
        for _ in 0..60 {
            let who = twins.rng.random_range(0..3);
            twins.merge((who + 1) % 3, who);
            changes.extend(twins.edit(who));
        }
        changes.push(genesis(kind).clone());
    }
    changes.push(upgrade(2, genesis(DocumentKind::Book), "moods").encode());
    changes.extend(notes(7).changes().cloned());
    changes
}

/// A notes document in which two devices did what automerge can do, one transaction each time.
fn notes(seed: u64) -> History {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let id = DocumentKind::Notes.document(BOOK);
    let mut history = History::new(DocumentKind::Notes, id);
    let mut docs: Vec<Automerge> = (0..2_u8)
        .map(|n| {
            let author = Author { device: DeviceId([n + 1; 16]), n: 0 };
            let mut doc = Automerge::new();
            doc.load_incremental(genesis(DocumentKind::Notes).bytes()).unwrap();
            doc.set_author(Some(automerge::Author::from(author.to_bytes().to_vec())));
            doc.set_actor(AmActor::from(author.actor(id).0.to_vec()));
            doc
        })
        .collect();
    for _ in 0..60 {
        let who = rng.random_range(0..2);
        if rng.random_range(0..3) == 0 {
            let (one, other) = docs.split_at_mut(1);
            if who == 0 { one[0].merge(&mut other[0]) } else { other[0].merge(&mut one[0]) }
                .unwrap();
        }
        let doc = &mut docs[who];
        let mut transaction = doc.transaction();
        for _ in 0..rng.random_range(1..4) {
            act(&mut rng, &mut transaction);
        }
        transaction.commit_with(CommitOptions::default().with_time(rng.random_range(0..1 << 40)));
    }
    let (one, other) = docs.split_at_mut(1);
    one[0].merge(&mut other[0]).unwrap();
    for theirs in one[0].get_changes(&[]) {
        let change = read(theirs.raw_bytes()).unwrap();
        assert_eq!(history.admit(change.clone()), Judgement::Admitted, "{change:?}");
    }
    history
}

fn act(rng: &mut impl Rng, transaction: &mut automerge::transaction::Transaction<'_>) {
    use automerge::marks::{ExpandMark, Mark};

    let (_, journal) = transaction.get(ROOT, "journal").unwrap().unwrap();
    let (_, app) = transaction.get(ROOT, "app").unwrap().unwrap();
    let len = transaction.length(&journal);
    let at = rng.random_range(0..=len);
    let key = ["list", "map", "count", "word"][rng.random_range(0..4)];
    let made = transaction.get(&app, key).unwrap();
    let made = made.filter(|(value, _)| value.is_object()).map(|(_, object)| object);
    match (rng.random_range(0..8), made) {
        (0..=2, _) => {
            let delete = rng.random_range(0..=3.min(len - at)).cast_signed();
            transaction
                .splice_text(&journal, at, delete, ["ab", "", "\u{1F4DA}x"][at % 3])
                .unwrap();
        }
        (3, _) if at < len => {
            let mark = Mark::new("bold".to_owned(), at % 2 == 0, at, len);
            transaction.mark(&journal, mark, ExpandMark::Both).unwrap();
        }
        (4, Some(object)) if key == "list" => {
            transaction.insert(&object, 0, rng.random_range(0..9_i64)).unwrap();
            transaction.put(&object, 0, true).unwrap();
        }
        (4 | 5, Some(object)) if key == "map" => {
            transaction.put(&object, "count", ScalarValue::counter(2)).unwrap();
            transaction.increment(&object, "count", 5).unwrap();
        }
        (4 | 5, None) => {
            let kind = if key == "list" { ObjType::List } else { ObjType::Map };
            transaction.put_object(&app, key, kind).unwrap();
        }
        (6, _) => transaction.delete(&app, key).unwrap(),
        _ => transaction.put(&app, "word", format!("w{at}")).unwrap(),
    }
}

fn mutate(rng: &mut impl Rng, content: &mut Vec<u8>, other: &[u8]) {
    const TELLING: [u8; 10] = [0, 1, 2, 3, 0x3F, 0x40, 0x7E, 0x7F, 0x80, 0xFF];

    if content.is_empty() {
        return;
    }
    let at = rng.random_range(0..content.len());
    let len = rng.random_range(1..9).min(content.len() - at);
    match rng.random_range(0..8) {
        0..=2 => content[at] ^= 1 << rng.random_range(0..8),
        3 | 4 => content[at] = TELLING[rng.random_range(0..TELLING.len())],
        5 => content[at] = content[at].wrapping_add(1),
        6 => {
            content.drain(at..at + len);
        }
        _ => {
            let from = rng.random_range(0..other.len());
            let piece = &other[from..(from + len).min(other.len())];
            content.splice(at..at, piece.iter().copied());
        }
    }
}

/// Asserts that automerge reads the same bytes as the same change.
fn assert_same(change: &Change) {
    let theirs = automerge::Change::from_bytes(change.bytes().to_vec());
    let theirs = theirs.unwrap_or_else(|error| panic!("{error}: {change:?}"));
    assert_eq!(theirs.hash().0, change.hash().0);
    assert_eq!(theirs.max_op(), change.max_op());
    let author = theirs.author().map(|author| author.as_bytes().to_vec());
    assert_eq!(author, change.author.map(|author| author.to_bytes().to_vec()));
    let expanded = theirs.decode();
    let head = (expanded.seq, expanded.start_op.get(), expanded.time);
    assert_eq!(head, (change.seq, change.start_op, change.time));
    assert_eq!(expanded.actor_id.to_bytes(), change.actor.0);
    assert_eq!(expanded.message.unwrap_or_default(), change.message);
    let dependencies: Vec<[u8; 32]> = expanded.deps.iter().map(|hash| hash.0).collect();
    assert_eq!(dependencies, change.dependencies.iter().map(|hash| hash.0).collect::<Vec<_>>());
    assert_eq!(expanded.operations.len(), change.ops.len());
    for (theirs, ours) in expanded.operations.iter().zip(&change.ops) {
        assert!(same_op(theirs, ours), "{theirs:?} and {ours:?}");
    }
}

fn same_op(theirs: &automerge::legacy::Op, ours: &Op) -> bool {
    let id = |id: &automerge::legacy::OpId| OpId {
        counter: id.counter(),
        actor: ActorId::from_slice(id.actor().to_bytes()).unwrap(),
    };
    let object = match &theirs.obj {
        ObjectId::Root => Object::Root,
        ObjectId::Id(made) => Object::Made(id(made)),
    };
    let key = match &theirs.key {
        AmKey::Map(key) => Key::Map(key.to_string()),
        AmKey::Seq(ElementId::Head) => Key::Head,
        AmKey::Seq(ElementId::Id(element)) => Key::Element(id(element)),
    };
    // Automerge sorts them as it reads; that they were sorted is the judge's to see.
    let predecessors: BTreeSet<OpId> = theirs.pred.iter().map(id).collect();
    object == ours.object
        && key == ours.key
        && predecessors == ours.predecessors.iter().copied().collect()
        && theirs.insert == ours.insert
        && same_action(&theirs.action, &ours.action)
}

fn same_action(theirs: &OpType, ours: &Action) -> bool {
    match (theirs, ours) {
        (OpType::Make(ObjType::Map), Action::MakeMap)
        | (OpType::Make(ObjType::Table), Action::MakeTable)
        | (OpType::Make(ObjType::List), Action::MakeList)
        | (OpType::Make(ObjType::Text), Action::MakeText)
        | (OpType::Delete, Action::Delete) => true,
        (OpType::Increment(by), Action::Increment(value)) => value.as_int() == Some(*by),
        (OpType::Put(theirs), Action::Put(ours)) => same_value(theirs, ours),
        (OpType::MarkBegin(mark), Action::Mark { name: Some(name), value, expand }) => {
            mark.name == name.as_str() && mark.expand == *expand && same_value(&mark.value, value)
        }
        (OpType::MarkEnd(end), Action::Mark { name: None, value, expand }) => {
            end == expand && *value == Scalar::Null
        }
        _ => false,
    }
}

fn same_value(theirs: &ScalarValue, ours: &Scalar) -> bool {
    match (theirs, ours) {
        (ScalarValue::F64(theirs), Scalar::F64(ours)) => theirs.to_bits() == ours.to_bits(),
        _ => *theirs == am_scalar(ours),
    }
}

/// Forged changes that the judge admits, of which automerge must make something it can load again.
const POISONS: u32 = 3_000;

#[test]
fn what_the_judge_admits_of_forged_changes_automerge_applies_saves_and_loads_again() {
    let mut admitted = 0;
    let mut seed = 0;
    while admitted < POISONS {
        seed += 1;
        let history = match seed % 3 {
            0 => notes(seed),
            1 => registers(seed, DocumentKind::Book),
            _ => registers(seed, DocumentKind::Library),
        };
        admitted += poison(seed, history);
    }
    eprintln!("{admitted} forged changes admitted, all of them applied, saved and loaded again");
}

fn registers(seed: u64, kind: DocumentKind) -> History {
    let mut twins = Twins::new(seed, 2, kind);
    for _ in 0..20 {
        let who = twins.rng.random_range(0..2);
        twins.merge(1 - who, who);
        twins.edit(who);
    }
    let mut history = twins.devices.swap_remove(0).history;
    let below = genesis(kind).clone();
    assert_eq!(history.admit(upgrade(2, &below, "moods").encode()), Judgement::Admitted);
    history
}

/// Forges changes on top of a history, and returns how many of them were admitted and survived.
fn poison(seed: u64, mut history: History) -> u32 {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut doc = Automerge::new();
    for change in history.changes() {
        apply(&mut doc, change);
    }
    let mut admitted = 0;
    for n in 0..60_u8 {
        let draft = forge(&mut rng, &history, Author { device: DeviceId([n + 60; 16]), n: 9 });
        let change = draft.encode();
        let Ok(change) = read(change.bytes()) else { continue };
        if history.admit(change.clone()) != Judgement::Admitted {
            continue;
        }
        admitted += 1;
        apply(&mut doc, &change);
    }
    assert_loads(&doc, &history);
    admitted
}

fn apply(doc: &mut Automerge, change: &Change) {
    let theirs = automerge::Change::from_bytes(change.bytes().to_vec()).unwrap();
    let applied =
        std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| doc.apply_changes([theirs])));
    assert!(matches!(applied, Ok(Ok(()))), "{applied:?}: {:#?}", change.draft());
}

fn assert_loads(doc: &Automerge, history: &History) {
    let mut at_once = Automerge::new();
    let log: Vec<u8> = history.changes().flat_map(|change| change.bytes().to_vec()).collect();
    at_once.load_incremental(&log).unwrap();
    let mut loaded = Automerge::load(&doc.save()).unwrap();
    for doc in [doc, &loaded, &at_once] {
        let mut heads: Vec<_> = doc.get_heads().iter().map(|hash| hash.0).collect();
        heads.sort_unstable();
        assert_eq!(heads, history.heads().iter().map(|hash| hash.0).collect::<Vec<_>>());
    }
    assert_eq!(loaded.get_changes(&[]).len(), history.changes().count());
    let _tree = loaded.hydrate(None);
    // And it can be written on.
    loaded.set_actor(AmActor::from(vec![1; 16]));
    let mut transaction = loaded.transaction();
    transaction.put(ROOT, "more", 1).unwrap();
    transaction.commit();
    Automerge::load(&loaded.save()).unwrap();
}

/// Returns a change by somebody new whose operations are those of others, somewhat changed.
fn forge(rng: &mut impl Rng, history: &History, author: Author) -> Draft {
    let mut base = history.base(author);
    let changes: Vec<&Change> = history.changes().collect();
    if rng.random_range(0..3) == 0 {
        let unaware = changes[rng.random_range(0..changes.len())];
        base.heads = vec![unaware.hash()];
        base.max_op = unaware.max_op();
    }
    let ids: Vec<OpId> =
        changes.iter().flat_map(|change| change.ops_with_ids().map(|(id, _)| id)).collect();
    let own = |n: u64| OpId { counter: base.max_op + 1 + n, actor: base.actor };
    let mut ops: Vec<Op> = Vec::new();
    for n in 0..rng.random_range(1..4_u64) {
        let change = changes[rng.random_range(0..changes.len())];
        let mut op = change.ops[rng.random_range(0..change.ops.len())].clone();
        if n != 0 && rng.random_range(0..3) == 0 {
            op = ops[rng.random_range(0..ops.len())].clone();
        }
        for _ in 0..rng.random_range(0..3) {
            let any = match rng.random_range(0..3) {
                0 => own(rng.random_range(0..3)),
                _ => ids[rng.random_range(0..ids.len())],
            };
            twist(rng, &mut op, any);
        }
        rename_owner(&mut op, author);
        ops.push(op);
    }
    Draft {
        actor: base.actor,
        seq: 1,
        start_op: base.max_op + 1,
        time: rng.random_range(-2..1 << 40),
        message: String::new(),
        dependencies: base.heads,
        author: Some(author),
        ops,
    }
}

fn twist(rng: &mut impl Rng, op: &mut Op, any: OpId) {
    let word = ["", "a", "count", "\u{1F4DA}"][rng.random_range(0..4)].to_owned();
    let values = [
        Scalar::Null,
        Scalar::Int(-3),
        Scalar::Uint(u64::MAX),
        Scalar::F64(f64::NAN),
        Scalar::Bytes(vec![1]),
        Scalar::Counter(4),
        Scalar::Timestamp(-1),
        Scalar::Text(word.clone()),
    ];
    let value = values[rng.random_range(0..values.len())].clone();
    match rng.random_range(0..12) {
        0 => op.object = Object::Made(any),
        1 => op.key = Key::Map(word),
        2 => op.key = Key::Element(any),
        3 => op.key = Key::Head,
        4 => op.insert = !op.insert,
        5 => op.action = Action::Put(value),
        6 => op.action = Action::Delete,
        7 => op.action = Action::Increment(value),
        8 => {
            let name = Some(word).filter(|word| !word.is_empty());
            op.action = Action::Mark { name, value, expand: rng.random_range(0..2) == 0 };
        }
        9 => {
            let makes = [Action::MakeMap, Action::MakeList, Action::MakeText, Action::MakeTable];
            op.action = makes[rng.random_range(0..4)].clone();
        }
        10 => op.predecessors.clear(),
        _ => {
            op.predecessors.push(any);
            op.predecessors.sort_unstable();
        }
    }
}

/// Most keys that name a device would only show, again and again, that they are refused.
fn rename_owner(op: &mut Op, author: Author) {
    let container = Container::BOOK
        .into_iter()
        .chain(Container::LIBRARY)
        .find(|container| op.object == Object::Made(container.object()));
    let device = author.device;
    match container {
        Some(Container::Positions | Container::Devices) => {
            op.key = Key::Map(device.to_string());
            op.predecessors.clear();
        }
        Some(Container::Furthest | Container::Totals | Container::Holds) => {
            op.key = Key::Map(format!("{device}/{device}"));
            op.predecessors.clear();
        }
        _ => (),
    }
}
