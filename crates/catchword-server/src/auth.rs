//! Who calls: passwords, device tokens, and what the server remembers of both.
//!
//! A token is `cw1.` and base64url of account (16), device (16) and 32 random bytes. It names its own
//! account, so that it is looked up there alone; only its SHA-256 is kept.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use argon2::password_hash::{PasswordHash, PasswordHasher as _, PasswordVerifier as _, SaltString};
use argon2::{Algorithm, Argon2, Params, Version};
use catchword_model::id::sha256;
use catchword_proto::cloud::api::{AccountId, ProblemKind, TokenId};
use data_encoding::BASE64URL_NOPAD;
use subtle::ConstantTimeEq as _;

use crate::desk::Desk;
use crate::ledger::{DeviceRow, Ledger};
use crate::problem::Refusal;

/// Memory of one verification, in KiB.
pub(crate) const MEMORY_KIB: u32 = 19 * 1_024;
const PASSES: u32 = 2;
const LANES: u32 = 1;
/// A token that is not used ends after this, in milliseconds: 90 days.
pub(crate) const TOKEN_LIFE_MS: u64 = 90 * 86_400_000;
/// A token is given its whole life again at most this often, in milliseconds: a day.
const EXTEND_INTERVAL_MS: u64 = 86_400_000;
/// How long a token is believed without asking the ledger.
const BELIEVED: Duration = Duration::from_secs(5);
/// Tokens that are believed.
const BELIEVED_MAX: usize = 100_000;
const PREFIX: &str = "cw1.";

/// A device that has shown its token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Caller {
    pub(crate) account: AccountId,
    pub(crate) device: TokenId,
}

/// Verifies passwords and tokens.
pub(crate) struct Auth {
    desk: Desk,
    /// What an unknown name is held against, so that it takes as long as a known one.
    dummy: String,
    believed: Mutex<BTreeMap<(AccountId, TokenId), (DeviceRow, Instant)>>,
}

impl std::fmt::Debug for Auth {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Auth").finish_non_exhaustive()
    }
}

impl Auth {
    pub(crate) fn new() -> Result<Self, Refusal> {
        let mut password = [0; 32];
        fill(&mut password)?;
        let dummy = hash(&password)?;
        let desk = Desk::open().map_err(|_| failed())?;
        Ok(Self { desk, dummy, believed: Mutex::default() })
    }

    /// Returns what a new password is kept as.
    pub(crate) async fn hash(&self, password: String) -> Result<String, Refusal> {
        let hashed = self.desk.in_turn(move || hash(password.as_bytes())).await;
        hashed.ok_or(Refusal::busy())?
    }

    /// Holds a password against what is kept. Returns what is to be kept instead, if that is better.
    pub(crate) async fn verify(
        &self,
        password: String,
        kept: Option<String>,
    ) -> Result<Option<String>, Refusal> {
        let dummy = self.dummy.clone();
        let verify = move || {
            let known = kept.is_some();
            let kept = kept.unwrap_or(dummy);
            let parsed = PasswordHash::new(&kept).map_err(|_| failed())?;
            let fits = argon2()?.verify_password(password.as_bytes(), &parsed).is_ok();
            if !(fits && known) {
                return Err(ProblemKind::SignIn.into());
            }
            let outdated =
                Params::try_from(&parsed).map_or(true, |params| params_outdated(&params));
            outdated.then(|| hash(password.as_bytes())).transpose()
        };
        self.desk.in_turn(verify).await.ok_or(Refusal::busy())?
    }

    /// Makes a device with a token that only it will know.
    pub(crate) fn new_device(
        account: AccountId,
        name: String,
        now_ms: u64,
    ) -> Result<(DeviceRow, String), Refusal> {
        let mut bytes = [0; 64];
        let (of_account, rest) = bytes.split_at_mut(16);
        of_account.copy_from_slice(&account.0);
        fill(rest)?;
        let id = TokenId(rest.first_chunk().copied().unwrap_or_default());
        let row = DeviceRow {
            id,
            name,
            token_hash: sha256(&[&bytes]),
            created_ms: now_ms,
            expires_ms: now_ms + TOKEN_LIFE_MS,
        };
        Ok((row, format!("{PREFIX}{}", BASE64URL_NOPAD.encode(&bytes))))
    }

    /// Returns whose token this is.
    pub(crate) async fn caller(
        &self,
        ledger: &dyn Ledger,
        token: &str,
        now_ms: u64,
    ) -> Result<Caller, Refusal> {
        let unauthorized = Refusal::from(ProblemKind::Unauthorized);
        let (caller, token_hash) = parse(token).ok_or(unauthorized)?;
        let row = self.device(ledger, caller).await?.ok_or(unauthorized)?;
        let fits = bool::from(row.token_hash.ct_eq(&token_hash));
        if !fits || row.expires_ms <= now_ms {
            return Err(unauthorized);
        }
        if row.expires_ms + EXTEND_INTERVAL_MS <= now_ms + TOKEN_LIFE_MS {
            let expires_ms = now_ms + TOKEN_LIFE_MS;
            ledger.extend_device(caller.account, caller.device, expires_ms).await?;
            self.forget(caller);
        }
        Ok(caller)
    }

    /// Returns whether a device is still signed in.
    pub(crate) async fn is_signed_in(
        &self,
        ledger: &dyn Ledger,
        caller: Caller,
        now_ms: u64,
    ) -> Result<bool, Refusal> {
        let row = self.device(ledger, caller).await?;
        Ok(row.is_some_and(|row| now_ms < row.expires_ms))
    }

    async fn device(
        &self,
        ledger: &dyn Ledger,
        caller: Caller,
    ) -> Result<Option<DeviceRow>, Refusal> {
        let key = (caller.account, caller.device);
        let now = Instant::now();
        let known = self.believed.lock().unwrap_or_else(PoisonError::into_inner).get(&key).cloned();
        if let Some((row, at)) = known
            && now.saturating_duration_since(at) < BELIEVED
        {
            return Ok(Some(row));
        }
        let row = ledger.device(caller.account, caller.device).await?;
        let mut believed = self.believed.lock().unwrap_or_else(PoisonError::into_inner);
        match &row {
            Some(row) => drop(believed.insert(key, (row.clone(), now))),
            None => drop(believed.remove(&key)),
        }
        if BELIEVED_MAX < believed.len() {
            believed.retain(|_, (_, at)| now.saturating_duration_since(*at) < BELIEVED);
        }
        Ok(row)
    }

    /// Asks the ledger again the next time.
    pub(crate) fn forget(&self, caller: Caller) {
        let mut believed = self.believed.lock().unwrap_or_else(PoisonError::into_inner);
        believed.remove(&(caller.account, caller.device));
    }
}

fn parse(token: &str) -> Option<(Caller, [u8; 32])> {
    let bytes = BASE64URL_NOPAD.decode(token.strip_prefix(PREFIX)?.as_bytes()).ok()?;
    let bytes: [u8; 64] = bytes.try_into().ok()?;
    let (account, rest) = bytes.split_first_chunk()?;
    let device = TokenId(rest.first_chunk().copied()?);
    Some((Caller { account: AccountId(*account), device }, sha256(&[&bytes])))
}

fn failed() -> Refusal {
    ProblemKind::Failed.into()
}

pub(crate) fn fill(bytes: &mut [u8]) -> Result<(), Refusal> {
    getrandom::fill(bytes).map_err(|_| failed())
}

fn argon2() -> Result<Argon2<'static>, Refusal> {
    let params = Params::new(MEMORY_KIB, PASSES, LANES, None).map_err(|_| failed())?;
    Ok(Argon2::new(Algorithm::Argon2id, Version::V0x13, params))
}

fn params_outdated(params: &Params) -> bool {
    params.m_cost() < MEMORY_KIB || params.t_cost() < PASSES || params.p_cost() < LANES
}

fn hash(password: &[u8]) -> Result<String, Refusal> {
    let mut salt = [0; 16];
    fill(&mut salt)?;
    let salt = SaltString::encode_b64(&salt).map_err(|_| failed())?;
    let hash = argon2()?.hash_password(password, &salt).map_err(|_| failed())?;
    Ok(hash.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_password_is_kept_with_its_parameters_and_upgraded() {
        let auth = Auth::new().unwrap();
        let kept = auth.hash("a password".to_owned()).await.unwrap();
        assert!(kept.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{kept}");
        let verify =
            |password: &str, kept: &str| auth.verify(password.to_owned(), Some(kept.to_owned()));
        assert_eq!(verify("a password", &kept).await, Ok(None));
        assert_eq!(verify("another", &kept).await, Err(ProblemKind::SignIn.into()));

        let params = Params::new(8_192, 1, 1, None).unwrap();
        let weak = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
        let salt = SaltString::encode_b64(&[7; 16]).unwrap();
        let old = weak.hash_password(b"a password", &salt).unwrap().to_string();
        let better = verify("a password", &old).await.unwrap().unwrap();
        assert!(better.contains("m=19456,t=2,p=1"), "{better}");
        assert_eq!(verify("a password", &better).await, Ok(None));
        assert_eq!(verify("another", &old).await, Err(ProblemKind::SignIn.into()));
        let nobody = auth.verify("a password".to_owned(), None).await;
        assert_eq!(nobody, Err(ProblemKind::SignIn.into()));
    }

    #[test]
    fn a_token_names_its_account_and_device_and_only_its_hash_is_kept() {
        let account = AccountId([7; 16]);
        let (row, token) = Auth::new_device(account, "phone".to_owned(), 5).unwrap();
        let (caller, hash) = parse(&token).unwrap();
        assert_eq!(caller, Caller { account, device: row.id });
        assert_eq!((hash, row.expires_ms), (row.token_hash, 5 + TOKEN_LIFE_MS));
        assert_eq!(parse(&token[1..]), None);
        assert_eq!(parse(&format!("{token}A")), None);
        assert_eq!(parse(""), None);
        let (other, second) = Auth::new_device(account, "phone".to_owned(), 5).unwrap();
        assert!(other.id != row.id && second != token);
    }
}
