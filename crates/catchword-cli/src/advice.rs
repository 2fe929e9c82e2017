//! What to do about each error of the engine, and how the process ends.

use catchword::{
    EditError, FindError, ImportError, KeyError, OpenError, ReadError, RefusedFile, RemoveError,
    RestoreError,
};

use crate::failure::{Exit, Failure};

const CHECK: &str =
    "run `catchword check --repair` to save what can be read; a backup or a sync brings the rest";
const DISK: &str = "see whether the disk is full or not writable; what was written before is kept";
const LIST: &str = "`catchword books` lists the books with their ids";

impl From<OpenError> for Failure {
    fn from(error: OpenError) -> Self {
        let (exit, advice) = match &error {
            OpenError::NoLibrary => (
                Exit::NotFound,
                "make one with `catchword init --name NAME`, or say where it is with --data DIR",
            ),
            OpenError::AlreadyThere => {
                (Exit::Refused, "use it, or choose another folder with --data DIR")
            }
            OpenError::Busy => (Exit::Failed, "wait until the other process ends, and try again"),
            OpenError::Newer { .. } => (Exit::Failed, "use the newer release"),
            OpenError::Keys(KeyError::Exposed { .. }) => (
                Exit::Refused,
                "if nobody else had access: chmod 700 the folder `keys`, and 600 what is in it",
            ),
            OpenError::Keys(KeyError::Damaged) => (
                Exit::Failed,
                "delete the file in the folder `keys` to go on as a new device with all books",
            ),
            OpenError::Damaged { .. } => (Exit::Failed, CHECK),
            OpenError::Io(_) | OpenError::Keys(_) => (Exit::Failed, DISK),
            _ => (Exit::Failed, ""),
        };
        Self::new(exit, error, advice)
    }
}

impl From<EditError> for Failure {
    fn from(error: EditError) -> Self {
        let (exit, advice) = match &error {
            EditError::NoBook => (Exit::NotFound, LIST),
            EditError::NoAnnotation(_) => {
                (Exit::NotFound, "`catchword show BOOK` lists the annotations with their ids")
            }
            EditError::NoShelf => (Exit::NotFound, "`catchword shelf` lists the shelves"),
            EditError::Deleted(_) => {
                (Exit::Refused, "bring it back first, with `catchword undelete BOOK ID`")
            }
            EditError::AnnotationExists(_) => (Exit::Refused, ""),
            EditError::Tag(_) | EditError::NoPlace | EditError::OutOfRange { .. } => {
                (Exit::Usage, "see --help for what is accepted")
            }
            EditError::Locator(_) => {
                (Exit::Usage, "a place is a CFI, a path inside the book, or a number")
            }
            EditError::TooLarge { .. } => (Exit::Refused, "make it shorter"),
            EditError::Full { .. } => (Exit::Refused, "nothing more fits into this book"),
            EditError::MustReopen | EditError::Io(_) => (Exit::Failed, DISK),
            EditError::Damaged { .. } => (Exit::Failed, CHECK),
            EditError::Application(_) | _ => (Exit::Failed, ""),
        };
        Self::new(exit, error, advice)
    }
}

impl From<ReadError> for Failure {
    fn from(error: ReadError) -> Self {
        let (exit, advice) = match &error {
            ReadError::NoBook => (Exit::NotFound, LIST),
            ReadError::NoFile => (Exit::NotFound, "import the file again"),
            ReadError::DamagedFile => (Exit::Failed, "import the file again"),
            ReadError::TooLarge { .. } => (Exit::Refused, "it can still be read with `show`"),
            ReadError::Io(_) => (Exit::Failed, DISK),
            ReadError::Damaged { .. } => (Exit::Failed, CHECK),
            _ => (Exit::Failed, ""),
        };
        Self::new(exit, error, advice)
    }
}

impl From<FindError> for Failure {
    fn from(error: FindError) -> Self {
        match error {
            FindError::Read(error) => error.into(),
            FindError::Ambiguous { ref books, .. } => {
                let ids: Vec<String> = books.iter().map(ToString::to_string).collect();
                let advice = format!("name one of them by its id: {}", ids.join(", "));
                Self::new(Exit::NotFound, error, advice)
            }
            error @ (FindError::NotFound { .. } | _) => Self::new(Exit::NotFound, error, LIST),
        }
    }
}

impl From<ImportError> for Failure {
    fn from(error: ImportError) -> Self {
        match error {
            // The file's own message says what to do.
            ImportError::Refused(RefusedFile::Io(error)) => {
                Self::new(Exit::Failed, error, "check that you may read the file")
            }
            ImportError::Refused(refused) => Self::new(Exit::Refused, refused, ""),
            ImportError::Edit(error) => error.into(),
            ImportError::Changed => {
                Self::new(Exit::Failed, error, "try again when nobody writes to it any more")
            }
            ImportError::Io(ref cause) => {
                let missing = cause
                    .downcast_ref::<std::io::Error>()
                    .is_some_and(|cause| cause.kind() == std::io::ErrorKind::NotFound);
                let exit = if missing { Exit::NotFound } else { Exit::Failed };
                Self::new(exit, error, "check that the path is right and the disk not full")
            }
            error => Self::new(Exit::Failed, error, ""),
        }
    }
}

impl From<RestoreError> for Failure {
    fn from(error: RestoreError) -> Self {
        let (exit, advice) = match &error {
            RestoreError::NotABackup { .. } => {
                (Exit::Refused, "use another backup; the library is as it was")
            }
            RestoreError::AlreadyThere => (Exit::Refused, "choose another folder with --data DIR"),
            RestoreError::Busy => {
                (Exit::Failed, "wait until the other process ends, and try again")
            }
            RestoreError::Newer { .. } => (Exit::Failed, "use the newer release"),
            RestoreError::Unfinished(_) => {
                (Exit::Failed, "make room on the disk; the next command finishes it")
            }
            RestoreError::Io(_) | _ => (Exit::Failed, DISK),
        };
        Self::new(exit, error, advice)
    }
}

impl From<RemoveError> for Failure {
    fn from(error: RemoveError) -> Self {
        match error {
            RemoveError::Edit(error) => error.into(),
            error @ (RemoveError::OnlyHere | _) => Self::new(
                Exit::Refused,
                error,
                "remove it without --purge: its file goes, its notes stay",
            ),
        }
    }
}
