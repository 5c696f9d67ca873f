//! The search page, pictures, health.

use std::sync::Arc;

use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use crate::app::Shared;
use crate::problem::Problem;
use crate::worker::caught;

const PAGE: &str = include_str!("page/page.html");
const STYLE: &str = include_str!("page/page.css");
const SCRIPT: &str = include_str!("page/page.js");

/// A browser may keep a picture, and asks each time whether it is still the one.
const ASK_AGAIN: HeaderValue = HeaderValue::from_static("private, no-cache");

/// `GET /`.
pub(crate) async fn page() -> Response {
    with_type("text/html; charset=utf-8", PAGE)
}

/// `GET /page.css`.
pub(crate) async fn style() -> Response {
    with_type("text/css; charset=utf-8", STYLE)
}

/// `GET /page.js`.
pub(crate) async fn script() -> Response {
    with_type("text/javascript; charset=utf-8", SCRIPT)
}

/// `GET /health`.
pub(crate) async fn health(State(app): State<Shared>) -> Response {
    let served = &app.served;
    let index = served.index.map_or(Value::Null, |index| json!({ "rows": index.rows, "images": index.has_pictures }));
    let body = json!({
        "status": "ok", "model": served.model, "dim": served.dim, "index": index, "version": served.version,
    });
    with_type("application/json", body.to_string())
}

/// `GET /image/{row}`. Only a number is taken from the path: which file is shown is for the index to say.
pub(crate) async fn picture(State(app): State<Shared>, uri: Uri, headers: HeaderMap) -> Result<Response, Problem> {
    let row = uri.path().strip_prefix("/image/").filter(|row| row.bytes().all(|byte| byte.is_ascii_digit()));
    let Some(row) = row.and_then(|row| row.parse::<usize>().ok()) else {
        let advice = "ask for `/image/ROW` with the `row` of a hit";
        return Err(Problem::new(StatusCode::NOT_FOUND, "a picture is named by the number of its row", advice));
    };
    // The index is mapped while the server runs: its rows do not change. The next server may have another index.
    let tag = format!("\"{:x}-{row}\"", app.id);
    if headers.get(header::IF_NONE_MATCH).is_some_and(|known| known == tag.as_str()) {
        return Ok((StatusCode::NOT_MODIFIED, [(header::CACHE_CONTROL, ASK_AGAIN)]).into_response());
    }
    let gone = |_| Problem::failed("pictures are not made any more");
    let permit = Arc::clone(&app.pictures).acquire_owned().await.map_err(gone)?;
    let engine = Arc::clone(&app.engine);
    let work = move || {
        let done = caught(|| engine.picture(row));
        drop(permit);
        done
    };
    let picture = tokio::task::spawn_blocking(work).await.map_err(|error| Problem::failed(error.to_string()))??;
    let mut response = with_type(picture.media_type, picture.bytes);
    let tag = HeaderValue::try_from(tag).map_err(|error| Problem::failed(error.to_string()))?;
    response.headers_mut().insert(header::ETAG, tag);
    response.headers_mut().insert(header::CACHE_CONTROL, ASK_AGAIN);
    Ok(response)
}

fn with_type(media_type: &'static str, body: impl IntoResponse) -> Response {
    let mut response = body.into_response();
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(media_type));
    response
}
