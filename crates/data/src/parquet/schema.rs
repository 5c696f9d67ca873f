//! The tree of columns. Values are stored for its leaves; a leaf that is optional or repeated has levels beside them.

use crate::parquet::thrift::Parsed;

/// Deepest nesting of columns.
const MAX_DEPTH: usize = 16;

/// What the bytes of a leaf are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Physical {
    Int32,
    Int64,
    Bytes,
    Float,
    Double,
    /// A type that is neither an image nor a caption; its name.
    Other(&'static str),
}

/// A column that holds values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Leaf {
    /// Names from the root, such as `image`, `bytes`.
    pub(crate) path: Vec<String>,
    pub(crate) physical: Physical,
    /// Whether the file says that the bytes are text.
    pub(crate) is_text: bool,
    /// Whether the numbers are whole numbers, not dates or the like.
    pub(crate) is_whole: bool,
    /// The definition level of a value that is there.
    pub(crate) max_def: u8,
    /// Number of lists around the value.
    pub(crate) max_rep: u8,
}

/// A column, or a group of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Node {
    pub(crate) name: String,
    pub(crate) content: Content,
}

/// What a [`Node`] holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Content {
    /// The number of a leaf.
    Leaf(usize),
    Group(Vec<Node>),
}

/// The columns of a file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Schema {
    pub(crate) columns: Vec<Node>,
    pub(crate) leaves: Vec<Leaf>,
}

/// One entry of the footer's list, which is the tree in depth-first order.
#[derive(Clone, Debug, Default)]
pub(crate) struct Element {
    pub(crate) name: String,
    pub(crate) physical: Option<i64>,
    /// 0: required, 1: optional, 2: repeated.
    pub(crate) repetition: i64,
    pub(crate) children: i64,
    pub(crate) converted: Option<i64>,
    /// The number of the logical type in its union.
    pub(crate) logical: Option<i64>,
}

impl Schema {
    /// The tree of a footer's list.
    pub(crate) fn new(elements: Vec<Element>) -> Parsed<Self> {
        let mut elements = elements.into_iter();
        let root = elements.next().ok_or("the schema is empty")?;
        let mut schema = Self::default();
        for _ in 0..root.children {
            let column = schema.add(&mut elements, &mut Vec::new(), (0, 0))?;
            schema.columns.push(column);
        }
        if elements.next().is_some() { Err("the schema has columns outside its tree".to_owned()) } else { Ok(schema) }
    }

    fn add(
        &mut self,
        elements: &mut std::vec::IntoIter<Element>,
        path: &mut Vec<String>,
        (def, rep): (u8, u8),
    ) -> Parsed<Node> {
        let element = elements.next().ok_or("the schema has fewer columns than it says")?;
        if path.len() == MAX_DEPTH {
            return Err("columns are nested too deeply".to_owned());
        }
        let levels = match element.repetition {
            0 => (def, rep),
            1 => (def + 1, rep),
            2 => (def + 1, rep + 1),
            other => return Err(format!("column `{}` has the repetition {other}", element.name)),
        };
        path.push(element.name.clone());
        let content = if element.children > 0 {
            let mut children = Vec::new();
            for _ in 0..element.children {
                children.push(self.add(elements, path, levels)?);
            }
            Content::Group(children)
        } else {
            self.leaves.push(leaf(&element, path.clone(), levels));
            Content::Leaf(self.leaves.len() - 1)
        };
        path.pop();
        Ok(Node { name: element.name, content })
    }
}

fn leaf(element: &Element, path: Vec<String>, (max_def, max_rep): (u8, u8)) -> Leaf {
    let physical = match element.physical {
        Some(0) => Physical::Other("boolean"),
        Some(1) => Physical::Int32,
        Some(2) => Physical::Int64,
        Some(3) => Physical::Other("int96"),
        Some(4) => Physical::Float,
        Some(5) => Physical::Double,
        Some(6) => Physical::Bytes,
        Some(7) => Physical::Other("fixed-length bytes"),
        _ => Physical::Other("an unknown type"),
    };
    // UTF8, ENUM, JSON; STRING, ENUM, JSON of the newer list.
    let is_text = matches!(element.converted, Some(0 | 4 | 19)) || matches!(element.logical, Some(1 | 4 | 12));
    // UINT_8 to INT_64; INTEGER of the newer list.
    let is_whole = matches!(element.converted, None | Some(11..=18)) && matches!(element.logical, None | Some(10));
    Leaf { path, physical, is_text, is_whole, max_def, max_rep }
}
