//! JSON and images of a request.

use axum::body::Bytes;
use axum::extract::{FromRequest, Request};
use axum::http::{HeaderMap, StatusCode, header};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::de::DeserializeOwned;
use serde_json::error::Category;

use crate::app::App;
use crate::problem::Problem;

/// What a body is.
pub(crate) enum Body {
    Json(Bytes),
    /// An encoded image.
    Image(Vec<u8>),
}

/// Reads the body of a request.
///
/// # Errors
/// 413 for a body that is too large, 415 for another content type, 400 if the client does not send the whole body.
pub(crate) async fn read(request: Request, app: &App) -> Result<Body, Problem> {
    let kind = media_type(request.headers());
    let is_image = kind.starts_with("image/");
    if kind != "application/json" && !is_image {
        return Err(Problem::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            format!("the body has the content type `{kind}`"),
            "send JSON with `Content-Type: application/json`, or an image with `Content-Type: image/jpeg` or the like",
        ));
    }
    let limit = app.options.max_body;
    let declared = request.headers().get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
    if declared.is_some_and(|length: u64| length > limit as u64) {
        return Err(too_large(limit));
    }
    let bytes = Bytes::from_request(request, &()).await.map_err(|rejection| match rejection.status() {
        StatusCode::PAYLOAD_TOO_LARGE => too_large(limit),
        _ => Problem::new(StatusCode::BAD_REQUEST, rejection.body_text(), "send the whole body"),
    })?;
    Ok(if is_image { Body::Image(bytes.into()) } else { Body::Json(bytes) })
}

fn too_large(limit: usize) -> Problem {
    let error = format!("the body is larger than {limit} bytes");
    let advice = "send less in one request, or start the server with a larger `--max-body`";
    Problem::new(StatusCode::PAYLOAD_TOO_LARGE, error, advice)
}

/// The media type of a body, without parameters.
fn media_type(headers: &HeaderMap) -> String {
    let given = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    given.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}

/// The object that `bytes` hold.
///
/// # Errors
/// 400 if it is no JSON object; 422 if it has other keys or types.
pub(crate) fn parse<T: DeserializeOwned>(bytes: &[u8], keys: &str) -> Result<T, Problem> {
    let no_object = |problem: String| {
        let advice = format!("send a JSON object with the keys {keys}");
        Problem::new(StatusCode::BAD_REQUEST, format!("the body is no JSON object: {problem}"), advice)
    };
    // serde would take a list of the values, too.
    if !bytes.trim_ascii_start().starts_with(b"{") {
        return Err(no_object("it does not start with `{`".to_owned()));
    }
    serde_json::from_slice(bytes).map_err(|error| match error.classify() {
        Category::Data => unfit(format!("the body does not fit: {error}"), format!("its keys are {keys}")),
        _ => no_object(error.to_string()),
    })
}

/// 422.
pub(crate) fn unfit(error: impl Into<String>, advice: impl Into<String>) -> Problem {
    Problem::new(StatusCode::UNPROCESSABLE_ENTITY, error, advice)
}

/// The image number `number` in base64, plain or as a `data:` URL.
///
/// # Errors
/// 422.
pub(crate) fn image(text: &str, number: usize) -> Result<Vec<u8>, Problem> {
    let encoded = text.strip_prefix("data:").and_then(|url| url.split_once(";base64,")).map_or(text, |(_, data)| data);
    STANDARD.decode(encoded.trim()).map_err(|error| {
        unfit(format!("image {number} is not in base64: {error}"), "encode the file of the image with standard base64")
    })
}
