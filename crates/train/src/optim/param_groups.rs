//! How fast each parameter learns and how much it is decayed: `[[train.group]]`, the projections' own rate and rates that fall
//! towards a tower's input, resolved once into a table.

use std::collections::BTreeMap;

use dualenc_model::{Depths, DualEncoder, parameters};

use crate::config::{GroupSection, TrainSection};
use crate::error::TrainError;
use crate::events::ParamGroup;

/// Suffixes of paths of matrices that are not decayed: position and special-token embeddings, tables of relative positions.
const NOT_DECAYED: [&str; 6] = ["positions", "class_token", "distillation_token", "registers", "probe", "table"];

/// Paths that are shown to who named none.
const MOST_SHOWN: usize = 4;

/// The rate of a step.
#[derive(Debug, Clone, Copy)]
pub struct LearningRate {
    /// Of every parameter that has no highest rate of its own.
    pub base: f64,
    /// Factor of a parameter's highest rate at this step, from 0 to 1.
    pub schedule: f64,
}

/// What is said of one parameter.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct ParamRule {
    /// Its own highest rate, if it has one.
    peak: Option<f64>,
    /// What its rate is multiplied with for the depth at which it lies.
    depth: f64,
    /// Weight decay; `None`: it is not decayed.
    pub decay: Option<f64>,
}

impl ParamRule {
    /// Its learning rate at a step.
    pub fn rate(&self, step: LearningRate) -> f64 {
        self.depth * self.peak.map_or(step.base, |peak| peak * step.schedule)
    }
}

/// The table of all that ever trains.
#[derive(Debug)]
pub(crate) struct ParamRules {
    by_path: BTreeMap<String, ParamRule>,
}

impl ParamRules {
    /// For the parameters of `model` that train.
    ///
    /// # Errors
    /// When a group is of none of them.
    pub fn resolve(config: &TrainSection, model: &DualEncoder) -> Result<Self, TrainError> {
        let depths = Depths::of(model);
        let parameters = parameters::list(model);
        let mut members = vec![0_usize; config.group.len()];
        let mut touched = vec![false; config.group.len()];
        let mut by_path = BTreeMap::new();
        for info in parameters.iter().filter(|info| info.trains) {
            let found = config.group.iter().position(|group| matches(&group.pattern, &info.path));
            found.into_iter().for_each(|group| members[group] += 1);
            let is_decayed = is_decayed(&info.path, &info.shape);
            found
                .into_iter()
                .for_each(|group| touched[group] |= is_decayed || config.group[group].learning_rate.is_some());
            let group = found.map(|group| &config.group[group]);
            let projection = config.projection_learning_rate.filter(|_| is_projection(&info.path));
            let decay = group.and_then(|group| group.weight_decay).unwrap_or(config.weight_decay);
            let layer_decay = match info.path.starts_with("image_tower.") {
                true => config.image_layer_decay,
                false => config.text_layer_decay,
            };
            let depth = depths.layer(&info.path).map_or(1.0, |layer| {
                layer_decay.powi(i32::try_from(layer.last.saturating_sub(layer.index)).unwrap_or(i32::MAX))
            });
            let rule = ParamRule {
                peak: group.and_then(|group| group.learning_rate).or(projection),
                depth,
                decay: is_decayed.then_some(decay),
            };
            by_path.insert(info.path.clone(), rule);
        }
        match members.iter().position(|&members| members == 0) {
            None => match touched.iter().position(|touched| !touched) {
                None => Ok(Self { by_path }),
                Some(group) => Err(TrainError::Usage(format!(
                    "`train.group` {} (`match = {:?}`) has a weight decay and no rate, and matches only parameters that are \
                     never decayed: biases, norms, positions, `logit_scale`",
                    group + 1,
                    config.group[group].pattern
                ))),
            },
            Some(group) => {
                let named = parameters.iter().filter(|info| matches(&config.group[group].pattern, &info.path));
                let [trains, locked] = named.fold([0, 0], |[trains, locked], info| match info.trains {
                    true => [trains + 1, locked],
                    false => [trains, locked + 1],
                });
                Err(without_members(&config.group, group, [trains, locked], by_path.into_keys().collect()))
            }
        }
    }

    /// What is said of the parameter at `path`.
    pub fn of(&self, path: &str) -> ParamRule {
        self.by_path.get(path).copied().unwrap_or(ParamRule { peak: None, depth: 1.0, decay: None })
    }
}

/// Says why a group is of no parameter, and what some that train are called.
fn without_members(groups: &[GroupSection], group: usize, matched: [usize; 2], mut paths: Vec<String>) -> TrainError {
    let pattern = &groups[group].pattern;
    let why = match matched {
        [0, 0] => "matches no parameter".to_owned(),
        [0, locked] => format!("matches {locked} parameters, none of which ever trains"),
        [trains, _] => format!("matches {trains} parameters that train, but groups before it have them all"),
    };
    let likeness = |path: &String| strsim::jaro_winkler(pattern, path);
    paths.sort_by(|left, right| likeness(right).total_cmp(&likeness(left)));
    let shown: Vec<String> = paths.iter().take(MOST_SHOWN).map(|path| format!("`{path}`")).collect();
    TrainError::Usage(format!(
        "`train.group` {} (`match = {pattern:?}`) {why}; some that train are {}",
        group + 1,
        shown.join(", ")
    ))
}

/// Whether `path` is of the form of `pattern`, in which `*` stands for any text.
fn matches(pattern: &str, path: &str) -> bool {
    let Some((start, rest)) = pattern.split_once('*') else { return pattern == path };
    let Some(path) = path.strip_prefix(start) else { return false };
    (0..=path.len()).any(|at| path.get(at..).is_some_and(|path| matches(rest, path)))
}

/// Whether a parameter is one of the two projections'; a tower's projection of its own embeddings is none.
fn is_projection(path: &str) -> bool {
    path.starts_with("image_projection.") || path.starts_with("text_projection.")
}

/// Whether weight decay pulls at a parameter: matrices, but no position and no special-token embeddings.
fn is_decayed(path: &str, shape: &[usize]) -> bool {
    let name = path.rsplit('.').next().unwrap_or(path);
    shape.len() > 1 && !NOT_DECAYED.contains(&name)
}

/// Values that train and that do not, by part of the model, with their highest rates and their decay; `peak` is the rate of
/// those that have none of their own.
pub(crate) fn param_groups(model: &DualEncoder, params: &ParamRules, peak: f64) -> Vec<ParamGroup> {
    let widen = |range: Option<[f64; 2]>, value: f64| {
        Some(range.map_or([value; 2], |[lowest, highest]| [lowest.min(value), highest.max(value)]))
    };
    let mut groups: Vec<ParamGroup> = Vec::new();
    for info in parameters::list(model) {
        let name = part_of(&info.path);
        if groups.last().is_none_or(|group| group.name != name) {
            groups.push(ParamGroup { name, ..ParamGroup::default() });
        }
        if let Some(group) = groups.last_mut() {
            let count: usize = info.shape.iter().product();
            if !info.trains {
                group.locked += count;
                continue;
            }
            group.trainable += count;
            let rule = params.of(&info.path);
            group.rates = widen(group.rates, rule.rate(LearningRate { base: peak, schedule: 1.0 }));
            group.decays = rule.decay.map_or(group.decays, |decay| widen(group.decays, decay));
        }
    }
    groups
}

/// The part of the model that a parameter belongs to, for people: `image tower` of
/// `image_tower.encoder.blocks.0.norm.weight`.
pub(crate) fn part_of(path: &str) -> String {
    let name = path.split('.').next().unwrap_or(path);
    if name.starts_with("logit") { name.to_owned() } else { name.replace('_', " ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stands_for_any_text() {
        for (pattern, path, expected) in [
            ("*", "logit_scale", true),
            ("logit_scale", "logit_scale", true),
            ("logit_scale", "logit_scales", false),
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

    #[test]
    fn a_projection_within_a_tower_has_the_towers_rate() {
        assert!(is_projection("image_projection.weight") && is_projection("text_projection.weight"));
        assert!(!is_projection("text_tower.embedding_projection.weight"));
    }

    #[test]
    fn biases_norms_and_position_embeddings_are_not_decayed() {
        assert!(is_decayed("text_tower.words", &[10, 4]));
        assert!(is_decayed("text_tower.encoder.blocks.0.mlp.up.weight", &[4, 8]));
        for (path, shape) in [
            ("image_tower.positions", vec![5, 4]),
            ("image_tower.class_token", vec![1, 4]),
            ("image_tower.distillation_token", vec![1, 4]),
            ("text_tower.embedding_norm.weight", vec![4]),
            ("logit_scale", vec![1]),
        ] {
            assert!(!is_decayed(path, &shape), "{path}");
        }
    }
}
