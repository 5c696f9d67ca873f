//! What every request goes through.

use std::time::Instant;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Uri, header, uri::Authority};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use tokio::task::JoinSet;

use crate::app::{App, Shared};
use crate::events::Event;
use crate::problem::Problem;
use crate::worker::panicked;

/// Headers of every answer. The page loads only what this server has, and no other site may load anything from it.
const HEADERS: [(HeaderName, &str); 6] = [
    (
        header::CONTENT_SECURITY_POLICY,
        "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self' blob: data:; connect-src 'self'; \
         base-uri 'none'; form-action 'self'; frame-ancestors 'none'",
    ),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::REFERRER_POLICY, "no-referrer"),
    (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
    (header::CACHE_CONTROL, "no-store"),
];

/// Refuses foreign hosts, limits the time, turns panics into errors, and reports.
pub(crate) async fn guard(State(app): State<Shared>, request: Request, next: Next) -> Response {
    let begun = Instant::now();
    let name = format!("{} {}", request.method(), request.uri().path());
    let mut response = match check_host(&app, request.uri(), request.headers()) {
        Ok(()) => answer(&app, request, next).await,
        Err(problem) => problem.into_response(),
    };
    let headers = response.headers_mut();
    for (name, value) in HEADERS {
        headers.entry(name).or_insert(HeaderValue::from_static(value));
    }
    let status = response.status();
    if let Some(problem) = response.extensions().get::<Problem>()
        && status == StatusCode::INTERNAL_SERVER_ERROR
    {
        (app.on_event)(Event::Failed { request: name.clone(), message: problem.error.clone() });
    }
    if app.options.log_requests {
        (app.on_event)(Event::Answered { request: name, status: status.as_u16(), took: begun.elapsed() });
    }
    response
}

async fn answer(app: &App, request: Request, next: Next) -> Response {
    // A task of its own, so that a panic in it is an error. Dropping the set ends it: this future is dropped when the
    // client goes away.
    let mut task = JoinSet::new();
    task.spawn(next.run(request));
    match tokio::time::timeout(app.options.timeout, task.join_next()).await {
        Ok(Some(Ok(response))) => response,
        Ok(Some(Err(failed))) => match failed.try_into_panic() {
            Ok(panic) => panicked(panic.as_ref()).into_response(),
            Err(_) => Problem::failed("the request was ended").into_response(),
        },
        Ok(None) => Problem::failed("the request has no task").into_response(),
        Err(_) => {
            // It ends where it waits; from then on, a job that has not begun is not begun.
            task.shutdown().await;
            let seconds = app.options.timeout.as_secs_f64();
            let error = format!("the request took longer than {seconds} s");
            let advice = "send fewer images or texts at a time, or start the server with a longer `--timeout`";
            Problem::new(StatusCode::SERVICE_UNAVAILABLE, error, advice).into_response()
        }
    }
}

/// A page of another site can make a browser send requests here under its own host name, by answering the name with a
/// loopback address ("DNS rebinding"); to the browser they are requests to that site, so it may read the answers.
fn check_host(app: &App, uri: &Uri, headers: &HeaderMap) -> Result<(), Problem> {
    let given = headers.get(header::HOST).and_then(|host| host.to_str().ok());
    let Some(host) = uri.authority().map(Authority::as_str).or(given) else {
        let advice = "send the header `Host`";
        return Err(Problem::new(StatusCode::BAD_REQUEST, "the request does not name its host", advice));
    };
    let name = host.parse::<Authority>().map(|host| host.host().to_ascii_lowercase());
    if !app.is_loopback || name.as_deref().is_ok_and(is_this_machine) {
        return Ok(());
    }
    Err(Problem::new(
        StatusCode::FORBIDDEN,
        "the request is for another host than this machine",
        "use `localhost` or `127.0.0.1` in the address; to serve other machines, start the server with `--host`",
    ))
}

fn is_this_machine(host: &str) -> bool {
    let address = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    host == "localhost" || address.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_of_this_machine() {
        for host in ["localhost", "127.0.0.1", "[::1]", "127.0.0.2"] {
            assert!(is_this_machine(host), "{host}");
        }
        for host in ["example.com", "localhost.example.com", "10.0.0.1", "", "127.0.0.1.example.com", "[::2]"] {
            assert!(!is_this_machine(host), "{host}");
        }
    }
}
