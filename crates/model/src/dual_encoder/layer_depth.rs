//! How deep in its tower a parameter lies: for locks that leave the last blocks open, and rates that fall towards the input.

use crate::dual_encoder::model::DualEncoder;
use crate::params::values::{self as parameters, ParamInfo};

/// Names behind the last block: they belong to the last layer.
const BEHIND: [&str; 4] = ["final_norm", "pooler", "pooler_norm", "head"];

/// A place on the way through a tower.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Layer {
    /// 0: embeddings; from 1 on: the blocks; then [`Layer::last`].
    pub index: usize,
    /// The layer of what follows the blocks: final norm, pooler, head. There are `last - 1` blocks.
    pub last: usize,
}

/// The blocks of both towers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Depths {
    /// Of each tower, where its blocks lie, such as `text_tower.encoder.blocks.0`, in the order they run.
    blocks: [(&'static str, Vec<String>); 2],
}

impl Depths {
    /// Of `model`. A block that runs many times (ALBERT's) is one.
    pub fn of(model: &DualEncoder) -> Self {
        Self::of_paths(&parameters::list(model))
    }

    fn of_paths(parameters: &[ParamInfo]) -> Self {
        let of_tower = |tower: &'static str| {
            let mut blocks: Vec<String> = Vec::new();
            for info in parameters.iter().filter(|info| in_tower(&info.path, tower)) {
                let block = block(&info.path).map(str::to_owned);
                blocks.extend(block.filter(|block| blocks.last() != Some(block)));
            }
            (tower, blocks)
        };
        Self { blocks: ["image_tower", "text_tower"].map(of_tower) }
    }

    /// Blocks of the image and of the text tower.
    pub fn num_blocks(&self) -> [usize; 2] {
        self.blocks.each_ref().map(|(_, blocks)| blocks.len())
    }

    /// Where the parameter at `path` lies; `None`: in no tower.
    pub fn layer(&self, path: &str) -> Option<Layer> {
        let (tower, blocks) = self.blocks.iter().find(|(tower, _)| in_tower(path, tower))?;
        let last = blocks.len() + 1;
        let inside = || match block(path) {
            Some(found) => blocks.iter().position(|block| block == found),
            None => between(path, blocks),
        };
        let name = path[tower.len() + 1..].split('.').next().unwrap_or_default();
        let index = if BEHIND.contains(&name) { last } else { inside().map_or(0, |block| block + 1) };
        Some(Layer { index, last })
    }
}

fn in_tower(path: &str, tower: &str) -> bool {
    path.strip_prefix(tower).is_some_and(|rest| rest.starts_with('.'))
}

/// The start of a path that names a block.
fn block(path: &str) -> Option<&str> {
    let start = path.find(".blocks.")? + ".blocks.".len();
    let end = path[start..].find('.').map_or(path.len(), |length| start + length);
    path.get(..end)
}

/// What shrinks the maps between two stages goes with the block beside it in its own stage: Swin's merging with the last,
/// a convolutional network's halving with the first.
fn between(path: &str, blocks: &[String]) -> Option<usize> {
    let stage = ["merging", "halving"].into_iter().find_map(|name| path.find(&format!("{name}.")))?;
    let in_stage = |block: &String| block.starts_with(&path[..stage]);
    match path[stage..].starts_with("merging") {
        true => blocks.iter().rposition(in_stage),
        false => blocks.iter().position(in_stage),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layers(paths: &[(&str, usize)]) {
        let info = |(path, _): &(&str, usize)| ParamInfo { path: (*path).to_owned(), shape: vec![1], trains: true };
        let depths = Depths::of_paths(&paths.iter().map(info).collect::<Vec<_>>());
        let last = depths.blocks.iter().map(|(_, blocks)| blocks.len()).max().unwrap() + 1;
        for (path, index) in paths {
            assert_eq!(depths.layer(path), Some(Layer { index: *index, last }), "{path}");
        }
        assert_eq!(depths.layer("image_projection.weight"), None);
        assert_eq!(depths.layer("logit_scale"), None);
    }

    #[test]
    fn embeddings_come_first_and_what_follows_the_blocks_last() {
        layers(&[
            ("text_tower.words", 0),
            ("text_tower.embedding_norm.weight", 0),
            ("text_tower.encoder.relative_bias.table", 0),
            ("text_tower.encoder.blocks.0.attention.query.weight", 1),
            ("text_tower.encoder.blocks.0.mlp.up.bias", 1),
            ("text_tower.encoder.blocks.1.attention.query.weight", 2),
            ("text_tower.encoder.blocks.10.mlp_norm.weight", 3),
            ("text_tower.final_norm.weight", 4),
            ("text_tower.pooler.bias", 4),
        ]);
    }

    #[test]
    fn blocks_count_over_the_stages() {
        layers(&[
            ("image_tower.patch.weight", 0),
            ("image_tower.stages.0.encoder.blocks.0.mlp.up.weight", 1),
            ("image_tower.stages.0.encoder.blocks.1.mlp.up.weight", 2),
            ("image_tower.stages.0.merging.reduction.weight", 2),
            ("image_tower.stages.1.encoder.blocks.0.mlp.up.weight", 3),
            ("image_tower.stages.1.encoder.blocks.1.mlp.up.weight", 4),
            ("image_tower.final_norm.weight", 5),
        ]);
        layers(&[
            ("image_tower.stem.Next.conv.weight", 0),
            ("image_tower.stages.0.blocks.0.scale", 1),
            ("image_tower.stages.1.halving.conv.weight", 2),
            ("image_tower.stages.1.blocks.0.scale", 2),
            ("image_tower.stages.1.blocks.1.scale", 3),
            ("image_tower.final_norm.weight", 4),
        ]);
    }
}
