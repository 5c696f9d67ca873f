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
use crate::pooled_layers::Taken;
use crate::pooling::{Pool, Pooling};
use crate::pretrained::config_file::read_config;
use crate::pretrained::open_clip;
use crate::pretrained::sentence_transformers::{DenseModule, dense_modules, left_out_modules, sentence_pooling};
use crate::pretrained::whole_models::WholeModel;
use crate::pretrained::wrappers::{larger_model, unwrap};
use crate::text::config::{TextPooler, TextTowerConfig};
use crate::tower::Tower;
use crate::vision::image_tower::ImageTowerConfig;
use crate::weights::name_table::{NameTable, Names, modern_norm_name};
use crate::weights::weight_files::WeightFiles;

/// One tower on disk: a directory of its own, or a part of a whole model.
#[derive(Clone)]
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
    /// The layers that are pooled, where some were asked for; `config` is shortened to the highest.
    pub taken: Option<Taken>,
}

impl TowerFiles {
    /// A tower that is not there: its outputs come from files, and have `width` values.
    pub fn absent(width: usize) -> Self {
        let (dir, config_path) = (PathBuf::new(), PathBuf::from("the features"));
        Self { dir, config_path, config: absent_config(width), weights: None, notes: Vec::new(), taken: None }
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
        Ok(Self { dir: dir.to_owned(), config_path, config, weights, notes, taken: None })
    }
}

/// Checks that `dir` has a tower of this kind: its config and the files of its weights. No values are read.
///
/// # Errors
/// [`ModelError::Read`] when its files cannot be read; [`ModelError::UnsupportedFamily`] or [`ModelError::Config`] when
/// it is another model.
pub fn check_tower_dir(dir: &Path, tower: Tower) -> Result<(), ModelError> {
    let files = TowerFiles::open(dir, TowerLock::Locked, tower)?;
    match tower {
        Tower::Image => files.image_config().map(|_| ()),
        Tower::Text => files.text_config().map(|_| ()),
    }
}

/// Opens the weights of `dir` under the names of transformers 5, and says what was changed. `config` is the config of
/// `dir`, at `config_path`. Values are read when they are needed.
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
    /// The names on disk and the architecture of the image tower.
    ///
    /// # Errors
    /// As [`image_config`].
    pub fn image_config(&self) -> Result<(&'static Names, ImageTowerConfig), ModelError> {
        let (names, config) = image_config(&self.config, &self.config_path)?;
        Ok((names, if let Some(taken) = &self.taken { config.taking(taken) } else { config }))
    }

    /// The names on disk and the architecture of the text tower.
    ///
    /// # Errors
    /// As [`text_config`].
    pub fn text_config(&self) -> Result<(&'static Names, TextTowerConfig), ModelError> {
        let (names, config) = text_config(&self.config, &self.config_path)?;
        let Some(taken) = &self.taken else { return Ok((names, config)) };
        Ok((names, TextTowerConfig { skip_final_norm: !taken.norm, pooled_layers: taken.several(), ..config }))
    }

    pub fn problem(&self, problem: String) -> ModelError {
        ModelError::Config { path: self.config_path.clone(), problem }
    }

    /// Resolves the pooling of the image tower with this `config`.
    ///
    /// # Errors
    /// [`ModelError::Config`] if it cannot pool this way.
    pub fn image_pooling(&self, config: &ImageTowerConfig, pool: Pool) -> Result<Pooling, ModelError> {
        let pooling = config.resolve(pool).map_err(|reason| {
            if pool == Pool::Tokens {
                return self.problem(format!(
                    "the image head takes all tokens of a vision transformer (`image_head.tokens`), and a `{}` is \
                     none: {reason}; remove the key, or choose a vision transformer",
                    self.config["model_type"].as_str().unwrap_or_default()
                ));
            }
            let pools = [&[(Pool::Auto, "\"auto\"")], &OF_ANY_LAYER[..]].concat();
            self.problem(format!(
                "this image tower does not support this `image_pool`: {reason}; choose among {}",
                supported(config, &pools)
            ))
        })?;
        let others = supported(config, &OF_ANY_LAYER);
        self.refuse_pooler_of_last_layer(config.pools_by_last_layer(pooling), Tower::Image, &others)?;
        Ok(pooling)
    }

    /// Refuses a pooler with weights for another layer than the one they were trained for. `others`: poolings of any
    /// layer.
    fn refuse_pooler_of_last_layer(&self, is_of_last: bool, tower: Tower, others: &str) -> Result<(), ModelError> {
        match self.taken.as_ref().filter(|taken| is_of_last && !taken.is_whole()) {
            Some(taken) => Err(self.problem(format!(
                "`{}` takes {}, but the pooler was trained for the normalised output of the last layer; set `{}` to \
                 one of {others}",
                tower.layer_key(),
                taken.describe(),
                tower.pool_key()
            ))),
            None => Ok(()),
        }
    }

    /// Whether the text tower with this `config` has a pooler, and the weights hold it or none are read.
    pub fn has_pooler(&self, names: &Names, config: &TextTowerConfig) -> bool {
        match config.pooler {
            TextPooler::Absent(_) => false,
            TextPooler::EndOfText(_) => true,
            TextPooler::First | TextPooler::Last { .. } => {
                self.weights.as_ref().is_none_or(|files| NameTable::for_files(names, files).has(files, "pooler.weight"))
            }
        }
    }

    /// Resolves the pooling of the text tower with this `config`. `Pool::Auto` depends on the weights, and on the files
    /// of sentence-transformers.
    ///
    /// # Errors
    /// [`ModelError::Config`] if it cannot pool this way, [`ModelError::Read`] if a file cannot be read.
    pub fn text_pooling(&self, names: &Names, config: &TextTowerConfig, pool: Pool) -> Result<Pooling, ModelError> {
        let has_pooler = self.has_pooler(names, config);
        let sentence = match pool {
            Pool::Auto if !has_pooler => sentence_pooling(&self.dir)?,
            Pool::Sentence => sentence_pooling(&self.dir)?,
            _ => None,
        };
        let pooling = config.resolve(pool, has_pooler, sentence).ok_or_else(|| {
            let family = self.config["model_type"].as_str().unwrap_or_default();
            self.problem(match pool {
                Pool::Sentence => format!(
                    "`text_pool = \"sentence\"`, but `{}` has no `1_Pooling/config.json` of sentence-transformers; \
                     {}",
                    self.dir.display(),
                    // What `auto` stands for may be a pooler, which belongs to the last layer.
                    match self.taken.as_ref().is_none_or(Taken::is_whole) {
                        true => "choose \"cls\", \"mean\", \"last\" or, for the pooling of transformers, \"auto\"",
                        false => "choose \"cls\", \"mean\" or \"last\"",
                    }
                ),
                Pool::ClsMean | Pool::PatchMean | Pool::Tokens => {
                    "`text_pool` is a pooling of image towers; choose \"cls\", \"mean\", \"last\", \
                     \"pooler\" or \"auto\""
                        .to_owned()
                }
                _ => format!(
                    "`text_pool = \"pooler\"`, but a `{family}` tower has no pooler; choose \"cls\", \"mean\", \
                     \"last\" or \"auto\""
                ),
            })
        })?;
        let others = "\"cls\", \"mean\", \"last\"";
        self.refuse_pooler_of_last_layer(config.pools_by_last_layer(pooling), Tower::Text, others)?;
        if pool == Pool::Auto && pooling != Pooling::Pooler {
            let dir = self.dir.display();
            tracing::info!("`{dir}` has no pooler; `text_pool = \"auto\"` uses {}", config.describe_pooling(pooling));
        }
        Ok(pooling)
    }

    /// The `Dense` layers of a text tower that pools as `pool` says into `width` values; none unless it follows
    /// sentence-transformers.
    ///
    /// # Errors
    /// [`ModelError::Config`] if they cannot be applied, [`ModelError::Read`] if a file cannot be read.
    pub fn dense_modules(&self, pool: Pool, width: usize) -> Result<Vec<DenseModule>, ModelError> {
        if pool != Pool::Sentence {
            return Ok(Vec::new());
        }
        let modules = dense_modules(&self.dir)?;
        let other_layers = self.taken.as_ref().filter(|taken| !taken.is_whole() && !modules.is_empty());
        if let Some(taken) = other_layers {
            return Err(self.problem(format!(
                "`text_layer` takes {}, but the `Dense` layers of sentence-transformers were trained for the last \
                 layer; set `text_pool` to \"mean\" or \"cls\" to leave them out",
                taken.describe()
            )));
        }
        let mut input = width;
        for DenseModule { config, dir } in &modules {
            if config.input != input {
                return Err(ModelError::Config {
                    path: dir.join("config.json"),
                    problem: format!("`in_features` is {}, but what comes before has {input} values", config.input),
                });
            }
            input = config.output;
        }
        Ok(modules)
    }

    /// These files with the weights of `modules`.
    ///
    /// # Errors
    /// [`ModelError::Config`] if a module has no safetensors weights, [`ModelError::Read`] or [`ModelError::Weights`]
    /// if they cannot be read.
    pub fn with_dense_weights(&self, modules: &[DenseModule]) -> Result<Option<WeightFiles>, ModelError> {
        let Some(mut weights) = self.weights.clone() else { return Ok(None) };
        for (n, module) in modules.iter().enumerate() {
            for (name, tensor) in module.weights()?.into_tensors() {
                weights.insert(&format!("dense.{n}.{name}"), tensor);
            }
        }
        Ok(Some(weights))
    }

    /// What a text tower that pools by `pooling` does differently from the sentence-transformers model beside it.
    ///
    /// # Errors
    /// [`ModelError::Read`] or [`ModelError::Config`] if a file cannot be read.
    pub fn sentence_notes(&self, pool: Pool, pooling: Pooling) -> Result<Vec<String>, ModelError> {
        if self.weights.is_none() {
            return Ok(Vec::new());
        }
        let mut notes = left_out_modules(&self.dir, pool == Pool::Sentence)?;
        // A pooling that is not supported is no error here: the pooler takes its place.
        let other = match (pool, pooling) {
            (Pool::Auto, Pooling::Pooler) => sentence_pooling(&self.dir).ok().flatten(),
            _ => None,
        };
        let name = match other {
            Some(Pooling::Cls) => "cls",
            Some(Pooling::Mean) => "mean",
            Some(Pooling::Last) => "last",
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
        let names = source.names().cloned();
        let mut audit = source.into_audit()?;
        audit.notes.extend(self.notes.iter().cloned());
        if let Some(taken) = &self.taken {
            let (last, is_shorter) = (taken.last(), taken.last() < taken.of);
            let is_later = |name: &str| {
                let block = names.as_ref().and_then(|names| names.block_of(name));
                is_shorter && block.is_some_and(|block| block >= last)
            };
            audit.unused.retain(|name| !is_later(name));
            let what = if taken.layers.len() > 1 { "pools" } else { "ends with" };
            let later = if is_shorter { "; later blocks are not loaded" } else { "" };
            audit.notes.push(format!("it {what} {}{later}", taken.describe()));
        }
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

/// Poolings of any layer of an image tower, as a config names them.
const OF_ANY_LAYER: [(Pool, &str); 3] =
    [(Pool::Cls, "\"cls\""), (Pool::Mean, "\"mean\""), (Pool::ClsMean, "\"cls+mean\"")];

/// Those of `pools` that the tower supports, separated by commas.
fn supported(config: &ImageTowerConfig, pools: &[(Pool, &str)]) -> String {
    let supported = pools.iter().filter(|(pool, _)| config.resolve(*pool).is_ok());
    supported.map(|(_, name)| *name).collect::<Vec<_>>().join(", ")
}

/// Whether the tensor `name` belongs to a tower's pooler. Weights may lack a pooler, which is then randomly
/// initialised.
pub fn is_pooler_tensor(name: &str) -> bool {
    name.contains("pooler.") || name.contains("head.")
}
