//! `catchword demo`: the story of a library, lived through for real: on one device, then on three.
//!
//! Every step is a call that an application would make. The crash is one: another process writes into
//! the library, says what was acknowledged, and is killed in the middle.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use catchword::{
    AnnotationEdit, AnnotationId, Book, BookId, Library, Locator, NewAnnotation, PPM_MAX, sample,
};
use serde::Serialize;

use crate::args::DemoArgs;
use crate::commands::demo_crash::{Crash, WRITTEN_QUOTE, crash};
use crate::commands::demo_devices::{self, Devices};
use crate::commands::history::sentence;
use crate::context::Context;
use crate::failure::{Exit, Failure};
use crate::output::{Output, count, percent, plain};
use crate::shapes::{Done, Listed, What};
use crate::time::utc;

/// What positions made here name as their page engine.
const ENGINE: &str = "catchword demo";

/// What the demonstration found.
#[derive(Serialize)]
struct Story {
    books: Vec<Listed>,
    acknowledged: u64,
    found: u64,
    reopened_ms: u128,
    place_ppm: u32,
    history: usize,
    recent: Vec<String>,
    devices: Devices,
}

/// Lives through the story.
pub(crate) fn run(args: &DemoArgs, context: &Context) -> Result<(), Failure> {
    let folder =
        tempfile::tempdir().map_err(|error| Failure::file("make", &std::env::temp_dir(), error))?;
    let context = Context { folder: folder.path().join("library"), ..context.clone() };
    let out = &context.output;

    chapter(out, "A library of its own, in a folder that goes afterwards")?;
    let library = Library::create(&context.folder, context.config().with_device_name("phone"))?;
    let ids = import(out, &library, &files(args, folder.path())?)?;
    let first = *ids.first().ok_or_else(|| {
        Failure::message(Exit::Usage, "there is no book to tell the story with", "see --help")
    })?;
    let book = open(&library, first)?;
    read(out, &book)?;
    let highlight = mark(out, &book)?;
    write(out, &book)?;
    drop((book, library));

    chapter(out, "A crash in the middle")?;
    let crash = crash(&context, first)?;
    say(out, &format!("another process wrote, and was killed after {}", crash.told()))?;
    let started = Instant::now();
    let library = context.open()?;
    let reopened_ms = started.elapsed().as_millis();
    let book = open(&library, first)?;
    let found = crash.found(&book)?;
    say(out, &format!("opened again in {reopened_ms} ms: {found} of them are there"))?;
    verify(&crash, found, &book, highlight)?;

    let history = look_back(out, &book)?;
    for id in ids.iter().skip(1) {
        turn(&open(&library, *id)?, 50_000, 60)?;
    }
    let recent = recent(out, &library)?;
    let books = library.books()?.into_iter().map(Listed::from).collect();
    let place_ppm = book.place()?.map_or(0, |place| place.position.ppm);
    drop(book);
    let devices = demo_devices::run(&context, library, folder.path(), first)?;
    chapter(out, "What comes next")?;
    say(out, "with your own books: `catchword init --name NAME`, `catchword import FILE`")?;
    say(out, "on two devices: `catchword pair --show` here, and there what it prints")?;
    say(
        out,
        "from then on: `catchword serve` on both, and `catchword status` to see how they are",
    )?;

    let story = Story {
        books,
        acknowledged: crash.acknowledged(),
        found,
        reopened_ms,
        place_ppm,
        history,
        recent,
        devices,
    };
    if context.output.is_json() { out.print(&story, |_| ()) } else { Ok(()) }
}

pub(crate) fn chapter(out: &Output, title: &str) -> Result<(), Failure> {
    out.say(&format!("\n{title}"))
}

pub(crate) fn say(out: &Output, line: &str) -> Result<(), Failure> {
    out.say(&format!("  {line}"))
}

/// Returns the files of the story: those given, or samples.
fn files(args: &DemoArgs, folder: &Path) -> Result<Vec<PathBuf>, Failure> {
    if !args.files.is_empty() {
        return Ok(args.files.clone());
    }
    let mut files = Vec::new();
    for sample in sample::all() {
        let path = folder.join(sample.file_name);
        fs::write(&path, sample.bytes).map_err(|error| Failure::file("write", &path, error))?;
        files.push(path);
    }
    Ok(files)
}

fn import(out: &Output, library: &Library, files: &[PathBuf]) -> Result<Vec<BookId>, Failure> {
    let mut ids = Vec::new();
    for file in files {
        let imported =
            library.import(file).map_err(|error| Failure::from(error).about(file.display()))?;
        let authors = plain(&imported.file.authors.join(", "));
        say(out, &format!("imported {}, {authors}", plain(&imported.title)))?;
        ids.push(imported.book.id());
    }
    Ok(ids)
}

pub(crate) fn open(library: &Library, id: BookId) -> Result<Book, Failure> {
    Ok(library.find(&id.to_string())?)
}

/// Reads up to a place in one session of one turn.
pub(crate) fn turn(book: &Book, ppm: u32, seconds: u32) -> Result<(), Failure> {
    let mut session = book.session(ENGINE)?;
    session.restored();
    session.spent(seconds);
    session.turned(Locator::new().with_total_ppm(ppm))?;
    session.close()?;
    Ok(())
}

fn read(out: &Output, book: &Book) -> Result<(), Failure> {
    chapter(out, "Reading")?;
    let before = book.view()?.heads;
    let mut session = book.session(ENGINE)?;
    session.restored();
    session.close()?;
    if book.view()?.heads != before {
        return Err(broken("opening the book was recorded as reading"));
    }
    say(out, "opened and closed without turning a page: nothing is recorded")?;

    turn(book, 320_000, 1_200)?;
    say(out, "read 20 minutes, up to 32.0 %")?;
    turn(book, 118_000, 180)?;
    let furthest = book.furthest()?.map_or(0, |furthest| furthest.ppm);
    say(out, &format!("went back to 11.8 %; the furthest point stays at {}", percent(furthest)))
}

fn mark(out: &Output, book: &Book) -> Result<AnnotationId, Failure> {
    chapter(out, "Marking")?;
    let place = Locator::new().with_total_ppm(120_000);
    let new = NewAnnotation::highlight("a passage worth keeping").at(place).with_color("yellow");
    let id = book.annotate(new)?.id;
    book.edit(id, &AnnotationEdit::new().note("why it is worth keeping"))?;
    say(out, "highlighted a passage and wrote a note to it")?;
    book.delete(id)?;
    say(out, "deleted it")?;
    book.undelete(id)?;
    let back = book.annotation(id)?.and_then(|annotation| annotation.note);
    say(out, &format!("brought it back, with its note: {:?}", back.unwrap_or_default()))?;
    Ok(id)
}

fn write(out: &Output, book: &Book) -> Result<(), Failure> {
    book.tag(&["demo"], &[])?;
    book.set_journal("A journal of its own for every book, merged character by character.\n")?;
    say(out, "tagged the book and began a journal")
}

/// The story is a test, too: what was acknowledged and is not there is a defect.
fn verify(crash: &Crash, found: u64, book: &Book, highlight: AnnotationId) -> Result<(), Failure> {
    if found != crash.acknowledged() {
        return Err(broken("acknowledged writes are missing after the crash"));
    }
    if book.annotation(highlight)?.is_none_or(|annotation| annotation.deleted) {
        return Err(broken("the highlight from before the crash is missing"));
    }
    Ok(())
}

/// A promise was not kept.
pub(crate) fn broken(what: &str) -> Failure {
    Failure::message(Exit::Failed, what, "this is a defect: please report it with your system")
}

fn look_back(out: &Output, book: &Book) -> Result<usize, Failure> {
    chapter(out, &format!("What happened in {}", plain(&book.title()?)))?;
    let done: Vec<Done> = book.history()?.into_iter().map(Done::from).collect();
    let (of_writer, told): (Vec<&Done>, Vec<&Done>) = done.iter().partition(
        |done| matches!(&done.what, What::Annotated { quote, .. } if quote == WRITTEN_QUOTE),
    );
    for one in told {
        say(out, &plain(&format!("{}  {}", utc(one.wall_ms), sentence(&one.what))))?;
    }
    let highlights = count(of_writer.len() as u64, "highlight");
    say(out, &format!("and {highlights} of the process that was killed"))?;
    Ok(done.len())
}

fn recent(out: &Output, library: &Library) -> Result<Vec<String>, Failure> {
    chapter(out, "Read last")?;
    let mut titles = Vec::new();
    for book in library.recent(10)? {
        let place = percent(book.ppm.unwrap_or(0).min(PPM_MAX));
        say(out, &format!("{place:>8}  {}", plain(&book.title)))?;
        titles.push(book.title);
    }
    Ok(titles)
}
