//! Positions, highlights and notes of books, on every device, without a server: the engine that
//! applications embed.
//!
//! A [`Library`] is a folder on this device: where a person is in each of their books, what they
//! marked and wrote, and when. Every write is durable when its call returns, and carries what is
//! needed to merge it with what other devices wrote.
//!
//! ```
//! # let folder = tempfile::tempdir()?;
//! # let (path, file) = (folder.path().join("library"), folder.path().join("lamp.epub"));
//! # let sample = catchword_formats::sample::all().remove(0);
//! # std::fs::write(&file, sample.bytes)?;
//! use catchword::{Library, Locator, NewAnnotation};
//!
//! let library = Library::open(&path)?;
//! let book = library.import(&file)?.book;
//!
//! let mut session = book.session("my reader")?;
//! session.restored();
//! session.turned(Locator::new().with_total_ppm(125_000))?;
//! session.close()?;
//!
//! let place = Locator::new().with_total_ppm(120_000);
//! book.annotate(NewAnnotation::highlight("the lamp").at(place).with_note("remember this"))?;
//!
//! assert_eq!(book.place()?.map(|place| place.position.ppm), Some(125_000));
//! assert_eq!(book.annotations(catchword::WHOLE_BOOK)?.len(), 1);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Guarantees
//!
//! 1. What was acknowledged is there after a crash at any moment; the next opening takes
//!    milliseconds.
//! 2. Opening is not reading: a [`ReadingSession`] records nothing before it was told that the place
//!    is restored and a page was turned.
//! 3. Reading never depends on the size of a book's history.
//! 4. A write that is refused changes nothing, and its error says what to do.
//!
//! # What is not here
//!
//! Drawing pages. Without the feature `net`, other devices: nothing leaves this one.

#![warn(clippy::exhaustive_enums)]

mod annotating;
mod book;
mod care;
mod config;
mod conflict;
mod error;
mod event;
pub mod generate;
mod history;
mod import;
mod keeper;
mod keys;
mod library;
#[cfg(feature = "net")]
pub mod net;
mod notes;
mod session;
mod undo;

pub use catchword_formats::sample;
pub use catchword_formats::{BookFile, Format, RefusedFile, SpineItem, Warning};
pub use catchword_model::annotation::{Annotation, Kind, NOTE_BYTES_MAX, QUOTE_BYTES_MAX};
pub use catchword_model::document::{AppData, AppError};
pub use catchword_model::hlc::Hlc;
pub use catchword_model::id::{AnnotationId, BookId, ChangeHash, DeviceId, ShelfId};
pub use catchword_model::locator::{Locator, LocatorError};
pub use catchword_model::meta::{DeviceName, Meta, Rank};
pub use catchword_model::position::{Entry, Furthest, Intent, PPM_MAX, Position};
pub use catchword_model::schema::{TAG_BYTES_MAX, TagError};
pub use catchword_store::{
    BackupReport, BookSummary, BookView, CheckReport, Commit, CompactReport, Damaged, Derived,
    Difference, End, EventTotals, Evidence, Existing, Mismatch, OnProgress, Opened, Progress,
    RecordName, Repair, RestoreReport, SalvageReport, ShelfView, Step, TurnReceipt,
};

pub use annotating::{Annotated, AnnotationEdit, NewAnnotation};
pub use book::{Book, NO_PLACE_PPM, WHOLE_BOOK};
pub use care::Checked;
pub use config::Config;
pub use conflict::{Conflict, Rule, Side, Subject};
pub use error::{
    BackupError, Cause, EditError, FindError, ImportError, OpenError, ReadError, RemoveError,
    RestoreError,
};
pub use event::{EVENTS_WAITING_MAX, Event, Subscription};
pub use history::{Deed, HistoryEntry};
pub use import::{Imported, Newness};
pub use keeper::PUBLISH_AFTER;
pub use keys::{
    CERTIFICATE_BYTES_MAX, DEVICE_KEY, FileKeyStore, KeyError, KeyStore, SECRET_BYTES, Secret,
};
pub use library::{Library, PREFIX_DIGITS_MIN};
pub use notes::{Part, Saved};
pub use session::{PAGE_SECONDS_MAX, ReadingSession};
pub use undo::UNDO_STEPS_MAX;

/// Compiles the example of the README.
#[cfg(doctest)]
#[doc = include_str!("../../../README.md")]
struct Readme;
