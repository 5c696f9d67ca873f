//! Lists of texts that people write by hand or copy from elsewhere: class names, prompt templates, texts to embed. They
//! are read in the forms that are common, and refused with the line where they are ambiguous.
//!
//! - `builtin_templates`: prompts of this program.
//! - `class_names`: the names of classes, in their order.
//! - `json_list`: a list within a JSON file.
//! - `python_list`: a list in Python source.
//! - `table_like`: recognises a table where a list of texts was expected.
//! - `templates`: prompts with a placeholder for the class name.
//! - `text_file`: the text of a file in any usual encoding, and its lines.

pub(crate) mod builtin_templates;
pub(crate) mod class_names;
mod json_list;
mod python_list;
mod table_like;
pub(crate) mod templates;
pub(crate) mod text_file;
