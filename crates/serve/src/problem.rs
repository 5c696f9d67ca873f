//! Errors as a client sees them.

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::json;

use crate::engine::EngineError;

/// Seconds after which a client that found the server busy may try again.
const RETRY_AFTER: HeaderValue = HeaderValue::from_static("1");

/// An error: a status, what is wrong, and what to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Problem {
    pub status: StatusCode,
    pub error: String,
    pub advice: String,
}

impl Problem {
    pub fn new(status: StatusCode, error: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { status, error: error.into(), advice: advice.into() }
    }

    /// A failure that is not the client's fault.
    pub fn failed(message: impl Into<String>) -> Self {
        let advice = "try again; if it stays, the log of the server has the details";
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, message, advice)
    }

    pub fn busy() -> Self {
        let error = "the server is busy: as many requests as it admits are being answered";
        Self::new(StatusCode::SERVICE_UNAVAILABLE, error, "try again in a second, or send fewer requests at a time")
    }
}

impl From<EngineError> for Problem {
    fn from(error: EngineError) -> Self {
        match error {
            EngineError::Unusable(message) => {
                Self::new(StatusCode::UNPROCESSABLE_ENTITY, message, "correct the request and send it again")
            }
            EngineError::Absent(message) => {
                Self::new(StatusCode::NOT_FOUND, message, "rows are those of the hits of `POST /search`")
            }
            EngineError::Failed(message) => Self::failed(message),
        }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let body = json!({ "error": self.error, "advice": self.advice }).to_string();
        let mut response = (self.status, [(header::CONTENT_TYPE, "application/json")], body).into_response();
        if self.status == StatusCode::SERVICE_UNAVAILABLE {
            response.headers_mut().insert(header::RETRY_AFTER, RETRY_AFTER);
        }
        response.extensions_mut().insert(self);
        response
    }
}
