//! The device token: the one secret of a signed-in library, kept where its key is.
//!
//! A token is `cw1.` and base64url of account (16), device (16) and 32 secret bytes. Only the last are
//! secret, and only they are kept as one.

use catchword_model::id::sha256;
use catchword_proto::cloud::api::SignedIn;
use catchword_store::CloudLogin;
use data_encoding::{BASE64URL_NOPAD, HEXLOWER};
use zeroize::Zeroizing;

use crate::keys::{KeyError, KeyStore, SECRET_BYTES, Secret};

const PREFIX: &str = "cw1.";
const IDS_BYTES: usize = 32;

/// Returns the name of the secret. It depends on the server, so that a token never goes to another one.
fn name_of(login: &CloudLogin) -> String {
    let hash = sha256(&[b"catchword/cloud-token/v1", login.url.as_bytes(), &login.account]);
    let short = hash.first_chunk::<8>().copied().unwrap_or_default();
    format!("cloud-{}", HEXLOWER.encode(&short))
}

/// Takes the secret out of what a server answered; `None` if its token is made in another way.
pub(crate) fn secret_of(signed_in: &SignedIn) -> Option<Secret> {
    let text = signed_in.token.strip_prefix(PREFIX)?;
    let bytes = Zeroizing::new(BASE64URL_NOPAD.decode(text.as_bytes()).ok()?);
    let (ids, secret) = bytes.split_at_checked(IDS_BYTES)?;
    let own = [signed_in.account.0, signed_in.device.0].concat();
    (ids == own).then_some(())?;
    Some(Secret::new(<[u8; SECRET_BYTES]>::try_from(secret).ok()?))
}

/// Keeps the secret of a login.
///
/// # Errors
///
/// [`KeyError`].
pub(crate) fn keep(
    keys: &dyn KeyStore,
    login: &CloudLogin,
    secret: &Secret,
) -> Result<(), KeyError> {
    keys.store(&name_of(login), secret)
}

/// Forgets the secret of a login.
///
/// # Errors
///
/// [`KeyError`].
pub(crate) fn forget(keys: &dyn KeyStore, login: &CloudLogin) -> Result<(), KeyError> {
    keys.remove(&name_of(login))
}

/// Returns the token of a login, if its secret is here.
///
/// # Errors
///
/// [`KeyError`].
pub(crate) fn load(
    keys: &dyn KeyStore,
    login: &CloudLogin,
) -> Result<Option<Zeroizing<String>>, KeyError> {
    let secret = keys.load(&name_of(login))?;
    Ok(secret.map(|secret| {
        let bytes = [&login.account[..], &login.device, secret.expose()].concat();
        let bytes = Zeroizing::new(bytes);
        Zeroizing::new(format!("{PREFIX}{}", BASE64URL_NOPAD.encode(&bytes)))
    }))
}

#[cfg(test)]
mod tests {
    use catchword_proto::cloud::api::{AccountId, TokenId};

    use super::*;
    use crate::keys::FileKeyStore;

    fn signed_in(token: String) -> SignedIn {
        let (account, device) = (AccountId([1; 16]), TokenId([2; 16]));
        SignedIn { account, device, token, expires_ms: 0 }
    }

    #[test]
    fn a_token_comes_back_as_it_was_and_never_for_another_server() {
        let folder = tempfile::tempdir().unwrap();
        let keys = FileKeyStore::new(folder.path().join("keys"));
        let bytes = [[1; 16], [2; 16], [3; 16], [4; 16]].concat();
        let token = format!("cw1.{}", BASE64URL_NOPAD.encode(&bytes));
        let (account, device) = ([1; 16], [2; 16]);
        let url = "https://a".to_owned();
        let login = CloudLogin { url, account, device, ..CloudLogin::default() };
        keep(&keys, &login, &secret_of(&signed_in(token.clone())).unwrap()).unwrap();
        assert_eq!(load(&keys, &login).unwrap().map(|kept| kept.to_string()), Some(token));
        let elsewhere = CloudLogin { url: "https://b".to_owned(), ..login.clone() };
        assert!(load(&keys, &elsewhere).unwrap().is_none());
        forget(&keys, &login).unwrap();
        assert!(load(&keys, &login).unwrap().is_none());
    }

    #[test]
    fn a_token_of_another_form_or_of_somebody_else_is_not_taken() {
        let of = |bytes: &[u8]| format!("cw1.{}", BASE64URL_NOPAD.encode(bytes));
        let own = [[1; 16], [2; 16]].concat();
        for token in [
            String::new(),
            "cw2.AAAA".to_owned(),
            of(&[own.clone(), vec![3; 31]].concat()),
            of(&[own.clone(), vec![3; 33]].concat()),
            of(&[vec![9; 32], vec![3; 32]].concat()),
            of(&own),
        ] {
            assert!(secret_of(&signed_in(token.clone())).is_none(), "{token}");
        }
    }
}
