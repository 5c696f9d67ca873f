//! Which column of a file is what, by its type.

use std::path::Path;

use crate::did_you_mean::nearest;
use crate::error::DataError;
use crate::parquet::schema::{Content, Node, Physical, Schema};
use crate::sources::tables::columns::{CAPTION_NAMES, IMAGE_NAMES};

/// Further names of columns that hold the bytes of images (img2dataset).
const BYTES_NAMES: [&str; 5] = ["jpg", "jpeg", "png", "webp", "image_bytes"];

/// What a column holds; the numbers are those of leaves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Images as the `datasets` library stores them: their bytes, their name, or both.
    Images {
        bytes: usize,
        name: Option<usize>,
    },
    Bytes(usize),
    Text(usize),
    /// A list of texts.
    Texts(usize),
    /// Whole numbers, or lists of them.
    Numbers(usize),
    /// Something else, in words.
    Other(String),
}

/// What a top-level column, or one inside groups (`meta.caption`), holds.
pub(crate) fn find(schema: &Schema, name: &str) -> Option<Kind> {
    if let Some(node) = schema.columns.iter().find(|node| node.name == name) {
        return Some(kind(node, schema));
    }
    let (mut nodes, mut found) = (&schema.columns, None);
    for part in name.split('.') {
        let node = nodes.iter().find(|node| node.name == part)?;
        found = Some(node);
        nodes = match &node.content {
            Content::Group(children) => children,
            Content::Leaf(_) => const { &Vec::new() },
        };
    }
    found.map(|node| kind(node, schema))
}

fn kind(node: &Node, schema: &Schema) -> Kind {
    let children = match &node.content {
        Content::Leaf(leaf) => return leaf_kind(*leaf, schema),
        Content::Group(children) => children,
    };
    let child = |name: &str| {
        let leaf = children.iter().find(|child| child.name == name).map(|child| &child.content);
        let is_bytes =
            |leaf: &usize| schema.leaves[*leaf].physical == Physical::Bytes && schema.leaves[*leaf].max_rep == 0;
        match leaf {
            Some(Content::Leaf(leaf)) => Some(*leaf).filter(is_bytes),
            _ => None,
        }
    };
    if let Some(bytes) = child("bytes") {
        return Kind::Images { bytes, name: child("path") };
    }
    let mut leaves = Vec::new();
    collect(node, &mut leaves);
    match leaves[..] {
        [leaf] if schema.leaves[leaf].max_rep > 0 => leaf_kind(leaf, schema),
        _ if leaves.iter().all(|leaf| schema.leaves[*leaf].max_rep > 0) => Kind::Other("lists of groups".to_owned()),
        _ => {
            let names: Vec<String> = children.iter().map(|it| format!("`{}.{}`", node.name, it.name)).collect();
            Kind::Other(format!("a group of {}", names.join(", ")))
        }
    }
}

fn collect(node: &Node, leaves: &mut Vec<usize>) {
    match &node.content {
        Content::Leaf(leaf) => leaves.push(*leaf),
        Content::Group(children) => children.iter().for_each(|child| collect(child, leaves)),
    }
}

fn leaf_kind(number: usize, schema: &Schema) -> Kind {
    let leaf = &schema.leaves[number];
    match (leaf.physical, leaf.max_rep) {
        (Physical::Bytes, 0) if leaf.is_text => Kind::Text(number),
        (Physical::Bytes, 0) => Kind::Bytes(number),
        (Physical::Bytes, 1) if leaf.is_text => Kind::Texts(number),
        (Physical::Bytes, 1) => Kind::Other("lists of bytes".to_owned()),
        (Physical::Int32 | Physical::Int64, 0 | 1) if leaf.is_whole => Kind::Numbers(number),
        (Physical::Int32 | Physical::Int64, 0) => Kind::Other("dates, times or decimals".to_owned()),
        (Physical::Other(name), 0) => Kind::Other(name.to_owned()),
        _ => Kind::Other("lists".to_owned()),
    }
}

fn is_link(name: &str) -> bool {
    name.to_ascii_lowercase().contains("url")
}

/// The column that looks like images: by its type, then by its name.
pub(crate) fn image_column(schema: &Schema) -> Option<&str> {
    let named = |names: &[&str], fits: &dyn Fn(&Kind) -> bool| {
        names.iter().find_map(|name| {
            let node = schema.columns.iter().find(|node| node.name.eq_ignore_ascii_case(name))?;
            (!is_link(name) && fits(&kind(node, schema))).then_some(node.name.as_str())
        })
    };
    let holds_images = |kind: &Kind| matches!(kind, Kind::Images { .. } | Kind::Bytes(_));
    let first = |fits: &dyn Fn(&Kind) -> bool| {
        schema.columns.iter().find(|node| fits(&kind(node, schema))).map(|node| node.name.as_str())
    };
    named(&IMAGE_NAMES, &holds_images)
        .or_else(|| named(&BYTES_NAMES, &holds_images))
        .or_else(|| first(&|kind| matches!(kind, Kind::Images { .. })))
        .or_else(|| named(&IMAGE_NAMES, &|kind| matches!(kind, Kind::Text(_))))
        .or_else(|| first(&holds_images))
}

/// The column that looks like captions: by its name, then by its type.
pub(crate) fn caption_column(schema: &Schema) -> Option<&str> {
    let is_caption = |kind: &Kind| matches!(kind, Kind::Text(_) | Kind::Texts(_) | Kind::Numbers(_));
    let named = CAPTION_NAMES.iter().find_map(|name| {
        let node = schema.columns.iter().find(|node| node.name.eq_ignore_ascii_case(name))?;
        is_caption(&kind(node, schema)).then_some(node.name.as_str())
    });
    named.or_else(|| {
        let image = image_column(schema);
        let mut texts = schema.columns.iter().filter(|node| {
            let is_text = matches!(kind(node, schema), Kind::Text(_) | Kind::Texts(_));
            is_text && !is_link(&node.name) && Some(node.name.as_str()) != image
        });
        // One of several texts may be anything.
        texts.next().filter(|_| texts.next().is_none()).map(|node| node.name.as_str())
    })
}

/// The error that `path` has no column `name`, which the config asks for as its `key`.
pub(crate) fn absent(path: &Path, schema: &Schema, name: &str, key: &str) -> DataError {
    let found: Vec<String> = schema.columns.iter().map(|node| node.name.clone()).collect();
    let close = nearest(name, found.iter().map(String::as_str));
    let like = if key == "image" { image_column(schema) } else { caption_column(schema) };
    let link = found.iter().find(|name| is_link(name)).filter(|_| key == "image");
    let hint = match (close.or(like), link) {
        (Some(column), _) if key == "captions" => Some(format!("; write `{column}` in `captions`?")),
        (Some(column), _) => Some(format!("; set `{key} = \"{column}\"`?")),
        (None, Some(link)) => Some(format!("; `{link}` holds links: {}", download(path, link, caption_column(schema)))),
        (None, None) => None,
    };
    DataError::Column { path: path.to_owned(), column: name.to_owned(), found, hint }
}

/// What to do with a table of links.
pub(crate) fn download(path: &Path, link: &str, caption: Option<&str>) -> String {
    let caption = caption.map_or(String::new(), |caption| format!(" --caption_col {caption}"));
    format!(
        "download the images first, `img2dataset --url_list {} --input_format parquet --url_col {link}{caption} \
         --output_format webdataset --output_folder shards`, and train on the folder as `webdataset`",
        path.display()
    )
}
