//! Which function answers which path.

use std::sync::Arc;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::http::{Method, StatusCode, Uri};
use axum::middleware;
use axum::routing::{get, post};

use crate::app::Shared;
use crate::problem::Problem;
use crate::{endpoints, guard, pages};

/// The paths of the server.
pub(crate) fn router(app: &Shared) -> Router {
    Router::new()
        .route("/", get(pages::page))
        .route("/page.css", get(pages::style))
        .route("/page.js", get(pages::script))
        .route("/health", get(pages::health))
        .route("/image/{row}", get(pages::picture))
        .route("/embed", post(endpoints::embed))
        .route("/classify", post(endpoints::classify))
        .route("/search", post(endpoints::search))
        .fallback(unknown)
        .method_not_allowed_fallback(wrong_method)
        .layer(DefaultBodyLimit::max(app.options.max_body))
        .layer(middleware::from_fn_with_state(Arc::clone(app), guard::guard))
        .with_state(Arc::clone(app))
}

async fn unknown(uri: Uri) -> Problem {
    let paths = "the paths are `/`, `/health`, `/embed`, `/classify`, `/search` and `/image/ROW`";
    Problem::new(StatusCode::NOT_FOUND, format!("there is nothing at `{}`", uri.path()), paths)
}

async fn wrong_method(method: Method, uri: Uri) -> Problem {
    let advice = "use POST for `/embed`, `/classify` and `/search`, and GET for all others";
    Problem::new(StatusCode::METHOD_NOT_ALLOWED, format!("`{}` does not take {method}", uri.path()), advice)
}
