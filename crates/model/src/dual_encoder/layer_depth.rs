//! How deep in its tower a parameter is: for locks that leave the last blocks trainable, and for layer-wise learning
//! rates.

use crate::dual_encoder::model::DualEncoder;
use crate::params::inventory::{ParamInfo, list};
use crate::tower::Tower;

/// Modules after the last block: they belong to the last layer.
const AFTER_BLOCKS: [&str; 5] = ["final_norm", "pooler", "pooler_norm", "head", "dense"];

/// The layer of a parameter, and the last layer of its tower.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Layer {
    /// 0 for embeddings, 1 for the first block, [`Layer::last`] for what follows the blocks.
    pub index: usize,
    /// The layer of what follows the blocks: final norm, pooler, head. A tower has `last - 1` blocks.
    pub last: usize,
}

/// The blocks of both towers, which layers are counted by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LayerDepths {
    /// The paths of each tower's blocks, such as `text_tower.encoder.blocks.0`, in the order in which they run.
    blocks: [Vec<String>; 2],
}

impl LayerDepths {
    /// The blocks of `model`. A block that runs several times (ALBERT) counts once.
    pub fn of(model: &DualEncoder) -> Self {
        Self::from_infos(&list(model))
    }

    fn from_infos(infos: &[ParamInfo]) -> Self {
        let blocks_of = |tower: Tower| {
            let mut blocks: Vec<String> = Vec::new();
            for info in infos.iter().filter(|info| Tower::of(&info.path) == Some(tower)) {
                let block = block_path(&info.path).map(str::to_owned);
                blocks.extend(block.filter(|block| blocks.last() != Some(block)));
            }
            blocks
        };
        Self { blocks: Tower::ALL.map(blocks_of) }
    }

    /// Number of blocks of the image tower and of the text tower.
    pub fn num_blocks(&self) -> [usize; 2] {
        self.blocks.each_ref().map(Vec::len)
    }

    /// The layer of the parameter at `path`; `None` if it belongs to no tower.
    pub fn layer(&self, path: &str) -> Option<Layer> {
        let tower = Tower::of(path)?;
        let [image, text] = &self.blocks;
        let blocks = match tower {
            Tower::Image => image,
            Tower::Text => text,
        };
        let last = blocks.len() + 1;
        let block = || match block_path(path) {
            Some(found) => blocks.iter().position(|block| block == found),
            None => adjacent_block(path, blocks),
        };
        let module = path[tower.prefix().len()..].split('.').next().unwrap_or_default();
        let index = if AFTER_BLOCKS.contains(&module) { last } else { block().map_or(0, |block| block + 1) };
        Some(Layer { index, last })
    }
}

/// The path of the block that contains the parameter at `path`.
fn block_path(path: &str) -> Option<&str> {
    let start = path.find(".blocks.")? + ".blocks.".len();
    let end = path[start..].find('.').map_or(path.len(), |length| start + length);
    path.get(..end)
}

/// The block that a layer between two stages counts with, which is the adjacent one in its own stage: the last for
/// Swin's merging, the first for the halving of a convolutional network.
fn adjacent_block(path: &str, blocks: &[String]) -> Option<usize> {
    let stage = ["merging", "halving"].into_iter().find_map(|name| path.find(&format!("{name}.")))?;
    let in_stage = |block: &String| block.starts_with(&path[..stage]);
    if path[stage..].starts_with("merging") {
        blocks.iter().rposition(in_stage)
    } else {
        blocks.iter().position(in_stage)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn assert_layers(paths: &[(&str, usize)]) {
        let info = |(path, _): &(&str, usize)| ParamInfo { path: (*path).to_owned(), shape: vec![1], trains: true };
        let depths = LayerDepths::from_infos(&paths.iter().map(info).collect::<Vec<_>>());
        let last = depths.blocks.iter().map(Vec::len).max().unwrap() + 1;
        for (path, index) in paths {
            assert_eq!(depths.layer(path), Some(Layer { index: *index, last }), "{path}");
        }
        assert_eq!(depths.layer("image_projection.weight"), None);
        assert_eq!(depths.layer("logit_scale"), None);
    }

    #[test]
    fn embeddings_first_heads_last() {
        assert_layers(&[
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
    fn blocks_numbered_across_stages() {
        assert_layers(&[
            ("image_tower.patch.weight", 0),
            ("image_tower.stages.0.encoder.blocks.0.mlp.up.weight", 1),
            ("image_tower.stages.0.encoder.blocks.1.mlp.up.weight", 2),
            ("image_tower.stages.0.merging.reduction.weight", 2),
            ("image_tower.stages.1.encoder.blocks.0.mlp.up.weight", 3),
            ("image_tower.stages.1.encoder.blocks.1.mlp.up.weight", 4),
            ("image_tower.final_norm.weight", 5),
        ]);
        assert_layers(&[
            ("image_tower.stem.Next.conv.weight", 0),
            ("image_tower.stages.0.blocks.0.scale", 1),
            ("image_tower.stages.1.halving.conv.weight", 2),
            ("image_tower.stages.1.blocks.0.scale", 2),
            ("image_tower.stages.1.blocks.1.scale", 3),
            ("image_tower.final_norm.weight", 4),
        ]);
    }
}
