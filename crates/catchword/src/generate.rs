//! A made library for trials and benches: the same books and annotations for the same seed.
//!
//! # Invariants
//!
//! 1. What is made follows from the seed and the numbers of book and annotation alone, so a second
//!    call finds what the first one wrote and adds nothing.
//! 2. Everything goes through the door of the store, one change for each annotation, as a person
//!    would have made them; some thousand changes make one transaction.
//! 3. Of each book the annotations written are the first so many, wherever a call was stopped.
//!
//! # What is not here
//!
//! Book files: a made book is known by its id, and nothing on this device can open it.

use std::fmt::Write as _;
use std::ops::ControlFlow;

use catchword_model::annotation::{Creation, Kind};
use catchword_model::edit::Edit;
use catchword_model::hlc::Hlc;
use catchword_model::id::{AnnotationId, BookId, DeviceId, DocumentId, sha256};
use catchword_model::locator::{Locator, PPM_MAX};
use catchword_model::meta::{Meta, Rank};
use catchword_model::position::{Furthest, Intent, Position};
use catchword_store::{AppendError, LoadError, Motion, Store, Turn};

/// Changes of one transaction.
const BATCH_CHANGES: u64 = 2_000;
/// Of so many books one was never opened.
const UNREAD_ONE_IN: u64 = 6;
/// Books read last, whose position comes from a reading session, with its event in the reading log.
const SESSIONS_MAX: u64 = 32;
/// What the made library looks back on, in milliseconds.
const SPAN_MS: u64 = 180 * 24 * 3_600 * 1_000;
/// When the first annotation of a book says it was made: 1 January 2024, in milliseconds since the
/// Unix epoch. Ids name it, and ids follow from the seed alone.
const FIRST_ID_MS: u64 = 1_704_067_200_000;
/// From one annotation of a book to the next, in milliseconds.
const BETWEEN_IDS_MS: u64 = 61_000;
/// Bits in the number of a word: the vocabulary has two to this power.
const WORD_BITS: u32 = 12;

/// What to make.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Plan {
    /// How many books.
    pub books: u32,
    /// How many annotations in all, spread evenly over the books.
    pub annotations: u64,
    /// What everything that is made follows from.
    pub seed: u64,
    /// The wall clock, in milliseconds since the Unix epoch. Stamps lie in the half year before, as
    /// far as the clock of the store has not passed them: a stamp is never set back.
    pub now_ms: u64,
}

/// What was added. What was there already is not counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Generated {
    /// Books that are new.
    pub books: u64,
    /// Annotations that are new.
    pub annotations: u64,
}

/// A library could not be made. What the finished transactions added is kept, and calling again goes
/// on from there.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GenerateError {
    /// The store refused a write.
    #[error("cannot write the made library")]
    Append(#[source] AppendError),
    /// The store could not read what is there already.
    #[error("cannot read what is there already")]
    Load(#[source] LoadError),
}

/// Makes the books and annotations of a plan that are not there yet.
///
/// `progress` is called after each transaction with what is done of how much, and may stop; what was
/// added so far is then returned.
///
/// # Errors
///
/// [`GenerateError`]; see there for what remains.
pub fn generate(
    store: &Store,
    plan: &Plan,
    progress: &mut dyn FnMut(u64, u64) -> ControlFlow<()>,
) -> Result<Generated, GenerateError> {
    let total = u64::from(plan.books) * 2 + plan.annotations;
    let made = Made::new(plan.seed);
    let mut run =
        Run { store, plan, made, device: store.device(), added: Generated::default(), done: 0 };
    let mut step = |done: u64| progress(done.min(total), total);
    let finished = run.add_books(&mut step)?.is_continue()
        && run.annotate(&mut step)?.is_continue()
        && run.read(&mut step)?.is_continue();
    if finished {
        // The last call says that all is done, whatever was there before.
        let _: ControlFlow<()> = step(total);
    }
    Ok(run.added)
}

type Step<'a> = &'a mut dyn FnMut(u64) -> ControlFlow<()>;

struct Run<'a> {
    store: &'a Store,
    plan: &'a Plan,
    made: Made,
    device: DeviceId,
    added: Generated,
    /// Of books twice (added, read) and annotations.
    done: u64,
}

impl Run<'_> {
    /// Returns the wall clock of the next transaction: the past half year, evenly.
    fn now_ms(&self) -> u64 {
        let total = (u64::from(self.plan.books) * 2 + self.plan.annotations).max(1);
        let left = u128::from(total.saturating_sub(self.done)) * u128::from(SPAN_MS);
        let before_ms = u64::try_from(left / u128::from(total)).unwrap_or(SPAN_MS);
        self.plan.now_ms.saturating_sub(before_ms)
    }

    fn add_books(&mut self, step: Step<'_>) -> Result<ControlFlow<()>, GenerateError> {
        let books = u64::from(self.plan.books);
        let mut first = 0;
        while first < books {
            let last = books.min(first + BATCH_CHANGES);
            let mut new = Vec::new();
            for book in first..last {
                let id = self.made.book(book);
                if self.store.heads(id.document()).map_err(GenerateError::Load)?.is_none() {
                    new.push((id, self.made.metadata(book)));
                }
            }
            if !new.is_empty() {
                let added = self.store.add_books(new, Vec::new(), self.now_ms());
                let added = added.map_err(GenerateError::Append)?;
                self.added.books += added.into_iter().filter(|new| *new).count() as u64;
            }
            self.done += last - first;
            if step(self.done).is_break() {
                return Ok(ControlFlow::Break(()));
            }
            first = last;
        }
        Ok(ControlFlow::Continue(()))
    }

    /// Writes what is missing of each book, in the order in which its reader made them.
    fn annotate(&mut self, step: Step<'_>) -> Result<ControlFlow<()>, GenerateError> {
        let books = u64::from(self.plan.books);
        let mut batch: Vec<(DocumentId, Vec<Edit>)> = Vec::new();
        for book in 0..books {
            let count = share(self.plan.annotations, books, book);
            let first = self.annotated(book, count)?;
            self.done += first;
            for n in first..count {
                let ppm = self.made.ppm(book, n, count);
                let creation = Box::new(self.made.creation(book, n, ppm, self.device));
                let edit = Edit::Annotate { id: self.made.annotation(book, n), creation };
                batch.push((self.made.book(book).document(), vec![edit]));
                if BATCH_CHANGES <= batch.len() as u64 {
                    self.write(&mut batch)?;
                    if step(self.done).is_break() {
                        return Ok(ControlFlow::Break(()));
                    }
                }
            }
        }
        self.write(&mut batch)?;
        Ok(step(self.done))
    }

    fn write(&mut self, batch: &mut Vec<(DocumentId, Vec<Edit>)>) -> Result<(), GenerateError> {
        let now_ms = self.now_ms();
        self.store.append_all(batch, now_ms).map_err(GenerateError::Append)?;
        self.added.annotations += batch.len() as u64;
        self.done += batch.len() as u64;
        batch.clear();
        Ok(())
    }

    /// Returns how many annotations of a book are there: see invariant 3.
    fn annotated(&self, book: u64, count: u64) -> Result<u64, GenerateError> {
        let is_there = |n: u64| {
            let found = self.store.annotation(self.made.book(book), self.made.annotation(book, n));
            found.map(|row| row.is_some()).map_err(GenerateError::Load)
        };
        let (mut low, mut high) = (0, count);
        if 0 < count && is_there(count - 1)? {
            return Ok(count);
        }
        while low < high {
            let middle = low + (high - low) / 2;
            if is_there(middle)? {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        Ok(low)
    }

    /// Gives most books a position: the change that a reading session leaves. The books read last get
    /// a session of their own.
    fn read(&mut self, step: Step<'_>) -> Result<ControlFlow<()>, GenerateError> {
        let books = u64::from(self.plan.books);
        let mut batch: Vec<(DocumentId, Vec<Edit>)> = Vec::new();
        for place in 0..books {
            let book = self.made.read_order(place, books);
            let unread = self.made.dice(Part::Reading, book, 0).below(UNREAD_ONE_IN) == 0;
            if !unread && !self.has_position(book)? {
                if books - place <= SESSIONS_MAX {
                    self.write_positions(&mut batch)?;
                    self.session(book)?;
                } else {
                    batch.push((self.made.book(book).document(), self.positions(book)));
                }
            }
            self.done += 1;
            if BATCH_CHANGES <= batch.len() as u64 {
                self.write_positions(&mut batch)?;
                if step(self.done).is_break() {
                    return Ok(ControlFlow::Break(()));
                }
            }
        }
        self.write_positions(&mut batch)?;
        Ok(ControlFlow::Continue(()))
    }

    fn has_position(&self, book: u64) -> Result<bool, GenerateError> {
        let positions = self.store.positions(self.made.book(book)).map_err(GenerateError::Load)?;
        Ok(positions.iter().any(|entry| entry.device == self.device))
    }

    fn write_positions(
        &self,
        batch: &mut Vec<(DocumentId, Vec<Edit>)>,
    ) -> Result<(), GenerateError> {
        if !batch.is_empty() {
            self.store.append_all(batch, self.now_ms()).map_err(GenerateError::Append)?;
            batch.clear();
        }
        Ok(())
    }

    fn positions(&self, book: u64) -> Vec<Edit> {
        let (ppm, locator) = self.made.place(book);
        let position = Position {
            locator: locator.clone(),
            ppm,
            intent: Intent::Advance,
            pass: 1,
            wall_ms: self.now_ms(),
            seen: Hlc::ZERO,
        };
        let seconds = u64::from(ppm) / 50 + 1;
        let total = |name: &str, value| Edit::SetTotal { name: name.to_owned(), value };
        vec![
            Edit::SetPosition(position),
            Edit::SetFurthest { pass: 1, furthest: Furthest { locator, ppm } },
            total("seconds", seconds),
            total("turns", seconds / 40 + 1),
            total("sessions", seconds / 1_800 + 1),
        ]
    }

    fn session(&self, book: u64) -> Result<(), GenerateError> {
        let (ppm, locator) = self.made.place(book);
        let id = self.made.book(book);
        let turn = Turn { locator, ppm, motion: Motion::Turned, seconds: 47, from_ppm: ppm / 2 };
        self.store.turn(id, &turn, self.now_ms()).map_err(GenerateError::Append)?;
        self.store.publish(id).map_err(GenerateError::Append)?;
        Ok(())
    }
}

/// Returns how many of `all` the book gets.
fn share(all: u64, books: u64, book: u64) -> u64 {
    let (each, rest) = (all.checked_div(books).unwrap_or(0), all.checked_rem(books).unwrap_or(0));
    each + u64::from(book < rest)
}

/// What random numbers are drawn for: each part has its own, so that none moves the others.
#[derive(Debug, Clone, Copy)]
enum Part {
    Book = 1,
    Id = 2,
    Place = 3,
    Text = 4,
    Reading = 5,
}

/// Makes the parts of a library, each by its number.
#[derive(Debug)]
pub struct Made {
    seed: u64,
    words: Vec<String>,
}

impl Made {
    /// Prepares what follows from a seed.
    pub fn new(seed: u64) -> Self {
        Self { seed, words: (0..1_u64 << WORD_BITS).map(word).collect() }
    }

    fn dice(&self, part: Part, book: u64, n: u64) -> Dice {
        let mut dice = Dice(self.seed ^ (part as u64) << 56);
        dice.0 ^= dice.next() ^ book;
        dice.0 ^= dice.next() ^ n;
        dice
    }

    /// Returns the id of a book: the SHA-256 of a made name.
    pub fn book(&self, book: u64) -> BookId {
        let name = [self.seed.to_be_bytes(), book.to_be_bytes()].concat();
        BookId(sha256(&[b"catchword/made/v1", &name]))
    }

    /// Returns what is known about a book.
    fn metadata(&self, book: u64) -> Vec<Edit> {
        let mut dice = self.dice(Part::Book, book, 0);
        let title = capitalized(&self.prose(&mut dice, 28));
        let given = capitalized(&self.uncommon(&mut dice));
        let family = capitalized(&self.uncommon(&mut dice));
        let set = |field: &str, value: serde_json::Value| Edit::SetMeta {
            field: field.to_owned(),
            meta: Meta { value, rank: Rank::File },
        };
        vec![
            set("title", title.into()),
            set("authors", vec![format!("{given} {family}")].into()),
            set("language", "en".into()),
        ]
    }

    /// Returns the id of the n-th annotation of a book. Ids rise with n.
    pub fn annotation(&self, book: u64, n: u64) -> AnnotationId {
        let mut dice = self.dice(Part::Id, book, n);
        let made_ms = FIRST_ID_MS + n * BETWEEN_IDS_MS + dice.below(BETWEEN_IDS_MS - 1_000);
        let mut random = [0; 10];
        let drawn = [dice.next().to_be_bytes(), dice.next().to_be_bytes()].concat();
        random.iter_mut().zip(drawn).for_each(|(slot, byte)| *slot = byte);
        AnnotationId::new(made_ms, random)
    }

    /// Returns where the n-th of so many annotations of a book stands, in parts per million: mostly
    /// where reading has come to, one in twelve anywhere.
    pub fn ppm(&self, book: u64, n: u64, count: u64) -> u32 {
        let mut dice = self.dice(Part::Place, book, n);
        let all = u64::from(PPM_MAX);
        let width = all / count.max(1);
        let ppm = if dice.below(12) == 0 {
            dice.below(all)
        } else {
            let start = u128::from(n) * u128::from(all) / u128::from(count.max(1));
            u64::try_from(start).unwrap_or(0) + dice.below(width.max(1))
        };
        u32::try_from(ppm.min(all)).unwrap_or(PPM_MAX)
    }

    /// Returns the n-th annotation of a book, at a place given in parts per million.
    pub fn creation(&self, book: u64, n: u64, ppm: u32, device: DeviceId) -> Creation {
        let mut dice = self.dice(Part::Text, book, n);
        let quote_chars = 50 + dice.below(50);
        let quote = capitalized(&self.prose(&mut dice, quote_chars));
        let note_chars = dice.below(121);
        let note =
            (0 < note_chars).then(|| clipped(&self.prose(&mut dice, note_chars), note_chars));
        let kind = match dice.below(20) {
            0 => Kind::Bookmark,
            1..5 => Kind::Note,
            _ => Kind::Highlight,
        };
        let color = match dice.below(8) {
            0 => "red",
            1 => "blue",
            2 | 3 => "green",
            _ => "yellow",
        };
        Creation {
            kind,
            locator: self.locator(book, ppm, dice.below(400)),
            quote,
            color: Some(color.to_owned()),
            note: note.filter(|note| !note.is_empty()),
            created_by: device.to_string(),
            source: None,
            unknown: String::new(),
        }
    }

    /// Returns where the reader of a book has come to.
    fn place(&self, book: u64) -> (u32, Locator) {
        let mut dice = self.dice(Part::Reading, book, 1);
        let ppm = u32::try_from(dice.below(u64::from(PPM_MAX))).unwrap_or(0);
        (ppm, self.locator(book, ppm, dice.below(400)))
    }

    /// Returns which book is read at this place in the order of reading: every book once.
    fn read_order(&self, place: u64, books: u64) -> u64 {
        // A step without a common divisor visits every book; 7919 is prime.
        let step = if books.is_multiple_of(7_919) { 1 } else { 7_919 };
        (self.seed % books.max(1) + place * step) % books.max(1)
    }

    /// Returns a locator as a reader of EPUB files writes it.
    fn locator(&self, book: u64, ppm: u32, offset: u64) -> Locator {
        let mut dice = self.dice(Part::Book, book, 1);
        let chapters = 12 + dice.below(48);
        let paragraphs = 60 + dice.below(180);
        let far = u64::from(ppm) * chapters;
        let (chapter, progression) = (far / u64::from(PPM_MAX), far % u64::from(PPM_MAX));
        let chapter = chapter.min(chapters - 1) + 1;
        let paragraph = progression * paragraphs / u64::from(PPM_MAX);
        let (item, block) = (4 + 2 * chapter, 2 + 2 * paragraph);
        let cfi = format!("epubcfi(/6/{item}[ch{chapter:02}]!/4/2/{block}/1:{offset})");
        let mut text = String::with_capacity(160);
        let written = write!(
            text,
            "{{\"cfi\":\"{cfi}\",\"href\":\"OEBPS/chapter-{chapter:02}.xhtml\",\
             \"progression_ppm\":{progression},\"total_ppm\":{ppm}}}"
        );
        debug_assert!(written.is_ok(), "a string takes every text");
        Locator::stored(text)
    }

    /// Returns words up to about so many characters; never fewer than one word.
    fn prose(&self, dice: &mut Dice, chars: u64) -> String {
        let mut text = String::new();
        loop {
            text.push_str(self.common(dice));
            if chars <= text.len() as u64 {
                return text;
            }
            text.push_str(if dice.below(9) == 0 { ", " } else { " " });
        }
    }

    /// Draws a word: every word of twice the rank is half as likely.
    fn common(&self, dice: &mut Dice) -> &str {
        let bits = dice.below(u64::from(WORD_BITS));
        let rank = (1 << bits) + dice.below(1 << bits);
        self.word_at(rank)
    }

    fn uncommon(&self, dice: &mut Dice) -> String {
        let half = 1 << (WORD_BITS - 1);
        self.word_at(half + dice.below(half)).to_owned()
    }

    fn word_at(&self, rank: u64) -> &str {
        let place = usize::try_from(rank).unwrap_or_default();
        self.words.get(place).map_or("of", String::as_str)
    }
}

/// Returns the word of a rank. Common words are short.
fn word(rank: u64) -> String {
    const STARTS: [&str; 16] =
        ["b", "s", "th", "m", "l", "w", "gr", "h", "p", "st", "r", "d", "f", "k", "n", "tr"];
    const VOWELS: [&str; 8] = ["a", "e", "i", "o", "u", "ea", "ou", "ai"];
    const ENDS: [&str; 8] = ["", "n", "r", "", "st", "l", "ck", "nd"];

    let mut dice = Dice(rank);
    let syllables = match rank {
        0..48 => 1,
        48..700 => 2,
        _ => 2 + dice.below(3),
    };
    let mut word = String::new();
    for _ in 0..syllables {
        for parts in [&STARTS[..], &VOWELS[..], &ENDS[..]] {
            let place = usize::try_from(dice.below(parts.len() as u64)).unwrap_or_default();
            word.push_str(parts.get(place).copied().unwrap_or_default());
        }
    }
    word
}

fn capitalized(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map_or_else(String::new, |first| first.to_uppercase().chain(chars).collect())
}

/// Returns at most so many characters, without spaces at the end.
fn clipped(text: &str, chars: u64) -> String {
    let chars = usize::try_from(chars).unwrap_or(usize::MAX);
    text.chars().take(chars).collect::<String>().trim_end().to_owned()
}

/// Numbers that look random and are the same everywhere.
///
/// # Source
///
/// `SplitMix64`: Steele, Lea, Flood, "Fast splittable pseudorandom number generators", 2014.
#[derive(Debug, Clone)]
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// Draws a number below `end`; 0 if `end` is 0.
    fn below(&mut self, end: u64) -> u64 {
        let wide = u128::from(self.next()) * u128::from(end);
        u64::try_from(wide >> 64).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;

    use catchword_model::annotation::Annotation;
    use catchword_model::meta::DeviceName;
    use catchword_store::Options;

    use super::*;

    const NOW_MS: u64 = 1_780_000_000_000;

    fn library(folder: &Path) -> Store {
        let device = DeviceName { name: "made".to_owned(), ..DeviceName::default() };
        let now_ms = NOW_MS - SPAN_MS;
        Store::create(folder, &Options { public_key_spki: vec![1; 44], device, now_ms }).unwrap()
    }

    fn plan(books: u32, annotations: u64) -> Plan {
        Plan { books, annotations, seed: 7, now_ms: NOW_MS }
    }

    fn all(store: &Store, books: u32) -> Vec<Annotation> {
        let made = Made::new(7);
        let mut found = Vec::new();
        for book in 0..u64::from(books) {
            store.annotations(made.book(book), 0, u32::MAX, |shown| found.push(shown)).unwrap();
        }
        found
    }

    #[test]
    fn a_second_call_with_the_same_seed_adds_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let store = library(folder.path());
        let mut go_on = |_, _| ControlFlow::Continue(());

        let first = generate(&store, &plan(40, 5_000), &mut go_on).unwrap();
        let heads = store.heads(Made::new(7).book(3).document()).unwrap();
        let again = generate(&store, &plan(40, 5_000), &mut go_on).unwrap();

        assert_eq!(first, Generated { books: 40, annotations: 5_000 });
        assert_eq!(again, Generated::default());
        assert_eq!(store.heads(Made::new(7).book(3).document()).unwrap(), heads);
    }

    #[test]
    fn what_was_stopped_is_finished_by_the_next_call() {
        let folder = tempfile::tempdir().unwrap();
        let (stopped, whole) =
            (library(&folder.path().join("stopped")), library(&folder.path().join("whole")));
        let mut calls = 0;
        let mut stop_at_fourth = |_, _| {
            calls += 1;
            if calls < 4 { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        };
        let mut go_on = |_, _| ControlFlow::Continue(());

        let part = generate(&stopped, &plan(3, 9_000), &mut stop_at_fourth).unwrap();
        let rest = generate(&stopped, &plan(3, 9_000), &mut go_on).unwrap();
        generate(&whole, &plan(3, 9_000), &mut go_on).unwrap();

        assert_eq!(part, Generated { books: 3, annotations: 6_000 });
        assert_eq!(rest, Generated { books: 0, annotations: 3_000 });
        let said = |store: &Store| {
            let said = |shown: Annotation| (shown.id, shown.quote, shown.note, shown.locator);
            all(store, 3).into_iter().map(said).collect::<Vec<_>>()
        };
        assert_eq!(said(&stopped), said(&whole));
    }

    #[test]
    fn made_annotations_are_like_those_of_a_person() {
        let folder = tempfile::tempdir().unwrap();
        let store = library(folder.path());
        generate(&store, &plan(2, 4_000), &mut |_, _| ControlFlow::Continue(())).unwrap();

        let shown = all(&store, 2);
        assert_eq!(shown.len(), 4_000);
        let mean = |lens: &dyn Fn(&Annotation) -> usize| {
            shown.iter().map(lens).sum::<usize>() / shown.len()
        };
        assert!((72..88).contains(&mean(&|a| a.quote.len())), "{}", mean(&|a| a.quote.len()));
        let note_chars = mean(&|a| a.note.as_ref().map_or(0, String::len));
        assert!((50..70).contains(&note_chars), "{note_chars}");
        assert!(shown.iter().all(|a| a.note.as_ref().is_none_or(|note| note.len() <= 120)));
        for annotation in &shown {
            annotation.locator.check().unwrap();
            assert_eq!(annotation.device(), Some(store.device()));
        }
        let stamps: BTreeSet<u64> = shown.iter().map(|a| a.stamp.wall_ms() / 86_400_000).collect();
        assert!(1 < stamps.len(), "all on one day");
    }

    #[test]
    fn most_books_have_been_read_and_the_last_ones_in_sessions() {
        let folder = tempfile::tempdir().unwrap();
        let store = library(folder.path());
        generate(&store, &plan(100, 0), &mut |_, _| ControlFlow::Continue(())).unwrap();

        let books = store.books().unwrap();
        let read = books.iter().take_while(|book| book.ppm.is_some()).count();
        assert!((70..95).contains(&read), "{read}");
        assert_eq!(books.iter().filter(|book| book.ppm.is_some()).count(), read);
        let view = store.view(books[0].book).unwrap().unwrap();
        assert_eq!(view.events.count, 1);
        assert_eq!(view.totals.get("sessions"), Some(&1));
    }

    #[test]
    fn another_seed_makes_another_library() {
        let (one, other) = (Made::new(1), Made::new(2));
        assert_ne!(one.book(0), other.book(0));
        assert_ne!(one.annotation(0, 0), other.annotation(0, 0));
        let device = DeviceId([0; 16]);
        assert_ne!(one.creation(0, 0, 5, device).quote, other.creation(0, 0, 5, device).quote);
    }
}
