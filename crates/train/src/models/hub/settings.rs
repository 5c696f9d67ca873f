//! Which hub to ask, with which token, and where its cache is.

use std::path::PathBuf;

use crate::models::hub::error::HubError;

/// A hub and the cache that is looked at first.
#[derive(Clone)]
pub(crate) struct Hub {
    /// Address of the hub, without a slash at the end.
    pub endpoint: String,
    /// The directory that holds `models--org--name`.
    pub cache_dir: PathBuf,
    /// Sent to the hub for private and gated models.
    #[cfg_attr(not(feature = "hub"), expect(dead_code, reason = "only downloads send it"))]
    pub token: Option<String>,
    /// Whether to use the cache alone.
    pub offline: bool,
}

impl Hub {
    /// The hub that the environment names, in the variables of the Python library `huggingface_hub`: `HF_ENDPOINT`,
    /// `HF_HUB_CACHE` or `HF_HOME` (default `~/.cache/huggingface`), `HF_TOKEN` or the file `token` in `HF_HOME`, and
    /// `HF_HUB_OFFLINE` or `TRANSFORMERS_OFFLINE` (`1`, `true`, `yes` or `on`).
    ///
    /// # Errors
    /// [`HubError::NoHome`] when there is no home directory and no variable names the cache.
    pub fn from_env() -> Result<Self, HubError> {
        Self::from_variables(|name| std::env::var(name).ok(), std::env::home_dir())
    }

    /// [`Hub::from_env`] with the environment as an argument. An empty variable counts as unset.
    pub fn from_variables(variable: impl Fn(&str) -> Option<String>, home: Option<PathBuf>) -> Result<Self, HubError> {
        let variable =
            |name: &str| variable(name).map(|value| value.trim().to_owned()).filter(|value| !value.is_empty());
        let path = |name: &str| variable(name).map(PathBuf::from);
        let is_set = |name: &str| {
            variable(name).is_some_and(|value| ["1", "true", "yes", "on"].contains(&value.to_lowercase().as_str()))
        };
        let hf_home = path("HF_HOME").or_else(|| {
            let cache = path("XDG_CACHE_HOME").or_else(|| Some(home.as_ref()?.join(".cache")))?;
            Some(cache.join("huggingface"))
        });
        let in_hf_home = |name: &str| Some(hf_home.as_ref()?.join(name));
        let cache_dir = path("HF_HUB_CACHE").or_else(|| in_hf_home("hub")).ok_or(HubError::NoHome)?;
        let token_file = || {
            let path = path("HF_TOKEN_PATH").or_else(|| in_hf_home("token"))?;
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
}

impl std::fmt::Debug for Hub {
    /// Leaves the token out.
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Hub")
            .field("endpoint", &self.endpoint)
            .field("cache_dir", &self.cache_dir)
            .field("offline", &self.offline)
            .finish_non_exhaustive()
    }
}
