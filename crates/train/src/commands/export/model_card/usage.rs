//! How to load an exported model, as Python that runs.

use crate::commands::export::model_card::towers::host_scalar;
use crate::commands::export::request::ExportFormat;
use crate::commands::export::routes::interpolated_from;
use crate::commands::export::sentence_transformers::VERSION;
use crate::models::load::LoadedModel;

/// The section for `format`.
pub(crate) fn section(loaded: &LoadedModel, format: ExportFormat) -> String {
    match format {
        ExportFormat::Transformers => transformers(loaded),
        ExportFormat::SentenceTransformers => sentence_transformers(loaded),
        ExportFormat::Heads => heads(loaded),
    }
}

/// The heads are linear maps, with or without a bias: others are refused.
fn heads(loaded: &LoadedModel) -> String {
    let (image, text) = (loaded.model.image_tower.width(), loaded.model.text_tower.pooled_width());
    format!(
        "```python\n\
         import torch\n\
         from safetensors.torch import load_file\n\
         \n\
         heads = load_file(\"model.safetensors\")\n\
         \n\
         def embed(features, side):  # \"image\": [rows, {image}]; \"text\": [rows, {text}]\n    \
             weight, bias = heads[f\"{{side}}_projection.weight\"], heads.get(f\"{{side}}_projection.bias\")\n    \
             projected = torch.nn.functional.linear(features, weight, bias)\n    \
             return torch.nn.functional.normalize(projected, dim=-1)\n\
         \n\
         # `images` and `texts`: features of the encoders that the heads were trained on\n\
         logits = heads[\"logit_scale\"].exp() * embed(images, \"image\") @ embed(texts, \"text\").T\n\
         ```"
    )
}

fn transformers(loaded: &LoadedModel) -> String {
    let max_tokens = loaded.tokenizer.max_tokens();
    // Transformers puts no prompt before texts.
    let [cat, dog] = ["cat", "dog"].map(|name| format!("{}a photo of a {name}", loaded.tokenizer.prompt()));
    let classify = match interpolated_from(loaded) {
        None => "    logits = model(**inputs).logits_per_image".to_owned(),
        Some(own) => format!(
            "    # The tower has positions for {own} pixels.\n    \
             image = model.vision_model(inputs[\"pixel_values\"], interpolate_pos_encoding=True).pooler_output\n    \
             image = torch.nn.functional.normalize(model.visual_projection(image), dim=-1)\n    \
             text = model.text_model(inputs[\"input_ids\"], inputs[\"attention_mask\"]).pooler_output\n    \
             text = torch.nn.functional.normalize(model.text_projection(text), dim=-1)\n    \
             logits = model.logit_scale.exp() * image @ text.T"
        ),
    };
    format!(
        "```python\n\
         import torch\n\
         from PIL import Image\n\
         from transformers import VisionTextDualEncoderModel, VisionTextDualEncoderProcessor\n\
         \n\
         path = \".\"  # this directory, or its name on the hub\n\
         model = VisionTextDualEncoderModel.from_pretrained(path).eval()\n\
         processor = VisionTextDualEncoderProcessor.from_pretrained(path)\n\
         labels = [{cat:?}, {dog:?}]\n\
         image = Image.open(\"photo.jpg\").convert(\"RGB\")\n\
         inputs = processor(\n    \
             text=labels, images=image, return_tensors=\"pt\", padding=True, truncation=True, max_length={max_tokens}\n\
         )\n\
         with torch.no_grad():\n\
         {classify}\n\
         print(dict(zip(labels, logits.softmax(dim=-1)[0].tolist())))\n\
         ```"
    )
}

fn sentence_transformers(loaded: &LoadedModel) -> String {
    let scale = host_scalar(&loaded.model.logit_scale).exp();
    format!(
        "`pip install \"sentence-transformers>={VERSION}\" pillow torchvision`\n\
         \n\
         ```python\n\
         from PIL import Image\n\
         from sentence_transformers import SentenceTransformer\n\
         \n\
         model = SentenceTransformer(\".\")  # this directory, or its name on the hub\n\
         labels = [\"a photo of a cat\", \"a photo of a dog\"]\n\
         images = model.encode([Image.open(\"photo.jpg\").convert(\"RGB\")])\n\
         texts = model.encode(labels)\n\
         similarities = model.similarity(images, texts)  # cosines, one row per image\n\
         probabilities = ({scale:.4} * similarities).softmax(dim=-1)\n\
         print(dict(zip(labels, probabilities[0].tolist())))\n\
         ```"
    )
}
