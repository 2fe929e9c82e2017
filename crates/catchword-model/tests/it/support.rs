//! Three devices that edit one document twice: with this crate, and with automerge's transactions.

use automerge::transaction::{CommitOptions, Transactable};
use automerge::{ActorId as AmActor, Automerge, ObjId, ReadDoc, ScalarValue};
use catchword_model::annotation::{AnnotationField, Creation, Kind};
use catchword_model::change::past::Judgement;
use catchword_model::change::{Change, Object, OpId, Scalar};
use catchword_model::edit::{Edit, Write, build};
use catchword_model::genesis::genesis;
use catchword_model::history::History;
use catchword_model::hlc::{Hlc, HlcClock};
use catchword_model::id::{AnnotationId, Author, BookId, DeviceId, DocumentId};
use catchword_model::locator::Locator;
use catchword_model::meta::{Meta, Rank};
use catchword_model::position::{Furthest, Intent, Position};
use catchword_model::schema::{Container, DocumentKind};
use rand::{Rng, RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// One device with both copies of the document.
pub(crate) struct Twin {
    pub(crate) author: Author,
    pub(crate) history: History,
    pub(crate) doc: Automerge,
    clock: HlcClock,
}

/// A document that a number of devices edit.
pub(crate) struct Twins {
    pub(crate) kind: DocumentKind,
    pub(crate) devices: Vec<Twin>,
    pub(crate) rng: ChaCha8Rng,
    now_ms: u64,
}

impl Twins {
    pub(crate) fn new(seed: u64, count: u8, kind: DocumentKind) -> Self {
        let id = kind.document(BookId([7; 32]));
        let devices = (0..count).map(|n| Twin::new(n, kind, id)).collect();
        let rng = ChaCha8Rng::seed_from_u64(seed);
        Self { kind, devices, rng, now_ms: 1_700_000_000_000 }
    }

    /// Lets one device make a change of a few edits, both ways, and returns it if there is one.
    pub(crate) fn edit(&mut self, who: usize) -> Option<Change> {
        self.now_ms += self.rng.random_range(0..3_u64);
        let twin = &mut self.devices[who];
        let stamp = twin.clock.tick(self.now_ms);
        let count = self.rng.random_range(1..4);
        let mut writes: Vec<Write> = Vec::new();
        for _ in 0..count {
            let edit = arb_edit(&mut self.rng, self.kind, twin.author.device);
            if twin.creates_again(&edit) {
                continue;
            }
            let more = edit.writes(twin.author.device, stamp);
            let created = |write: &Write| writes.iter().any(|before| before.key == write.key);
            if !(matches!(edit, Edit::Annotate { .. }) && more.iter().any(created)) {
                writes.extend(more);
            }
        }
        writes.retain(|write| !twin.settles_a_conflict(write));
        twin.commit(stamp, &writes)
    }

    /// Gives everything one device has to another.
    pub(crate) fn merge(&mut self, from: usize, to: usize) {
        let changes: Vec<Change> = self.devices[from].history.changes().cloned().collect();
        self.devices[to].take(changes);
    }
}

impl Twin {
    fn new(n: u8, kind: DocumentKind, id: DocumentId) -> Self {
        let author = Author { device: DeviceId([n * 37 + 1; 16]), n: u32::from(n) };
        let mut doc = Automerge::new();
        doc.load_incremental(genesis(kind).bytes()).unwrap();
        let am_author = automerge::Author::from(author.to_bytes().to_vec());
        doc = doc.with_author(Some(am_author));
        doc.set_actor(AmActor::from(author.actor(id).0.to_vec()));
        let history = History::new(kind, id);
        Self { author, history, doc, clock: HlcClock::resume(Hlc::ZERO) }
    }

    /// The one case in which `build` does not write what automerge would: see its documentation.
    pub(crate) fn settles_a_conflict(&self, write: &Write) -> bool {
        let object = Object::Made(write.container.object());
        let field = self.history.field(object, &write.key);
        let last = field.holders().last().map(|holder| &holder.value);
        field.is_conflict() && last == write.value.as_ref()
    }

    /// Importing on two devices creates one annotation twice; one device never does.
    fn creates_again(&self, edit: &Edit) -> bool {
        let Edit::Annotate { id, .. } = edit else { return false };
        let object = Object::Made(Container::Annotations.object());
        !self.history.field(object, &id.to_string()).is_empty()
    }

    pub(crate) fn build(&self, stamp: Hlc, writes: &[Write]) -> Option<Change> {
        let held = |container: Container, key: &str| -> Result<_, std::convert::Infallible> {
            Ok(self.history.field(Object::Made(container.object()), key))
        };
        let Ok(change) = build(&self.history.base(self.author), stamp, writes, held);
        change
    }

    fn commit(&mut self, stamp: Hlc, writes: &[Write]) -> Option<Change> {
        let ours = self.build(stamp, writes);
        let mut transaction = self.doc.transaction();
        for write in writes {
            let (_, object) =
                transaction.get(automerge::ROOT, write.container.name()).unwrap().unwrap();
            match &write.value {
                Some(value) => transaction.put(&object, &write.key, am_scalar(value)).unwrap(),
                None => transaction.delete(&object, &write.key).unwrap(),
            }
        }
        let (hash, _) =
            transaction.commit_with(CommitOptions::default().with_time(stamp.to_time()));
        assert_eq!(hash.map(|hash| hash.0), ours.as_ref().map(|change| change.hash().0));
        if let Some(change) = &ours {
            assert_eq!(self.history.admit(change.clone()), Judgement::Admitted);
        }
        ours
    }

    pub(crate) fn take(&mut self, changes: Vec<Change>) {
        for change in changes {
            if self.history.change(change.hash()).is_some() {
                continue;
            }
            self.clock.observe(Hlc::of_change(change.time));
            let theirs = automerge::Change::from_bytes(change.bytes().to_vec()).unwrap();
            self.doc.apply_changes([theirs]).unwrap();
            assert_eq!(self.history.admit(change), Judgement::Admitted);
        }
    }

    /// Asserts that automerge has the same heads and the same holders of every register.
    pub(crate) fn assert_same(&self) {
        let mut heads: Vec<_> = self.doc.get_heads().iter().map(|hash| hash.0).collect();
        heads.sort_unstable();
        let ours: Vec<_> = self.history.heads().iter().map(|hash| hash.0).collect();
        assert_eq!(heads, ours);
        for ((object, key), field) in self.history.fields() {
            let Object::Made(id) = object else { continue };
            let object = ObjId::Id(id.counter, AmActor::from(id.actor.0.to_vec()), 0);
            let theirs = self.doc.get_all(&object, key.as_str()).unwrap();
            let theirs: Vec<(OpId, ScalarValue)> = theirs
                .into_iter()
                .map(|(value, id)| (op_id(&id), value.as_scalar().unwrap().clone()))
                .collect();
            let ours: Vec<_> = field
                .holders()
                .iter()
                .map(|holder| (holder.op, am_scalar(&holder.value)))
                .collect();
            assert_eq!(theirs, ours, "{key}");
        }
    }
}

fn op_id(id: &ObjId) -> OpId {
    let ObjId::Id(counter, actor, _) = id else { panic!("not the root") };
    OpId {
        counter: *counter,
        actor: actor.to_bytes().try_into().map(catchword_model::id::ActorId).unwrap(),
    }
}

pub(crate) fn am_scalar(value: &Scalar) -> ScalarValue {
    match value {
        Scalar::Null => ScalarValue::Null,
        Scalar::Boolean(value) => ScalarValue::Boolean(*value),
        Scalar::Uint(value) => ScalarValue::Uint(*value),
        Scalar::Int(value) => ScalarValue::Int(*value),
        Scalar::F64(value) => ScalarValue::F64(*value),
        Scalar::Text(text) => ScalarValue::Str(text.as_str().into()),
        Scalar::Bytes(bytes) => ScalarValue::Bytes(bytes.clone()),
        Scalar::Counter(value) => ScalarValue::counter(*value),
        Scalar::Timestamp(value) => ScalarValue::Timestamp(*value),
    }
}

/// A small vocabulary, so that devices meet on the same keys often.
pub(crate) fn arb_edit(rng: &mut impl Rng, kind: DocumentKind, device: DeviceId) -> Edit {
    let id = AnnotationId([rng.random_range(0..5); 16]);
    let shelf = catchword_model::id::ShelfId([rng.random_range(0..3); 16]);
    let book = BookId([rng.random_range(0..3); 32]);
    let word =
        ["a", "long note \u{1F4DA} with \"quotes\"", "blue", ""][rng.random_range(0..4)].to_owned();
    if kind == DocumentKind::Library {
        return match rng.random_range(0..7) {
            0 => Edit::NameShelf { id: shelf, name: word },
            1 => Edit::DeleteShelf { id: shelf },
            2 => Edit::AddMember { shelf, book },
            3 => Edit::RemoveMember { shelf, book },
            4 => Edit::AddAlias { kind: "pmd5".to_owned(), value: word, book },
            5 => Edit::AddHold { book },
            _ => Edit::RemoveHold { book },
        };
    }
    let locator = Locator::new().with_total_ppm(rng.random_range(0..1_000_001));
    match rng.random_range(0..12) {
        0 | 1 => {
            // An annotation is created once by whoever creates it: a fresh id each time.
            let mut bytes = [0; 16];
            rng.fill_bytes(&mut bytes);
            let id = if rng.random_range(0..3) == 0 {
                AnnotationId([99; 16])
            } else {
                AnnotationId(bytes)
            };
            Edit::Annotate { id, creation: Box::new(arb_creation(rng, locator, device, word)) }
        }
        2 | 3 => Edit::SetField { id, field: AnnotationField::Note, value: word },
        4 => Edit::SetField { id, field: AnnotationField::Color, value: word },
        5 => Edit::Delete { id },
        6 => Edit::Undelete { id },
        7 => Edit::AddTag { tag: word },
        8 => Edit::RemoveTag { tag: word },
        9 => Edit::SetMeta {
            field: "title".to_owned(),
            meta: Meta { value: word.into(), rank: Rank::User },
        },
        10 => Edit::SetPosition(Position {
            locator,
            ppm: rng.random_range(0..1_000_001),
            intent: Intent::Advance,
            pass: 1,
            wall_ms: 3,
            seen: Hlc::ZERO,
        }),
        _ => Edit::SetFurthest {
            pass: rng.random_range(1..3),
            furthest: Furthest { locator, ppm: rng.random_range(0..1_000_001) },
        },
    }
}

fn arb_creation(rng: &mut impl Rng, locator: Locator, device: DeviceId, word: String) -> Creation {
    Creation {
        kind: Kind::ALL[rng.random_range(0..3)],
        locator,
        quote: word,
        color: None,
        note: Some("n".repeat(rng.random_range(0..300))),
        created_by: device.to_string(),
        source: None,
        unknown: String::new(),
    }
}
