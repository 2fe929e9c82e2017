//! A library: open it, find its books, shelves, subscriptions, and its care.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use catchword_model::edit::Edit;
use catchword_model::id::{BookId, DeviceId, DocumentId, ShelfId};
use catchword_model::meta::DeviceName;
use catchword_store::{
    BookSummary, Commit, LIBRARY_FILE, LoadError, Opened, Options, ShelfView, Store,
};

use crate::book::Book;
use crate::config::Config;
use crate::error::{EditError, FindError, OpenError, ReadError, RemoveError};
use crate::event::{Event, Subscribers, Subscription};
use crate::generate::{GenerateError, Generated, Plan, generate};
use crate::keeper::Keeper;
use crate::keys::{self, DEVICE_KEY, FileKeyStore, KeyStore, Secret};
use crate::undo::UndoStack;

/// Folder of the default key store, inside the folder of the library.
const KEYS_FOLDER: &str = "keys";
/// Fewest digits of an id by which a book may be named.
pub const PREFIX_DIGITS_MIN: usize = 6;
/// Most books that [`FindError::Ambiguous`] lists.
const AMBIGUOUS_LISTED_MAX: usize = 10;

/// An open library. See the [crate documentation](crate).
///
/// Cloning is cheap, and all clones are one library. It is closed when the last clone, and the last
/// [`Book`] and session of it, are dropped.
#[derive(Debug, Clone)]
pub struct Library {
    handle: Arc<Handle>,
}

#[derive(Debug)]
struct Handle {
    /// Invariant: dropped before `core`, since it uses the store from a thread of its own.
    keeper: Keeper,
    core: Arc<Core>,
}

/// What a library, its books and its keeper share.
pub(crate) struct Core {
    pub(crate) store: Store,
    pub(crate) keys: Arc<dyn KeyStore>,
    pub(crate) config: Config,
    subscribers: Subscribers,
    /// Held from before a write until its event is sent, so that events come in the order of writes.
    order: Mutex<BTreeMap<BookId, UndoStack>>,
}

impl fmt::Debug for Core {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Core").field("store", &self.store).finish_non_exhaustive()
    }
}

impl Library {
    /// Opens the library in a folder, after making one where there is none.
    ///
    /// Takes milliseconds, whatever the size of the library and however it was left.
    ///
    /// # Errors
    ///
    /// [`OpenError`]; nothing was changed.
    ///
    /// # Examples
    ///
    /// ```
    /// # let folder = tempfile::tempdir()?;
    /// # let path = folder.path();
    /// use catchword::Library;
    ///
    /// let library = Library::open(path)?;
    /// assert!(library.books()?.is_empty());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn open(folder: impl AsRef<Path>) -> Result<Self, OpenError> {
        Self::open_with(folder, Config::default())
    }

    /// Opens the library in a folder, after making one where there is none.
    ///
    /// # Errors
    ///
    /// [`OpenError`]; nothing was changed.
    pub fn open_with(folder: impl AsRef<Path>, config: Config) -> Result<Self, OpenError> {
        let folder = folder.as_ref();
        match Self::open_existing(folder, config.clone()) {
            Err(OpenError::NoLibrary) => Self::create(folder, config),
            outcome => outcome,
        }
    }

    /// Opens the library in a folder.
    ///
    /// Page turns that were not published when the last process ended are published, with the stamps
    /// and in the pass they were made in.
    ///
    /// # Errors
    ///
    /// [`OpenError::NoLibrary`] if there is none; nothing was changed.
    pub fn open_existing(folder: impl AsRef<Path>, config: Config) -> Result<Self, OpenError> {
        let folder = folder.as_ref();
        let keys = key_store(folder, &config);
        if !folder.join(LIBRARY_FILE).exists() {
            return Self::open_unfinished(folder, keys, config);
        }
        let secret = keys::load_or_make(&*keys).map_err(OpenError::Keys)?;
        let store = Store::open(folder, &options(&secret, &config)).map_err(OpenError::store)?;
        Ok(Self::resume(store, keys, config))
    }

    /// Opens a library that a restore has not put in its place yet. Where there is none either, nothing
    /// is made, not even a key.
    fn open_unfinished(
        folder: &Path,
        keys: Arc<dyn KeyStore>,
        config: Config,
    ) -> Result<Self, OpenError> {
        let known = keys.load(DEVICE_KEY).map_err(OpenError::Keys)?;
        let new = known.is_none();
        let secret = known.map_or_else(Secret::random, Ok).map_err(OpenError::Keys)?;
        let store = Store::open(folder, &options(&secret, &config)).map_err(OpenError::store)?;
        if new {
            keys.store(DEVICE_KEY, &secret).map_err(OpenError::Keys)?;
        }
        Ok(Self::resume(store, keys, config))
    }

    fn resume(store: Store, keys: Arc<dyn KeyStore>, config: Config) -> Self {
        // A full disk must not keep anybody from reading: the turns stay where they are, and the next
        // write says what is wrong.
        let _unpublished_turns_are_kept = store.publish_all();
        Self::assemble(store, keys, config)
    }

    /// Makes a new library in a folder, which is made if it is not there.
    ///
    /// # Errors
    ///
    /// [`OpenError::AlreadyThere`] if there is one; nothing was changed.
    pub fn create(folder: impl AsRef<Path>, config: Config) -> Result<Self, OpenError> {
        let folder = folder.as_ref();
        if folder.join(LIBRARY_FILE).exists() {
            return Err(OpenError::AlreadyThere);
        }
        let keys = key_store(folder, &config);
        let secret = keys::load_or_make(&*keys).map_err(OpenError::Keys)?;
        let store = Store::create(folder, &options(&secret, &config)).map_err(OpenError::store)?;
        Ok(Self::assemble(store, keys, config))
    }

    fn assemble(store: Store, keys: Arc<dyn KeyStore>, config: Config) -> Self {
        let core = Arc::new(Core {
            store,
            keys,
            config,
            subscribers: Subscribers::default(),
            order: Mutex::new(BTreeMap::new()),
        });
        let keeper = Keeper::new(Arc::clone(&core));
        Self { handle: Arc::new(Handle { keeper, core }) }
    }

    pub(crate) fn core(&self) -> &Core {
        &self.handle.core
    }

    pub(crate) fn keeper(&self) -> &Keeper {
        &self.handle.keeper
    }

    /// Returns this device, in the present generation of the library.
    pub fn device(&self) -> DeviceId {
        self.core().store.device()
    }

    /// Returns the devices this library was before it went back in time, newest last.
    pub fn replaced_devices(&self) -> Vec<DeviceId> {
        self.core().store.replaced_devices()
    }

    /// Returns what opening found: whether a new generation was started, and why.
    pub fn opened(&self) -> &Opened {
        self.core().store.opened()
    }

    /// Returns what each device is called.
    ///
    /// # Errors
    ///
    /// [`ReadError`].
    pub fn devices(&self) -> Result<BTreeMap<DeviceId, DeviceName>, ReadError> {
        self.core().store.devices().map_err(ReadError::store)
    }

    /// Starts to tell of everything that changes from now on.
    pub fn subscribe(&self) -> Subscription {
        self.core().subscribers.subscribe()
    }

    /// Returns every book that is not removed, last read first.
    ///
    /// # Errors
    ///
    /// [`ReadError`].
    pub fn books(&self) -> Result<Vec<BookSummary>, ReadError> {
        self.core().store.books().map_err(ReadError::store)
    }

    /// Returns the books that were read last, at most `count`, last first.
    ///
    /// # Errors
    ///
    /// [`ReadError`].
    pub fn recent(&self, count: usize) -> Result<Vec<BookSummary>, ReadError> {
        let mut books = self.core().store.recent(count).map_err(ReadError::store)?;
        books.retain(|book| book.ppm.is_some());
        Ok(books)
    }

    /// Returns a book by its id; `None` if it is not in this library, or removed.
    ///
    /// # Errors
    ///
    /// [`ReadError`].
    pub fn book(&self, id: BookId) -> Result<Option<Book>, ReadError> {
        let store = &self.core().store;
        let here = store.book(id).map_err(ReadError::store)?.is_some();
        let removed = store.is_removed(id).map_err(ReadError::store)?;
        Ok((here && !removed).then(|| Book::new(self.clone(), id)))
    }

    /// Finds a book by its id, the beginning of one (at least 6 digits), or its exact title.
    ///
    /// An id counts before the beginning of one, and that before a title. Removed books are not found.
    ///
    /// # Errors
    ///
    /// [`FindError::NotFound`], or [`FindError::Ambiguous`] if several books fit.
    pub fn find(&self, name: &str) -> Result<Book, FindError> {
        let mut books = self.by_prefix(name, false).map_err(FindError::Read)?;
        if books.is_empty() {
            books = self.by_title(name).map_err(FindError::Read)?;
        }
        let name = name.to_owned();
        match books.as_slice() {
            [] => Err(FindError::NotFound { name }),
            [book] => Ok(Book::new(self.clone(), *book)),
            _ => Err(FindError::Ambiguous { name, books }),
        }
    }

    /// Finds a book that was removed from this device, and whose history is here, by its id or the
    /// beginning of one (at least 6 digits).
    ///
    /// # Errors
    ///
    /// As [`find`](Self::find).
    pub fn find_removed(&self, name: &str) -> Result<BookId, FindError> {
        let books = self.by_prefix(name, true).map_err(FindError::Read)?;
        let name = name.to_owned();
        match books.as_slice() {
            [] => Err(FindError::NotFound { name }),
            [book] => Ok(*book),
            _ => Err(FindError::Ambiguous { name, books }),
        }
    }

    fn by_prefix(&self, name: &str, removed: bool) -> Result<Vec<BookId>, ReadError> {
        let digits = name.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
        if !digits || name.len() < PREFIX_DIGITS_MIN || 2 * BookId::LEN < name.len() {
            return Ok(Vec::new());
        }
        let store = &self.core().store;
        let mut books = Vec::new();
        for book in store.books_by_prefix(name, usize::MAX).map_err(ReadError::store)? {
            if store.is_removed(book).map_err(ReadError::store)? == removed {
                books.push(book);
            }
        }
        books.truncate(AMBIGUOUS_LISTED_MAX);
        Ok(books)
    }

    fn by_title(&self, title: &str) -> Result<Vec<BookId>, ReadError> {
        let books = self.books()?.into_iter().filter(|book| book.title == title);
        Ok(books.map(|book| book.book).take(AMBIGUOUS_LISTED_MAX).collect())
    }

    /// Returns the shelves by name, with their books.
    ///
    /// # Errors
    ///
    /// [`ReadError`].
    pub fn shelves(&self) -> Result<Vec<ShelfView>, ReadError> {
        self.core().store.shelves().map_err(ReadError::store)
    }

    /// Makes a shelf and returns its id. Several shelves may have one name.
    ///
    /// # Errors
    ///
    /// [`EditError::TooLarge`] for a name beyond 1 KiB.
    pub fn create_shelf(&self, name: &str) -> Result<ShelfId, EditError> {
        let id = ShelfId::new(self.core().now_ms(), random()?);
        self.edit_shelf(id, &[Edit::NameShelf { id, name: name.to_owned() }])?;
        Ok(id)
    }

    /// Gives a shelf another name.
    ///
    /// # Errors
    ///
    /// [`EditError::NoShelf`].
    pub fn rename_shelf(&self, id: ShelfId, name: &str) -> Result<(), EditError> {
        self.require_shelf(id)?;
        self.edit_shelf(id, &[Edit::NameShelf { id, name: name.to_owned() }])
    }

    /// Deletes a shelf. Its books stay in the library.
    ///
    /// # Errors
    ///
    /// [`EditError::NoShelf`].
    pub fn delete_shelf(&self, id: ShelfId) -> Result<(), EditError> {
        self.require_shelf(id)?;
        self.edit_shelf(id, &[Edit::DeleteShelf { id }])
    }

    /// Puts books on a shelf and takes others off, in one write.
    ///
    /// # Errors
    ///
    /// [`EditError::NoShelf`].
    pub fn fill_shelf(
        &self,
        id: ShelfId,
        add: &[BookId],
        remove: &[BookId],
    ) -> Result<(), EditError> {
        let now = self.require_shelf(id)?;
        let add = add.iter().filter(|book| !now.books.contains(book));
        let add = add.map(|book| Edit::AddMember { shelf: id, book: *book });
        let remove = remove.iter().map(|book| Edit::RemoveMember { shelf: id, book: *book });
        self.edit_shelf(id, &add.chain(remove).collect::<Vec<_>>())
    }

    fn require_shelf(&self, id: ShelfId) -> Result<ShelfView, EditError> {
        let shelves = self.core().store.shelves().map_err(EditError::load)?;
        shelves.into_iter().find(|shelf| shelf.id == id).ok_or(EditError::NoShelf)
    }

    fn edit_shelf(&self, id: ShelfId, edits: &[Edit]) -> Result<(), EditError> {
        if edits.is_empty() {
            return Ok(());
        }
        self.write(|core| {
            let commit = core.append(DocumentId::library(), edits)?;
            Ok(((), changed(commit, Event::ShelfChanged { shelf: id })))
        })
    }

    /// Removes a book from this device: its file goes, its history stays, hidden. Importing the book
    /// again undoes it.
    ///
    /// # Errors
    ///
    /// [`RemoveError::Edit`].
    pub fn remove(&self, book: BookId) -> Result<(), RemoveError> {
        let removed = self.write(|core| {
            core.store.remove(book, core.now_ms()).map_err(EditError::store)?;
            core.store.drop_file(book).map_err(|error| EditError::Io(error.into()))?;
            Ok(((), Some(Event::BookRemoved { book })))
        });
        removed.map_err(RemoveError::Edit)
    }

    /// Fills the library with made-up books for trials, `annotations` in each, and goes on where it was
    /// stopped. Subscribers are told that they missed it.
    ///
    /// `progress` is told what is done of how much, between transactions, and may stop the work. The
    /// same seed makes the same books, places and texts.
    ///
    /// # Errors
    ///
    /// [`EditError`]; what was added is kept, and calling again goes on from there.
    pub fn generate(
        &self,
        books: u32,
        annotations: u32,
        seed: u64,
        mut progress: impl FnMut(u64, u64) -> ControlFlow<()>,
    ) -> Result<Generated, EditError> {
        let core = self.core();
        let plan = Plan {
            books,
            annotations: u64::from(books) * u64::from(annotations),
            seed,
            now_ms: core.now_ms(),
        };
        let made = generate(&core.store, &plan, &mut progress).map_err(|error| match error {
            GenerateError::Append(error) => EditError::store(error),
            GenerateError::Load(error) => EditError::load(error),
        })?;
        let count = made.books + made.annotations;
        if 0 < count {
            core.subscribers.send(&Event::Missed { count });
        }
        Ok(made)
    }

    /// Makes a write and sends its events, in the order of writes.
    pub(crate) fn write<T, E: IntoIterator<Item = Event>>(
        &self,
        make: impl FnOnce(&Core) -> Result<(T, E), EditError>,
    ) -> Result<T, EditError> {
        self.write_undoable(|core, _| make(core))
    }

    /// As [`write`](Self::write), with what can be undone.
    pub(crate) fn write_undoable<T, E: IntoIterator<Item = Event>>(
        &self,
        make: impl FnOnce(&Core, &mut BTreeMap<BookId, UndoStack>) -> Result<(T, E), EditError>,
    ) -> Result<T, EditError> {
        let core = self.core();
        let mut undo = core.lock_order();
        let (value, events) = make(core, &mut undo)?;
        events.into_iter().for_each(|event| core.subscribers.send(&event));
        drop(undo);
        self.keeper().written();
        Ok(value)
    }
}

impl Core {
    pub(crate) fn now_ms(&self) -> u64 {
        self.config.now_ms()
    }

    pub(crate) fn append(&self, document: DocumentId, edits: &[Edit]) -> Result<Commit, EditError> {
        self.store.append(document, edits, self.now_ms()).map_err(EditError::store)
    }

    fn lock_order(&self) -> MutexGuard<'_, BTreeMap<BookId, UndoStack>> {
        // What can be undone is changed after the write that it belongs to, in one step.
        self.order.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Publishes the turns of a book that wait, and tells of the place they made.
    pub(crate) fn publish(&self, book: BookId) -> Result<bool, EditError> {
        let order = self.lock_order();
        let published = self.store.publish(book).map_err(EditError::store)?;
        if published && let Some(event) = self.place_moved(book).map_err(EditError::load)? {
            self.subscribers.send(&event);
        }
        drop(order);
        Ok(published)
    }

    /// Publishes every turn that waits, as before everything is shown to somebody else. A full disk keeps
    /// them where they are.
    #[cfg(feature = "net")]
    pub(crate) fn publish_all(&self) {
        let _unpublished_turns_are_kept = self.store.publish_all();
    }

    /// Tells whoever watches.
    #[cfg(feature = "net")]
    pub(crate) fn announce(&self, event: &Event) {
        let order = self.lock_order();
        self.subscribers.send(event);
        drop(order);
    }

    fn place_moved(&self, book: BookId) -> Result<Option<Event>, LoadError> {
        let entries = self.store.positions(book)?;
        let place = catchword_model::position::place(&entries);
        Ok(place.map(|place| Event::PlaceMoved {
            book,
            ppm: place.position.ppm,
            pass: place.position.pass,
        }))
    }
}

/// The event of a write, unless everything was so already.
pub(crate) fn changed(commit: Commit, event: Event) -> Option<Event> {
    commit.hash.map(|_| event)
}

/// Draws random bytes for an id.
pub(crate) fn random() -> Result<[u8; 10], EditError> {
    let mut bytes = [0; 10];
    getrandom::fill(&mut bytes).map_err(|error| EditError::Io(error.into()))?;
    Ok(bytes)
}

pub(crate) fn key_store(folder: &Path, config: &Config) -> Arc<dyn KeyStore> {
    match &config.keys {
        Some(keys) => Arc::clone(keys),
        None => Arc::new(FileKeyStore::new(folder.join(KEYS_FOLDER))),
    }
}

pub(crate) fn options(secret: &Secret, config: &Config) -> Options {
    Options {
        public_key_spki: keys::public_key_spki(secret),
        device: DeviceName {
            name: config.device_name.clone(),
            platform: config.platform.clone(),
            replaces: None,
        },
        now_ms: config.now_ms(),
    }
}
