//! Loads models: from a config, a run, a checkpoint or the directory of a whole model, together with the tokenizer and
//! image processor that prepare the model's inputs. It trains and writes nothing; `dualenc-model` builds the networks.
//!
//! - `load`: a model and everything that turns files into its inputs.
//! - `inputs`: the image processor of a tower.
//! - `feature_widths`: the widths of features in place of towers.
//! - `model_dir`: which kind of model a directory holds.
//! - `named_tower`: a tower that an option of a command names.
//! - `text_pool`: what `text_pool = "auto"` stands for in a run.
//! - `compatibility`: whether tokenizer and image processor fit the towers.
//! - `text_prompt`: the prompt that is put before every text.
//! - `truncated`: a loaded model with narrower embeddings.
//! - `hub`: from a tower's reference to a directory, with downloads.

pub(crate) mod compatibility;
pub(crate) mod feature_widths;
pub(crate) mod hub;
pub(crate) mod inputs;
pub(crate) mod load;
mod model_dir;
pub(crate) mod named_tower;
pub(crate) mod text_pool;
pub(crate) mod text_prompt;
mod truncated;
