//! Which column of a file is what, by its type.

use std::path::Path;

use crate::did_you_mean::nearest;
use crate::error::DataError;
use crate::parquet::schema::{Content, Node, Physical, Schema};
use crate::sources::split_column::SPLIT;
use crate::sources::tables::columns::Holds;

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
        (Physical::Float, 0) => Kind::Other("float".to_owned()),
        (Physical::Double, 0) => Kind::Other("double".to_owned()),
        (Physical::Other(name), 0) => Kind::Other(name.to_owned()),
        _ => Kind::Other("lists".to_owned()),
    }
}

fn is_link(name: &str) -> bool {
    name.to_ascii_lowercase().contains("url")
}

/// Columns of a file that the user wrote; those that are not written are found by looking.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wanted<'a> {
    pub(crate) image: Option<&'a str>,
    pub(crate) captions: &'a [String],
    /// Whether `captions` are those of the key `captions`.
    pub(crate) are_several: bool,
}

/// Columns of a file: their names, and what they hold.
#[derive(Clone, Debug)]
pub(crate) struct Chosen {
    pub(crate) image: (String, Kind),
    pub(crate) captions: Vec<(String, Kind)>,
    /// What to say of other columns that look like captions.
    pub(crate) also: String,
}

/// The columns of the image and of the captions, of the file `path`.
///
/// # Errors
/// [`DataError::Column`] for a column that is not there, or if several columns may be meant.
pub(crate) fn choose(path: &Path, schema: &Schema, wanted: Wanted<'_>) -> Result<Chosen, DataError> {
    let names: Vec<String> = schema.columns.iter().map(|node| node.name.clone()).collect();
    let kinds: Vec<Kind> = schema.columns.iter().map(|node| kind(node, schema)).collect();
    let absent = |name: &str, hint: String| DataError::Column {
        path: path.to_owned(),
        column: name.to_owned(),
        found: names.clone(),
        hint: Some(hint).filter(|hint| !hint.is_empty()),
    };
    let get = |holds: Holds, written: Option<&str>, alike: &[usize]| {
        // One inside groups can only be written.
        if let Some((name, kind)) = written.and_then(|name| Some((name, find(schema, name)?))) {
            return Ok((name.to_owned(), kind));
        }
        let found = holds.find_among(&names, written, alike);
        found.map(|at| (names[at].clone(), kinds[at].clone()))
    };
    let images = image_columns(&names, &kinds);
    let image = get(Holds::Image, wanted.image, &images);
    let image_at = image.as_ref().ok().and_then(|(name, _)| names.iter().position(|it| it == name));
    let captions = caption_columns(&names, &kinds, image_at);
    let image = image.map_err(|hint| {
        let link = names.iter().find(|name| is_link(name)).filter(|_| images.iter().all(|&at| is_link(&names[at])));
        let hint = link.map_or(hint, |link| {
            let caption = captions.first().map(|&at| names[at].as_str());
            format!("; `{link}` holds links: {}", download(path, link, caption))
        });
        absent(wanted.image.unwrap_or(Holds::Image.key()), hint)
    })?;
    let mut also = String::new();
    let captions = match wanted.captions {
        [] => {
            let found = get(Holds::Caption, None, &captions);
            let found = found.map_err(|hint| absent(Holds::Caption.key(), hint))?;
            let taken: Vec<usize> = names.iter().position(|name| *name == found.0).into_iter().collect();
            let is_text = |at: usize| matches!(kinds[at], Kind::Text(_) | Kind::Texts(_)) && Some(at) != image_at;
            also = Holds::also(&names, &taken, is_text);
            vec![found]
        }
        written => {
            let one = |name: &String| {
                get(Holds::Caption, Some(name), &captions).map_err(|hint| {
                    let close = nearest(name, names.iter().map(String::as_str));
                    let close = close.or(captions.first().map(|&at| names[at].as_str()));
                    let in_list = |close| format!("; write `{close}` in `captions`?");
                    absent(name, close.filter(|_| wanted.are_several).map_or(hint, in_list))
                })
            };
            written.iter().map(one).collect::<Result<_, _>>()?
        }
    };
    Ok(Chosen { image, captions, also })
}

/// The columns that look like images: those that hold images, else those with usual names of paths, else bytes.
fn image_columns(names: &[String], kinds: &[Kind]) -> Vec<usize> {
    let all = |fits: &dyn Fn(usize) -> bool| (0..names.len()).filter(|&at| fits(at)).collect::<Vec<usize>>();
    let is_bytes = |at: usize| matches!(kinds[at], Kind::Bytes(_));
    let known = Holds::Image.alike(names, is_bytes);
    let is_image = |at: usize| {
        let has_bytes_name = || BYTES_NAMES.iter().any(|name| names[at].eq_ignore_ascii_case(name));
        matches!(kinds[at], Kind::Images { .. }) || is_bytes(at) && (known.contains(&at) || has_bytes_name())
    };
    let is_text = |at: usize| matches!(kinds[at], Kind::Text(_));
    let images = [all(&is_image), Holds::Image.alike(names, is_text), all(&is_bytes)];
    let images = images.into_iter().find(|found| !found.is_empty());
    images.unwrap_or_else(|| all(&|at| is_text(at) && is_link(&names[at])))
}

/// The columns that look like captions: those with usual names, else the only other text.
fn caption_columns(names: &[String], kinds: &[Kind], image: Option<usize>) -> Vec<usize> {
    let is_text = |at: usize| matches!(kinds[at], Kind::Text(_) | Kind::Texts(_)) && Some(at) != image;
    let fits = |at: usize| is_text(at) || matches!(kinds[at], Kind::Numbers(_) | Kind::Bytes(_)) && Some(at) != image;
    let named = Holds::Caption.alike(names, fits);
    if !named.is_empty() {
        return named;
    }
    let texts: Vec<usize> =
        (0..names.len()).filter(|&at| is_text(at) && !is_link(&names[at]) && names[at] != SPLIT).collect();
    // One of several texts may be anything.
    if texts.len() == 1 { texts } else { Vec::new() }
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
