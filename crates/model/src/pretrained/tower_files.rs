//! One tower on disk: its config and its weights, how it pools, and whether the weights fit.

use std::path::{Path, PathBuf};

use burn::tensor::Device;
use serde_json::Value;

use crate::dual_encoder::lock::TowerLock;
use crate::error::ModelError;
use crate::families::absent::absent_config;
use crate::families::{image_config, text_config};
use crate::params::audit::Audit;
use crate::params::builder::ParamSource;
use crate::pooling::{Pool, Pooling};
use crate::pretrained::config_file::read_config;
use crate::pretrained::open_clip;
use crate::pretrained::sentence_transformers::{left_out_modules, sentence_pooling};
use crate::pretrained::whole_models::WholeModel;
use crate::pretrained::wrappers::{larger_model, unwrap};
use crate::text::config::{TextPooler, TextTowerConfig};
use crate::tower::Tower;
use crate::vision::image_tower::ImageTowerConfig;
use crate::weights::name_table::{NameTable, Names, modern_norm_name};
use crate::weights::weight_files::WeightFiles;

/// One tower on disk: a directory of its own, or a part of a whole model.
pub(crate) struct TowerFiles {
    pub dir: PathBuf,
    /// The file that `config` was read from.
    pub config_path: PathBuf,
    /// The `config.json` of the tower.
    pub config: Value,
    /// `None` for a tower that is randomly initialised.
    pub weights: Option<WeightFiles>,
    /// What was changed to read the weights, in words.
    pub notes: Vec<String>,
}

impl TowerFiles {
    /// A tower that is not there: its outputs come from files, and have `width` values.
    pub fn absent(width: usize) -> Self {
        let (dir, config_path) = (PathBuf::new(), PathBuf::from("the features"));
        Self { dir, config_path, config: absent_config(width), weights: None, notes: Vec::new() }
    }

    /// Reads `tower` from `dir`, which holds that tower alone or a whole model.
    ///
    /// # Errors
    /// [`ModelError::Read`], [`ModelError::Config`], [`ModelError::NoWeights`] or [`ModelError::Weights`].
    pub fn open(dir: &Path, lock: TowerLock, tower: Tower) -> Result<Self, ModelError> {
        let (config_path, config) = read_config(dir)?;
        let (weights, notes) = match lock {
            TowerLock::Scratch => (None, Vec::new()),
            _ => read_weights(dir, &config_path, &config).map(|(weights, notes)| (Some(weights), notes))?,
        };
        let (config, weights) = match WholeModel::of(&config) {
            Some(kind) => {
                (kind.tower_config(&config, tower), weights.map(|weights| weights.subset(tower.stored_prefix())))
            }
            None => (config, weights),
        };
        Ok(Self { dir: dir.to_owned(), config_path, config, weights, notes })
    }
}

/// Opens the weights of `dir`, whose `config` is at `config_path`, under the names of transformers 5, and says what was
/// changed. Values are read when they are needed.
///
/// # Errors
/// [`ModelError::Read`], [`ModelError::Config`], [`ModelError::NoWeights`] or [`ModelError::Weights`].
pub(crate) fn read_weights(
    dir: &Path,
    config_path: &Path,
    config: &Value,
) -> Result<(WeightFiles, Vec<String>), ModelError> {
    let open_clip = open_clip::weights_path(dir, config_path);
    let stored = match &open_clip {
        Some(path) => WeightFiles::open_file(path)?,
        None => WeightFiles::open(dir)?,
    };
    Ok(with_modern_names(stored, open_clip.is_some(), config_path, config))
}

/// Gives the weights of a directory the names of transformers 5, and says what was changed.
pub(crate) fn with_modern_names(
    stored: WeightFiles,
    is_open_clip: bool,
    config_path: &Path,
    config: &Value,
) -> (WeightFiles, Vec<String>) {
    if is_open_clip {
        let (stored, note) = unwrap(stored, open_clip::has_names);
        return (open_clip::to_clip(stored), note.into_iter().collect());
    }
    let stored = stored.renamed(modern_norm_name);
    let names = image_config(config, config_path).map(|(names, _)| names);
    let names = names.or_else(|_| text_config(config, config_path).map(|(names, _)| names));
    let (stored, note) = match (WholeModel::of(config), names) {
        (Some(_), _) => unwrap(stored, |files| Tower::ALL.iter().any(|tower| files.has_prefix(tower.stored_prefix()))),
        (None, Ok(names)) => unwrap(stored, |files| {
            names.prefixes.iter().any(|prefix| files.has_prefix(&format!("{prefix}{}", names.probe)))
        }),
        // The tower is reported as unsupported.
        (None, Err(_)) => (stored, None),
    };
    (stored, note.into_iter().collect())
}

impl TowerFiles {
    fn problem(&self, problem: String) -> ModelError {
        ModelError::Config { path: self.config_path.clone(), problem }
    }

    /// Resolves the pooling of the image tower with this `config`.
    ///
    /// # Errors
    /// [`ModelError::Config`] if it cannot pool this way.
    pub fn image_pooling(&self, config: &ImageTowerConfig, pool: Pool) -> Result<Pooling, ModelError> {
        let pooling = pool.resolve();
        match config.check_pooling(pooling) {
            Ok(()) => Ok(pooling),
            Err(reason) => Err(self.problem(format!(
                "this image tower does not support this `image_pool`: {reason}; choose among \"auto\", \"cls\" and \
                 \"mean\""
            ))),
        }
    }

    /// Resolves the pooling of the text tower with this `config`. `Pool::Auto` depends on the weights, and on the files
    /// of sentence-transformers.
    ///
    /// # Errors
    /// [`ModelError::Config`] if it cannot pool this way, [`ModelError::Read`] if a file cannot be read.
    pub fn text_pooling(&self, names: &Names, config: &TextTowerConfig, pool: Pool) -> Result<Pooling, ModelError> {
        let has_pooler = match config.pooler {
            TextPooler::Absent(_) => false,
            TextPooler::EndOfText(_) => true,
            TextPooler::First | TextPooler::Last { .. } => {
                self.weights.as_ref().is_none_or(|files| NameTable::for_files(names, files).has(files, "pooler.weight"))
            }
        };
        let sentence = match pool {
            Pool::Auto if !has_pooler => sentence_pooling(&self.dir)?,
            _ => None,
        };
        let pooling = config.resolve(pool, has_pooler, sentence).ok_or_else(|| ModelError::Config {
            path: self.config_path.clone(),
            problem: format!(
                "`text_pool = \"pooler\"`, but a `{}` tower has no pooler; choose \"cls\", \"mean\" or \"auto\"",
                self.config["model_type"].as_str().unwrap_or_default()
            ),
        })?;
        if pool == Pool::Auto && pooling != Pooling::Pooler {
            let dir = self.dir.display();
            tracing::info!("`{dir}` has no pooler; `text_pool = \"auto\"` uses {}", config.describe_pooling(pooling));
        }
        Ok(pooling)
    }

    /// What a text tower that pools by `pooling` does differently from the sentence-transformers model beside it.
    ///
    /// # Errors
    /// [`ModelError::Read`] or [`ModelError::Config`] if a file cannot be read.
    pub fn sentence_notes(&self, pool: Pool, pooling: Pooling) -> Result<Vec<String>, ModelError> {
        if self.weights.is_none() {
            return Ok(Vec::new());
        }
        let mut notes = left_out_modules(&self.dir)?;
        // A pooling that is not supported is no error here: the pooler takes its place.
        let other = match (pool, pooling) {
            (Pool::Auto, Pooling::Pooler) => sentence_pooling(&self.dir).ok().flatten(),
            _ => None,
        };
        let name = match other {
            Some(Pooling::Cls) => "cls",
            Some(Pooling::Mean) => "mean",
            _ => return Ok(notes),
        };
        notes.push(format!(
            "it pools by the pooler in its weights, but the pooling config of sentence-transformers says `{name}`; set \
             `text_pool = \"{name}\"` to pool as there"
        ));
        Ok(notes)
    }

    /// The audit of the tower that was built from `source`, with the notes on its files.
    ///
    /// # Errors
    /// As [`ParamSource::into_audit`].
    pub fn audit(&self, source: ParamSource) -> Result<Audit, ModelError> {
        let mut audit = source.into_audit()?;
        audit.notes.extend(self.notes.iter().cloned());
        Ok(audit)
    }

    /// The source of the tower's parameters.
    pub fn param_source(&self, names: &Names, seed: u64, lock: TowerLock, device: &Device) -> ParamSource {
        let device = if lock.trains() { device.clone().autodiff() } else { device.clone().without_autodiff() };
        let weights = self.weights.clone().filter(|_| lock != TowerLock::Scratch);
        let pretrained = weights.map(|files| {
            let names = NameTable::for_files(names, &files);
            (files, names)
        });
        ParamSource::new(device, seed, pretrained)
    }

    /// Checks that the weights fit the model, and that no parameter would stay random.
    ///
    /// # Errors
    /// [`ModelError::Shapes`] if shapes differ; [`ModelError::LockedRandom`] if a locked tower,
    /// [`ModelError::Incomplete`] if a trainable one lacks weights. A trainable tower may lack those of its pooler.
    pub fn check_audit(&self, audit: &Audit, lock: TowerLock, tower: Tower) -> Result<(), ModelError> {
        if !audit.mismatched.is_empty() {
            return Err(ModelError::Shapes { dir: self.dir.clone(), mismatches: audit.mismatched.clone() });
        }
        let pool_key = tower.pool_key();
        let only_pooler = audit.missing.iter().all(|name| is_pooler_tensor(name));
        if audit.missing.is_empty() || (lock.trains() && only_pooler) || self.weights.is_none() {
            return Ok(());
        }
        let hint = if only_pooler {
            format!(
                "These weights were saved without a pooler. Set `{pool_key} = \"cls\"` (or \"mean\") to take the last \
                 hidden state instead, or unlock the tower so that its pooler can be learned."
            )
        } else {
            let larger = self.weights.as_ref().and_then(|files| larger_model(&audit.missing, files));
            larger.unwrap_or_else(|| "Check that `config.json` belongs to these weights.".to_owned())
        };
        let (dir, missing) = (self.dir.clone(), audit.missing.clone());
        Err(if lock == TowerLock::Locked {
            ModelError::LockedRandom { dir, tower, missing, hint }
        } else {
            ModelError::Incomplete { dir, missing, hint }
        })
    }
}

/// Whether the tensor `name` belongs to a tower's pooler. Weights may lack a pooler, which is then randomly
/// initialised.
pub fn is_pooler_tensor(name: &str) -> bool {
    name.contains("pooler.") || name.contains("head.")
}
