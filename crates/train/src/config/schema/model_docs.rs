//! JSON schemas of the key types that the model crate defines without `schemars`. Tests compare them with those types.

#![expect(dead_code, reason = "only the schema of these types is used")]

use dualenc_model::ADAPTABLE;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde_json::json;

/// A way to pool a tower's tokens into one vector.
#[derive(JsonSchema)]
#[schemars(rename = "Pool", rename_all = "lowercase")]
pub(super) enum PoolDoc {
    /// Image: the tower's own pooled output, as in the reference. Text: `sentence` for a pretrained tower in a
    /// sentence-transformers directory whose weights have no pooler. Any other text tower has its own pooled output,
    /// or, if its family has none, the first token (ModernBERT: as its `classifier_pooling` says; decoders: the last
    /// token; T5 and EmbeddingGemma: the mean). A pooler without pretrained weights starts from random ones, which is
    /// an error for a locked tower.
    Auto,
    /// The first token of the last hidden state.
    Cls,
    /// The mean of the patch tokens (image) or of all tokens except padding (text).
    Mean,
    /// Image: the first token and the mean of the patch tokens side by side, twice as wide. An error for a tower
    /// without a class token.
    #[schemars(rename = "cls+mean")]
    ClsMean,
    /// Image: the mean of the patch tokens, which is what `mean` is for a vision transformer. An error for every other
    /// tower.
    #[schemars(rename = "patch_mean")]
    PatchMean,
    /// The last token of the last hidden state: what decoders such as Qwen3-Embedding were trained with. Text towers
    /// only.
    Last,
    /// The tower's `pooler_output`. An error for a text tower that has none.
    Pooler,
    /// Text: as sentence-transformers trained the tower. The pooling of `1_Pooling/config.json` (`cls`,
    /// `mean` or `lasttoken`), then
    /// the `Dense` layers that `modules.json` lists after it. An error without these files.
    Sentence,
}

/// A string of two letters.
pub(super) fn lock(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "string", "pattern": "^[LUu]{2}$" })
}

/// The number of a layer, or a list of them.
pub(super) fn layers(_: &mut SchemaGenerator) -> Schema {
    let number = json!({ "type": "integer" });
    let list = json!({ "type": "array", "items": number, "minItems": 1, "uniqueItems": true });
    json_schema!({ "anyOf": [number, list] })
}

/// A list of linear layers.
pub(super) fn lora_targets(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "array", "items": { "type": "string", "enum": ADAPTABLE }, "minItems": 1 })
}
