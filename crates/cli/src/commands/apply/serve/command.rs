//! The options of `dualenc serve`, and what it prints.

use std::io::{Write, stdout};
use std::net::{SocketAddr, TcpListener, ToSocketAddrs};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use clap::{Args, ValueHint};
use dualenc_serve::{DEFAULT_MAX_BODY, Options, Served};
use dualenc_train::{Answering, Compute, Event, Index, Observer, TrainError, counted};

use crate::args::{DimArgs, ModelArgs};
use crate::commands::apply::search::{Among, on_one_line};
use crate::commands::apply::serve::engine::{ModelEngine, index_info};
use crate::commands::apply::serve::pictures::Pictures;
use crate::exit::Ending;
use crate::report::notice;
use crate::report::progress::Reporter;
use crate::signals::Signals;

/// Bytes of a MiB.
const MIB: usize = 1 << 20;

/// Default of `--max-body`.
const MAX_BODY: u32 = (DEFAULT_MAX_BODY / MIB) as u32;

/// Serve embeddings, labels and search over HTTP
///
/// Answers `POST /embed`, `POST /classify` and `POST /search`, and has a search page at `/`. docs/SERVING.md describes
/// them. The address is the only line on stdout. SIGINT and SIGTERM end the server after the requests that have begun.
///
/// There is no authentication: without `--host`, only this machine can connect.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  dualenc embed --model runs/first --images photos --out photos.safetensors
  dualenc serve --model runs/first --index photos.safetensors
  curl -H 'Content-Type: application/json' -d '{\"text\": \"a dog\"}' http://127.0.0.1:8080/search")]
pub struct ServeArgs {
    #[command(flatten)]
    pub model: ModelArgs,
    #[command(flatten)]
    pub dim: DimArgs,
    /// Search in this file: an index of `index`, a safetensors file of `embed`, or a numpy array [rows, dim]
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub index: Option<PathBuf>,
    /// Which embeddings of the file [default: those of images if there are any, else those of texts]
    #[arg(long, value_enum, requires = "index")]
    pub among: Option<Among>,
    /// Relative paths of images in the index start at this folder [default: the working directory]
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath, requires = "index")]
    pub root: Option<PathBuf>,
    /// Listen on this address; 0.0.0.0 lets every machine of the network connect
    #[arg(long, value_name = "HOST", default_value = "127.0.0.1")]
    pub host: String,
    /// Listen on this port; 0: on any that is free
    #[arg(long, value_name = "PORT", default_value_t = 8080)]
    pub port: u16,
    /// Maximum size of a request, in MiB
    #[arg(long, value_name = "MIB", default_value_t = MAX_BODY, value_parser = clap::value_parser!(u32).range(1..1025))]
    pub max_body: u32,
    /// Requests for the model at a time: one is computed, the others wait, and more are refused with 503
    #[arg(long, value_name = "N", default_value_t = 32, value_parser = clap::value_parser!(u32).range(1..=4096))]
    pub max_concurrency: u32,
    /// Texts of a request; for `/classify`, labels times templates
    #[arg(long, value_name = "N", default_value_t = 1024, value_parser = clap::value_parser!(u32).range(1..))]
    pub max_texts: u32,
    /// Images of a request
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..))]
    pub max_images: u32,
    /// Hits of a request
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..))]
    pub max_top: u32,
    /// Maximum number of pixels of an image [default: that of the model's run, or 178956970]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub max_pixels: Option<u64>,
    /// Give up a request after this time, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 60, value_parser = clap::value_parser!(u32).range(1..=86400))]
    pub timeout: u32,
    /// Write a line to stderr for each request
    #[arg(long)]
    pub log_requests: bool,
    /// Run on this device: cpu, ndarray, wgpu, vulkan, cuda or cuda:N
    #[arg(long, value_name = "DEVICE", default_value = "cpu")]
    pub device: String,
}

impl ServeArgs {
    fn options(&self) -> Options {
        Options {
            max_body: self.max_body as usize * MIB,
            max_concurrency: self.max_concurrency as usize,
            timeout: Duration::from_secs(self.timeout.into()),
            max_texts: self.max_texts as usize,
            max_images: self.max_images as usize,
            max_top: self.max_top as usize,
            log_requests: self.log_requests,
        }
    }
}

pub fn run(args: ServeArgs, reporter: &mut Reporter) -> anyhow::Result<Ending> {
    let signals = Signals::end_at_once()?;
    // Before the model, which takes longer to load.
    let listener = listen(&args.host, args.port)?;
    let open = |path: &PathBuf| Index::open(path, Among::part(args.among)).map(Arc::new);
    let index = args.index.as_ref().map(open).transpose().map_err(TrainError::from)?;
    let compute = Compute::select(&args.device, None)?;
    let mut model = args.dim.cut(args.model.load(&compute, reporter)?, reporter)?;
    if let Some(pixels) = args.max_pixels {
        model.limit_pixels(pixels);
    }
    let limits = *model.processor.limits();
    let answering = Answering::new(model, index.clone(), compute)?;
    let root = args.root.clone().unwrap_or_default();
    let pictures = index.as_deref().map(|index| Pictures::look(index, &root)).unwrap_or_default();
    if let Some(problem) = pictures.problem(args.index.as_deref().unwrap_or(&root), args.root.as_deref()) {
        reporter.on(Event::Warning(problem));
    }
    let served = Served {
        model: args.model.model.display().to_string(),
        dim: answering.dim(),
        index: index.as_deref().map(|index| index_info(index, &pictures)),
        version: env!("CARGO_PKG_VERSION").to_owned(),
    };
    let address = listener.local_addr()?;
    if !address.ip().is_loopback() {
        reporter.on(Event::Warning(format!(
            "`--host {}` lets other machines connect, and there is no authentication: everyone who can reach port {} \
             can use the model and see the images of the index; put a proxy with authentication in front of it",
            args.host,
            address.port()
        )));
    }
    let rows = served.index.map_or("no index".to_owned(), |index| counted(index.rows, "row"));
    reporter.on(Event::Note(format!("serving `{}` ({} dimensions, {rows})", served.model, served.dim)));
    writeln!(stdout().lock(), "http://{address}")?;
    stdout().flush()?;
    let engine = Arc::new(ModelEngine { served, model: Mutex::new(answering), index, root, limits });
    let stop = signals.begin_serving().clone();
    dualenc_serve::serve(listener, engine, args.options(), Arc::new(report), move || stop.signal().is_some())?;
    reporter.finish();
    Ok(Ending::Done)
}

/// The listener, and what to do if there is none.
fn listen(host: &str, port: u16) -> Result<TcpListener, TrainError> {
    let no = |error| {
        TrainError::Usage(format!(
            "cannot listen on `{host}` port {port}: {error}; choose another `--host` or `--port`"
        ))
    };
    let addresses: Vec<SocketAddr> = (host, port).to_socket_addrs().map_err(no)?.collect();
    TcpListener::bind(&addresses[..]).map_err(no)
}

/// Reports what happens while the server runs. Requests are named by their clients.
fn report(event: dualenc_serve::Event) {
    use dualenc_serve::Event;
    notice::write(&on_one_line(&match event {
        Event::Failed { request, message } => format!("error: {request}: {message}"),
        Event::Answered { request, status, took } => format!("{request} {status} {:.1} ms", took.as_secs_f64() * 1e3),
        Event::Cut => "some requests did not end in time and were cut".to_owned(),
    }));
}
