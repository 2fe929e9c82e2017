//! The account that a library is signed in to: where, as whom, and how far its feed is merged.
//!
//! The token is no part of it: a backup holds no secrets.

use std::collections::BTreeMap;

use catchword_model::hlc::Hlc;
use catchword_model::id::{BookId, DocumentId};
use redb::WriteTransaction;

use super::CloudRow;
use crate::bytes::{Reader, Writer};
use crate::error::{AppendError, LoadError, corrupt, load};
use crate::exchange::{Peer, Subject};
use crate::snapshot::Snapshot;
use crate::{Store, meta, tables};

/// Who a library becomes by signing in.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CloudLogin {
    /// Where the server is.
    pub url: String,
    /// The name of the person there.
    pub user: String,
    /// The account, as the server names it.
    pub account: [u8; 16],
    /// This device there, which names its token. No secret.
    pub device: [u8; 16],
    /// Certificates that are believed to sign the server's, DER-encoded; none: those of the system.
    pub roots: Vec<Vec<u8>>,
    /// Whether the person agreed to a connection that anybody on the way can read.
    pub plain: bool,
}

/// The account that a library is signed in to, or was last.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CloudAccount {
    /// Where, and as whom.
    pub login: CloudLogin,
    /// Whether it still is. Signing out forgets nothing.
    pub signed_in: bool,
    /// Up to where the account's feed is merged.
    pub cursor: u64,
    /// The last record of the feed that was merged and has a tag: its number and the tag. The cursor may
    /// be before it, where something is read again.
    pub known: Option<(u64, [u8; 8])>,
    /// Everything up to this local sequence is history from before the library signed in.
    pub replay_through: u64,
    /// When it signed in or out, in milliseconds since the Unix epoch.
    pub since_ms: u64,
}

/// How far a feed is merged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CloudCursor {
    /// The number of the last record.
    pub number: u64,
    /// What tells that record from another one with its number, if the server said so.
    pub tag: Option<[u8; 8]>,
}

impl From<u64> for CloudCursor {
    fn from(number: u64) -> Self {
        Self { number, tag: None }
    }
}

/// Where to go on with an account.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CloudStart {
    /// Up to where the feed is merged.
    pub cursor: u64,
    /// The last record of the feed that was merged and has a tag: its number and the tag.
    pub known: Option<(u64, [u8; 8])>,
    /// Positions of this device that the server wants to have written again, by their stamps.
    pub again: Vec<(BookId, Hlc)>,
}

impl CloudLogin {
    /// Returns whether what is known of one server stands for the other.
    fn is_same_account(&self, other: &Self) -> bool {
        (&self.url, self.account) == (&other.url, other.account)
    }
}

impl CloudAccount {
    pub(super) fn write(&self, write: &WriteTransaction) -> Result<(), LoadError> {
        let mut out = Writer::default();
        let login = &self.login;
        out.text(&login.url).text(&login.user).fixed(&login.account).fixed(&login.device);
        out.len(login.roots.len());
        for root in &login.roots {
            out.prefixed(root);
        }
        out.byte(u8::from(login.plain)).byte(u8::from(self.signed_in));
        out.number(self.cursor).number(self.replay_through).number(self.since_ms);
        if let Some((number, tag)) = &self.known {
            out.number(*number).fixed(tag);
        }
        let mut meta = write.open_table(tables::META).map_err(load)?;
        meta.insert(meta::CLOUD_ACCOUNT, out.0.as_slice()).map_err(load)?;
        Ok(())
    }

    /// Moves to a cursor, which may be an earlier one.
    pub(super) fn at(self, cursor: CloudCursor) -> Self {
        let CloudCursor { number, tag } = cursor;
        let earlier = self.known.is_some_and(|(known, _)| number < known);
        let tag = tag.filter(|_| !earlier && 0 < number);
        let known = tag.map_or(self.known, |tag| Some((number, tag)));
        Self { cursor: number, known, ..self }
    }

    fn decode(bytes: &[u8]) -> Result<Self, LoadError> {
        let mut input = Reader(bytes);
        let (url, user) = (input.text()?.to_owned(), input.text()?.to_owned());
        let (account, device) = (input.fixed()?, input.fixed()?);
        let count = input.count()?;
        let roots = (0..count).map(|_| Ok(input.prefixed()?.to_vec()));
        let roots = roots.collect::<Result<_, LoadError>>()?;
        let (plain, signed_in) = (input.byte()? != 0, input.byte()? != 0);
        let login = CloudLogin { url, user, account, device, roots, plain };
        let (cursor, replay_through) = (input.number()?, input.number()?);
        let since_ms = input.number()?;
        let known = if input.is_empty() { None } else { Some((input.number()?, input.fixed()?)) };
        if input.is_empty() {
            Ok(Self { login, signed_in, cursor, known, replay_through, since_ms })
        } else {
            Err(corrupt("what is kept of an account has something after its end"))
        }
    }
}

impl Snapshot {
    pub(super) fn cloud_account(&self) -> Result<Option<CloudAccount>, LoadError> {
        let found = self.meta_bytes(meta::CLOUD_ACCOUNT)?;
        found.map(|bytes| CloudAccount::decode(&bytes)).transpose()
    }

    pub(super) fn cloud_rows(&self) -> Result<Vec<(DocumentId, CloudRow)>, LoadError> {
        let rows = self.cloud.range::<&[u8; 32]>(..).map_err(load)?;
        let rows = rows.map(|found| {
            let (document, bytes) = found.map_err(load)?;
            Ok((DocumentId(*document.value()), CloudRow::decode(bytes.value())?))
        });
        rows.collect()
    }

    /// Returns the rows with something in the feed that was passed over, and is not any more.
    fn skipped(&self, server: &Peer<'_>) -> Result<Vec<(DocumentId, CloudRow)>, LoadError> {
        let mut found = Vec::new();
        for (document, row) in self.cloud_rows()? {
            let Some(skipped) = row.skipped else { continue };
            let subject = skipped.book.map_or(Subject::Library, Subject::Book);
            if !self.is_barred(server, subject)? {
                found.push((document, row));
            }
        }
        Ok(found)
    }
}

impl Store {
    /// Returns the account that the library is signed in to, or was last.
    ///
    /// # Errors
    ///
    /// [`LoadError`].
    pub fn cloud_account(&self) -> Result<Option<CloudAccount>, LoadError> {
        let mut inner = self.lock();
        let (_, disk) = inner.parts()?;
        disk.cloud_account()
    }

    /// Signs in: everything that is here now becomes history, unless the library never signed out of this
    /// account. Of another account, or on another server, nothing is known. A document that stopped is
    /// tried again.
    ///
    /// # Errors
    ///
    /// [`AppendError`]; what was kept before stays.
    pub fn sign_in_to_cloud(&self, login: &CloudLogin, now_ms: u64) -> Result<(), AppendError> {
        let mut inner = self.lock();
        inner.writable()?;
        inner.drain()?;
        let end = inner.end()?;
        let (_, disk) = inner.parts()?;
        let before = disk.cloud_account()?;
        let before = before.filter(|before| before.login.is_same_account(login));
        let mut account = before.clone().unwrap_or_default();
        if !account.signed_in {
            account.replay_through = end;
        }
        (account.login, account.signed_in, account.since_ms) = (login.clone(), true, now_ms);
        let mut rows = if before.is_some() { disk.cloud_rows()? } else { Vec::new() };
        rows.retain(|(_, row)| row.stopped.is_some());
        Ok(inner.write_meta(|write| {
            if before.is_none() {
                write.delete_table(tables::CLOUD).map_err(load)?;
            }
            let mut cloud = write.open_table(tables::CLOUD).map_err(load)?;
            for (document, row) in rows {
                let row = CloudRow { stopped: None, ..row };
                cloud.insert(&document.0, row.encode().as_slice()).map_err(load)?;
            }
            account.write(write)
        })?)
    }

    /// Signs out. What is here stays, and so does what the server is known to have.
    ///
    /// # Errors
    ///
    /// [`AppendError`]; what was kept before stays.
    pub fn sign_out_of_cloud(&self, now_ms: u64) -> Result<(), AppendError> {
        let mut inner = self.lock();
        inner.writable()?;
        let (_, disk) = inner.parts()?;
        let Some(mut account) = disk.cloud_account()? else { return Ok(()) };
        (account.signed_in, account.since_ms) = (false, now_ms);
        Ok(inner.write_meta(|write| account.write(write))?)
    }

    /// Forgets the cursor and what the server has, which went back: everything that is here is history.
    ///
    /// # Errors
    ///
    /// [`AppendError`]; what was kept before stays.
    pub fn forget_cloud(&self) -> Result<(), AppendError> {
        let mut inner = self.lock();
        inner.writable()?;
        inner.drain()?;
        let end = inner.end()?;
        let (_, disk) = inner.parts()?;
        let account = disk.cloud_account()?;
        let account =
            account.map(|of| CloudAccount { cursor: 0, known: None, replay_through: end, ..of });
        Ok(inner.write_meta(|write| {
            write.delete_table(tables::CLOUD).map_err(load)?;
            write.open_table(tables::CLOUD).map_err(load)?;
            account.as_ref().map_or(Ok(()), |account| account.write(write))
        })?)
    }

    /// Returns whether something in the feed was passed over that is exchanged by now.
    ///
    /// # Errors
    ///
    /// [`LoadError`].
    pub fn lacks_of_cloud(&self, server: &Peer<'_>) -> Result<bool, LoadError> {
        let mut inner = self.lock();
        let (_, disk) = inner.parts()?;
        Ok(!disk.skipped(server)?.is_empty())
    }

    /// Returns where to go on. What was passed over, and is exchanged by now, is read again.
    ///
    /// # Errors
    ///
    /// [`AppendError`].
    pub fn start_with_cloud(&self, server: &Peer<'_>) -> Result<CloudStart, AppendError> {
        let mut inner = self.lock();
        inner.drain()?;
        let (_, disk) = inner.parts()?;
        let skipped = disk.skipped(server)?;
        let again = disk.cloud_rows()?.into_iter();
        let again = again.filter_map(|(id, row)| Some((BookId(id.0), row.again?))).collect();
        let account = disk.cloud_account()?.unwrap_or_default();
        let (mut cursor, known) = (account.cursor, account.known);
        drop(inner);
        if !skipped.is_empty() {
            let mut rows = BTreeMap::new();
            for (document, mut row) in skipped {
                cursor = cursor.min(row.skipped.take().map_or(cursor, |skipped| skipped.after));
                rows.insert(document, row);
            }
            self.keep_cloud_rows(&rows, Some(cursor.into()))?;
        }
        Ok(CloudStart { cursor, known, again })
    }
}
