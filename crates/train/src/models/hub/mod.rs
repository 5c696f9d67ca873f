//! From a tower's reference, a local directory or a hub id, to a directory with its files.
//!
//! The cache is the one all Hugging Face programs share (`models--org--name/{refs,blobs,snapshots,.no_exist}`); a snapshot
//! that is there is used without asking the network, so a run that started once starts again offline and on the same
//! commit. Downloads go through `hf-hub` (cargo feature `hub`). What version 0.5.0 of it lacks is done here: `HF_TOKEN`,
//! `HF_HUB_CACHE` and `HF_HUB_OFFLINE`, all files from one commit, and a check of the size of what arrived.
//!
//! Known limits of `hf-hub` 0.5.0: no time limit on a server that stops answering; no certificates beyond Mozilla's, so a
//! mirror behind a private authority has to be copied to a directory; and for a private model the token also goes to the
//! host that its large files are redirected to (for a public one it is not sent at all).

use std::path::{Path, PathBuf};

#[cfg(feature = "hub")]
mod download;
#[cfg(test)]
#[cfg(feature = "hub")]
mod tests;

/// The branch that a hub id stands for.
const BRANCH: &str = "main";

/// What makes a directory a Hugging Face model.
const CONFIG: &str = "config.json";

/// What else a tower may have: the image processor, the tokenizer and the parts of sentence-transformers.
const OPTIONAL: [&str; 10] = [
    "preprocessor_config.json",
    "processor_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.txt",
    "vocab.json",
    "merges.txt",
    MODULES,
];

/// The parts of a sentence-transformers model, and where it keeps its pooling if they name no other place.
const MODULES: &str = "modules.json";
const POOLING: &str = "1_Pooling";

/// What open_clip keeps beside a `config.json` that is timm's or nobody's.
const OPEN_CLIP: [&str; 2] = ["open_clip_config.json", "open_clip_model.safetensors"];

/// The whole weights in one file, and the list of the files they are split into.
const WEIGHTS: &str = "model.safetensors";
const WEIGHTS_INDEX: &str = "model.safetensors.index.json";

#[derive(Clone, Copy, PartialEq, Eq)]
enum Need {
    Required,
    Optional,
}

/// Why a reference could not be resolved.
#[derive(Debug, thiserror::Error)]
pub enum HubError {
    /// The reference is neither a directory here nor shaped like a hub id.
    #[error("`{reference}` is no directory here and no hub id; check the path, or write `name` or `org/name`")]
    NotAReference {
        /// What was given.
        reference: String,
    },
    /// The hub has no such repository, or does not show it.
    #[error(
        "`{reference}` is not a directory here and not found on the hub at `{endpoint}` (status {status}); check the \
         path (it counts from the config file), the spelling of the id, and for a private or gated model `HF_TOKEN`"
    )]
    NotFound {
        /// The hub id.
        reference: String,
        /// The hub that was asked.
        endpoint: String,
        /// Its HTTP status: 401, 403 or 404.
        status: u16,
    },
    /// The repository lacks a file no tower can do without.
    #[error("`{reference}` has no `{file}`; {advice}")]
    MissingFile {
        /// The hub id.
        reference: String,
        /// The missing file.
        file: String,
        /// What to do.
        advice: &'static str,
    },
    /// `HF_HUB_OFFLINE` is set and the cache lacks a file.
    #[error(
        "`{reference}` is not a directory here, `HF_HUB_OFFLINE` is set, and the cache has no `{file}` of it; looked in \
         `{looked_in}`; run once with a network, or copy the model's files to a directory and name that"
    )]
    Offline {
        /// The hub id.
        reference: String,
        /// The first missing file.
        file: String,
        /// The directory it should be in.
        looked_in: PathBuf,
    },
    /// This build has no downloader.
    #[error(
        "`{reference}` is not a directory here and not in the cache (looked in `{looked_in}`), and this build cannot \
         download; build with the cargo feature `hub`, or copy the model's files to a directory and name that"
    )]
    NoDownload {
        /// The hub id.
        reference: String,
        /// The directory it should be in.
        looked_in: PathBuf,
    },
    /// A request or a transfer failed.
    #[error(
        "cannot download `{file}` of `{reference}` from `{endpoint}`; check the network, `HF_ENDPOINT` and free space"
    )]
    Download {
        /// The hub id.
        reference: String,
        /// The file.
        file: String,
        /// The hub that was asked.
        endpoint: String,
        /// What went wrong.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// What arrived is not what the hub announced.
    #[error("`{file}` of `{reference}` arrived with {found} bytes, expected {expected}; it was removed, try again")]
    Size {
        /// The hub id.
        reference: String,
        /// The file.
        file: String,
        /// Bytes that arrived.
        found: u64,
        /// Bytes announced.
        expected: u64,
    },
    /// A file of the cache cannot be read or written.
    #[error("cannot use `{path}` in the hub cache; check its permissions, or set `HF_HOME` to another directory")]
    Cache {
        /// The file or directory.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The index of split weights is no index.
    #[error("`{path}` is no index of safetensors files: {reason}; remove it to download it again")]
    Index {
        /// The index.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// There is no home directory to put the cache in.
    #[error("no directory for the hub cache: neither `HF_HOME` nor a home directory is set")]
    NoHome,
}

/// How far the download of a file has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress<'a> {
    /// The hub id.
    pub reference: &'a str,
    /// The file.
    pub file: &'a str,
    /// Bytes there so far.
    pub bytes: u64,
    /// Bytes of the whole file.
    pub total_bytes: u64,
}

/// A hub and the cache in front of it.
#[derive(Clone)]
pub struct Hub {
    /// Address of the hub, without a slash at the end.
    pub endpoint: String,
    /// The directory that holds `models--org--name`.
    pub cache_dir: PathBuf,
    /// Sent to the hub, for private and gated models.
    pub token: Option<String>,
    /// Use only the cache.
    pub offline: bool,
}

impl Hub {
    /// The hub as the environment has it, by the names of the Python library `huggingface_hub`: `HF_ENDPOINT`,
    /// `HF_HUB_CACHE` or `HF_HOME` (default `~/.cache/huggingface`), `HF_TOKEN` or the file `token` in `HF_HOME`, and
    /// `HF_HUB_OFFLINE` or `TRANSFORMERS_OFFLINE` (`1`, `true`, `yes` or `on`).
    ///
    /// # Errors
    /// There is no home directory and none of them says where the cache is.
    pub fn from_env() -> Result<Self, HubError> {
        Self::from_variables(|name| std::env::var(name).ok(), std::env::home_dir())
    }

    /// [`Hub::from_env`] with the environment as an argument. An empty variable counts as not set.
    fn from_variables(variable: impl Fn(&str) -> Option<String>, home: Option<PathBuf>) -> Result<Self, HubError> {
        let variable =
            |name: &str| variable(name).map(|value| value.trim().to_owned()).filter(|value| !value.is_empty());
        let is_set = |name: &str| {
            variable(name).is_some_and(|value| ["1", "true", "yes", "on"].contains(&value.to_lowercase().as_str()))
        };
        let hf_home = variable("HF_HOME").map(PathBuf::from).or_else(|| {
            let cache =
                variable("XDG_CACHE_HOME").map(PathBuf::from).or_else(|| Some(home.as_ref()?.join(".cache")))?;
            Some(cache.join("huggingface"))
        });
        let cache_dir = variable("HF_HUB_CACHE").map(PathBuf::from);
        let cache_dir = cache_dir.or_else(|| Some(hf_home.as_ref()?.join("hub"))).ok_or(HubError::NoHome)?;
        let token_file = || {
            let path =
                variable("HF_TOKEN_PATH").map(PathBuf::from).or_else(|| Some(hf_home.as_ref()?.join("token")))?;
            let token = std::fs::read_to_string(path).ok()?.trim().to_owned();
            (!token.is_empty()).then_some(token)
        };
        let endpoint = variable("HF_ENDPOINT").unwrap_or_else(|| "https://huggingface.co".to_owned());
        Ok(Self {
            endpoint: endpoint.trim_end_matches('/').to_owned(),
            cache_dir,
            token: variable("HF_TOKEN").or_else(token_file),
            offline: is_set("HF_HUB_OFFLINE") || is_set("TRANSFORMERS_OFFLINE"),
        })
    }

    /// The directory with the files of `reference`: itself if it is a directory, else the snapshot of the hub id in the
    /// cache, whose missing files are downloaded first. `on_progress` hears of downloads.
    ///
    /// # Errors
    /// See [`HubError`].
    pub fn resolve(&self, reference: &str, on_progress: &mut dyn FnMut(Progress<'_>)) -> Result<PathBuf, HubError> {
        if Path::new(reference).is_dir() {
            return Ok(PathBuf::from(reference));
        }
        if !is_hub_id(reference) {
            return Err(HubError::NotAReference { reference: reference.to_owned() });
        }
        let repo = Repo {
            hub: self,
            reference,
            dir: self.cache_dir.join(format!("models--{}", reference.replace('/', "--"))),
        };
        match repo.cached_commit() {
            Some(commit) => repo.complete(&commit, on_progress),
            None => {
                let commit = repo.first_commit(on_progress)?;
                repo.complete(&commit, on_progress)
            }
        }
    }
}

impl std::fmt::Debug for Hub {
    /// Without the token.
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Hub")
            .field("endpoint", &self.endpoint)
            .field("cache_dir", &self.cache_dir)
            .field("offline", &self.offline)
            .finish_non_exhaustive()
    }
}

/// [`Hub::resolve`] with the hub of the environment, silently.
///
/// # Errors
/// See [`HubError`].
pub fn resolve(reference: &str) -> Result<PathBuf, HubError> {
    if Path::new(reference).is_dir() {
        return Ok(PathBuf::from(reference));
    }
    Hub::from_env()?.resolve(reference, &mut |_| {})
}

/// Whether a configured tower is a possible reference: an absolute path, or a hub id.
pub(crate) fn is_reference(reference: &str) -> bool {
    Path::new(reference).is_absolute() || is_hub_id(reference)
}

/// `name` or `org/name`, of the characters the hub allows (`validate_repo_id` of `huggingface_hub`).
fn is_hub_id(reference: &str) -> bool {
    let is_name = |name: &str| {
        let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        let ends = |c: char| matches!(c, '-' | '.');
        !name.is_empty() && name.chars().all(allowed) && !name.starts_with(ends) && !name.ends_with(ends)
    };
    let is_sound = !reference.contains("--") && !reference.contains("..") && reference.len() <= 96;
    is_sound && reference.matches('/').count() <= 1 && reference.split('/').all(is_name)
}

/// One repository and its directory in the cache.
struct Repo<'a> {
    hub: &'a Hub,
    reference: &'a str,
    dir: PathBuf,
}

/// Where a file was looked for, and what was found.
enum File {
    Here(PathBuf),
    /// The repository does not have it.
    Absent,
}

impl Repo<'_> {
    /// The commit that the branch pointed to when it was last downloaded, if its snapshot is there.
    fn cached_commit(&self) -> Option<String> {
        let commit = std::fs::read_to_string(self.dir.join("refs").join(BRANCH)).ok()?.trim().to_owned();
        (is_plain_name(&commit) && self.snapshot(&commit).is_dir()).then_some(commit)
    }

    fn snapshot(&self, commit: &str) -> PathBuf {
        self.dir.join("snapshots").join(commit)
    }

    /// Makes sure that every file of the tower at `commit` is here.
    fn complete(&self, commit: &str, on_progress: &mut dyn FnMut(Progress<'_>)) -> Result<PathBuf, HubError> {
        let File::Here(config) = self.file(commit, CONFIG, Need::Required, on_progress)? else {
            return Err(self.missing(CONFIG, "it is no Hugging Face model"));
        };
        for file in OPTIONAL {
            self.file(commit, file, Need::Optional, on_progress)?;
        }
        let pooling = format!("{}/config.json", pooling_place(&self.snapshot(commit).join(MODULES)));
        self.file(commit, &pooling, Need::Optional, on_progress)?;
        if !names_model_type(&config)
            && let File::Here(_) = self.file(commit, OPEN_CLIP[0], Need::Optional, on_progress)?
            && let File::Here(_) = self.file(commit, OPEN_CLIP[1], Need::Required, on_progress)?
        {
            return Ok(self.snapshot(commit));
        }
        // Where the cache holds split weights, nobody needs to ask for the single file.
        let split_here =
            self.snapshot(commit).join(WEIGHTS_INDEX).exists() && !self.snapshot(commit).join(WEIGHTS).exists();
        if !split_here && let File::Here(_) = self.file(commit, WEIGHTS, Need::Required, on_progress)? {
            return Ok(self.snapshot(commit));
        }
        let File::Here(index) = self.file(commit, WEIGHTS_INDEX, Need::Required, on_progress)? else {
            let advice = "only safetensors weights are read: save the model again with a current transformers";
            return Err(self.missing(WEIGHTS, advice));
        };
        for shard in shards(&index)? {
            if let File::Absent = self.file(commit, &shard, Need::Required, on_progress)? {
                return Err(self.missing(&shard, "the index of its weights lists it: the upload is not complete"));
            }
        }
        Ok(self.snapshot(commit))
    }

    /// One file: from the cache, which also remembers what the repository lacks, else from the hub.
    fn file(
        &self,
        commit: &str,
        file: &str,
        need: Need,
        on_progress: &mut dyn FnMut(Progress<'_>),
    ) -> Result<File, HubError> {
        let path = self.snapshot(commit).join(file);
        if path.is_file() {
            return Ok(File::Here(path));
        }
        let absent = self.dir.join(".no_exist").join(commit).join(file);
        if absent.is_file() {
            return Ok(File::Absent);
        }
        if self.hub.offline || cfg!(not(feature = "hub")) {
            return match need {
                Need::Optional => Ok(File::Absent),
                Need::Required => Err(self.unreachable(file, self.snapshot(commit))),
            };
        }
        let found = self.download(commit, file, on_progress)?;
        if let File::Absent = found {
            let write = || {
                absent.parent().map_or(Ok(()), std::fs::create_dir_all)?;
                std::fs::write(&absent, b"")
            };
            write().map_err(|source| HubError::Cache { path: absent.clone(), source })?;
        }
        Ok(found)
    }

    /// The commit of a repository that is not in the cache.
    fn first_commit(&self, on_progress: &mut dyn FnMut(Progress<'_>)) -> Result<String, HubError> {
        if self.hub.offline || cfg!(not(feature = "hub")) {
            return Err(self.unreachable(CONFIG, self.dir.clone()));
        }
        if let File::Absent = self.download(BRANCH, CONFIG, on_progress)? {
            return Err(self.missing(CONFIG, "it is no Hugging Face model"));
        }
        let path = self.dir.join("refs").join(BRANCH);
        let lost = || std::io::Error::other("the download left no commit there");
        self.cached_commit().ok_or_else(|| HubError::Cache { path, source: lost() })
    }

    fn missing(&self, file: &str, advice: &'static str) -> HubError {
        HubError::MissingFile { reference: self.reference.to_owned(), file: file.to_owned(), advice }
    }

    fn unreachable(&self, file: &str, looked_in: PathBuf) -> HubError {
        let reference = self.reference.to_owned();
        if self.hub.offline {
            HubError::Offline { reference, file: file.to_owned(), looked_in }
        } else {
            HubError::NoDownload { reference, looked_in }
        }
    }

    #[cfg(not(feature = "hub"))]
    fn download(&self, _: &str, file: &str, _: &mut dyn FnMut(Progress<'_>)) -> Result<File, HubError> {
        Err(self.unreachable(file, self.dir.clone()))
    }
}

/// The files that an index of split weights lists, each once.
fn shards(index: &Path) -> Result<Vec<String>, HubError> {
    #[derive(serde::Deserialize)]
    struct Index {
        weight_map: std::collections::BTreeMap<String, String>,
    }
    let error = |reason: String| HubError::Index { path: index.to_owned(), reason };
    let bytes = std::fs::read(index).map_err(|source| HubError::Cache { path: index.to_owned(), source })?;
    let index: Index = serde_json::from_slice(&bytes).map_err(|cause| error(cause.to_string()))?;
    let mut shards: Vec<String> = index.weight_map.into_values().collect();
    shards.sort();
    shards.dedup();
    if let Some(shard) = shards.iter().find(|shard| !is_plain_name(shard)) {
        return Err(error(format!("it lists {shard:?}, which is no plain file name")));
    }
    Ok(shards)
}

/// Whether a `config.json` says which model of transformers it is of.
fn names_model_type(config: &Path) -> bool {
    let bytes = std::fs::read(config).unwrap_or_default();
    serde_json::from_slice::<serde_json::Value>(&bytes).is_ok_and(|config| config["model_type"].is_string())
}

/// The directory of the pooling that a `modules.json` names; the usual one where it names none.
fn pooling_place(modules: &Path) -> String {
    let modules = std::fs::read(modules).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok());
    let modules: Vec<serde_json::Value> = modules.unwrap_or_default();
    let is_pooling =
        |module: &&serde_json::Value| module["type"].as_str().is_some_and(|kind| kind.ends_with(".Pooling"));
    let place = modules.iter().find(is_pooling).and_then(|module| module["path"].as_str());
    place.filter(|place| is_plain_name(place)).unwrap_or(POOLING).to_owned()
}

/// Whether a name that came from outside may become a part of a path.
fn is_plain_name(name: &str) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    !name.is_empty() && name.chars().all(allowed) && !name.starts_with('.')
}
