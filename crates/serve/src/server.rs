//! Connections, from the first to the orderly end.

use std::io;
use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::runtime::Builder;
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};

use crate::app::App;
use crate::engine::Engine;
use crate::events::{Event, OnEvent};
use crate::options::Options;
use crate::router::router;
use crate::worker::Worker;

/// Threads for connections; models have their own.
const THREADS: usize = 2;

/// Most connections at a time; others wait until one ends.
const MAX_CONNECTIONS: usize = 512;

/// Time for the head of a request, and between two requests of a connection.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);

/// How often the server looks whether it should stop.
const POLL: Duration = Duration::from_millis(50);

/// Serves until `should_stop`; then finishes the requests that have begun, for at most the time that a request has.
///
/// # Errors
/// Those of the system: the listener cannot be used, or a thread cannot be started.
pub fn serve(
    listener: TcpListener,
    engine: Arc<dyn Engine>,
    options: Options,
    on_event: Arc<OnEvent>,
    should_stop: impl Fn() -> bool,
) -> io::Result<()> {
    listener.set_nonblocking(true)?;
    let is_loopback = listener.local_addr()?.ip().is_loopback();
    let (worker, model_thread) = Worker::start()?;
    let grace = options.timeout;
    let app = Arc::new(App::new(engine, options, worker, Arc::clone(&on_event), is_loopback));
    let service = router(&app);
    drop(app);
    let runtime = Builder::new_multi_thread().worker_threads(THREADS).enable_all().build()?;
    let all_ended = runtime.block_on(async {
        let connections = accept(tokio::net::TcpListener::from_std(listener)?, service, &should_stop).await;
        io::Result::Ok(timeout(grace, connections.shutdown()).await.is_ok())
    })?;
    if all_ended {
        drop(runtime);
        // A job that was given up may still run. It cannot panic: jobs catch panics.
        let _ = model_thread.join();
    } else {
        on_event(Event::Cut);
        runtime.shutdown_background();
    }
    Ok(())
}

/// Serves connections until `should_stop`. Returns those that are open.
async fn accept(
    listener: tokio::net::TcpListener,
    service: Router,
    should_stop: &impl Fn() -> bool,
) -> GracefulShutdown {
    let connections = GracefulShutdown::new();
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    while !should_stop() {
        let Ok(Ok(place)) = timeout(POLL, Arc::clone(&places).acquire_owned()).await else { continue };
        let stream = match timeout(POLL, listener.accept()).await {
            Ok(Ok((stream, _))) => stream,
            // The connection was lost before it was accepted, or there are too many open files: both may pass.
            Ok(Err(_)) => {
                sleep(POLL).await;
                continue;
            }
            Err(_) => continue,
        };
        // Answers are small: do not wait for more. Without it, they are merely slower.
        let _ = stream.set_nodelay(true);
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_TIMEOUT)
            .serve_connection(TokioIo::new(stream), TowerToHyperService::new(service.clone()));
        let watched = connections.watch(connection);
        tokio::spawn(async move {
            // A client that goes away, or does not speak HTTP, concerns nobody else.
            let _ = watched.await;
            drop(place);
        });
    }
    connections
}
