//! How to load an exported model, as Python that runs.

use crate::commands::export::model_card::head_usage;
use crate::commands::export::model_card::towers::host_scalar;
use crate::commands::export::request::ExportFormat;
use crate::commands::export::routes::interpolated_from;
use crate::commands::export::sentence_transformers::VERSION;
use crate::models::load::LoadedModel;

/// The section for `format`.
pub(crate) fn section(loaded: &LoadedModel, format: ExportFormat) -> String {
    let python = match format {
        ExportFormat::Transformers => transformers(loaded),
        ExportFormat::SentenceTransformers => sentence_transformers(loaded),
        ExportFormat::Heads => head_usage::section(loaded),
    };
    match loaded.nested_widths().as_slice() {
        [_, narrower @ ..] if !narrower.is_empty() => format!("{python}\n\n{}", cut(narrower, format)),
        _ => python,
    }
}

/// How to use embeddings of these widths.
fn cut(widths: &[usize], format: ExportFormat) -> String {
    let list: Vec<String> = widths.iter().map(usize::to_string).collect();
    let narrowest = list.last().map_or("", String::as_str);
    let mut text = format!(
        "Embeddings can be cut to their first values, normalised again: the model was trained with the first {} \
         values, too (Matryoshka representation learning, arXiv:2205.13147).",
        list.join(", ")
    );
    if format == ExportFormat::SentenceTransformers {
        text += &format!(
            " `SentenceTransformer(\".\", truncate_dim={narrowest})` cuts them; `normalize_embeddings=True` of \
             `encode` normalises them again."
        );
    }
    text
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
    let (imports, processor) = if is_processed_by_pillow(loaded) {
        (
            "from transformers import AutoImageProcessor, AutoTokenizer\n",
            "# Without `backend`, transformers 5 resizes with torchvision, which rounds differently.\n\
             images = AutoImageProcessor.from_pretrained(path, backend=\"pil\")\n\
             processor = VisionTextDualEncoderProcessor(images, AutoTokenizer.from_pretrained(path))\n",
        )
    } else {
        ("", "processor = VisionTextDualEncoderProcessor.from_pretrained(path)\n")
    };
    format!(
        "```python\n\
         import torch\n\
         from PIL import Image\n\
         {imports}\
         from transformers import VisionTextDualEncoderModel, VisionTextDualEncoderProcessor\n\
         \n\
         path = \".\"  # this directory, or its name on the hub\n\
         model = VisionTextDualEncoderModel.from_pretrained(path).eval()\n\
         {processor}\
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

/// Whether images are processed as by the classes of transformers that use Pillow. DINOv3 has none, and torchvision's
/// steps.
pub(crate) fn is_processed_by_pillow(loaded: &LoadedModel) -> bool {
    let file = loaded.processor.to_preprocessor_json();
    !file["image_processor_type"].as_str().is_some_and(|class| class.starts_with("DINOv3"))
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
