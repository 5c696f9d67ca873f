//! The learning rate and weight decay of each parameter: `[[train.group]]`, the projections' own rate and layer-wise
//! learning rate decay, resolved once into a table.

use std::collections::BTreeMap;

use dualenc_model::parameters::{self, ParamInfo};
use dualenc_model::{DualEncoder, LayerDepths, Tower};
use wildmatch::WildMatchPattern;

use crate::config::{GroupSection, TrainSection};
use crate::error::TrainError;

/// Last components of paths of matrices without weight decay: position and special-token embeddings, and tables of
/// relative positions.
const NOT_DECAYED: [&str; 6] = ["positions", "class_token", "distillation_token", "registers", "probe", "table"];

/// Number of paths that an error lists as suggestions.
const MAX_SUGGESTIONS: usize = 4;

/// `match` of a `[[train.group]]`: `*` stands for any text, dots included. The second wildcard of [`WildMatchPattern`]
/// is set to a character that no path contains, so that `?` stands for itself.
type PathPattern = WildMatchPattern<'*', '\0'>;

/// The learning rate of a step.
#[derive(Debug, Clone, Copy)]
pub struct LearningRate {
    /// Rate of parameters without a peak rate of their own.
    pub base: f64,
    /// Factor of other parameters' peak rates at this step, from 0 to 1.
    pub schedule: f64,
}

/// How one parameter is updated.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct ParamOptions {
    /// The parameter's own peak learning rate, if it has one.
    peak: Option<f64>,
    /// Factor of the learning rate by layer, from 0 to 1: 1 for the last layer of a tower.
    layer_factor: f64,
    /// Weight decay; `None` for parameters that are never decayed.
    pub weight_decay: Option<f64>,
}

impl ParamOptions {
    /// The parameter's learning rate at a step.
    pub fn rate(&self, step: LearningRate) -> f64 {
        self.layer_factor * self.peak.map_or(step.base, |peak| peak * step.schedule)
    }
}

/// The options of every parameter that any stage trains.
#[derive(Debug)]
pub(crate) struct ParamGroups {
    by_path: BTreeMap<String, ParamOptions>,
}

impl ParamGroups {
    /// Resolves the options of the trainable parameters of `model`. A parameter belongs to the first group that matches
    /// its path.
    ///
    /// # Errors
    /// [`TrainError::Usage`] when a group has no members, or sets a weight decay that none of its members uses.
    pub fn resolve(config: &TrainSection, model: &DualEncoder) -> Result<Self, TrainError> {
        let patterns: Vec<PathPattern> = config.group.iter().map(|group| PathPattern::new(&group.pattern)).collect();
        let depths = LayerDepths::of(model);
        let parameters = parameters::list(model);
        let mut has_members = vec![false; patterns.len()];
        let mut has_effect = vec![false; patterns.len()];
        let mut by_path = BTreeMap::new();
        for info in parameters.iter().filter(|info| info.trains) {
            let group = patterns.iter().position(|pattern| pattern.matches(&info.path));
            if let Some(group) = group {
                has_members[group] = true;
                has_effect[group] |= is_decayed(info) || config.group[group].learning_rate.is_some();
            }
            let group = group.map(|group| &config.group[group]);
            by_path.insert(info.path.clone(), options(config, group, &depths, info));
        }
        if let Some(group) = has_members.iter().position(|has_members| !has_members) {
            let matched = || parameters.iter().filter(|info| patterns[group].matches(&info.path));
            let trainable = matched().filter(|info| info.trains).count();
            let locked = matched().count() - trainable;
            return Err(without_members(&config.group, group, [trainable, locked], by_path.into_keys().collect()));
        }
        if let Some(group) = has_effect.iter().position(|has_effect| !has_effect) {
            return Err(TrainError::Usage(format!(
                "`train.group` {} (`match = {:?}`) has no effect: it sets a weight decay, but matches only parameters \
                 that are never decayed (biases, norms, positions, `logit_scale`); set its `learning_rate`, or remove \
                 it",
                group + 1,
                config.group[group].pattern
            )));
        }
        Ok(Self { by_path })
    }

    /// The options of the parameter at `path`.
    ///
    /// # Errors
    /// [`TrainError::Internal`] when no stage trains the parameter.
    pub fn options(&self, path: &str) -> Result<ParamOptions, TrainError> {
        let unknown = || TrainError::Internal(format!("`{path}` trains, but has no learning rate"));
        self.by_path.get(path).copied().ok_or_else(unknown)
    }
}

/// The options of a parameter that belongs to `group`, if to any.
fn options(
    config: &TrainSection,
    group: Option<&GroupSection>,
    depths: &LayerDepths,
    info: &ParamInfo,
) -> ParamOptions {
    let projection_rate = Tower::of_head(&info.path).and_then(|tower| {
        let own = match tower {
            Tower::Image => config.image_projection_learning_rate,
            Tower::Text => config.text_projection_learning_rate,
        };
        own.or(config.projection_learning_rate)
    });
    let weight_decay = group.and_then(|group| group.weight_decay).unwrap_or(config.weight_decay);
    let layer_decay =
        if info.path.starts_with(Tower::Image.prefix()) { config.image_layer_decay } else { config.text_layer_decay };
    ParamOptions {
        peak: group.and_then(|group| group.learning_rate).or(projection_rate),
        layer_factor: depths.layer(&info.path).map_or(1.0, |layer| {
            let layers_behind = layer.last.saturating_sub(layer.index);
            layer_decay.powi(i32::try_from(layers_behind).unwrap_or(i32::MAX))
        }),
        weight_decay: is_decayed(info).then_some(weight_decay),
    }
}

/// Explains why a group has no members. `matched`: the numbers of trainable and of locked parameters that its pattern
/// matches; `paths`: all trainable parameters, of which the most similar are suggested.
fn without_members(groups: &[GroupSection], group: usize, matched: [usize; 2], mut paths: Vec<String>) -> TrainError {
    let pattern = &groups[group].pattern;
    let why = match matched {
        [0, 0] => "matches no parameter".to_owned(),
        [0, locked] => format!("matches only parameters that never train ({locked})"),
        [trainable, _] => format!("matches only parameters that earlier groups match too ({trainable})"),
    };
    let similarity = |path: &String| strsim::jaro_winkler(pattern, path);
    paths.sort_by(|left, right| similarity(right).total_cmp(&similarity(left)));
    let suggestions: Vec<String> = paths.iter().take(MAX_SUGGESTIONS).map(|path| format!("`{path}`")).collect();
    TrainError::Usage(format!(
        "`train.group` {} (`match = {pattern:?}`) {why}; trainable parameters include {}",
        group + 1,
        suggestions.join(", ")
    ))
}

/// Whether weight decay applies: to matrices, except position and special-token embeddings.
fn is_decayed(info: &ParamInfo) -> bool {
    let name = info.path.rsplit('.').next().unwrap_or(&info.path);
    info.shape.len() > 1 && !NOT_DECAYED.contains(&name)
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use super::*;

    const GOLDEN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/goldens/dual/vit_bert");

    fn matches(pattern: &str, path: &str) -> bool {
        PathPattern::new(pattern).matches(path)
    }

    #[test]
    fn star_matches_any_text() {
        for (pattern, path, expected) in [
            ("*", "logit_scale", true),
            ("logit_scale", "logit_scale", true),
            ("logit_scale", "logit_scales", false),
            ("logit?scale", "logit_scale", false),
            ("*_projection.weight", "image_projection.weight", true),
            ("*_projection.weight", "image_projection.bias", false),
            ("text_tower.*", "text_tower.words", true),
            ("text_tower.*", "image_tower.words", false),
            ("text_tower.*.blocks.*.attention.*", "text_tower.encoder.blocks.10.attention.query.bias", true),
            ("text_tower.*.blocks.*.attention.*", "text_tower.encoder.blocks.10.mlp.up.bias", false),
            ("*.blocks.1.*", "text_tower.encoder.blocks.11.mlp.up.bias", false),
            ("a*b*b", "ab", false),
            ("a*b*b", "abb", true),
            ("", "", true),
        ] {
            assert_eq!(matches(pattern, path), expected, "{pattern} {path}");
        }
    }

    /// Backtracking over every star would take exponential time.
    #[test]
    fn matches_forty_stars_quickly() {
        let path = format!("{}c", "a".repeat(200));
        assert!(!matches(&"*a".repeat(40), &path));
        assert!(matches(&format!("{}*", "*a".repeat(40)), &path));
    }

    #[test]
    fn each_head_can_have_a_rate() {
        let depths = LayerDepths::of(&DualEncoder::from_pretrained(GOLDEN, &Device::flex()).unwrap());
        let peak = |keys: &str, path: &str| {
            let config = format!("batch_size = 2\nlearning_rate = 1e-3\n{keys}");
            let info = ParamInfo { path: path.into(), shape: vec![4, 4], trains: true };
            options(&toml::from_str(&config).unwrap(), None, &depths, &info).peak
        };
        let all = "projection_learning_rate = 0.1\n";
        let image = "image_projection_learning_rate = 0.2\n";
        let both = format!("{all}{image}");
        for (path, expected) in [
            ("image_projection.weight", [None, Some(0.1), Some(0.2), Some(0.2)]),
            ("image_tokens.norm.bias", [None, Some(0.1), Some(0.2), Some(0.2)]),
            ("image_projection.blocks.0.norm.bias", [None, Some(0.1), Some(0.2), Some(0.2)]),
            ("text_projection.gate.weight", [None, Some(0.1), None, Some(0.1)]),
            ("text_tower.embedding_projection.weight", [None; 4]),
            ("logit_scale", [None; 4]),
        ] {
            assert_eq!(["", all, image, &both].map(|keys| peak(keys, path)), expected, "{path}");
        }
        assert_eq!(peak("text_projection_learning_rate = 0.3\n", "text_projection.weight"), Some(0.3));
    }

    #[test]
    fn decays_matrices_only() {
        let is_decayed = |path: &str, shape: &[usize]| {
            is_decayed(&ParamInfo { path: path.into(), shape: shape.into(), trains: true })
        };
        assert!(is_decayed("text_tower.words", &[10, 4]));
        assert!(is_decayed("text_tower.encoder.blocks.0.mlp.up.weight", &[4, 8]));
        for (path, shape) in [
            ("image_tower.positions", vec![5, 4]),
            ("image_tower.class_token", vec![1, 4]),
            ("image_tower.distillation_token", vec![1, 4]),
            ("text_tower.embedding_norm.weight", vec![4]),
            ("image_projection.gate.bias", vec![4]),
            ("image_projection.norm.weight", vec![4]),
            ("logit_scale", vec![1]),
        ] {
            assert!(!is_decayed(path, &shape), "{path}");
        }
    }
}
