//! What a server says when it does not do what it was asked for.

use serde::{Deserialize, Serialize};

/// An error, as `application/problem+json` (RFC 9457).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// What kind of error, stable.
    #[serde(rename = "type")]
    pub kind: ProblemKind,
    /// The same for people.
    pub title: String,
    /// The HTTP status.
    pub status: u16,
    /// When it is worth trying again, in milliseconds from now.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub retry_after_ms: Option<u64>,
    /// Names the request in the server's log.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub request_id: Option<String>,
}

/// The media type of a [`Problem`].
pub const PROBLEM_CONTENT_TYPE: &str = "application/problem+json";

macro_rules! problems {
    ($($(#[$doc:meta])* $name:ident = $text:literal, $status:literal, $title:literal;)*) => {
        /// What kind of error, by a name that stays.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
        #[non_exhaustive]
        pub enum ProblemKind {
            $($(#[$doc])* #[serde(rename = $text)] $name,)*
            /// A kind that this release does not know.
            #[serde(other, rename = "about:blank")]
            Unknown,
        }

        impl ProblemKind {
            /// Every kind that a server answers.
            pub const ALL: &[Self] = &[$(Self::$name),*];

            /// Returns the URI that stands in the body.
            pub const fn uri(self) -> &'static str {
                match self {
                    $(Self::$name => $text,)*
                    Self::Unknown => "about:blank",
                }
            }

            /// Returns the HTTP status.
            pub const fn status(self) -> u16 {
                match self {
                    $(Self::$name => $status,)*
                    Self::Unknown => 500,
                }
            }

            /// Returns one line for people.
            pub const fn title(self) -> &'static str {
                match self {
                    $(Self::$name => $title,)*
                    Self::Unknown => "something failed",
                }
            }
        }
    };
}

problems! {
    /// The body does not read, or a parameter is none.
    Malformed = "urn:catchword:problem:malformed", 400, "the request does not read";
    /// The token is missing, wrong, expired or revoked: sign in again.
    Unauthorized = "urn:catchword:problem:unauthorized", 401, "sign in first";
    /// Name or password are wrong.
    SignIn = "urn:catchword:problem:sign-in", 401, "name or password is wrong";
    /// New accounts are not taken here.
    Closed = "urn:catchword:problem:closed", 403, "this server takes no new accounts";
    /// There is nothing of that name in this account.
    NotFound = "urn:catchword:problem:not-found", 404, "there is nothing of that name";
    /// The call exists, but not in this way.
    Method = "urn:catchword:problem:method", 405, "this call is made in another way";
    /// The body came too slowly.
    Slow = "urn:catchword:problem:slow", 408, "the request took too long";
    /// The name is taken.
    UserTaken = "urn:catchword:problem:user-taken", 409, "that name is taken";
    /// The account has as many devices as it may have: sign one out.
    TooManyDevices = "urn:catchword:problem:too-many-devices", 409, "too many devices are signed in";
    /// The body is larger than 8 MiB, or has more than 4,096 records.
    TooLarge = "urn:catchword:problem:too-large", 413, "the request is too large";
    /// No byte of the file is in the range that was asked for.
    Range = "urn:catchword:problem:range", 416, "the file has nothing in that range";
    /// The bytes are not those that the name says.
    Digest = "urn:catchword:problem:digest", 422, "the bytes are not those that the name says";
    /// The body is neither JSON nor CBOR.
    MediaType = "urn:catchword:problem:media-type", 415, "the body is neither JSON nor CBOR";
    /// A name or password is too short or too long.
    Unusable = "urn:catchword:problem:unusable", 422, "a name or password is too short or too long";
    /// Too much was asked for: wait.
    SlowDown = "urn:catchword:problem:slow-down", 429, "too many requests";
    /// The server failed.
    Failed = "urn:catchword:problem:failed", 500, "the server failed";
    /// The server has too much to do, or its database does not answer: try again.
    Busy = "urn:catchword:problem:busy", 503, "the server is busy";
    /// The account has no room left for a file of that length, or the server has none.
    Full = "urn:catchword:problem:full", 507, "there is no room left";
}

impl Problem {
    /// Returns the problem of a kind.
    pub fn of(kind: ProblemKind) -> Self {
        Self {
            kind,
            title: kind.title().to_owned(),
            status: kind.status(),
            retry_after_ms: None,
            request_id: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_has_a_stable_name_and_an_unknown_one_reads() {
        for kind in ProblemKind::ALL {
            let json = serde_json::to_string(&Problem::of(*kind)).unwrap();
            assert!(json.starts_with(&format!("{{\"type\":\"{}\"", kind.uri())), "{json}");
            assert_eq!(serde_json::from_str::<Problem>(&json).unwrap(), Problem::of(*kind));
        }
        let newer = "{\"type\":\"urn:catchword:problem:newer\",\"title\":\"x\",\"status\":499}";
        let problem: Problem = serde_json::from_str(newer).unwrap();
        assert_eq!((problem.kind, problem.status), (ProblemKind::Unknown, 499));
    }
}
