//! How the account stands: what is not in it, why, since when, and what would help.

use std::collections::BTreeMap;

use catchword_model::exchange::DocumentName;
use catchword_model::id::{BookId, DocumentId};
use catchword_store::{CloudAccount, Peer, Scope, Store};

use super::Shared;
use super::clerk::origin_of;
use super::token;
use crate::error::EditError;
use crate::net::{Reason, State, Status, Subject};

/// Says how the account stands, or what concerns one book.
pub(crate) fn status(shared: &Shared, book: Option<BookId>) -> Result<Vec<Status>, EditError> {
    let store = &shared.library.core().store;
    let Some(account) = store.cloud_account().map_err(EditError::load)? else {
        return Ok(Vec::new());
    };
    let mut lines = Vec::new();
    for summary in store.books().map_err(EditError::load)? {
        if book.is_none_or(|book| book == summary.book) {
            let subject = || Subject::Book { book: summary.book, title: summary.title.clone() };
            lines.extend(of_book(shared, store, summary.book, subject)?);
        }
    }
    if book.is_none() {
        if let Some(why) = stopped(store, &[DocumentId::library()])? {
            lines.push(why.line(Subject::Library));
        }
        lines.push(of_account(shared, &account)?);
    }
    Ok(lines)
}

/// Why something is as it is, and since when.
struct Why(State, Reason, Option<u64>);

impl Why {
    fn line(self, subject: Subject) -> Status {
        let Self(state, reason, since_ms) = self;
        Status { subject, state, reason: Some(reason), since_ms }
    }
}

fn of_book(
    shared: &Shared,
    store: &Store,
    book: BookId,
    subject: impl Fn() -> Subject,
) -> Result<Vec<Status>, EditError> {
    let why = stopped(store, &[book.document(), book.notes_document()])?;
    let mut lines: Vec<Status> = why.map(|why| why.line(subject())).into_iter().collect();
    if shared.seen().given_up.contains(&DocumentName::Book(book)) {
        lines.push(Why(State::Noted, Reason::CloudPlaceLeft, None).line(subject()));
    }
    Ok(lines)
}

fn stopped(store: &Store, documents: &[DocumentId]) -> Result<Option<Why>, EditError> {
    for document in documents {
        let row = store.cloud_row(*document).map_err(EditError::load)?;
        if let Some(stopped) = row.stopped {
            let reason = Reason::CloudRefused { why: stopped.reason };
            return Ok(Some(Why(State::Stopped, reason, Some(stopped.since_ms))));
        }
    }
    Ok(None)
}

fn of_account(shared: &Shared, account: &CloudAccount) -> Result<Status, EditError> {
    let (url, user) = (account.login.url.clone(), account.login.user.clone());
    let subject = Subject::Account { url, user };
    if !account.signed_in {
        let reason = Reason::CloudSignedOut;
        return Ok(Why(State::Stopped, reason, Some(account.since_ms)).line(subject));
    }
    let has_token = token::load(&*shared.library.core().keys, &account.login);
    let (failure, refused, synced, end) = {
        let seen = shared.seen();
        (seen.failure.clone(), seen.refused_since_ms, seen.synced_ms, seen.end)
    };
    if refused.is_some() || !matches!(has_token, Ok(Some(_))) {
        return Ok(Why(State::Stopped, Reason::CloudSignInAgain, refused).line(subject));
    }
    if let Some((error, since_ms)) = failure {
        let reason = Reason::CloudUnreachable { error };
        return Ok(Why(State::Failing, reason, Some(since_ms)).line(subject));
    }
    let changes = unsent(shared, account)?.values().sum();
    if 0 < changes {
        let reason = Reason::CloudUnsent { changes };
        return Ok(Why(State::Waiting, reason, synced).line(subject));
    }
    let unread = end.map_or(0, |end| end.saturating_sub(account.cursor));
    if 0 < unread {
        let reason = Reason::CloudUnread { records: unread };
        return Ok(Why(State::Waiting, reason, synced).line(subject));
    }
    Ok(match synced.or(end) {
        Some(_) => Status { subject, state: State::InSync, reason: None, since_ms: synced },
        None => Why(State::Waiting, Reason::CloudNotAsked, None).line(subject),
    })
}

/// Returns how many changes and reading events the account lacks.
pub(crate) fn outbox(shared: &Shared) -> Result<u64, EditError> {
    let account = shared.library.core().store.cloud_account().map_err(EditError::load)?;
    account.map_or(Ok(0), |account| Ok(unsent(shared, &account)?.values().sum()))
}

fn unsent(
    shared: &Shared,
    account: &CloudAccount,
) -> Result<BTreeMap<DocumentName, u64>, EditError> {
    let mac = |_| [0; 8];
    let server = Peer {
        origin: origin_of(&account.login),
        scope: &Scope::All,
        mac: &mac,
        now_ms: shared.now_ms(),
    };
    let unsent = shared.library.core().store.unsent_to_cloud(&server).map_err(EditError::store)?;
    Ok(unsent.into_iter().map(|unsent| (unsent.name, unsent.changes + unsent.events)).collect())
}
