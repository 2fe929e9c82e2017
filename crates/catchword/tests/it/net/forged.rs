//! A paired device that lies: what it sends is refused or harmless, on every device alike, and named.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use catchword::net::{
    Ask, Candidate, Connection, DeviceIdentity, Endpoint, Node, PeerBook, Source, Trouble, Trust,
    Why,
};
use catchword::{
    AnnotationEdit, AnnotationId, BookId, DEVICE_KEY, DeviceId, DeviceName, FileKeyStore, Hlc,
    KeyStore as _, Library, NewAnnotation, WHOLE_BOOK,
};
use catchword_model::change::{Action, Change, Draft, Key, Object, Op, OpId, Scalar};
use catchword_model::exchange::{DocumentName, Parcel, Piece, Signed, Statement, head_message};
use catchword_model::id::{Author, Generation};
use catchword_model::identity::{Fingerprint, PublicKey};
use catchword_model::schema::{Container, annotation_field};
use catchword_proto::request::{Channel, SigningClock, Status};
use catchword_proto::secret::PairSecret;
use catchword_proto::session::message::{Header, Sync, SyncBody};
use catchword_proto::session::{Bounds, ListDigest, PROTOCOL_MAX, PROTOCOL_MIN};
use catchword_store::{OpenError, Options, Store};
use ed25519_dalek::{Signer as _, SigningKey};
use tempfile::TempDir;

use crate::net::libraries::{assert_clean, listen, pair, state, sync};
use crate::net::report;
use crate::net::support::Friends;
use crate::support::{Device, device};

/// Books of the test: one for each lie, since a book that is spoiled is not exchanged any more.
const BOOKS: u32 = 5;

/// A connection of the liar.
struct Line {
    _endpoint: Endpoint,
    connection: Connection,
    channel: Channel,
    /// The generation of the other side.
    receiver: Generation,
}

/// A paired device that sends what it likes.
struct Liar {
    signing: SigningKey,
    spki: Vec<u8>,
    generation: Generation,
    keys: FileKeyStore,
    fingerprint: Fingerprint,
    secrets: Vec<(Fingerprint, PairSecret)>,
    /// What it has of each book.
    books: Vec<(BookId, Vec<Change>)>,
    /// Its keys are there.
    _folder: TempDir,
}

impl Liar {
    /// Takes over the folder and the pairings of a device that was honest until now.
    fn of(device: Device, peers: &[Fingerprint]) -> Self {
        let Device { library, folder } = device;
        let path = folder.path().join("library");
        let pairings = PeerBook::open(&library).unwrap();
        let secret = |peer: &Fingerprint| (*peer, pairings.secret(*peer).unwrap().unwrap());
        let secrets = peers.iter().map(secret).collect();
        let mut ids: Vec<BookId> = library.books().unwrap().iter().map(|book| book.book).collect();
        ids.sort_unstable();
        drop((pairings, library));

        let keys = FileKeyStore::new(path.join("keys"));
        let secret = keys.load(DEVICE_KEY).unwrap().unwrap();
        let signing = SigningKey::from_bytes(secret.expose());
        let spki = spki_of(&keys);
        let name = DeviceName::default();
        let options = Options { public_key_spki: spki.clone(), device: name, now_ms: now_ms() };
        // The last connection lets go of the library when its task has ended.
        let store = loop {
            match Store::open(&path, &options) {
                Err(OpenError::Locked) => std::thread::sleep(Duration::from_millis(10)),
                opened => break opened.unwrap(),
            }
        };
        let changes = |book: BookId| {
            let mut changes = Vec::new();
            store.changes(book.document(), |change| changes.push(change)).unwrap();
            (book, changes)
        };
        let books = ids.into_iter().map(changes).collect();
        let generation = store.generation();
        let fingerprint = DeviceIdentity::load_or_make(&keys).unwrap().fingerprint();
        Self { signing, spki, generation, keys, fingerprint, secrets, books, _folder: folder }
    }

    fn device(&self) -> DeviceId {
        DeviceId::derive(&self.spki, self.generation)
    }

    /// A change of this device that builds on one of those it has.
    fn change(&self, book: usize, on: &Change, stamp: Hlc, op: Op) -> Change {
        let document = self.books[book].0.document();
        let author = Author { device: self.device(), n: 0 };
        let draft = Draft {
            actor: author.actor(document),
            seq: 1,
            start_op: on.max_op() + 1,
            time: stamp.to_time(),
            message: String::new(),
            dependencies: vec![on.hash()],
            author: Some(author),
            ops: vec![op],
        };
        draft.encode()
    }

    fn statement(&self, book: usize, change: &Change) -> Statement {
        let document = self.books[book].0.document();
        Statement {
            document,
            actor: change.actor,
            n: 0,
            signed: Signed::Change { seq: change.seq },
            hash: change.hash().0,
            public_key_spki: self.spki.clone(),
            generation: self.generation,
            signature: self
                .signing
                .sign(&head_message(document, change.actor, change.seq, change.hash()))
                .to_bytes(),
        }
    }

    fn piece(&self, book: usize, change: &Change, statements: Vec<Statement>) -> Vec<u8> {
        let runs = vec![[&[0], change.bytes()].concat()];
        let name = DocumentName::Book(self.books[book].0);
        Piece { parcels: vec![Parcel { runs, statements, ..Parcel::new(name) }] }.encode()
    }

    /// Everything it lies about, each in a book of its own. `annotations` are those of the victim.
    fn lies(&self, annotations: &[AnnotationId], victim: (&[u8], Generation)) -> Vec<Vec<u8>> {
        let newest = |book: usize| self.books[book].1.last().unwrap();
        let mut draft: Draft = (**newest(0)).clone();
        draft.ops[0].action = Action::Put(Scalar::Text("forged".to_owned()));
        let forged = draft.encode();
        let mut draft: Draft = (**newest(1)).clone();
        draft.ops[0].action = Action::Put(Scalar::Text("forged".to_owned()));
        let claimed = draft.encode();
        let mut claim = self.statement(1, &claimed);
        (claim.public_key_spki, claim.generation) = (victim.0.to_vec(), victim.1);

        let now = Hlc::new(now_ms(), 0).unwrap();
        let late = self.change(2, newest(2), Hlc::LAST, color(annotations[2], "late", Vec::new()));
        let unsigned =
            self.change(3, newest(3), now, color(annotations[3], "unsigned", Vec::new()));
        // The colour that it supersedes is of the newest change, and it builds on the one before.
        let [.., before, last] = self.books[4].1.as_slice() else { panic!("two changes") };
        let unseen = vec![last.ops_with_ids().next().unwrap().0];
        let blind = self.change(4, before, now, color(annotations[4], "blind", unseen));

        vec![
            self.piece(0, &forged, Vec::new()),
            self.piece(1, &claimed, vec![claim]),
            self.piece(2, &late, vec![self.statement(2, &late)]),
            self.piece(3, &unsigned, Vec::new()),
            self.piece(4, &blind, vec![self.statement(4, &blind)]),
        ]
    }

    /// Connects to a device, and finds out in which generation it is.
    async fn call(&self, to: &Node) -> Line {
        let mut secrets = self.secrets.iter();
        let (peer, secret) = secrets.find(|(peer, _)| *peer == to.fingerprint()).unwrap();
        let friends = Arc::new(Friends::default());
        friends.add(*peer);
        let identity = DeviceIdentity::load_or_make(&self.keys).unwrap();
        let endpoint = Endpoint::bind(None, identity, friends as Arc<dyn Trust>).unwrap();
        let candidate = Candidate::new(to.address().unwrap(), Source::Given);
        let connection = endpoint.dial(*peer, &[candidate]).await.unwrap();
        let channel = connection.channel(secret, self.fingerprint).unwrap();
        let nobody = Generation([0; 16]);
        let mut line = Line { _endpoint: endpoint, connection, channel, receiver: nobody };
        line.receiver = self.ask(&line, Vec::new()).await.header.sender;
        line
    }

    /// Sends pieces, each in a signed request of its own.
    async fn send(&self, line: &Line, pieces: &[Vec<u8>]) {
        for piece in pieces {
            let answer = self.ask(line, piece.clone()).await;
            assert_eq!(answer.header.sender, line.receiver);
            assert!(answer.body.is_some());
        }
    }

    async fn ask(&self, line: &Line, piece: Vec<u8>) -> Sync {
        let bounds = Bounds { from: 0, through: 0, end: 0 };
        let none = ListDigest([0; 8]);
        let body = Sync {
            header: Header { sender: self.generation, receiver: line.receiver, takes: true },
            versions: (PROTOCOL_MIN, PROTOCOL_MAX),
            exclusions: none,
            held: none,
            list: None,
            agreed: false,
            parked: false,
            body: Some(SyncBody { mark: 0, summary: None, bounds, piece }),
        };
        let (body, mut clock) = (body.encode(), SigningClock::default());
        let ask = Ask { method: "POST", path: "/sync", body: &body };
        let reply = line.connection.call(&line.channel, &mut clock, now_ms, ask).await.unwrap();
        assert_eq!(reply.status, Status::OK);
        Sync::decode(&reply.body).unwrap()
    }
}

fn now_ms() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    u64::try_from(now.as_millis()).unwrap()
}

fn color(id: AnnotationId, color: &str, predecessors: Vec<OpId>) -> Op {
    Op {
        object: Object::Made(Container::Annotations.object()),
        key: Key::Map(annotation_field(id, "color")),
        insert: false,
        action: Action::Put(Scalar::Text(color.to_owned())),
        predecessors,
    }
}

/// Marks each book and gives the mark another colour; returns the books and the marks.
fn mark(library: &Library) -> Vec<(BookId, AnnotationId)> {
    let mut books = library.books().unwrap();
    books.sort_by_key(|book| book.book);
    let mark = |book: BookId| {
        let book = library.book(book).unwrap().unwrap();
        let id = book.annotate(NewAnnotation::highlight("a passage")).unwrap().id;
        book.edit(id, &AnnotationEdit::new().color("blue")).unwrap();
        (book.id(), id)
    };
    books.into_iter().map(|found| mark(found.book)).collect()
}

fn colors(library: &Library) -> Vec<String> {
    let mut books = library.books().unwrap();
    books.sort_by_key(|book| book.book);
    let colors = books.into_iter().flat_map(|found| {
        let book = library.book(found.book).unwrap().unwrap();
        let annotations = book.annotations(WHOLE_BOOK).unwrap();
        annotations.into_iter().map(|annotation| annotation.color.unwrap_or_default())
    });
    colors.collect()
}

/// What is wrong, by the place of the book.
fn troubles(library: &Library, marks: &[(BookId, AnnotationId)]) -> Vec<(usize, Trouble)> {
    let mut troubles: Vec<(usize, Trouble)> = library
        .troubles()
        .unwrap()
        .into_iter()
        .map(|trouble| {
            let of = |(book, _): &(BookId, AnnotationId)| Some(*book) == trouble.book;
            (marks.iter().position(of).unwrap(), trouble)
        })
        .collect();
    troubles.sort_by_key(|(place, _)| *place);
    troubles
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_paired_device_forges_is_refused_or_harmless_alike_and_named() {
    let [victim, late, direct, liar] = ["victim", "late", "direct", "liar"].map(device);
    victim.library.generate(BOOKS, 0, 1, |_, _| std::ops::ControlFlow::Continue(())).unwrap();
    let marks = mark(&victim.library);
    let nodes = [&victim, &late, &direct, &liar].map(|device| listen(&device.library));
    let [victim_node, late_node, direct_node, liar_node] = &nodes;
    pair(victim_node, late_node).await;
    pair(victim_node, direct_node).await;
    pair(victim_node, liar_node).await;
    pair(direct_node, liar_node).await;
    assert!(sync(liar_node, victim_node).await.in_sync);
    let peers = [victim_node.fingerprint(), direct_node.fingerprint()];
    let spki_of_victim = spki_of(&FileKeyStore::new(victim.path().join("keys")));
    let [victim_node, late_node, direct_node, liar_node] = nodes;
    liar_node.close().await;
    drop(liar_node);
    let liar = Liar::of(liar, &peers);
    let annotations: Vec<_> = marks.iter().map(|(_, id)| *id).collect();
    let (line, other_line) = (liar.call(&victim_node).await, liar.call(&direct_node).await);
    let lies = liar.lies(&annotations, (&spki_of_victim, line.receiver));

    // One hears everything in order, one the other way round and before it has the truth.
    liar.send(&line, &lies).await;
    let reversed: Vec<_> = lies.iter().rev().cloned().collect();
    liar.send(&other_line, &reversed).await;
    let named = troubles(&victim.library, &marks);
    let by_liar = named.iter().all(|(_, trouble)| trouble.peer == liar.fingerprint);
    assert!(by_liar && named.iter().all(|(_, trouble)| 0 < trouble.since_ms), "{named:?}");
    let why: Vec<_> = named.iter().map(|(place, trouble)| (*place, &trouble.why)).collect();
    let [
        (0, Why::Refused { what: unsigned, failures: 1, .. }),
        (1, Why::Refused { what: claimed, failures: 1, .. }),
        (2, Why::Ahead { device, by_ms }),
        (3, Why::Waiting { count: 1 }),
        (4, Why::Refused { what: blind, failures: 1, .. }),
    ] = why.as_slice()
    else {
        panic!("{why:?}")
    };
    assert!(unsigned.contains("is unsigned and contradicts what is here"), "{unsigned}");
    assert!(claimed.contains("is not signed by its device") || claimed.contains("unsigned"));
    assert!(blind.contains("it supersedes what it cannot have seen"), "{blind}");
    assert_eq!(*device, liar.device());
    assert!(100 * 365 * 86_400_000 < *by_ms, "the ceiling is far away");

    // Only the stamp near the ceiling counts, and whoever writes after it still wins.
    assert_eq!(colors(&victim.library), ["blue", "blue", "late", "blue", "blue"]);
    let (book, id) = marks[2];
    let book = victim.library.book(book).unwrap().unwrap();
    let after = book.edit(id, &AnnotationEdit::new().color("green")).unwrap();
    assert_eq!(after.stamp, Hlc::LAST);
    book.edit(id, &AnnotationEdit::new().color("red")).unwrap();
    assert_eq!(colors(&victim.library)[2], "red");

    for node in [&late_node, &direct_node] {
        assert!(sync(node, &victim_node).await.in_sync);
    }
    let expected = state(&victim.library);
    assert_eq!(expected.len(), BOOKS as usize);
    for device in [&victim, &late, &direct] {
        assert_eq!(state(&device.library), expected);
        assert_clean(&device.library);
        let named = troubles(&device.library, &marks);
        let ahead = |(place, trouble): &(usize, Trouble)| {
            let Why::Ahead { device, .. } = trouble.why else { return false };
            *place == 2 && device == liar.device()
        };
        assert!(named.iter().any(ahead), "{named:?}");
    }
    assert!(sync(&late_node, &victim_node).await.in_sync);
    report("5 lies of a paired device: 3 refused, 1 parked, 1 harmless; 3 devices equal");
}

fn spki_of(keys: &FileKeyStore) -> Vec<u8> {
    let signing = SigningKey::from_bytes(keys.load(DEVICE_KEY).unwrap().unwrap().expose());
    let public = PublicKey::from_bytes(&signing.verifying_key().to_bytes()).unwrap();
    public.to_spki().to_vec()
}
