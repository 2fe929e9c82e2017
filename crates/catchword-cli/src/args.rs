//! The whole command line in one place: commands, options, and what `--help` says about them.
//!
//! What is checked here is form alone (a number is a number, an id is an id); whether a book or a
//! file exists is for the command to find out.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{ArgGroup, Args, Parser, Subcommand, ValueEnum, value_parser};

/// The end of a book, in parts per million.
const PPM_MAX: i64 = 1_000_000;
/// Longest time one reading session may claim, in seconds: a day.
const SECONDS_MAX: i64 = 86_400;
/// Heading of the options that every command takes.
const EVERYWHERE: &str = "Options of every command";
/// Widest line of a help text, in characters.
const HELP_WIDTH_MAX: usize = 100;

/// Keep books, positions, highlights and notes
///
/// Keeps a library of books on this device: where you are in each of them, what you marked and
/// wrote, and when. Every write is durable when the command returns. Devices that are paired bring
/// each other to the same state, over the network they share and without a server.
///
/// A BOOK is an id, the beginning of one (at least 6 digits), or an exact title.
///
/// Exit codes: 0 done, 1 failed, 2 wrong usage, 3 refused, 4 not found.
#[derive(Debug, Parser)]
#[command(
    name = "catchword",
    version,
    max_term_width = HELP_WIDTH_MAX,
    propagate_version = false,
    disable_help_subcommand = true,
    subcommand_required = true,
    arg_required_else_help = true
)]
pub(crate) struct Cli {
    /// Options that every command takes.
    #[command(flatten)]
    pub(crate) global: Global,
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Options that every command takes.
#[derive(Debug, Clone, Args)]
pub(crate) struct Global {
    /// Folder of the library [default: the data folder of this platform]
    #[arg(
        long,
        global = true,
        value_name = "DIR",
        env = "CATCHWORD_DATA",
        hide_env_values = true,
        help_heading = EVERYWHERE
    )]
    pub(crate) data: Option<PathBuf>,
    /// Print one JSON value on standard output, and nothing else there
    #[arg(long, global = true, help_heading = EVERYWHERE)]
    pub(crate) json: bool,
}

/// The commands, in the order in which somebody new meets them.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Live through the story of a library, on one device and on three
    ///
    /// Imports the files, or samples of its own, reads, goes back, highlights, deletes and undeletes,
    /// is killed in the middle and shows what is there afterwards. Then a second device is paired, both
    /// go their own ways, sync and say where they disagreed, and a third gets everything through the
    /// second. It works in a temporary folder that it removes at the end; your library is not touched.
    Demo(DemoArgs),
    /// Make a new library
    ///
    /// Makes the folder, this device's key and an empty library. The name is what other devices and
    /// the history show for this one. Refused if there is a library in the folder already.
    Init(InitArgs),
    /// Add books to the library
    ///
    /// Reads EPUB 2 and 3 and PDF files: title, authors, language, identifier. A folder stands for
    /// every such file below it, `-` for one path per line on standard input. The file is copied into
    /// the library. A book that is there already is not added twice; one that was removed comes back
    /// as it was.
    ///
    /// A file that is damaged, encrypted, or over 1 GiB when unpacked is refused with the reason,
    /// nothing of it is kept, and the others are imported all the same; the exit code then is 3.
    /// After Ctrl-C what was imported stays; run the command again to go on.
    Import(ImportArgs),
    /// List all books
    ///
    /// Lists every book of the library, the last read first, with its place and the number of its
    /// annotations. Books that nobody has read follow in the order of their titles.
    Books,
    /// List the books that were read last
    ///
    /// Lists at most 50 books that somebody has read in, the last read first.
    Recent,
    /// Record reading up to a place
    ///
    /// Records a reading session that ends at the place given, and publishes it at once. The place is
    /// a number of parts per million of the book, or a page of a PDF file.
    ///
    /// Going forward is `advance` and going back is `rewind`, whichever of the two is given. `jump` is
    /// for a link or a search, `restart` opens the next reading of the whole book.
    Read(ReadArgs),
    /// Highlight, note or bookmark a passage
    ///
    /// Adds an annotation and prints its id. Where it stands in the book comes from `--ppm`, or from
    /// `--cfi` in an EPUB file; without either it stands last. A quote may have 16 KiB, a note 64 KiB.
    Annotate(AnnotateArgs),
    /// Change the note or the colour of an annotation
    ///
    /// What is not given stays as it is. A deleted annotation is refused: undelete it first.
    Edit(EditArgs),
    /// Delete an annotation
    ///
    /// Hides it everywhere; `undelete` brings it back, and the history keeps it. An edit made
    /// elsewhere that did not know of the deletion keeps the annotation.
    Delete(AnnotationArgs),
    /// Bring a deleted annotation back
    ///
    /// The annotation returns with everything it had.
    Undelete(AnnotationArgs),
    /// Show or change the tags of a book
    ///
    /// Without options, lists the tags. A tag may have 64 bytes and no control characters; both
    /// options may be given several times. Removing a tag that is not there does nothing.
    Tag(TagArgs),
    /// Show or change shelves
    ///
    /// Without a name, lists all shelves with their books. With a name, shows one; `--add` makes it
    /// if there is none of that name. Deleting a shelf leaves its books in the library. A shelf is
    /// named by its name or, where several have one name, by its id.
    Shelf(ShelfArgs),
    /// Show or write the notes on a whole book
    ///
    /// Without options, prints the journal. `--set` and `--file` replace the text by difference: what
    /// stays the same keeps its history, so that texts written on two devices merge. `--file -` reads
    /// standard input.
    Journal(JournalArgs),
    /// Show everything about a book
    ///
    /// Place, furthest point, the positions of all devices, annotations in reading order, tags, time
    /// spent, and the journal. Deleted annotations are in the JSON alone.
    Show(BookArgs),
    /// Show who did what in a book
    ///
    /// Lists every change and every reading session, oldest first, with the device and its time. Any
    /// place listed can be returned to with `read --intent jump`.
    History(BookArgs),
    /// Show where devices disagreed, and what counts
    ///
    /// For every disagreement: what each device wrote and when, which of them counts, and by which
    /// rule. Writing the field again settles it.
    Conflicts(ConflictsArgs),
    /// Pair this device with another
    ///
    /// One device shows a code, the other takes it: `pair --show` here, and there what it prints. The
    /// code is good once and for two minutes. With the QR code the other device knows whom it meets and
    /// where; with the six digits alone it looks for the one device on this network that shows a code.
    ///
    /// Without `--yes`, `--show` asks on the terminal before it takes the other device in. Without a
    /// terminal, showing the code was the approval.
    Pair(PairArgs),
    /// List the paired devices, or change what they may do
    ///
    /// Without a command, lists them: name, state and why, when they last answered, and what they get.
    /// A PEER is its name, its fingerprint, or the beginning of one (at least 6 digits).
    Peers(PeersArgs),
    /// Keep this library in step with the paired devices
    ///
    /// Holds the library, announces it to the paired devices on this network, syncs with them when they
    /// appear, two seconds after a change and every minute, answers them, and carries out every other
    /// command on this library until it is stopped. Nothing that was acknowledged is lost, however it is
    /// stopped.
    ///
    /// The first line says where it listens; logs go to standard error.
    Serve(ServeArgs),
    /// Bring this library and that of a paired device to the same state, now
    ///
    /// Meets every paired device, or the one that is named, at its address, where it was last, or where it
    /// announces itself. The other device runs `catchword serve`. Prints what travelled, whether both hold
    /// the same, and where the devices had disagreed.
    Sync(SyncArgs),
    /// Fetch the file of a book from the paired devices that have it
    ///
    /// Books' files travel only when they are asked for. All devices that have it give parts at once; what
    /// came is kept when it is stopped or the connection breaks, and the next time goes on from there. The
    /// file is there when all of it is, and is the book by its SHA-256.
    Fetch(FetchArgs),
    /// Say why something is not in sync
    ///
    /// One line for every paired device, and one for every book that is not exchanged with it or that it
    /// does not have yet: how it is, why, since when, and what would help. With a BOOK, what concerns that
    /// book. Nobody is asked: it says what this device knows.
    Status(StatusArgs),
    /// Remove a book from this device
    ///
    /// Removes the file and hides the book here; other devices keep it. Importing it again brings
    /// everything back. `--purge` deletes its positions, annotations and history on this device, too:
    /// it is refused unless another device has them all.
    Remove(RemoveArgs),
    /// Keep the library in an account, too
    ///
    /// A library that is signed in also lives on a server, which you may run yourself: `catchword-server`.
    /// Everything works without a connection and is sent when there is one, by `cloud sync` or, all the
    /// time, by `serve`. Devices that are paired with this one reach the account through it.
    Cloud(CloudArgs),
    /// Save a book as a plain Automerge document
    ///
    /// Writes positions, annotations, tags and history in a form that any Automerge program loads.
    /// `--notes` saves the journal's document instead. A file that exists is replaced once the new
    /// one is complete.
    Document(DocumentArgs),
    /// Check the library for damage
    ///
    /// Rebuilds everything that is derived from the log and compares, and verifies the book files.
    /// Says what is wrong and exits with 1 if anything is. `--repair` rebuilds what can be rebuilt.
    /// Ctrl-C stops it; nothing is changed half.
    Check(CheckArgs),
    /// Make the library smaller
    ///
    /// Packs the history of every book into compressed blocks. Nothing is lost, and every change is
    /// read back and compared before what it replaces goes. Ctrl-C stops it between blocks; run it
    /// again to go on.
    Compact,
    /// Save the whole library to a file
    ///
    /// Writes everything but this device's keys. The library may be used meanwhile only by this
    /// command. A file that exists is replaced once the new one is complete.
    Backup(BackupArgs),
    /// Bring a library back from a backup
    ///
    /// Replaces the library in the data folder, and asks for nothing: make a backup of what is there
    /// first. Over a folder that has its keys, the device keeps them; in an empty folder it gets new
    /// ones. Either way it writes as a new generation from then on.
    Restore(RestoreArgs),
    /// Make a library for trials
    ///
    /// Fills the library with made-up books and annotations, and makes one first where there is none. The
    /// same seed makes the same books, places and texts. Ctrl-C stops it between transactions.
    Generate(GenerateArgs),
    /// Print completions for a shell
    ///
    /// Prints a script to standard output: for bash, put it into
    /// `~/.local/share/bash-completion/completions/catchword`.
    Completions(CompletionsArgs),
    /// Print the manual page, or write all of them
    ///
    /// Without a folder, prints the page `catchword(1)` to standard output. With one, writes a page
    /// for every command into it.
    Man(ManArgs),
}

impl Command {
    /// Returns whether a daemon that holds the library carries the command out.
    pub(crate) const fn is_for_daemon(&self) -> bool {
        !matches!(
            self,
            Self::Demo(_)
                | Self::Init(_)
                | Self::Serve(_)
                | Self::Completions(_)
                | Self::Man(_)
                | Self::Restore(_)
        )
    }
}

/// `demo`.
#[derive(Debug, Args)]
pub(crate) struct DemoArgs {
    /// EPUB or PDF files to tell the story with [default: samples]
    #[arg(value_name = "FILE")]
    pub(crate) files: Vec<PathBuf>,
    /// The process that is killed in the middle: writes into this book of the library in `--data`
    #[arg(long, value_name = "BOOK", hide = true)]
    pub(crate) writer: Option<String>,
}

/// `pair`.
#[derive(Debug, Args)]
#[command(group = ArgGroup::new("side").required(true).multiple(true).args(["show", "key"]))]
pub(crate) struct PairArgs {
    /// Show a code, and wait for the other device
    #[arg(long, conflicts_with_all = ["qr", "key", "addr"])]
    pub(crate) show: bool,
    /// Take the other device in without asking
    #[arg(long, requires = "show")]
    pub(crate) yes: bool,
    /// Listen there while the code is shown [default: any free port]
    #[arg(long, value_name = "HOST:PORT", requires = "show")]
    pub(crate) listen: Option<SocketAddr>,
    /// Take only a device that has scanned the code, not one that has the six digits alone
    #[arg(long, requires = "show")]
    pub(crate) qr_only: bool,
    /// What the QR code of the other device says
    #[arg(long, value_name = "TEXT", requires = "key")]
    pub(crate) qr: Option<String>,
    /// The six digits that the other device shows
    #[arg(long, value_name = "123456")]
    pub(crate) key: Option<String>,
    /// Where the other device listens [default: where its QR code says, or where it is found]
    #[arg(long, value_name = "HOST:PORT", requires = "key")]
    pub(crate) addr: Option<SocketAddr>,
}

/// `peers`.
#[derive(Debug, Args)]
pub(crate) struct PeersArgs {
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: Option<PeersCommand>,
}

/// What may be done with a paired device.
#[derive(Debug, Subcommand)]
pub(crate) enum PeersCommand {
    /// Take the trust away
    ///
    /// Its open connections are closed at once, and it is refused from now on. What it brought stays.
    /// To trust it again, pair again.
    Forget(PeerArgs),
    /// Go on trusting a device that was deactivated
    ///
    /// With the certificate that was pinned when it was paired; nothing of whoever came under its name
    /// was accepted.
    Trust(PeerArgs),
    /// Say which books a device gets, and may bring
    ///
    /// Everything (`--all`), or just what is named: books, and shelves with whatever is on them now and
    /// later. It counts from the next sync on; what the device has already stays there. The library's
    /// own list of books and shelves goes to devices that get everything.
    Scope(ScopeArgs),
}

/// `peers scope`.
#[derive(Debug, Args)]
#[command(group = ArgGroup::new("what").required(true).multiple(true).args(["all", "books", "shelves"]))]
pub(crate) struct ScopeArgs {
    /// Name, fingerprint, or beginning of a fingerprint
    #[arg(value_name = "PEER")]
    pub(crate) peer: String,
    /// Everything
    #[arg(long, conflicts_with_all = ["books", "shelves"])]
    pub(crate) all: bool,
    /// This book: id, beginning of an id, or exact title; may be given several times
    #[arg(long = "book", value_name = "BOOK")]
    pub(crate) books: Vec<String>,
    /// What is on this shelf: its name or id; may be given several times
    #[arg(long = "shelf", value_name = "SHELF")]
    pub(crate) shelves: Vec<String>,
    /// Take nothing from it: it gets the books, and what it writes in them stays there
    #[arg(long)]
    pub(crate) read_only: bool,
}

/// A paired device.
#[derive(Debug, Args)]
pub(crate) struct PeerArgs {
    /// Name, fingerprint, or beginning of a fingerprint
    #[arg(value_name = "PEER")]
    pub(crate) peer: String,
}

/// `cloud`.
#[derive(Debug, Args)]
pub(crate) struct CloudArgs {
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: CloudCommand,
}

/// What may be done with an account.
#[derive(Debug, Subcommand)]
pub(crate) enum CloudCommand {
    /// Make an account, sign in to it, and send the library
    Signup(LoginArgs),
    /// Sign in to an account, and bring both to the same state
    ///
    /// What is here and what the account has are merged; nothing is lost on either side. Interrupted, it
    /// goes on with the next `cloud sync`. Books of which the account refused something are tried again.
    Login(LoginArgs),
    /// Sign out
    ///
    /// Nothing is deleted, here or there. Signing in to the same account goes on from here.
    Logout,
    /// Bring the library and the account to the same state, now
    Sync,
    /// Say how the account is: what waits, what it refuses, whether the server is there
    Status,
}

/// `cloud signup` and `cloud login`.
#[derive(Debug, Args)]
pub(crate) struct LoginArgs {
    /// Where the server is: `https://HOST[:PORT]`, or `http://` on this machine
    #[arg(long, value_name = "URL")]
    pub(crate) url: String,
    /// Your name there
    #[arg(long, value_name = "NAME")]
    pub(crate) user: String,
    /// Read the password from standard input [default: `CATCHWORD_PASSWORD`, or asked for]
    #[arg(long)]
    pub(crate) password_stdin: bool,
    /// Believe the certificates in this PEM file, not those of the system
    #[arg(long, value_name = "FILE")]
    pub(crate) ca: Option<PathBuf>,
    /// Use http:// to another machine: password and books can be read on the way
    #[arg(long)]
    pub(crate) plain_http: bool,
}

/// `serve`.
#[derive(Debug, Args)]
pub(crate) struct ServeArgs {
    /// Listen there [default: any free port, on every interface]
    #[arg(long, value_name = "HOST:PORT")]
    pub(crate) listen: Option<SocketAddr>,
    /// Neither announce this device nor listen for others; addresses that are known still work
    #[arg(long)]
    pub(crate) no_mdns: bool,
}

/// `status`.
#[derive(Debug, Args)]
pub(crate) struct StatusArgs {
    /// Id, beginning of an id, or exact title
    #[arg(value_name = "BOOK")]
    pub(crate) book: Option<String>,
}

/// `sync`.
#[derive(Debug, Args)]
pub(crate) struct SyncArgs {
    /// Only with this device: name, fingerprint, or beginning of a fingerprint
    #[arg(long, value_name = "PEER")]
    pub(crate) peer: Option<String>,
    /// Where it listens [default: where it was last, or where it announces itself]
    #[arg(long, value_name = "HOST:PORT")]
    pub(crate) addr: Option<SocketAddr>,
}

/// `fetch`.
#[derive(Debug, Args)]
pub(crate) struct FetchArgs {
    /// Id, beginning of an id, or exact title
    #[arg(value_name = "BOOK")]
    pub(crate) book: String,
    /// Only from this device: name, fingerprint, or beginning of a fingerprint
    #[arg(long, value_name = "PEER")]
    pub(crate) peer: Option<String>,
    /// Where it listens [default: where it was last, or where it announces itself]
    #[arg(long, value_name = "HOST:PORT")]
    pub(crate) addr: Option<SocketAddr>,
    /// Copy the file there, too, whether it came now or was here
    #[arg(long, value_name = "FILE")]
    pub(crate) save: Option<PathBuf>,
}

/// `init`.
#[derive(Debug, Args)]
pub(crate) struct InitArgs {
    /// What this device is called
    #[arg(long, value_name = "NAME")]
    pub(crate) name: String,
}

/// `import`.
#[derive(Debug, Args)]
pub(crate) struct ImportArgs {
    /// Files, folders, or `-` for one path per line on standard input
    #[arg(required = true, value_name = "FILE")]
    pub(crate) files: Vec<PathBuf>,
}

/// A book and nothing else.
#[derive(Debug, Args)]
pub(crate) struct BookArgs {
    /// Id, beginning of an id, or exact title
    #[arg(value_name = "BOOK")]
    pub(crate) book: String,
}

/// `read`.
#[derive(Debug, Args)]
#[command(group = ArgGroup::new("place").required(true).args(["ppm", "page"]))]
pub(crate) struct ReadArgs {
    /// Id, beginning of an id, or exact title
    #[arg(value_name = "BOOK")]
    pub(crate) book: String,
    /// Where reading ended, in parts per million of the book
    #[arg(long, value_name = "N", value_parser = value_parser!(u32).range(0..=PPM_MAX))]
    pub(crate) ppm: Option<u32>,
    /// The page where reading ended, from 1; in PDF files
    #[arg(long, value_name = "N", value_parser = value_parser!(u32).range(1..))]
    pub(crate) page: Option<u32>,
    /// The same place as an EPUB canonical fragment identifier
    #[arg(long, value_name = "CFI")]
    pub(crate) cfi: Option<String>,
    /// The file inside the EPUB
    #[arg(long, value_name = "HREF")]
    pub(crate) href: Option<String>,
    /// Why the place moved
    #[arg(long, value_name = "INTENT")]
    pub(crate) intent: Option<IntentArg>,
    /// How long it took, in seconds
    #[arg(
        long,
        value_name = "S",
        default_value_t = 0,
        value_parser = value_parser!(u32).range(0..=SECONDS_MAX)
    )]
    pub(crate) seconds: u32,
}

/// Why a place moved.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum IntentArg {
    /// Reading on
    Advance,
    /// Going back by turning pages
    Rewind,
    /// Going somewhere by a link, a search or the table of contents
    Jump,
    /// Starting the book over
    Restart,
}

/// `annotate`.
#[derive(Debug, Args)]
pub(crate) struct AnnotateArgs {
    /// Id, beginning of an id, or exact title
    #[arg(value_name = "BOOK")]
    pub(crate) book: String,
    /// The passage, word for word; may be empty for a bookmark
    #[arg(long, value_name = "TEXT")]
    pub(crate) quote: String,
    /// What you have to say about it
    #[arg(long, value_name = "TEXT")]
    pub(crate) note: Option<String>,
    /// Where it is, as an EPUB canonical fragment identifier
    #[arg(long, value_name = "CFI")]
    pub(crate) cfi: Option<String>,
    /// Where it is, in parts per million of the book
    #[arg(long, value_name = "N", value_parser = value_parser!(u32).range(0..=PPM_MAX))]
    pub(crate) ppm: Option<u32>,
    /// Its colour, by a word or a code of your own
    #[arg(long, value_name = "COLOR")]
    pub(crate) color: Option<String>,
    /// What it is
    #[arg(long, value_name = "KIND", default_value = "highlight")]
    pub(crate) kind: KindArg,
}

/// What an annotation is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum KindArg {
    /// A passage that was marked
    Highlight,
    /// A remark at a place
    Note,
    /// A place to come back to
    Bookmark,
}

/// An annotation of a book.
#[derive(Debug, Args)]
pub(crate) struct AnnotationArgs {
    /// Id, beginning of an id, or exact title
    #[arg(value_name = "BOOK")]
    pub(crate) book: String,
    /// Id of the annotation, 26 letters and digits, as `show` prints it
    #[arg(value_name = "ID")]
    pub(crate) id: String,
}

/// `edit`.
#[derive(Debug, Args)]
#[command(group = ArgGroup::new("field").required(true).multiple(true).args(["note", "color"]))]
pub(crate) struct EditArgs {
    /// Which annotation.
    #[command(flatten)]
    pub(crate) annotation: AnnotationArgs,
    /// The new note; empty to clear it
    #[arg(long, value_name = "TEXT")]
    pub(crate) note: Option<String>,
    /// The new colour
    #[arg(long, value_name = "COLOR")]
    pub(crate) color: Option<String>,
}

/// `tag`.
#[derive(Debug, Args)]
pub(crate) struct TagArgs {
    /// Id, beginning of an id, or exact title
    #[arg(value_name = "BOOK")]
    pub(crate) book: String,
    /// Put this tag on the book
    #[arg(long, value_name = "TAG")]
    pub(crate) add: Vec<String>,
    /// Take this tag off the book
    #[arg(long, value_name = "TAG")]
    pub(crate) remove: Vec<String>,
}

/// `shelf`.
#[derive(Debug, Args)]
pub(crate) struct ShelfArgs {
    /// Name or id of the shelf
    #[arg(value_name = "NAME")]
    pub(crate) name: Option<String>,
    /// Put this book on the shelf
    #[arg(long, value_name = "BOOK", requires = "name")]
    pub(crate) add: Vec<String>,
    /// Take this book off the shelf
    #[arg(long, value_name = "BOOK", requires = "name")]
    pub(crate) remove: Vec<String>,
    /// Delete the shelf; its books stay in the library
    #[arg(long, requires = "name", conflicts_with_all = ["add", "remove"])]
    pub(crate) delete: bool,
}

/// `journal`.
#[derive(Debug, Args)]
#[command(group = ArgGroup::new("text").args(["set", "file"]))]
pub(crate) struct JournalArgs {
    /// Id, beginning of an id, or exact title
    #[arg(value_name = "BOOK")]
    pub(crate) book: String,
    /// The new text
    #[arg(long, value_name = "TEXT")]
    pub(crate) set: Option<String>,
    /// Read the new text, in UTF-8, from a file; `-` for standard input
    #[arg(long, value_name = "FILE")]
    pub(crate) file: Option<PathBuf>,
}

/// `conflicts`.
#[derive(Debug, Args)]
pub(crate) struct ConflictsArgs {
    /// Id, beginning of an id, or exact title [default: all books]
    #[arg(value_name = "BOOK")]
    pub(crate) book: Option<String>,
}

/// `remove`.
#[derive(Debug, Args)]
pub(crate) struct RemoveArgs {
    /// Id, beginning of an id, or exact title
    #[arg(value_name = "BOOK")]
    pub(crate) book: String,
    /// Delete its positions, annotations and history on this device, too
    #[arg(long)]
    pub(crate) purge: bool,
    /// Where the other device listens [default: where it was last, or where it announces itself]
    #[arg(long, value_name = "HOST:PORT", requires = "purge")]
    pub(crate) addr: Option<SocketAddr>,
}

/// `document`.
#[derive(Debug, Args)]
pub(crate) struct DocumentArgs {
    /// Id, beginning of an id, or exact title
    #[arg(value_name = "BOOK")]
    pub(crate) book: String,
    /// Save the document of the journal instead
    #[arg(long)]
    pub(crate) notes: bool,
    /// Where to
    #[arg(long, value_name = "FILE")]
    pub(crate) save: PathBuf,
}

/// `check`.
#[derive(Debug, Args)]
pub(crate) struct CheckArgs {
    /// Rebuild what is damaged and can be rebuilt
    #[arg(long)]
    pub(crate) repair: bool,
}

/// `backup`.
#[derive(Debug, Args)]
pub(crate) struct BackupArgs {
    /// Where to
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,
}

/// `restore`.
#[derive(Debug, Args)]
pub(crate) struct RestoreArgs {
    /// What `backup` wrote
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,
}

/// `generate`.
#[derive(Debug, Args)]
pub(crate) struct GenerateArgs {
    /// How many books
    #[arg(long, value_name = "N", value_parser = value_parser!(u32).range(0..=200_000))]
    pub(crate) books: u32,
    /// How many annotations in each of them
    #[arg(long, value_name = "M", value_parser = value_parser!(u32).range(0..=2_000_000))]
    pub(crate) annotations: u32,
    /// Which made-up library
    #[arg(long, value_name = "S", default_value_t = 1)]
    pub(crate) seed: u64,
}

/// `completions`.
#[derive(Debug, Args)]
pub(crate) struct CompletionsArgs {
    /// Which shell
    #[arg(value_name = "SHELL")]
    pub(crate) shell: clap_complete::Shell,
}

/// `man`.
#[derive(Debug, Args)]
pub(crate) struct ManArgs {
    /// Folder for the pages of all commands
    #[arg(value_name = "DIR")]
    pub(crate) dir: Option<PathBuf>,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_contradicts_itself_nowhere() {
        Cli::command().debug_assert();
    }

    #[test]
    fn reading_needs_a_place_and_takes_one_form_of_it() {
        let parse = |line: &[&str]| Cli::try_parse_from(line).is_ok();
        assert!(!parse(&["catchword", "read", "Emma"]));
        assert!(!parse(&["catchword", "read", "Emma", "--ppm", "1", "--page", "1"]));
        assert!(!parse(&["catchword", "read", "Emma", "--ppm", "1000001"]));
        assert!(!parse(&["catchword", "read", "Emma", "--page", "0"]));
        assert!(parse(&["catchword", "read", "Emma", "--ppm", "1000000", "--seconds", "86400"]));
    }

    #[test]
    fn what_makes_no_sense_together_is_wrong_usage() {
        let parse = |line: &[&str]| Cli::try_parse_from(line).is_ok();
        assert!(!parse(&["catchword", "shelf", "--add", "Emma"]));
        assert!(!parse(&["catchword", "shelf", "To read", "--add", "Emma", "--delete"]));
        assert!(!parse(&["catchword", "journal", "Emma", "--set", "a", "--file", "b"]));
        assert!(!parse(&["catchword", "edit", "Emma", "01ARZ3NDEKTSV4RRFFQ69G5FAV"]));
        assert!(parse(&["catchword", "shelf", "--json", "To read", "--add", "a", "--add", "b"]));
    }
}
