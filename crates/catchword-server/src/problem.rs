//! Errors as clients see them.

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use catchword_proto::cloud::api::{PROBLEM_CONTENT_TYPE, Problem, ProblemKind};

use crate::ledger::LedgerError;

/// What ends a call early.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) kind: ProblemKind,
    /// When it is worth trying again, in milliseconds from now.
    pub(crate) retry_after_ms: Option<u64>,
}

/// How long somebody waits who comes while the server is busy.
const BUSY_RETRY_MS: u64 = 1_000;

impl Refusal {
    pub(crate) const fn busy() -> Self {
        Self { kind: ProblemKind::Busy, retry_after_ms: Some(BUSY_RETRY_MS) }
    }

    pub(crate) const fn later(retry_after_ms: u64) -> Self {
        Self { kind: ProblemKind::SlowDown, retry_after_ms: Some(retry_after_ms) }
    }
}

impl From<ProblemKind> for Refusal {
    fn from(kind: ProblemKind) -> Self {
        Self { kind, retry_after_ms: None }
    }
}

impl From<LedgerError> for Refusal {
    fn from(error: LedgerError) -> Self {
        match error {
            LedgerError::Busy => Self::busy(),
            LedgerError::Database(cause) => {
                tracing::error!(%cause, "the database failed");
                Self::busy()
            }
            error @ (LedgerError::Damaged { .. } | LedgerError::Unfit { .. }) => {
                tracing::error!(%error, "the ledger failed");
                ProblemKind::Failed.into()
            }
        }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let mut problem = Problem::of(self.kind);
        problem.retry_after_ms = self.retry_after_ms;
        // The request id is added where it is known: see `observe`.
        let mut response = body_of(&problem);
        response.extensions_mut().insert(problem);
        response
    }
}

/// Returns the response that says a problem.
pub(crate) fn body_of(problem: &Problem) -> Response {
    let status = StatusCode::from_u16(problem.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let body = serde_json::to_vec(problem).unwrap_or_default();
    let content_type = (header::CONTENT_TYPE, HeaderValue::from_static(PROBLEM_CONTENT_TYPE));
    let mut response = (status, [content_type], body).into_response();
    if let Some(ms) = problem.retry_after_ms {
        let seconds = HeaderValue::from(ms.div_ceil(1_000));
        response.headers_mut().insert(header::RETRY_AFTER, seconds);
    }
    response
}
