//! Embeddings, labels, hits.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::app::{App, Shared};
use crate::body::{Body, image, parse, read, unfit};
use crate::engine::Query;
use crate::problem::Problem;

/// Hits without `top`, as of `dualenc search`.
const DEFAULT_TOP: usize = 10;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct EmbedBody {
    texts: Option<Vec<String>>,
    images: Option<Vec<String>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ClassifyBody {
    images: Vec<String>,
    labels: Vec<String>,
    #[serde(default)]
    templates: Vec<String>,
    top: Option<usize>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SearchBody {
    text: Option<String>,
    image: Option<String>,
    top: Option<usize>,
}

#[derive(Serialize)]
struct Embedded {
    dim: usize,
    embeddings: Vec<Vec<f32>>,
}

/// `POST /embed`.
pub(crate) async fn embed(State(app): State<Shared>, request: Request) -> Result<Response, Problem> {
    let permit = app.admit()?;
    let (texts, images) = match read(request, &app).await? {
        Body::Image(image) => (None, vec![image]),
        Body::Json(bytes) => {
            let body: EmbedBody = parse(&bytes, "`texts` or `images`")?;
            match (body.texts, body.images) {
                (Some(texts), None) => (Some(texts), Vec::new()),
                (None, Some(list)) => (None, images(&app, &list)?),
                _ => return Err(unfit("the body has not exactly one of `texts` and `images`", "send one of them")),
            }
        }
    };
    if let Some(texts) = &texts {
        check_count(texts.len(), app.options.max_texts, "texts", "--max-texts")?;
        check_texts(texts.iter(), |number| format!("text {number}"))?;
    }
    let engine = Arc::clone(&app.engine);
    let work = move || match texts {
        Some(texts) => engine.embed_texts(&texts),
        None => engine.embed_images(&images),
    };
    let embeddings = app.worker.run(permit, work).await?;
    answer(&Embedded { dim: app.served.dim, embeddings })
}

/// `POST /classify`.
pub(crate) async fn classify(State(app): State<Shared>, request: Request) -> Result<Response, Problem> {
    let permit = app.admit()?;
    let keys = "`images`, `labels`, and optionally `templates` and `top`";
    let Body::Json(bytes) = read(request, &app).await? else {
        let advice = format!("send JSON with the keys {keys}");
        return Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "an image alone has no labels", advice));
    };
    let body: ClassifyBody = parse(&bytes, keys)?;
    let images = images(&app, &body.images)?;
    let prompts = body.labels.len().saturating_mul(body.templates.len().max(1));
    check_count(prompts, app.options.max_texts, "labels times templates", "--max-texts")?;
    let top = body.top.unwrap_or(body.labels.len());
    check_count(top, app.options.max_top, "labels of an image in `top`", "--max-top")?;
    let engine = Arc::clone(&app.engine);
    let work = move || engine.classify(&images, &body.labels, &body.templates, top);
    let found = app.worker.run(permit, work).await?;
    let images: Vec<Value> = found.0.into_iter().map(|labels| json!({ "labels": labels })).collect();
    answer(&json!({ "images": images }))
}

/// `POST /search`.
pub(crate) async fn search(State(app): State<Shared>, request: Request) -> Result<Response, Problem> {
    if app.served.index.is_none() {
        let advice = "start the server with `--index FILE`";
        return Err(Problem::new(StatusCode::NOT_FOUND, "this server has no index to search", advice));
    }
    let permit = app.admit()?;
    let (query, top) = match read(request, &app).await? {
        Body::Image(image) => (Query::Image(image), None),
        Body::Json(bytes) => {
            let body: SearchBody = parse(&bytes, "`text` or `image`, and optionally `top`")?;
            let query = match (body.text, body.image) {
                (Some(text), None) => {
                    check_texts(std::iter::once(&text), |_| "`text`".to_owned())?;
                    Query::Text(text)
                }
                (None, Some(encoded)) => Query::Image(image(&encoded, 1)?),
                _ => return Err(unfit("the body has not exactly one of `text` and `image`", "send one of them")),
            };
            (query, body.top)
        }
    };
    let top = top.unwrap_or(DEFAULT_TOP);
    check_count(top, app.options.max_top, "hits in `top`", "--max-top")?;
    let engine = Arc::clone(&app.engine);
    let hits = app.worker.run(permit, move || engine.search(&query, top)).await?;
    answer(&json!({ "hits": hits }))
}

/// The images of a request.
fn images(app: &App, encoded: &[String]) -> Result<Vec<Vec<u8>>, Problem> {
    check_count(encoded.len(), app.options.max_images, "images", "--max-images")?;
    (1..).zip(encoded).map(|(number, text)| image(text, number)).collect()
}

fn check_count(count: usize, most: usize, what: &str, option: &str) -> Result<(), Problem> {
    if (1..=most).contains(&count) {
        return Ok(());
    }
    let advice = match count {
        0 => format!("send from 1 to {most}"),
        _ => format!("send at most {most}, or start the server with a larger `{option}`"),
    };
    Err(unfit(format!("the number of {what} is {count}"), advice))
}

/// Refuses texts that say nothing. `name`: of one text, such as `text 3`.
fn check_texts<'a>(texts: impl Iterator<Item = &'a String>, name: impl Fn(usize) -> String) -> Result<(), Problem> {
    match (1..).zip(texts).find(|(_, text)| text.trim().is_empty()) {
        Some((number, _)) => Err(unfit(format!("{} is empty", name(number)), "send a text with at least one word")),
        None => Ok(()),
    }
}

fn answer(value: &impl Serialize) -> Result<Response, Problem> {
    let body = serde_json::to_string(value).map_err(|error| Problem::failed(error.to_string()))?;
    Ok(([(header::CONTENT_TYPE, "application/json")], body).into_response())
}
