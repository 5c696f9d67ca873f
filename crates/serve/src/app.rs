//! What all requests share, and which function answers which path.

use std::sync::Arc;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::http::{Method, StatusCode, Uri};
use axum::middleware;
use axum::routing::{get, post};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::engine::{Engine, Served};
use crate::events::OnEvent;
use crate::options::Options;
use crate::problem::Problem;
use crate::worker::Worker;
use crate::{endpoints, guard, pages};

/// Pictures that are made at a time, beside the work of the model.
const PICTURES_AT_A_TIME: usize = 2;

/// What all requests share.
pub(crate) struct App {
    pub engine: Arc<dyn Engine>,
    pub served: Served,
    pub options: Options,
    pub worker: Worker,
    /// Requests for the model that may be admitted.
    pub admission: Arc<Semaphore>,
    /// Pictures that may be made now; others wait.
    pub pictures: Arc<Semaphore>,
    pub on_event: Arc<OnEvent>,
    /// Whether only this machine can connect, so that a request for another host was lured here.
    pub is_loopback: bool,
}

/// Shared by the tasks of a server.
pub(crate) type Shared = Arc<App>;

impl App {
    pub fn new(
        engine: Arc<dyn Engine>,
        options: Options,
        worker: Worker,
        on_event: Arc<OnEvent>,
        is_loopback: bool,
    ) -> Self {
        let admission = Arc::new(Semaphore::new(options.max_concurrency.clamp(1, Semaphore::MAX_PERMITS)));
        let pictures = Arc::new(Semaphore::new(PICTURES_AT_A_TIME));
        let served = engine.served();
        Self { engine, served, options, worker, admission, pictures, on_event, is_loopback }
    }

    /// Admits a request for the model.
    ///
    /// # Errors
    /// The server is busy.
    pub fn admit(&self) -> Result<OwnedSemaphorePermit, Problem> {
        Arc::clone(&self.admission).try_acquire_owned().map_err(|_| Problem::busy())
    }
}

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
